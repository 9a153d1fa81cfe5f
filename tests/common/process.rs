//! `simcast serve` in a process of its own, which can be ended in every way.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use simcast::mqtt::QoS;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::program::Program;
use super::rig::registry_line;
use super::{Client, Dial, TO_EUICC, in_time, nid};

/// A listener for anybody, and one where the client id says which device the client is.
pub const TWO_PORTS: &str = r#"
    [[listener]]
    bind = "127.0.0.1:0"
    allow_anonymous = true

    [[listener]]
    bind = "127.0.0.1:0"
    insecure_identity_from_client_id = true

    [admin]
    bind = "127.0.0.1:0"

    [rsp]
    registry = "registry.csv"
"#;

pub fn serve(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simcast"));
    command.arg("serve").args(arguments).current_dir(dir).env_remove("SIMCAST_LOG");
    command
}

pub fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

pub fn registry(devices: &[u128]) -> String {
    devices.iter().map(|number| registry_line(nid(*number), "7")).collect()
}

/// A broker in a process of its own.
pub struct Broker {
    pub program: Program,
    pub dir: TempDir,
    pub anybody: SocketAddr,
    pub devices: SocketAddr,
    /// Health, metrics and the API.
    pub admin: SocketAddr,
    /// The lines of its log so far.
    pub log: Vec<String>,
}

impl Broker {
    /// Device 1 is registered; `more` is added to the configuration.
    pub async fn start(more: &str) -> Self {
        Self::start_with(more, "info").await
    }

    pub async fn start_with(more: &str, log_level: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more, log_level).await
    }

    pub async fn start_in(dir: TempDir, more: &str, log_level: &str) -> Self {
        write(&dir, "registry.csv", &registry(&[1]));
        write(&dir, "simcast.toml", &format!("{TWO_PORTS}\n{more}"));
        Self::start_again(dir, log_level).await
    }

    /// Starts one in a directory where one has been before.
    pub async fn start_again(dir: TempDir, log_level: &str) -> Self {
        let mut command = serve(dir.path(), &["-c", "simcast.toml"]);
        let mut program = Program::start(command.env("SIMCAST_LOG", log_level));
        let (mut log, mut addresses) = (Vec::new(), Vec::new());
        let admin = loop {
            let line = program.until("").await;
            addresses.extend(address_after("listening on ", &line));
            let admin = address_after("health, metrics and API on http://", &line);
            log.push(line);
            if let Some(admin) = admin {
                break admin;
            }
        };
        let [anybody, devices] = addresses[..] else { panic!("two addresses: {log:?}") };
        Self { program, dir, anybody, devices, admin, log }
    }

    pub async fn client(&self, dial: Dial) -> Client {
        self.connect(self.anybody, dial).await
    }

    pub async fn device(&self, number: u128) -> Client {
        self.connect(self.devices, Dial::v5(&nid(number).to_string())).await
    }

    /// Whether this device may read its mail.
    pub async fn knows(&self, number: u128) -> bool {
        let mut device = self.device(number).await;
        let reason = device.subscribe(TO_EUICC, QoS::AtLeastOnce).await;
        device.disconnect().await;
        !reason.is_error()
    }

    pub async fn connect(&self, address: SocketAddr, dial: Dial) -> Client {
        let stream = in_time("a TCP connection", TcpStream::connect(address)).await.unwrap();
        Client::open(stream, &dial).await.expect("a connection")
    }

    /// What the HTTP side answers to a GET, with its status line.
    pub async fn get(&self, path: &str) -> String {
        let mut stream = in_time("HTTP", TcpStream::connect(self.admin)).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        in_time("an answer", stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    /// The next lines of its log, to one with this text in it.
    pub async fn lines_until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.contains(text)) {
            lines.push(self.program.line().await.expect("it runs"));
        }
        lines
    }

    /// Ends it with SIGKILL, at any moment; gives its directory.
    pub async fn crash(self) -> TempDir {
        self.program.signal("KILL");
        let (_killed, _lines) = self.program.end().await;
        self.dir
    }

    /// Ends it with SIGTERM: its exit code, and its whole log.
    pub async fn stop(self) -> (Option<i32>, Vec<String>) {
        let (code, log, _dir) = self.end().await;
        (code, log)
    }

    /// The same; gives its directory, too.
    pub async fn end(mut self) -> (Option<i32>, Vec<String>, TempDir) {
        self.program.signal("TERM");
        let (status, lines) = self.program.end().await;
        self.log.extend(lines);
        (status.code(), self.log, self.dir)
    }
}

pub fn address_after(words: &str, line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(words)?;
    let is_part = |c: &char| c.is_ascii_digit() || matches!(c, '.' | ':');
    rest.chars().take_while(is_part).collect::<String>().parse().ok()
}
