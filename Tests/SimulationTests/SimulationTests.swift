import Testing

@testable import Simulation

@Suite struct SimulationTests {
  @Test func aRunKeepsAllPromises() {
    #expect(Run.perform(seed: 1).broken == nil)
  }
}
