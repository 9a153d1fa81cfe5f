//! The reference device and the reference SM-SR, talking through a hub that knows no rules: it
//! gives everything on a topic to everybody who subscribed to it.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test may panic")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4::{self, ConnAck, ConnectReturnCode, Packet, PubAck, SubAck};
use serde_json::json;
use simcast::client::device::{Addressed, Device, DeviceOptions};
use simcast::client::envelope::{Envelope, Kind, Tid, Wire};
use simcast::client::link::LinkOptions;
use simcast::client::payload::{
    BPP_BYTES, EuiccCa, Step, answer, bound_profile_package, sample_eid,
};
use simcast::client::server::{Server, ServerOptions};
use simcast::client::tls::{TlsError, TlsIdentity};
use simcast::client::{ClientError, TO_EUICC, TO_SM_SR};
use simcast::clock::Clock;
use simcast::ids::{Gid, Nid};
use simcast::pki::Authority;
use simcast::rsp::chunk::{Piece, piece};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

#[test]
fn a_key_must_fit_its_certificate() {
    let ca = Authority::in_memory().unwrap();
    let (one, two) = (ca.issue_server("one").unwrap(), ca.issue_server("two").unwrap());
    let identity = |cert: &str, key: &str| TlsIdentity {
        ca_pem: ca.ca_pem().into(),
        cert_and_key_pem: Some((cert.into(), key.into())),
    };
    assert!(identity(&one.cert_pem, &one.key_pem).config().is_ok());
    let mixed = identity(&one.cert_pem, &two.key_pem).config();
    assert!(matches!(mixed, Err(TlsError::Rustls(_))));
    let no_key = identity(&one.cert_pem, "").config();
    assert!(matches!(no_key, Err(TlsError::BadPem { what: "private key" })));
    assert!(matches!(TlsIdentity::default().config(), Err(TlsError::BadPem { .. })));
}

type Subscribers = Arc<Mutex<HashMap<String, Vec<mpsc::UnboundedSender<v4::Publish>>>>>;

/// Starts a hub and gives its port.
async fn hub() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let subscribers = Subscribers::default();
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(attend(socket, subscribers.clone()));
        }
    });
    port
}

async fn attend(mut socket: TcpStream, subscribers: Subscribers) {
    let (outbox, mut deliveries) = mpsc::unbounded_channel();
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    loop {
        while let Ok(packet) = v4::read(&mut input, 1 << 20) {
            match packet {
                Packet::Connect(_) => {
                    ConnAck::new(ConnectReturnCode::Success, false).write(&mut output).unwrap();
                }
                Packet::Subscribe(subscribe) => {
                    let path = subscribe.filters[0].path.clone();
                    subscribers.lock().unwrap().entry(path).or_default().push(outbox.clone());
                    let code = v4::SubscribeReasonCode::Success(QoS::AtMostOnce);
                    SubAck::new(subscribe.pkid, vec![code]).write(&mut output).unwrap();
                }
                Packet::Publish(publish) => {
                    if publish.qos == QoS::AtLeastOnce {
                        PubAck::new(publish.pkid).write(&mut output).unwrap();
                    }
                    for subscriber in &subscribers.lock().unwrap()[&publish.topic] {
                        let _ = subscriber.send(publish.clone());
                    }
                }
                Packet::Disconnect => return,
                other => panic!("{other:?} is not for this hub"),
            }
        }
        socket.write_all(&output).await.unwrap();
        output.clear();
        tokio::select! {
            count = socket.read_buf(&mut input) => if count.unwrap_or(0) == 0 { return },
            Some(mut publish) = deliveries.recv() => {
                publish.qos = QoS::AtMostOnce;
                publish.write(&mut output).unwrap();
            }
        }
    }
}

fn gid() -> Gid {
    Gid::new(42).unwrap()
}

async fn device_with(port: u16, index: u32, options: DeviceOptions) -> Device {
    let link = LinkOptions::new("127.0.0.1", port, &format!("device-{index}"));
    Device::start(link, options).await.unwrap()
}

async fn device(port: u16, index: u32) -> Device {
    device_with(port, index, DeviceOptions::new(sample_eid(index), &[gid()])).await
}

async fn server(port: u16, options: ServerOptions) -> Server {
    let link = LinkOptions::new("127.0.0.1", port, "sm-sr");
    Server::start(link, options).await.unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("in time")
}

#[tokio::test]
async fn single_mode_reaches_one_device_and_the_others_notice_what_is_foreign() {
    for wire in [Wire::Json, Wire::Cbor] {
        let port = hub().await;
        let (one, other) = (device(port, 1).await, device(port, 2).await);
        let server = server(port, ServerOptions { wire, ..ServerOptions::default() }).await;
        let agreed = server.trigger_device(one.nid()).await.unwrap();
        assert_eq!((agreed.kind, agreed.sender), (Kind::RetTrigger, Some(one.nid().get())));
        let package = bound_profile_package(1, BPP_BYTES).unwrap();
        let done = server.provision_device(one.nid(), package).await.unwrap();
        assert_eq!(done.kind, Kind::RetMsg);
        assert!(soon(one.until(|report| report.answered == 2)).await);
        let report = one.report();
        assert_eq!((report.received, report.foreign, report.packages), (2, 0, 1));
        assert!(soon(other.until(|report| report.foreign == 2)).await);
        assert_eq!(other.report().answered, 0, "what is foreign is not answered");
    }
}

#[tokio::test]
async fn multi_mode_gathers_one_answer_of_each_member() {
    let port = hub().await;
    let devices = [device(port, 1).await, device(port, 2).await, device(port, 3).await];
    let server = server(port, ServerOptions::default()).await;
    let agreed = server.trigger_group(gid(), 3).await.unwrap();
    assert_eq!(agreed.len(), 3);
    let download = answer(Step::GetBoundProfilePackage, 1).unwrap();
    let done = server.provision_group(gid(), download, 3).await.unwrap();
    let mut senders: Vec<_> = done.iter().filter_map(|heard| heard.sender).collect();
    senders.sort_unstable();
    assert_eq!(senders, devices.each_ref().map(|device| device.nid().get()));
    for device in &devices {
        assert!(soon(device.until(|report| report.packages == 1)).await);
        assert_eq!(device.report().messages[0].addressed, Addressed::ToMyGroup);
    }
}

#[tokio::test]
async fn a_request_of_a_device_leads_to_provisioning() {
    let port = hub().await;
    let device = device(port, 1).await;
    let server = server(port, ServerOptions::default()).await;
    device.request_trigger().await.unwrap();
    soon(server.until(|report| report.requests_served == 1)).await;
    let kinds: Vec<Kind> = device.report().messages.iter().map(|m| m.kind).collect();
    assert_eq!(kinds, [Kind::RetTrigger, Kind::Trigger, Kind::Msg]);
}

#[tokio::test]
async fn requests_for_a_group_lead_to_one_provisioning() {
    let port = hub().await;
    let devices = [device(port, 1).await, device(port, 2).await];
    let options = ServerOptions { group_sizes: [(gid(), 2)].into(), ..ServerOptions::default() };
    let server = server(port, options).await;
    devices[0].request_group_trigger(gid()).await.unwrap();
    soon(server.until(|report| report.requests_served == 1)).await;
    for device in &devices {
        let kinds: Vec<Kind> = device.report().messages.iter().map(|m| m.kind).collect();
        assert_eq!(kinds, [Kind::RetTrigger, Kind::Trigger, Kind::Msg]);
    }
}

#[tokio::test]
async fn a_profile_moves_from_the_old_device_to_the_new_one() {
    let port = hub().await;
    let (old, new) = (device(port, 1).await, device(port, 2).await);
    let server = server(port, ServerOptions::default()).await;
    new.request_profile(old.nid(), gid()).await.unwrap();
    soon(server.until(|report| report.profile_changes == 1)).await;
    let is_transfer = |m: &&simcast::client::device::Received| {
        m.addressed == Addressed::ToMe && m.kind == Kind::Profile(old.nid().get())
    };
    assert_eq!(new.report().messages.iter().filter(is_transfer).count(), 1);
    assert_eq!(server.report().unmatched, 0);
}

#[tokio::test]
async fn a_triggered_device_may_fetch_its_profile_from_another() {
    let port = hub().await;
    let old = device(port, 1).await;
    let mut options = DeviceOptions::new(sample_eid(2), &[gid()]);
    options.exchange_on_trigger = Some((old.nid(), gid()));
    let new = device_with(port, 2, options).await;
    let server = server(port, ServerOptions::default()).await;
    server.trigger_device(new.nid()).await.unwrap();
    soon(server.until(|report| report.profile_changes == 1)).await;
}

#[tokio::test]
async fn refusals_and_broken_packages_come_back_as_result_codes() {
    let port = hub().await;
    let mut options = DeviceOptions::new(sample_eid(1), &[]);
    options.agrees = false;
    let unwilling = device_with(port, 1, options).await;
    let server = server(port, ServerOptions::default()).await;
    let refused = server.trigger_device(unwilling.nid()).await;
    assert!(matches!(refused, Err(ClientError::Refused(1))), "{refused:?}");
    let mut package = bound_profile_package(1, BPP_BYTES).unwrap();
    package.pop();
    let broken = server.provision_device(unwilling.nid(), package).await;
    assert!(matches!(broken, Err(ClientError::Refused(2))), "{broken:?}");
    let opaque = server.provision_device(unwilling.nid(), json!("test")).await;
    assert!(opaque.is_ok(), "{opaque:?}");
}

#[tokio::test]
async fn an_absent_device_is_no_answer_and_a_partial_group_is_what_came() {
    let port = hub().await;
    let _device = device(port, 1).await;
    let patience = Duration::from_millis(200);
    let server = server(port, ServerOptions { patience, ..ServerOptions::default() }).await;
    let nobody = server.trigger_device(sample_eid(9)).await;
    assert!(matches!(nobody, Err(ClientError::NoAnswer)), "{nobody:?}");
    assert_eq!(server.trigger_group(gid(), 5).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_double_is_noticed_and_not_answered_twice() {
    let port = hub().await;
    let device = device(port, 1).await;
    let server = server(port, ServerOptions::default()).await;
    let nid = device.nid();
    let text = format!(r#"{{"nid":"{nid}","gid":0,"type":"trigger","tid":"x","body":null}}"#);
    for _ in 0..2 {
        server.link().publish(TO_EUICC, QoS::AtLeastOnce, false, text.clone()).await.unwrap();
    }
    server.link().publish(TO_EUICC, QoS::AtLeastOnce, false, "nonsense").await.unwrap();
    assert!(soon(device.until(|report| report.unreadable == 1)).await);
    let report = device.report();
    assert_eq!((report.received, report.duplicates, report.answered), (2, 1, 1));
}

/// A B1 with a package, in pieces of so many bytes from an offset on; the number of the first.
fn pieces(wire: Wire, nid: Nid, from: (usize, u32), limit: usize) -> Vec<Piece> {
    let package = bound_profile_package(1, BPP_BYTES).unwrap();
    let request = Envelope::new(nid.get(), 0, Kind::Msg).with_tid(Some(Tid::Number(1)));
    let payload = request.with_body(package).asking("chunks", true).encode(wire).into();
    let (mut next, mut number, mut pieces) = (Some(from.0), from.1, Vec::new());
    while let Some(offset) = next {
        let piece = piece(&payload, offset, number, limit).unwrap();
        (next, number) = (piece.next, number + 1);
        pieces.push(piece);
    }
    pieces
}

async fn send(server: &Server, pieces: &[Piece]) {
    for piece in pieces {
        let payload = piece.payload.clone();
        server.link().publish(TO_EUICC, QoS::AtLeastOnce, false, payload).await.unwrap();
    }
}

#[tokio::test]
async fn what_comes_in_pieces_is_answered_once_when_it_is_whole() {
    for wire in [Wire::Json, Wire::Cbor] {
        let port = hub().await;
        let (device, other) = (device(port, 1).await, device(port, 2).await);
        let server = server(port, ServerOptions::default()).await;
        let pieces = pieces(wire, device.nid(), (0, 1), 3_000);
        let (last, first) = pieces.split_last().unwrap();
        send(&server, first).await;
        send(&server, first).await;
        assert!(soon(device.until(|report| report.pieces_repeated == first.len() as u64)).await);
        assert_eq!((device.report().received, device.report().answered), (0, 0));
        send(&server, std::slice::from_ref(last)).await;
        assert!(soon(device.until(|report| report.answered == 1)).await);
        send(&server, std::slice::from_ref(last)).await;
        let all_seen = first.len() as u64 + 1;
        assert!(soon(device.until(|report| report.pieces_repeated == all_seen)).await);
        let report = device.report();
        assert_eq!((report.received, report.answered, report.packages), (1, 1, 1));
        assert_eq!((report.pieces, report.pieces_broken), (pieces.len() as u64, 0));
        assert_eq!(report.messages[0].pieces as usize, pieces.len());
        let foreign = 2 * pieces.len() as u64;
        assert!(soon(other.until(|report| report.foreign == foreign)).await);
        assert_eq!((other.report().pieces, other.report().answered), (0, 0));
    }
}

#[tokio::test]
async fn a_download_goes_on_after_a_power_cut_and_by_another_limit() {
    let port = hub().await;
    let options = DeviceOptions::new(sample_eid(1), &[gid()]);
    let before = device_with(port, 1, options.clone()).await;
    let server = server(port, ServerOptions::default()).await;
    let first = pieces(Wire::Json, before.nid(), (0, 1), 3_000);
    send(&server, &first[..3]).await;
    assert!(soon(before.until(|report| report.pieces == 3)).await);
    drop(before);
    let device = device_with(port, 1, options).await;
    // The third was not acknowledged: it comes again, smaller, and the rest after it.
    let from = (first[1].next.unwrap(), 3);
    let rest = pieces(Wire::Json, device.nid(), from, 1_000);
    send(&server, &rest).await;
    assert!(soon(device.until(|report| report.answered == 1)).await);
    let report = device.report();
    assert_eq!((report.packages, report.pieces_broken), (1, 0));
    assert_eq!(report.pieces + report.pieces_repeated, rest.len() as u64);
    assert!(report.pieces_repeated > 0, "what was there is not taken twice");
}

#[tokio::test]
async fn a_download_with_a_gap_is_refused_once() {
    let port = hub().await;
    let device = device(port, 1).await;
    let (observer, mut answers) = mpsc::channel(10);
    let observer = Some(observer);
    let server = server(port, ServerOptions { observer, ..ServerOptions::default() }).await;
    let mut pieces = pieces(Wire::Cbor, device.nid(), (0, 1), 3_000);
    pieces.remove(1);
    send(&server, &pieces).await;
    let answer = soon(answers.recv()).await.unwrap();
    assert_eq!((answer.kind, answer.rc), (Kind::RetMsg, 2));
    let ignored = pieces.len() as u64 - 2;
    assert!(soon(device.until(|report| report.pieces_repeated == ignored)).await);
    let report = device.report();
    assert_eq!((report.received, report.answered, report.pieces_broken), (0, 1, 1));
}

#[tokio::test]
async fn a_device_that_holds_its_answers_gives_them_when_it_is_released() {
    let port = hub().await;
    let mut options = DeviceOptions::new(sample_eid(1), &[gid()]);
    options.holds_answers = true;
    let slow = device_with(port, 1, options).await;
    let _other = device(port, 2).await;
    let server = server(port, ServerOptions::default()).await;
    assert_eq!(server.trigger_group(gid(), 1).await.unwrap().len(), 1);
    assert!(soon(slow.until(|report| report.received == 1)).await);
    let message = Envelope::new(0, gid().get(), Kind::Msg).with_body(json!("test"));
    let campaign = server.request(message, 2);
    let (answers, ()) = tokio::join!(campaign, async {
        assert!(soon(slow.until(|report| report.received == 2)).await);
        assert_eq!(slow.report().answered, 0, "it has said nothing yet");
        slow.release();
    });
    assert_eq!(answers.unwrap().len(), 2);
    assert!(soon(slow.until(|report| report.answered == 2)).await);
    // And after that at once.
    assert!(server.trigger_device(slow.nid()).await.is_ok());
}

#[tokio::test]
async fn a_device_reads_the_package_that_is_its_part() {
    let port = hub().await;
    let device = device(port, 1).await;
    let server = server(port, ServerOptions::default()).await;
    let mut package = bound_profile_package(1, BPP_BYTES).unwrap();
    let body = |package: &[u8]| {
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, package);
        json!({"common": "for all", "part": text})
    };
    assert!(server.provision_device(device.nid(), body(&package)).await.is_ok());
    assert!(soon(device.until(|report| report.packages == 1)).await);
    package.pop();
    let broken = server.provision_device(device.nid(), body(&package)).await;
    assert!(matches!(broken, Err(ClientError::Refused(2))), "{broken:?}");
}

#[tokio::test]
async fn a_profile_goes_with_a_proof_where_the_old_device_can_sign() {
    let port = hub().await;
    let ca = EuiccCa::new(Clock::start().now()).unwrap();
    let mut options = DeviceOptions::new(sample_eid(1), &[gid()]);
    options.euicc = Some(Arc::new(ca.euicc(options.nid).unwrap()));
    let signs = device_with(port, 1, options).await;
    let (plain, new) = (device(port, 2).await, device(port, 3).await);
    let _server = server(port, ServerOptions::default()).await;
    let mut sizes = Vec::new();
    for old in [&signs, &plain, &signs] {
        new.request_profile(old.nid(), gid()).await.unwrap();
        let number = sizes.len() + 1;
        let is_profile = |m: &&simcast::client::device::Received| {
            m.addressed == Addressed::ToMe && matches!(m.kind, Kind::Profile(_))
        };
        let have = |report: &simcast::client::device::DeviceReport| {
            report.messages.iter().filter(is_profile).count() == number
        };
        assert!(soon(new.until(have)).await);
        let report = new.report();
        let record = report.messages.iter().rfind(is_profile).unwrap();
        sizes.push((record.body_bytes, record.body_digest));
    }
    let bytes = sizes.iter().map(|(bytes, _)| *bytes).collect::<Vec<_>>();
    assert!(bytes[0] > bytes[1] + 800 && bytes[2] > bytes[1] + 800, "{bytes:?}");
    assert_ne!(sizes[0].1, sizes[2].1, "no two proofs are the same");
}

#[tokio::test]
async fn many_requests_as_one_are_served_once_and_by_name() {
    let port = hub().await;
    let devices = [device(port, 1).await, device(port, 2).await];
    let (observer, mut heard) = mpsc::channel(10);
    let observer = Some(observer);
    let group_sizes = [(gid(), 2)].into();
    let options = ServerOptions { observer, group_sizes, ..ServerOptions::default() };
    let server = server(port, options).await;
    let requesters = devices.each_ref().map(|device| json!({"nid": device.nid().to_string()}));
    let body = json!({"event": "coalesced-trigger", "requesters": requesters});
    let request = Envelope::new(0, gid().get(), Kind::Trigger).with_body(body);
    let payload = request.encode(Wire::Json);
    server.link().publish(TO_SM_SR, QoS::AtLeastOnce, false, payload).await.unwrap();
    let request = soon(heard.recv()).await.unwrap();
    assert_eq!(request.requesters, devices.each_ref().map(|device| device.nid().get()));
    soon(server.until(|report| report.requests_served == 1)).await;
    for device in &devices {
        let kinds: Vec<Kind> = device.report().messages.iter().map(|m| m.kind).collect();
        assert_eq!(kinds, [Kind::RetTrigger, Kind::Trigger, Kind::Msg]);
    }
}

#[tokio::test]
async fn a_dropped_device_is_gone() {
    let port = hub().await;
    let device = device(port, 1).await;
    let link = device.link().clone();
    device.stop().await;
    assert!(!device.until(|report| report.received > 0).await);
    drop(link);
}

#[derive(clap::Parser)]
enum Commands {
    Server(simcast::cli::server::Server),
    Device(simcast::cli::device::Device),
}

/// Runs a command line to its end; a command that hangs fails the test.
async fn run(port: u16, line: &str) -> Result<(), String> {
    let (command, rest) = line.split_once(' ').unwrap();
    let port = port.to_string();
    let words = ["simcast", command, "--host", "127.0.0.1", "--port", &port];
    let words = words.into_iter().chain(rest.split(' '));
    let result = match <Commands as clap::Parser>::try_parse_from(words).unwrap() {
        Commands::Server(server) => soon(server.run()).await,
        Commands::Device(device) => soon(device.run()).await,
    };
    result.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_server_command_succeeds_when_all_have_answered() {
    let port = hub().await;
    let devices = [device(port, 1).await, device(port, 2).await];
    let eid = devices[0].nid();
    run(port, &format!("server trigger --nid {eid}")).await.unwrap();
    run(port, &format!("server --json provision --nid {eid}")).await.unwrap();
    run(port, "server campaign --group 42 --expect 2 --size 2000").await.unwrap();
    assert!(soon(devices[1].until(|report| report.packages == 1)).await);
    let error = run(port, "server --patience 1 trigger --group 42 --expect 3").await.unwrap_err();
    assert!(error.contains("2 of 3"), "{error}");
    let absent = format!("server --patience 1 trigger --nid {}", sample_eid(9));
    assert!(run(port, &absent).await.unwrap_err().contains("no answer"));
}

#[tokio::test]
async fn the_device_command_asks_and_ends_after_its_time() {
    let port = hub().await;
    let server = server(port, ServerOptions::default()).await;
    let eid = sample_eid(1);
    run(port, &format!("device --nid {eid} --trigger --seconds 1")).await.unwrap();
    soon(server.until(|report| report.requests_served == 1)).await;
    assert!(
        run(port, "device --nid 7 --seconds 1").await.unwrap_err().contains("32 decimal digits")
    );
}
