import Testing

@testable import IO

/// How much of the machine control groups leave.
@Suite struct ProcessorsTests {
  @Test func thereIsAtLeastOne() {
    #expect(Processors.usable() >= 1)
  }

  @Test func noGroupLimitsNothing() {
    #expect(quota("0::/\n", [:]) == nil)
    #expect(quota("", ["/sys/fs/cgroup/cpu.max": "100000 100000\n"]) == nil)
    #expect(quota("0::/\n", ["/sys/fs/cgroup/cpu.max": "max 100000\n"]) == nil)
    #expect(quota("0::/\n", ["/sys/fs/cgroup/cpu.max": "what is this"]) == nil)
  }

  @Test func aPartOfAProcessorDoesNotCount() {
    #expect(quota("0::/\n", ["/sys/fs/cgroup/cpu.max": "250000 100000\n"]) == 2)
    #expect(quota("0::/\n", ["/sys/fs/cgroup/cpu.max": "50000 100000\n"]) == 0)
  }

  @Test func theTightestGroupHolds() {
    let files = [
      "/sys/fs/cgroup/a/cpu.max": "100000 100000\n",
      "/sys/fs/cgroup/a/b/cpu.max": "800000 100000\n",
    ]
    #expect(quota("0::/a/b\n", files) == 1)
    #expect(quota("0::/a/c\n", files) == 1)
    #expect(quota("0::/b\n", files) == nil)
  }

  @Test func groupsOfTheFirstVersionCount() {
    let directory = "/sys/fs/cgroup/cpu,cpuacct/jobs"
    var files = [
      directory + "/cpu.cfs_quota_us": "300000\n", directory + "/cpu.cfs_period_us": "100000\n",
    ]
    let memberships = "3:cpuset:/\n2:cpu,cpuacct:/jobs\n0::/\n"
    #expect(quota(memberships, files) == 3)
    files[directory + "/cpu.cfs_quota_us"] = "-1\n"
    #expect(quota(memberships, files) == nil)
  }

  private func quota(_ memberships: String, _ files: [String: String]) -> Int? {
    Processors.quota(memberships: memberships) { files[$0] }
  }
}
