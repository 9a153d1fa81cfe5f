//! `simcast version`.
#![allow(clippy::print_stdout, reason = "the output of a command")]

use clap::Args;

/// Print the version
#[derive(Debug, Args)]
pub struct Version {
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

impl Version {
    /// Prints it.
    pub fn run(&self) {
        let version = env!("CARGO_PKG_VERSION");
        if self.json {
            println!("{}", serde_json::json!({ "name": "simcast", "version": version }));
        } else {
            println!("simcast {version}");
        }
    }
}
