//! An RSP server that operates its topics itself: the broker, its control unit and the SM-SR are
//! this one program, and devices connect to it over mutual TLS.
//!
//! ```sh
//! cargo run --example embedded_sm_sr
//! ```
//!
//! It makes a throwaway PKI, starts the broker on a free port of this machine, lets two reference
//! devices connect, provisions one of them in single mode (A1 → A2, B1 → B2), both at once in
//! multi mode (A1 → A2 of each, C1 → C2 of each), and serves a device that asks on its own
//! (D1 → D2, then as before). The exit code is 0 when every step was seen and no device has seen
//! anything that was not its own. A program of yours is like `single_mode`, `multi_mode`, `serve`
//! and `hear`; the rest is here so that this one runs anywhere.

#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use simcast::client::device::{Device, DeviceOptions};
use simcast::client::link::LinkOptions;
use simcast::client::payload::{BPP_BYTES, bound_profile_package, sample_eid};
use simcast::client::tls::TlsIdentity;
use simcast::config::{Bind, Config, Listener, Tls, TlsVersion};
use simcast::ids::{Gid, Nid};
use simcast::pki::Authority;
use simcast::rsp::{Head, Kind};
use simcast::service::Service;
use simcast::service::embedded::{Envelope, SmSr};
use tokio::time::timeout;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long one step may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Outcome<()> {
    run().await
}

/// The whole program. Its devices and the SM-SR are gone when it returns.
///
/// # Errors
/// What went wrong first.
pub(crate) async fn run() -> Outcome<()> {
    let files = tempfile::tempdir()?;
    let authority = Authority::create(files.path())?;
    let (service, port) = broker(&authority, files.path()).await?;

    // The registry alone says who is in which group. A program may also name a CSV file in
    // `config.rsp.registry`, or give its text to `Broker::add_to_registry`.
    let group = Gid::new(42).ok_or("42 is not 0")?;
    let (one, two) = (sample_eid(1), sample_eid(2));
    for nid in [one, two] {
        service.broker().put_device("rsp-server", nid, &[group], "model=tracker")?;
    }
    let devices =
        [device(&authority, port, one, group).await?, device(&authority, port, two, group).await?];

    let mut sm_sr = service.sm_sr("sm-sr.example").await?;
    single_mode(&mut sm_sr, one).await?;
    multi_mode(&mut sm_sr, group, &[one, two]).await?;
    devices[1].request_trigger().await?;
    serve(&mut sm_sr, two).await?;
    refused(&sm_sr).await?;

    // Triggers and packages: B and C for the first; C, D2, A1 and B1 for the second.
    check(&devices[0], 4, 2).await?;
    check(&devices[1], 5, 2).await?;
    for device in &devices {
        device.stop().await;
    }
    if !service.stop().await || sm_sr.recv().await.is_some() {
        return Err("the broker did not stop".into());
    }
    println!("every step was seen, and nobody has seen what was not its own");
    Ok(())
}

/// A1 → A2, B1 → B2: one device, the flow A→B `[0067]`.
async fn single_mode(sm_sr: &mut SmSr, nid: Nid) -> Outcome<()> {
    println!("single mode, device {nid}");
    sm_sr.publish(Envelope::trigger_device(nid).with_tid("single-1")).await?;
    hear(sm_sr, Kind::RetTrigger, &[nid]).await?;
    // A Bound Profile Package is bytes: they are written as base64.
    let package = bound_profile_package(1, BPP_BYTES)?;
    sm_sr.publish(Envelope::message_device(nid).with_tid("single-2").with_body(package)).await?;
    hear(sm_sr, Kind::RetMsg, &[nid]).await?;
    Ok(())
}

/// A1 → A2 of each, C1 → C2 of each: the flow A→C, one message for a whole group `[0067]`.
async fn multi_mode(sm_sr: &mut SmSr, group: Gid, members: &[Nid]) -> Outcome<()> {
    println!("multi mode, group {group}, {} devices", members.len());
    let body = json!({"campaign": "spring"});
    sm_sr.publish(Envelope::trigger_group(group).with_tid("multi-1").with_body(body)).await?;
    hear(sm_sr, Kind::RetTrigger, members).await?;
    let package = bound_profile_package(2, BPP_BYTES)?;
    sm_sr.publish(Envelope::message_group(group).with_tid("multi-2").with_body(package)).await?;
    hear(sm_sr, Kind::RetMsg, members).await?;
    Ok(())
}

/// D1 → D2, then as in single mode: the flow D→A→B `[0068]`.
async fn serve(sm_sr: &mut SmSr, nid: Nid) -> Outcome<()> {
    println!("on request");
    let request = hear(sm_sr, Kind::Trigger, &[nid]).await?;
    sm_sr.publish(Envelope::answer_trigger(&request)).await?;
    single_mode(sm_sr, nid).await
}

/// What is refused is a value, and reaches nobody.
async fn refused(sm_sr: &SmSr) -> Outcome<()> {
    let stranger = sample_eid(3);
    match sm_sr.publish(Envelope::trigger_device(stranger)).await {
        Err(refused) if refused.name() == "unknown_nid" => {
            println!("device {stranger} is refused: {}", refused.sentence());
            Ok(())
        }
        other => Err(format!("a device that is in no registry: {other:?}").into()),
    }
}

/// Waits for one message of this kind from each of these devices, in any order. Gives the last.
async fn hear(sm_sr: &mut SmSr, kind: Kind, from: &[Nid]) -> Outcome<Head> {
    let (mut missing, mut last) = (from.to_vec(), None);
    while !missing.is_empty() {
        let received = timeout(PATIENCE, sm_sr.recv()).await?.ok_or("the broker has stopped")?;
        let (head, sender) = (received.head()?, received.sender());
        // Who has sent it is proven by its certificate, whatever the envelope says or hides.
        let awaited = missing.iter().position(|nid| Some(*nid) == sender);
        let (Some(at), true, 0) = (awaited, head.kind == kind, head.rc.unwrap_or(0)) else {
            return Err(format!("{head:?} from {sender:?} while {kind:?} was awaited").into());
        };
        println!("  {kind:?} from {}", missing.swap_remove(at));
        // It need not come again. Dropped without this, it would.
        received.acknowledge();
        last = Some(head);
    }
    last.ok_or_else(|| "nobody to hear".into())
}

/// A broker with one listener, for clients with a certificate of this authority.
async fn broker(authority: &Authority, dir: &Path) -> Outcome<(Service, u16)> {
    authority.issue_broker(&["localhost"])?.save(dir, "broker", false)?;
    let tls = Tls {
        cert: dir.join("broker.pem"),
        key: dir.join("broker.key"),
        chain: None,
        client_ca: Some(dir.join("ca.pem")),
        require_client_cert: None,
        crl: Some(dir.join("crl.pem")),
        min_version: TlsVersion::default(),
        // No certificate makes a server: the only one is this program itself.
        servers: Vec::new(),
    };
    let any_port = (Ipv4Addr::LOCALHOST, 0).into();
    let secure =
        Listener { allow_anonymous: false, tls: Some(tls), ..Listener::anonymous(any_port) };
    let config = Config { listeners: vec![secure], ..Config::without_sockets() };
    config.validate()?;
    let service = Service::start(config).await?;
    let address = service.addresses().first().and_then(Bind::tcp).ok_or("no listener")?;
    println!("the broker listens on {address} (mutual TLS)");
    Ok((service, address.port()))
}

/// A reference device, which answers what it is sent.
async fn device(authority: &Authority, port: u16, nid: Nid, group: Gid) -> Outcome<Device> {
    let issued = authority.issue_device(nid)?;
    let identity = TlsIdentity {
        ca_pem: authority.ca_pem().to_owned(),
        cert_and_key_pem: Some((issued.cert_pem, issued.key_pem)),
    };
    let mut link = LinkOptions::new("localhost", port, &nid.to_string());
    link.tls = Some(identity.config()?);
    let device = Device::start(link, DeviceOptions::new(nid, &[group])).await?;
    println!("device {nid} is connected");
    Ok(device)
}

/// Whether a device got all that was its own, once, and nothing else.
async fn check(device: &Device, messages: u64, packages: u64) -> Outcome<()> {
    let all_there = device.until(|report| report.received >= messages);
    timeout(PATIENCE, all_there).await?;
    let report = device.report();
    let faults = report.foreign + report.duplicates + report.unreadable + report.unanswered;
    if (report.received, report.packages, faults) != (messages, packages, 0) {
        return Err(format!("device {}: {report:?}", device.nid()).into());
    }
    println!("device {} got {messages} messages and {packages} packages", device.nid());
    Ok(())
}
