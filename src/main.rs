//! Arguments to command.
#![allow(clippy::print_stderr, reason = "before there is a log")]

use std::process::ExitCode;

use clap::Parser;
use simcast::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(e) => {
            eprintln!("simcast: the system gives no threads: {e}");
            ExitCode::FAILURE
        }
    }
}
