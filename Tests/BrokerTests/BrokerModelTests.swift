import Testbed
import Testing

@testable import Broker

@Suite struct BrokerModelTests {
  @Test(arguments: Seeds.all)
  func queuesChannelsAndConnectionsAgreeWithAModel(seed: UInt64) throws {
    let run = try BrokerModelRun(seed: seed, broker: TestBroker())
    for _ in 0..<1500 { try run.doStep() }
    try run.finish()
  }
}
