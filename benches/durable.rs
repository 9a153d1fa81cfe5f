//! What it costs to acknowledge only what is on the disk: acknowledgements a second, beside the
//! rate at which this disk syncs at all, beside the same broker without a store, and beside
//! mosquitto in its safest setting, where it is installed. All in one run, because disks differ.
//!
//! `cargo bench --bench durable`; with `-- --test` everything runs once and briefly.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::print_stdout, reason = "a bench speaks to whoever started it")]
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::process::Broker;
use common::{Client, Dial};
use simcast::mqtt::QoS;
use tokio::net::TcpStream;

/// Bytes of a message, such as a trigger.
const PAYLOAD: [u8; 256] = [b'x'; 256];
/// Publishers, each of which waits for its acknowledgement before it goes on.
const PUBLISHERS: [usize; 4] = [1, 8, 64, 256];
/// Those who all receive one message.
const AUDIENCE: usize = 100;
/// Room for everything that is published while nobody fetches.
const ROOM: &str = "[limits]\nmax_queued_messages = 10000000\nmax_queued_bytes = \"8GiB\"\n";

#[tokio::main]
async fn main() {
    let brief = std::env::args().any(|argument| argument == "--test");
    let time = Duration::from_millis(if brief { 50 } else { 2000 });
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_rate(dir.path(), time);
    println!("writing {} B and syncing: {raw:.0} a second", PAYLOAD.len());
    println!("\nacknowledgements of QoS 1 a second, for a client that is away:");
    println!(
        "{:>11} {:>12} {:>12} {:>12}  fsync/raw",
        "publishers", "fsync", "memory", "mosquitto"
    );
    for publishers in PUBLISHERS {
        let durable = of_simcast(ROOM, publishers, time).await;
        let memory = of_simcast(&memory(), publishers, time).await;
        let other = of_mosquitto(publishers, time).await;
        let other = other.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        let ratio = durable / raw;
        println!("{publishers:>11} {durable:>12.0} {memory:>12.0} {other:>12}  {ratio:.1}");
    }
    println!("\ndeliveries of QoS 1 a second, to {AUDIENCE} clients whose sessions are kept:");
    let durable = fan_out(ROOM, time).await;
    let memory = fan_out(&memory(), time).await;
    println!("fsync {durable:.0}, memory {memory:.0}: {:.2} x", durable / memory);
}

fn memory() -> String {
    format!("{ROOM}[store]\ndurability = \"memory\"\n")
}

/// How often the disk can be written and synced in a second, by one who does nothing else.
fn raw_rate(folder: &Path, time: Duration) -> f64 {
    let mut file = File::create(folder.join("raw")).unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        file.write_all(&PAYLOAD).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

async fn of_simcast(config: &str, publishers: usize, time: Duration) -> f64 {
    let broker = Broker::start_with(config, "info").await;
    acknowledged(broker.anybody, publishers, time).await
}

/// Acknowledgements a second, of messages that wait for a client that is away.
async fn acknowledged(address: SocketAddr, publishers: usize, time: Duration) -> f64 {
    let mut absent = connect(address, &Dial::v311("absent").persistent()).await;
    absent.subscribe("t/#", QoS::AtLeastOnce).await;
    absent.disconnect().await;
    let count = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    for number in 0..publishers {
        let mut client = connect(address, &Dial::v311(&format!("p{number}"))).await;
        let count = Arc::clone(&count);
        running.push(tokio::spawn(async move {
            loop {
                client.publish("t/x", PAYLOAD, QoS::AtLeastOnce).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    // Until all have begun.
    tokio::time::sleep(time / 4).await;
    let (start, before) = (Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let done = count.load(Ordering::Relaxed) - before;
    let took = start.elapsed();
    running.iter().for_each(tokio::task::JoinHandle::abort);
    done as f64 / took.as_secs_f64()
}

async fn fan_out(config: &str, time: Duration) -> f64 {
    let broker = Broker::start_with(config, "info").await;
    let count = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    for number in 0..AUDIENCE {
        let dial = Dial::v311(&format!("r{number}")).persistent();
        let mut client = connect(broker.anybody, &dial).await;
        client.subscribe("t/#", QoS::AtLeastOnce).await;
        let count = Arc::clone(&count);
        running.push(tokio::spawn(async move {
            while client.read().await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let mut publisher = connect(broker.anybody, &Dial::v311("p")).await;
    let start = Instant::now();
    while start.elapsed() < time {
        publisher.publish("t/x", PAYLOAD, QoS::AtLeastOnce).await;
    }
    let done = count.load(Ordering::Relaxed);
    running.iter().for_each(tokio::task::JoinHandle::abort);
    done as f64 / start.elapsed().as_secs_f64()
}

async fn connect(address: SocketAddr, dial: &Dial) -> Client {
    for _ in 0..100 {
        if let Ok(stream) = TcpStream::connect(address).await {
            stream.set_nodelay(true).unwrap();
            return Client::open(stream, dial).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody listens on {address}");
}

/// Ends with this value.
struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _gone_or_not = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// mosquitto, which writes its file after each change; that is as safe as it can be made, and it
/// acknowledges before.
async fn of_mosquitto(publishers: usize, time: Duration) -> Option<f64> {
    let dir = tempfile::tempdir().unwrap();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let config = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
         autosave_on_changes true\nautosave_interval 1\nmax_queued_messages 0\nuser root\n",
        free.port(),
        dir.path().display()
    );
    std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(dir.path().join("mosquitto.conf"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let _running = Mosquitto(child);
    Some(acknowledged(free, publishers, time).await)
}
