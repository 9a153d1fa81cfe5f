//! `simcast serve` with a password file: start-up and SIGHUP.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::common::program::Program;
use crate::common::{Client, Dial, in_time};
use crate::{BAD, line};

const CONFIG: &str = r#"
    [[listener]]
    bind = "127.0.0.1:0"
    [listener.auth]
    password_file = "passwords"
    [admin]
    bind = "off"
"#;

fn folder(users: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("simcast.toml"), CONFIG).unwrap();
    std::fs::write(dir.path().join("passwords"), users).unwrap();
    dir
}

fn serve(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simcast"));
    command.args(["serve", "-c", "simcast.toml"]).current_dir(dir);
    command.env("SIMCAST_LOG", "info");
    command
}

#[test]
fn a_broken_password_file_is_a_mistake_with_file_and_line() {
    // cases S10, S11
    let users = line("ann", "secret") + "bob:plain\nno colon\n";
    for arguments in [&[][..], &["--test-config"]] {
        let dir = folder(&users);
        let output = serve(dir.path()).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{said}");
        for part in ["passwords:2: ", "passwords:3: no colon: "] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("plain"), "case S18: {said}");
    }
    let dir = folder("");
    std::fs::remove_file(dir.path().join("passwords")).unwrap();
    let output = serve(dir.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(said.contains("simcast.toml:5: listener[0].auth.password_file"), "{said}");
}

#[tokio::test]
async fn sighup_reads_the_users_again_or_names_each_broken_line() {
    // case S10
    let dir = folder(&line("ann", "secret"));
    let mut program = Program::start(&mut serve(dir.path()));
    let listening = program.until("listening on ").await;
    let address = listening.split("listening on ").nth(1).unwrap().split(' ').next().unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let log_in = async |name: &str, password: &str| {
        let stream = in_time("a TCP connection", TcpStream::connect(address)).await.unwrap();
        Client::open(stream, &Dial::v5(name).user(name, password)).await.map(drop)
    };
    assert_eq!(log_in("ann", "secret").await, Ok(()));
    let passwords = dir.path().join("passwords");
    std::fs::write(&passwords, "ann\n:x\n").unwrap();
    program.signal("HUP");
    let first = program.until("all users stay as they were: ").await;
    assert!(first.contains("passwords:1: no colon"), "{first}");
    let second = program.until("all users stay as they were: ").await;
    assert!(second.contains("passwords:2: no user name"), "{second}");
    assert_eq!(log_in("ann", "secret").await, Ok(()));
    std::fs::write(&passwords, line("bob", "other")).unwrap();
    program.signal("HUP");
    program.until("password files read again").await;
    assert_eq!(log_in("ann", "secret").await, Err(BAD));
    assert_eq!(log_in("bob", "other").await, Ok(()));
    program.signal("TERM");
    assert!(program.end().await.0.success());
}
