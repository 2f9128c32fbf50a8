import Client
import IO
import Testing

/// The broker that tests run against; they are skipped when there is none.
enum Broker {
  /// Set `MARTLET_TEST_URL` to the URL of a broker whose contents do not matter.
  static let url = Environment.variables()["MARTLET_TEST_URL"]

  /// Opens a connection and closes it behind `body`.
  static func connected(
    _ options: ConnectionOptions = ConnectionOptions(),
    _ body: (Connection) async throws -> Void
  ) async throws {
    let connection = try await Connection.open(try #require(url), options: options)
    do {
      try await body(connection)
    } catch {
      try? await connection.close()
      throw error
    }
    try await connection.close()
  }

  /// Opens a connection and a channel with a queue of its own.
  static func withQueue(
    _ options: ConnectionOptions = ConnectionOptions(),
    _ body: (Channel, Name) async throws -> Void
  ) async throws {
    try await connected(options) { connection in
      let channel = try await connection.openChannel()
      let queue = try await channel.declareQueue(exclusive: true)
      try await body(channel, queue.name)
    }
  }
}

extension Trait where Self == ConditionTrait {
  /// The test needs a broker.
  static var needsBroker: Self { .enabled(if: Broker.url != nil) }
}
