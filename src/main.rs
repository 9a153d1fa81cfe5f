//! Arguments to command.

use std::process::ExitCode;

fn main() -> ExitCode {
    simcast::cli::main()
}
