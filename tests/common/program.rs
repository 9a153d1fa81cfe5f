//! A program of its own beside the test: what it prints is awaited line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::in_time;

/// With this set in the environment, a program that is missing fails the test.
pub const REQUIRE_TOOLS: &str = "SIMCAST_REQUIRE_TOOLS";

/// A running program; it ends with this value at the latest.
pub struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: UnboundedReceiver<String>,
}

impl Program {
    /// Starts it. Its lines are those of its standard output and of its standard error.
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = unbounded_channel();
        read_lines(child.stdout.take().unwrap(), sender.clone());
        read_lines(child.stderr.take().unwrap(), sender);
        let input = child.stdin.take();
        Self { name, child, input, lines }
    }

    /// The next line; `None` when it has closed its outputs.
    pub async fn line(&mut self) -> Option<String> {
        in_time(&self.name, self.lines.recv()).await
    }

    /// The next line with this text in it; a failed test when there is none.
    pub async fn until(&mut self, text: &str) -> String {
        let mut others = Vec::new();
        while let Some(line) = self.line().await {
            if line.contains(text) {
                return line;
            }
            others.push(line);
        }
        panic!("{} ended without `{text}`:\n{}", self.name, others.join("\n"));
    }

    /// Gives it a line to read.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("an open input");
        writeln!(input, "{line}").unwrap_or_else(|error| panic!("{}: {error}", self.name));
        input.flush().unwrap();
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success(), "kill -s {name} {id}");
    }

    /// Ends its input and waits for its end: what it still had to say, and how it ended.
    pub async fn end(mut self) -> (ExitStatus, Vec<String>) {
        drop(self.input.take());
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        (self.child.wait().unwrap(), lines)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed_or_gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Whether a foreign program is here. If not, says so aloud; with [`REQUIRE_TOOLS`] that is a
/// failure. `probe` runs the program in a way that succeeds at once.
pub fn is_here(what: &str, package: &str, probe: &mut Command) -> bool {
    let quiet = probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if quiet.status().is_ok_and(|status| status.success()) {
        return true;
    }
    let required = std::env::var_os(REQUIRE_TOOLS).is_some_and(|value| !value.is_empty());
    assert!(!required, "{REQUIRE_TOOLS} is set, and {what} is missing ({package})");
    say_skipped(&format!("needs {what} ({package})"));
    false
}

/// Says aloud that the running test is skipped: past the test harness, which keeps what a test
/// that passes prints with macros.
pub fn say_skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED: {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

fn read_lines(pipe: impl Read + Send + 'static, lines: UnboundedSender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}
