import Base
import Glibc
import IO

// A reader that goes away shall not kill the process; the write that fails says so.
signal(SIGPIPE, SIG_IGN)

let program = Program(declaration: .martlet, environment: Environment.variables())
exit(program.run(Array(ProcessArguments.words().dropFirst())))
