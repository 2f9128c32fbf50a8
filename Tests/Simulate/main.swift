import Glibc

do throws(WrongUsage) {
  let arguments = try Arguments(CommandLine.arguments.dropFirst())
  if arguments.isWorker {
    Worker(arguments).run()
  } else {
    exit(Supervisor(arguments).run() ? 0 : 1)
  }
} catch {
  say(error.text)
  exit(error.code)
}
