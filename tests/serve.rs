//! `simcast serve` as a process: configuration, signals, log.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};

use common::process::{Broker, TWO_PORTS, address_after, registry, serve, write};
use common::program::{Program, is_here, say_skipped};
use common::{Client, Dial, TO_EUICC, in_time};
use simcast::mqtt::{QoS, ReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn the_log_names_the_client_behind_a_proxy_and_does_not_grow_with_wrong_ports() {
    // cases D21, P30
    let more = "[[listener]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n\
                proxy_protocol = \"v1\"\nprotocol = \"websocket\"\n";
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "simcast.toml", &format!("[admin]\nbind = \"off\"\n{more}"));
    let mut program = Program::start(&mut serve(dir.path(), &["-c", "simcast.toml"]));
    let line = program.until("listening on ").await;
    assert!(line.contains("plain WebSocket"), "{line}");
    let address = address_after("listening on ", &line).unwrap();
    let tcp = async || in_time("a TCP connection", TcpStream::connect(address)).await.unwrap();
    for number in 0..200 {
        let mut socket = tcp().await;
        let header = format!("PROXY TCP4 192.0.2.7 192.0.2.2 {} 8883\r\n", 1000 + number);
        socket.write_all(header.as_bytes()).await.unwrap();
        socket.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a").await.unwrap();
        let _closed_or_reset = in_time("the end", socket.read(&mut [0])).await;
    }
    program.signal("TERM");
    let (status, lines) = program.end().await;
    assert_eq!(status.code(), Some(0));
    let told: Vec<&String> = lines.iter().filter(|l| l.contains("MQTT on a WebSocket")).collect();
    assert!(told.iter().all(|line| line.contains("peer=192.0.2.7:1")), "{lines:#?}");
    // One a second and reason; 200 connections take a few seconds on the slowest machine.
    assert!((1..50).contains(&told.len()), "{told:#?}");
}

#[test]
fn every_mistake_of_a_configuration_is_told_with_its_line() {
    // case O8
    let dir = tempfile::tempdir().unwrap();
    let text = "[[listener]]\nbind = \"127.0.0.1:0\"\nalow_anonymous = true\n\n\
                [limits]\nmax_inflight = \"many\"\n\n[log]\nformat = \"xml\"\n\n\
                [rsp]\nmail_ttl = \"3 moons\"\n";
    let path = write(&dir, "simcast.toml", text);
    let path = path.to_str().unwrap();
    for arguments in [&["-c", path][..], &["-c", path, "--test-config"]] {
        let output = serve(dir.path(), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.is_empty(), "complaints go to standard error");
        let lines = stderr(&output);
        let lines: Vec<&str> = lines.lines().collect();
        let expected = [
            format!("{path}:3: listener[0].alow_anonymous: "),
            format!("{path}:6: limits.max_inflight: "),
            format!("{path}:9: log.format: "),
            format!("{path}:12: rsp.mail_ttl: "),
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, expected) in lines.iter().zip(&expected) {
            assert!(line.starts_with(expected), "{line}");
        }
        assert!(lines[0].contains("did you mean `allow_anonymous`?"), "{}", lines[0]);
    }
}

#[test]
fn contradictions_and_missing_files_are_told_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[listener]]\nbind = \"127.0.0.1:0\"\n\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
                [listener.tls]\ncert = \"absent.pem\"\nkey = \"absent.key\"\n\
                client_ca = \"absent-ca.pem\"\n\n[limits]\nmax_packet_size = \"0B\"\n";
    write(&dir, "simcast.toml", text);
    let output = serve(dir.path(), &["-c", "simcast.toml", "--test-config"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let lines = stderr(&output);
    for expected in [
        "simcast.toml:1: listener[0].allow_anonymous: nobody can connect here",
        "simcast.toml:7: listener[1].tls.cert: cannot read ",
        "simcast.toml:8: listener[1].tls.key: cannot read ",
        "simcast.toml:9: listener[1].tls.client_ca: cannot read ",
        "simcast.toml:12: limits.max_packet_size: must not be zero",
    ] {
        assert!(lines.contains(expected), "{expected} is missing:\n{lines}");
    }
}

#[test]
fn a_configuration_is_tested_as_the_start_would_take_it() {
    let dir = tempfile::tempdir().unwrap();
    let test = |text: &str| {
        write(&dir, "simcast.toml", text);
        serve(dir.path(), &["-c", "simcast.toml", "--test-config"]).output().unwrap()
    };
    write(&dir, "registry.csv", &registry(&[1, 2]));
    let output = test(TWO_PORTS);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(output.stdout, b"the configuration is in order\n");

    write(&dir, "registry.csv", &format!("{}8904,7\n", registry(&[1, 2])));
    let output = test(TWO_PORTS);
    assert_eq!(output.status.code(), Some(3));
    let complaint = stderr(&output);
    assert!(complaint.contains("registry.csv: 1 broken lines; the first: line 3:"), "{complaint}");

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let output = test(&format!("[[listener]]\nbind = \"{address}\"\nallow_anonymous = true\n"));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains(&address.to_string()), "{}", stderr(&output));

    let output = serve(dir.path(), &["-c", "absent.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).starts_with("absent.toml: "), "{}", stderr(&output));
}

#[tokio::test]
async fn development_mode_makes_what_it_needs() {
    let ports = [1883, 8883, 9883];
    if ports.iter().any(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err()) {
        say_skipped(&format!("needs the ports {ports:?}, and one is taken"));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(&mut serve(dir.path(), &[]));
    program.until("simcast in development mode").await;
    let paste = program.until("mosquitto_sub -h localhost -p 8883").await;
    for file in ["ca.pem", "broker.key", "sm-sr.dev.pem", "registry.csv"] {
        assert!(dir.path().join("certs/dev").join(file).exists(), "{file}");
    }
    let named = paste.split(' ').filter(|word| word.starts_with("certs/dev/"));
    assert_eq!(named.filter(|file| dir.path().join(file).exists()).count(), 3, "{paste}");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1883));
    let stream = in_time("a TCP connection", TcpStream::connect(address)).await.unwrap();
    Client::open(stream, &Dial::v311("guest")).await.expect("a connection").disconnect().await;
    let trigger = program.until("mosquitto_pub -h localhost -p 8883").await;
    paste_into_shells(dir.path(), &paste, &trigger).await;
    program.signal("INT");
    let (status, lines) = program.end().await;
    assert_eq!(status.code(), Some(0), "{lines:#?}");
}

/// The lines that development mode shows do what it says: the device receives the trigger.
async fn paste_into_shells(dir: &Path, device: &str, server: &str) {
    let mut probe = Command::new("which");
    let probe = probe.args(["mosquitto_sub", "mosquitto_pub"]);
    if !is_here("mosquitto_sub and mosquitto_pub", "Debian: mosquitto-clients", probe) {
        return;
    }
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec stdbuf -oL {line}")]).current_dir(dir);
        Program::start(&mut command)
    };
    let mut device = shell(device);
    let (status, said) = shell(server).end().await;
    assert!(status.success(), "{said:?}");
    let line = device.until("To_eUICC {").await;
    assert!(line.contains("\"type\":\"trigger\""), "{line}");
}

#[tokio::test]
async fn sigterm_says_goodbye_and_ends_with_0() {
    let broker = Broker::start("").await;
    let mut new = broker.client(Dial::v5("new")).await;
    let mut old = broker.client(Dial::v311("old")).await;
    broker.program.signal("TERM");
    assert_eq!(new.expect_goodbye().await, ReasonCode::ServerShuttingDown);
    assert_eq!(old.expect_closed().await, None, "version 3.1.1 has no such word");
    let (status, lines) = broker.program.end().await;
    assert_eq!(status.code(), Some(0), "{lines:#?}");
}

#[tokio::test]
async fn sighup_reads_the_registry_again_and_a_broken_one_changes_nothing() {
    let mut broker = Broker::start("").await;
    assert!(broker.knows(1).await);
    assert!(!broker.knows(2).await);
    let mut device = broker.device(1).await;

    write(&broker.dir, "registry.csv", &registry(&[1, 2]));
    broker.program.signal("HUP");
    broker.program.until("registry read again").await;
    assert!(broker.knows(2).await);

    write(&broker.dir, "registry.csv", &format!("{}nonsense\n", registry(&[3])));
    broker.program.signal("HUP");
    let line = broker.program.until("the registry stays as it was").await;
    assert!(line.contains("ERROR") && line.contains("line 2:"), "{line}");
    assert!(broker.knows(2).await && !broker.knows(3).await);

    // Somebody may be writing it: mail goes with its device.
    write(&broker.dir, "registry.csv", "\n");
    broker.program.signal("HUP");
    let line = broker.program.until("the registry stays as it was").await;
    assert!(line.contains("is empty") && broker.knows(2).await, "{line}");

    std::fs::remove_file(broker.dir.path().join("registry.csv")).unwrap();
    broker.program.signal("HUP");
    broker.program.until("the registry stays as it was").await;
    device.ping().await;
    assert!(broker.knows(1).await);
    assert_eq!(broker.stop().await.0, Some(0));
}

// case S10
#[tokio::test]
async fn sighup_reads_the_acl_again_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "acl", "topic a\ntopic b\n");
    let mut broker = Broker::start_in(dir, "[auth]\nacl_file = \"acl\"\n", "info").await;
    for dial in [Dial::v5("r"), Dial::v311("r")] {
        let acl = |text: &str| write(&broker.dir, "acl", text);
        acl("topic a\ntopic b\n");
        broker.program.signal("HUP");
        broker.program.until("ACL files read again").await;
        let mut author = broker.client(Dial::v5("author")).await;
        let persistent = dial.clone().persistent();
        let mut reader = broker.client(persistent.clone()).await;
        assert!(!reader.subscribe("#", QoS::AtLeastOnce).await.is_error());
        author.publish("b", "seen", QoS::AtLeastOnce).await;
        assert_eq!(reader.expect_payload().await, "seen");
        reader.disconnect().await;
        author.publish("b", "queued", QoS::AtLeastOnce).await;
        author.publish("a", "kept", QoS::AtLeastOnce).await;

        acl("topic a\ntopic wrong#\nusr x\n");
        broker.program.signal("HUP");
        for line in [2, 3] {
            let told = broker.program.until(&format!("acl:{line}: ")).await;
            assert!(told.contains("ERROR") && told.contains("all rights stay as they were"));
        }
        assert!(author.publish("b", "still permitted", QoS::AtLeastOnce).await.is_ok());

        acl("topic a\ntopic write b\n");
        broker.program.signal("HUP");
        broker.program.until("ACL files read again").await;
        author.publish("b", "not for you", QoS::AtLeastOnce).await;
        let mut reader = broker.client(persistent).await;
        assert!(reader.session_present());
        assert_eq!(reader.expect_payload().await, "kept");
        reader.expect_nothing().await;
        reader.disconnect().await;
        broker.client(dial).await.disconnect().await;
        author.disconnect().await;
    }
    assert_eq!(broker.stop().await.0, Some(0));
}

// case S10
#[test]
fn a_broker_with_a_broken_acl_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "registry.csv", "");
    write(&dir, "simcast.toml", &format!("{TWO_PORTS}\n[auth]\nacl_file = \"acl\"\n"));
    for arguments in [&["-c", "simcast.toml"][..], &["-c", "simcast.toml", "--test-config"]] {
        let run = || serve(dir.path(), arguments).output().unwrap();
        write(&dir, "acl", "topic a\ntopic b+\n\npatern c\n");
        let output = run();
        assert_eq!(output.status.code(), Some(3));
        let told = stderr(&output);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert!(lines[0].contains("acl:2: the topic filter has + beside"), "{told}");
        assert!(lines[1].contains("acl:4: begins with \"patern\""), "{told}");
        std::fs::remove_file(dir.path().join("acl")).unwrap();
        let output = run();
        assert_eq!(output.status.code(), Some(3));
        assert!(stderr(&output).contains("auth.acl_file: cannot read"), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn two_devices_with_one_id_do_not_fill_the_log() {
    // case Q8
    const ROUNDS: usize = 300;
    let mut broker = Broker::start("").await;
    let clock = simcast::clock::Clock::start();
    let since = clock.now();
    for (name, persistent) in [("twin", true), ("clean", false)] {
        let dial = || if persistent { Dial::v5(name).persistent() } else { Dial::v5(name).clean() };
        let mut former = broker.client(dial()).await;
        for _ in 0..ROUNDS {
            let next = broker.client(dial()).await;
            assert_eq!(former.expect_goodbye().await, ReasonCode::SessionTakenOver);
            former = next;
        }
        former.disconnect().await;
    }
    // What was held back is told when it has become quiet.
    let mut lines = broker.lines_until("taken_over: ").await;
    if !lines.iter().any(|line| line.contains("connected_by_take_over: ")) {
        lines.extend(broker.lines_until("connected_by_take_over: ").await);
    }
    let elapsed_secs = usize::try_from(clock.now().since(since).as_secs()).unwrap();
    let (code, rest) = broker.stop().await;
    assert_eq!(code, Some(0));
    lines.extend(rest);
    let count = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    let (came, went) = (count("took_over=true"), count("session taken over"));
    // One of either kind a second, and those of the first to come and the last to go.
    assert!(came.max(went) <= elapsed_secs + 1, "in {elapsed_secs} s: {lines:#?}");
    assert_eq!((count(" connected ") - came, count("said goodbye")), (2, 2), "{lines:#?}");
    let held: usize = lines.iter().filter_map(|line| held_back(line)).sum();
    assert_eq!(came + went + held, 4 * ROUNDS, "none is forgotten: {lines:#?}");
}

/// How many lines like this one were held back before it.
fn held_back(line: &str) -> Option<usize> {
    let (_, rest) = line.split_once("repeats=").or_else(|| line.split_once("_over: "))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[tokio::test]
async fn the_log_is_json_when_asked_for_and_tells_no_secret() {
    const SECRET: &str = "canary-4711";
    let broker = Broker::start_with("[log]\nformat = \"json\"\n", "trace").await;
    for dial in [Dial::v5("talker"), Dial::v311("talker")] {
        let mut dial = dial.will("last", SECRET);
        dial.0.username = Some("user".into());
        dial.0.password = Some(SECRET.into());
        let mut client = broker.client(dial).await;
        client.publish("ordinary", SECRET, QoS::ExactlyOnce).await;
        client.retain("ordinary", SECRET).await;
        client.publish(TO_EUICC, SECRET, QoS::AtLeastOnce).await;
        client.vanish().await;
    }
    let mut device = broker.device(1).await;
    let body = format!("\"body\":\"{SECRET}\"");
    for kind in ["trigger", "ret(msg)", "nonsense"] {
        let envelope = common::envelope_with(1, 0, kind, &body);
        device.publish(common::TO_SM_SR, envelope, QoS::AtLeastOnce).await;
    }
    // A wildcard in a topic name: the whole packet, body and all, is malformed.
    device.send_raw(format!("\x32\x12\0\x03a+b\0\x01{SECRET}").as_bytes()).await;
    device.expect_closed().await;

    let (code, lines) = broker.stop().await;
    assert_eq!(code, Some(0));
    assert!(lines.len() > 10, "it says something: {lines:#?}");
    for line in lines {
        assert!(!line.contains(SECRET), "{line}");
        let object: serde_json::Value = serde_json::from_str(&line).expect(&line);
        for member in ["timestamp", "level", "message", "target"] {
            assert!(object[member].is_string(), "no {member}: {line}");
        }
    }
}
