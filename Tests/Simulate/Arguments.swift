import Base
import Simulation

/// What the command line asks for.
struct Arguments {
  var seeds: UInt64 = 100
  var firstSeed: UInt64 = 1
  /// Runs this one only.
  var seed: UInt64?
  var minutes: Int?
  var jobs = 2
  var variant: Sabotage?
  var options = RunOptions()
  /// Runs seeds for another process that watches.
  var isWorker = false
  /// Ends with the first seed that breaks a promise.
  var isQuick = false

  static let help = """
    Runs the broker under a seeded scheduler on a disk that crashes, tears and fails, and compares
    all that it says with what it promises.

      Tools/simulate [--seeds N] [--first-seed S] [--minutes M] [--jobs N]
      Tools/simulate --seed S [--trace]

      --seeds N        so many seeds; 100 if nothing is said, and thousands for a soak
      --first-seed S   the first of them; 1 if nothing is said
      --minutes M      as many seeds as can be run in that time
      --jobs N         processes at the same time; 2 if nothing is said
      --quick          ends with the first seed that breaks a promise
      --seed S         this seed alone
      --trace          shows what happened in it, step by step
      --steps N        at most so many turns before everything is drained
      --clients N      at most so many clients
      --without A,B    does without: \(FaultClass.allCases.map(\.rawValue).joined(separator: ", "))
      --guests A,B     with these users of settings: none, or \(RunOptions.guestNames
        .joined(separator: ", "))
      --variant NAME   with a defect (debug builds): \(Sabotage.allCases.map(\.rawValue)
        .joined(separator: ", "))

    Ends with exit code 1 if a promise was broken, 2 if the command line is wrong.
    """

  init(_ words: ArraySlice<String>) throws(WrongUsage) {
    var words = words
    while let word = words.popFirst() {
      switch word {
      case "--help", "-h": throw WrongUsage(text: Self.help, code: 0)
      case "--trace": options.isTraced = true
      case "--worker": isWorker = true
      case "--quick": isQuick = true
      case "--seeds": seeds = try Self.number(word, &words)
      case "--first-seed": firstSeed = try Self.number(word, &words)
      case "--seed": seed = try Self.number(word, &words)
      case "--minutes": minutes = Int(try Self.number(word, &words))
      case "--jobs": jobs = max(1, Int(try Self.number(word, &words)))
      case "--steps": options.turnsMax = Int(try Self.number(word, &words))
      case "--clients": options.clientsMax = Int(try Self.number(word, &words))
      case "--without":
        for name in try Self.next(word, &words).split(separator: ",") {
          guard let fault = FaultClass(rawValue: String(name)) else {
            throw WrongUsage(text: "there is no \(name) to do without", code: 2)
          }
          options.without.insert(fault)
        }
      case "--guests":
        let names = try Self.next(word, &words).split(separator: ",").map(String.init)
        for name in names where name != "none" && !RunOptions.guestNames.contains(name) {
          throw WrongUsage(text: "there is no guest \(name)", code: 2)
        }
        options.guests = Set(names)
      case "--variant":
        guard let defect = Sabotage(rawValue: try Self.next(word, &words)), Sabotage.isPossible
        else { throw WrongUsage(text: "no such variant in this build", code: 2) }
        variant = defect
      default: throw WrongUsage(text: "what is \(word)? See --help", code: 2)
      }
    }
    if let seed {
      firstSeed = seed
      seeds = 1
      jobs = 1
    }
  }

  private static func next(
    _ word: String, _ words: inout ArraySlice<String>
  ) throws(WrongUsage) -> String {
    guard let value = words.popFirst() else {
      throw WrongUsage(text: "\(word) needs a value", code: 2)
    }
    return value
  }

  private static func number(
    _ word: String, _ words: inout ArraySlice<String>
  ) throws(WrongUsage) -> UInt64 {
    guard let number = UInt64(try next(word, &words)) else {
      throw WrongUsage(text: "\(word) needs a number", code: 2)
    }
    return number
  }
}

/// The command line is wrong, or asks for help.
struct WrongUsage: Error {
  let text: String
  let code: Int32
}

extension RunOptions {
  /// The same on a command line.
  var words: [String] {
    var words: [String] = []
    if let turnsMax { words += ["--steps", "\(turnsMax)"] }
    if let clientsMax { words += ["--clients", "\(clientsMax)"] }
    if !without.isEmpty {
      words += ["--without", without.map(\.rawValue).sorted().joined(separator: ",")]
    }
    if !guests.isEmpty { words += ["--guests", guests.sorted().joined(separator: ",")] }
    if isTraced { words.append("--trace") }
    return words
  }
}
