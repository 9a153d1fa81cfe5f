//! A start with much to load: 100,000 sessions, for which 1,000,000 messages wait.
//!
//! `cargo bench --bench restart`: fills a broker over real sockets, kills it, starts another one in
//! its place, and says how long that takes and what memory each of the two had. `-- --test` is the
//! same with a hundredth of it.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::print_stdout, reason = "a bench speaks to whoever started it")]
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use common::process::Broker;
use common::{Client, Dial};
use simcast::mqtt::QoS;
use tokio::net::TcpStream;

const SESSIONS: usize = 100_000;
/// Messages that wait for each of them.
const WAITING: usize = 10;
/// Sessions that one message is for.
const AUDIENCE: usize = 100;
/// Clients that come at the same time.
const AT_ONCE: usize = 64;
const PAYLOAD: [u8; 256] = [b'x'; 256];
const CONFIG: &str = "[limits]\nconnect_rate = 1000000\n";

#[tokio::main]
async fn main() {
    let brief = std::env::args().any(|argument| argument == "--test");
    let sessions = if brief { SESSIONS / 100 } else { SESSIONS };
    let broker = Broker::start(CONFIG).await;
    let started = Instant::now();
    leave(&broker, sessions).await;
    publish(&broker, sessions).await;
    let took = started.elapsed().as_secs_f64();
    println!("{sessions} sessions, {} messages waiting: filled in {took:.1} s", sessions * WAITING);
    let before = memory_kib(&broker).await;
    let bytes = figure(&broker, "simcast_store_bytes").await;
    let dir = broker.crash().await;
    let start = Instant::now();
    let broker = Broker::start_again(dir, "info").await;
    let took = start.elapsed().as_secs_f64();
    let after = memory_kib(&broker).await;
    let waiting = figure(&broker, "simcast_queue_messages").await;
    println!("loaded {} MiB in {took:.1} s; {waiting} messages wait", bytes >> 20);
    let ratio = after as f64 / before as f64;
    println!("memory: {} MiB before, {} MiB after: {ratio:.2} x", before >> 10, after >> 10);
    assert_eq!(waiting as usize, sessions * WAITING);
}

/// Clients come, subscribe and go.
async fn leave(broker: &Broker, sessions: usize) {
    let mut running = Vec::new();
    for first in 0..AT_ONCE {
        let address = broker.anybody;
        running.push(tokio::spawn(async move {
            for number in (first..sessions).step_by(AT_ONCE) {
                let dial = Dial::v311(&format!("device-{number}")).persistent();
                let stream = TcpStream::connect(address).await.unwrap();
                let mut client = Client::open(stream, &dial).await.unwrap();
                let topic = format!("fleet/{}", number / AUDIENCE);
                client.subscribe(&topic, QoS::AtLeastOnce).await;
                client.disconnect().await;
            }
        }));
    }
    for task in running {
        task.await.unwrap();
    }
}

async fn publish(broker: &Broker, sessions: usize) {
    let mut running = Vec::new();
    for first in 0..AT_ONCE {
        let mut client = broker.client(Dial::v311(&format!("server-{first}"))).await;
        running.push(tokio::spawn(async move {
            for group in (first..sessions / AUDIENCE).step_by(AT_ONCE) {
                for _ in 0..WAITING {
                    client.publish(&format!("fleet/{group}"), PAYLOAD, QoS::AtLeastOnce).await;
                }
            }
        }));
    }
    for task in running {
        task.await.unwrap();
    }
}

/// What the process has of its own, by its metrics.
async fn memory_kib(broker: &Broker) -> u64 {
    figure(broker, "process_resident_memory_bytes").await >> 10
}

async fn figure(broker: &Broker, name: &str) -> u64 {
    let metrics = broker.get("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
    let value: f64 = line.unwrap().split_once(' ').unwrap().1.parse().unwrap();
    value as u64
}
