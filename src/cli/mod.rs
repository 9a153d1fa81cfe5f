//! The commands: one file each.

#![allow(clippy::print_stderr)]

mod certs;
mod development;
mod serve;

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(error: impl Display) -> Self {
        Self { message: error.to_string(), code: 1 }
    }

    fn invalid(error: impl Display) -> Self {
        Self { message: error.to_string(), code: 3 }
    }
}

#[derive(Debug, Parser)]
enum Command {
    Serve(serve::Serve),
}

/// Runs.
pub fn main() -> ExitCode {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("x");
    let result = runtime.block_on(async {
        match command {
            Command::Serve(serve) => serve.run().await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(f) => {
            eprintln!("{}", f.message);
            ExitCode::from(f.code)
        }
    }
}
