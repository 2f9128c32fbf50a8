import IO

let arguments = Array(CommandLine.arguments.dropFirst())
if arguments.first == "bench" {
  ThisProcess.exit(Bench.main(Array(arguments.dropFirst())))
}
StandardError.print("Usage: martlet bench [options]")
ThisProcess.exit(2)
