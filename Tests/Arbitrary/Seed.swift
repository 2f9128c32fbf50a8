import IO

/// The seeds that random tests run with. They are the tests' arguments, and so a failure names them.
///
/// Without `MARTLET_TEST_SEED` they are the same in every run, so that nobody's change fails for
/// what another one did. `MARTLET_TEST_SEED=17` runs one seed again; `MARTLET_TEST_SEED=random`
/// looks where nobody has looked.
public enum Seed {
  public static func some(_ count: Int) -> [UInt64] {
    switch Environment.variables()["MARTLET_TEST_SEED"] {
    case "random": (0..<count).map { _ in .random(in: 0..<1 << 32) }
    case let text?: UInt64(text).map { [$0] } ?? []
    case nil: Array(1...UInt64(count))
    }
  }

  /// Says the seed before a test that may stop the process, which would leave no other trace of it.
  public static func tell(_ seed: UInt64, of test: StaticString = #function) {
    print("\(test) runs with MARTLET_TEST_SEED=\(seed)")
  }
}
