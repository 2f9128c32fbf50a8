// swift-tools-version:6.2
import PackageDescription

/// What every target is compiled with.
let common: [SwiftSetting] = [
  .enableExperimentalFeature("Lifetimes")
]

/// The broker's own targets also leave out dynamic exclusivity checks in release builds: their state
/// has one owner thread. `Client` and what it imports stay free of unsafe flags, so that other
/// packages can depend on it.
let core: [SwiftSetting] =
  common + [
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))
  ]

let package = Package(
  name: "martlet",
  products: [
    .executable(name: "martlet", targets: ["martlet"]),
    .library(name: "Client", targets: ["Client"]),
  ],
  targets: [
    .systemLibrary(name: "CSystem"),
    .target(
      name: "Base", dependencies: ["CSystem"],
      swiftSettings: common + [.define("SABOTAGE", .when(configuration: .debug))]),
    .target(name: "IO", dependencies: ["Base", "CSystem"], swiftSettings: common),
    .target(name: "AMQP", dependencies: ["Base"], swiftSettings: common),
    .target(name: "Filters", dependencies: ["Base", "AMQP"], swiftSettings: core),
    .target(name: "JSON", dependencies: ["Base", "AMQP"], swiftSettings: common),
    .target(name: "Batches", dependencies: ["Base"], swiftSettings: core),
    .target(name: "Journal", dependencies: ["Base", "IO"], swiftSettings: core),
    .target(
      name: "Broker", dependencies: ["Base", "AMQP", "Batches", "Filters", "Journal"],
      swiftSettings: core),
    .target(
      name: "Inspection", dependencies: ["Base", "IO", "AMQP", "Batches", "Journal", "Broker"],
      swiftSettings: common),
    .target(
      name: "Server", dependencies: ["Base", "IO", "AMQP", "Journal", "Broker"],
      swiftSettings: core),
    .target(
      name: "Management", dependencies: ["Base", "AMQP", "JSON", "Broker"],
      swiftSettings: common),
    // Its asynchronous functions stay where their caller is, so that a loop on an actor does not
    // change threads for every message.
    .target(
      name: "Client", dependencies: ["Base", "IO", "AMQP"],
      swiftSettings: common + [.enableUpcomingFeature("NonisolatedNonsendingByDefault")]),
    .executableTarget(
      name: "martlet",
      dependencies: [
        "Base", "IO", "AMQP", "Filters", "JSON", "Journal", "Inspection", "Management", "Server",
        "Client",
      ],
      swiftSettings: core),
    .target(
      name: "Arbitrary", dependencies: ["Base", "IO", "AMQP"], path: "Tests/Arbitrary",
      swiftSettings: common),
    .testTarget(name: "BaseTests", dependencies: ["Base", "Arbitrary"], swiftSettings: common),
    .testTarget(
      name: "AMQPTests", dependencies: ["Base", "AMQP", "Arbitrary"], swiftSettings: common),
    .testTarget(
      name: "BatchesTests", dependencies: ["Base", "Batches", "Testbed"], swiftSettings: common),
    .testTarget(
      name: "FiltersTests", dependencies: ["AMQP", "Arbitrary", "Base", "Filters"],
      swiftSettings: common),
    .testTarget(
      name: "ClientTests", dependencies: ["Base", "IO", "AMQP", "Client", "Arbitrary"],
      swiftSettings: common),
    .target(
      name: "Testbed", dependencies: ["Base", "IO", "Journal", "Broker", "Server"],
      path: "Tests/Testbed", swiftSettings: common),
    .testTarget(
      name: "JournalTests", dependencies: ["Base", "IO", "Journal", "Testbed", "Arbitrary"],
      swiftSettings: common),
    .testTarget(
      name: "BrokerTests",
      dependencies: [
        "Base", "IO", "AMQP", "Batches", "Filters", "Journal", "Broker", "Testbed", "Arbitrary",
      ],
      swiftSettings: common),
    // Its journals are made with what the tests of those who write them have.
    .testTarget(
      name: "InspectionTests",
      dependencies: [
        "Base", "IO", "AMQP", "Journal", "Broker", "Inspection", "Testbed", "JournalTests",
        "BrokerTests",
      ],
      swiftSettings: common),
    .testTarget(
      name: "ManagementTests",
      dependencies: [
        "Base", "AMQP", "JSON", "Journal", "Broker", "Management", "Testbed", "BrokerTests",
      ],
      swiftSettings: common),
    .target(
      name: "Simulation",
      dependencies: [
        "Base", "IO", "AMQP", "Journal", "Broker", "Server", "Testbed", "Arbitrary",
      ],
      path: "Tests/Simulation", swiftSettings: common),
    .executableTarget(
      name: "simulate", dependencies: ["Base", "IO", "Simulation"], path: "Tests/Simulate",
      swiftSettings: common + [.define("SABOTAGE", .when(configuration: .debug))]),
    .testTarget(
      name: "SimulationTests", dependencies: ["Base", "simulate"], swiftSettings: common),
    .testTarget(
      name: "MartletTests",
      dependencies: [
        "martlet", "AMQP", "Base", "Client", "IO", "JSON", "Testbed", "Arbitrary",
      ],
      swiftSettings: common),
    .testTarget(
      name: "ServerTests",
      dependencies: [
        "Base", "IO", "AMQP", "Journal", "Broker", "Server", "Client", "Testbed", "Arbitrary",
      ],
      swiftSettings: common),
  ],
  swiftLanguageModes: [.v6]
)
