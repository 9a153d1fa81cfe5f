//! The control unit: what one publish costs, and what a registered device costs.
//!
//! The cost of a single-mode publish must not depend on how many devices there are, and that of a
//! group publish not on how many members are away. What a server fetches must not depend on how
//! much waits for others.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use divan::{Bencher, black_box};
use simcast::client::envelope::Kind::Msg;
use simcast::client::envelope::{self as sent, Body, Envelope, Wire};
use simcast::client::payload::{BPP_BYTES, EuiccCa, bound_profile_package, sample_eid};
use simcast::ids::{Gid, Nid, NidScheme, SessionKey, Timestamp};
use simcast::mqtt::Message;
use simcast::rsp::parts::Parts;
use simcast::rsp::proof::{self, TrustedIssuers};
use simcast::rsp::{
    Addressee, ControlOptions, ControlUnit, Head, Identity, Inbox, InboxLimits, Kind, RspLimits,
    RspTopic, Scope, ServerScopes, Submission, chunk, envelope,
};
use x509_parser::pem::parse_x509_pem;

/// Shows what each benchmark allocates.
#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

const NOW: Timestamp = Timestamp(1);
const FLEET: usize = 1_000_000;

fn nid(number: usize) -> Nid {
    Nid::new(number as u128 + 1, NidScheme::Decimal).expect("is not 0")
}

fn group() -> Gid {
    Gid::new(42).expect("is not 0")
}

/// Devices, all in one group; room for as much mail as a benchmark makes.
fn fleet(devices: usize) -> ControlUnit {
    let limits = RspLimits {
        mail_messages_max: usize::MAX,
        mail_bytes_max: usize::MAX,
        group_messages_max: 1_000,
        group_bytes_max: usize::MAX,
        ..RspLimits::default()
    };
    let scheme = NidScheme::Decimal;
    let mut unit = ControlUnit::new(ControlOptions { scheme, limits, ..ControlOptions::default() });
    for number in 0..devices {
        unit.put_device(nid(number), &[group()], "").expect("one group is not too many");
    }
    unit
}

fn message() -> Arc<Message> {
    let (topic, payload) = ("To_eUICC".into(), Bytes::from_static(&[0; 256]));
    let qos = simcast::mqtt::QoS::AtLeastOnce;
    Arc::new(Message::new(topic, payload, qos, false, None, Timestamp::NEVER))
}

fn publish(unit: &mut ControlUnit, head: &Head, message: &Arc<Message>) -> usize {
    let from = Identity::server("sm-sr");
    let submission = Submission::new(&from, RspTopic::ToEuicc, head, message.payload.len());
    let decision = unit.decide(&submission, NOW).expect("is permitted");
    unit.commit(decision, message, NOW).wake.len()
}

/// "alloc" and "grow" less "dealloc", divided by a million, is what a registered idle device costs
/// in bytes; "max alloc" is higher, for a moment, while the table of devices grows.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn register_a_million() -> ControlUnit {
    fleet(FLEET)
}

/// The same for a letter that waits and its open request, without the payload: a B1 to everyone.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn address_each_of_a_million(bencher: Bencher<'_, '_>) {
    let message = message();
    bencher.with_inputs(|| fleet(FLEET)).bench_local_values(|mut unit| {
        for number in 0..FLEET {
            let nid = Some(nid(number));
            let head = Head { nid, ..Head::new(Kind::Msg) };
            publish(&mut unit, &head, &message);
        }
        unit
    });
}

/// Decide, commit, pull, acknowledge: the whole way of a B1 to one device of many.
#[divan::bench(args = [1_000, FLEET], sample_size = 1000)]
fn single_publish_among(bencher: Bencher<'_, '_>, devices: usize) {
    let mut unit = fleet(devices);
    let reader = SessionKey { slot: 7, generation: 0 };
    let device = unit.attach(nid(devices / 2), reader).expect("is registered");
    let head = Head { nid: Some(nid(devices / 2)), ..Head::new(Kind::Msg) };
    let message = message();
    bencher.bench_local(|| {
        publish(&mut unit, &head, &message);
        for letter in unit.pull(device, reader, 1, NOW) {
            unit.acknowledge(device, letter.id, NOW);
        }
    });
}

/// The same with the device's answer, which ends it.
#[divan::bench(args = [1_000, FLEET], sample_size = 1000)]
fn single_flow_among(bencher: Bencher<'_, '_>, devices: usize) {
    let mut unit = fleet(devices);
    let reader = SessionKey { slot: 7, generation: 0 };
    let nid = nid(devices / 2);
    let device = unit.attach(nid, reader).expect("is registered");
    let (to, answer) = (Head::new(Kind::Msg), Head::new(Kind::RetMsg));
    let (head, answer) = (Head { nid: Some(nid), ..to }, Head { nid: Some(nid), ..answer });
    let (message, from) = (message(), Identity::device(nid));
    bencher.bench_local(|| {
        publish(&mut unit, &head, &message);
        for letter in unit.pull(device, reader, 1, NOW) {
            unit.acknowledge(device, letter.id, NOW);
        }
        let submission = Submission::new(&from, RspTopic::ToSmSr, &answer, 256);
        let decision = unit.decide(&submission, NOW).expect("was asked for");
        unit.commit(decision, &message, NOW);
    });
}

/// Decide and commit a C1 to a million devices with this many of them online.
#[divan::bench(args = [100, 10_000], sample_count = 200, sample_size = 1)]
fn group_publish_with_online(bencher: Bencher<'_, '_>, online: usize) {
    let mut unit = fleet(FLEET);
    for number in 0..online {
        let slot = u32::try_from(number).expect("is small");
        let reader = SessionKey { slot, generation: 0 };
        unit.attach(nid(number * (FLEET / online)), reader).expect("is registered");
    }
    let head = Head { gid: Some(group()), ..Head::new(Kind::Msg) };
    let message = message();
    bencher.bench_local(|| assert_eq!(publish(&mut unit, &head, &message), online));
}

/// An inbox for the servers `a` of group 42 and `b` of group 77, both of one share group, with this
/// much waiting of as many devices.
fn inbox(waiting: usize, message: &Arc<Message>, to: &Addressee) -> Inbox {
    let absence_max = Duration::from_secs(300);
    let limits = InboxLimits { messages_max: usize::MAX, bytes_max: usize::MAX, absence_max };
    let named =
        [("a", 42), ("b", 77)].map(|(name, gid)| (name.into(), Scope::groups(Gid::new(gid))));
    let mut inbox = Inbox::new(limits, ServerScopes::new(named, Scope::All));
    inbox.subscribe(server(1), Some("g"), &"a".into(), None);
    inbox.subscribe(server(2), Some("g"), &"b".into(), None);
    for number in 0..waiting {
        inbox.post(message, Some(nid(number)), to, NOW);
    }
    inbox
}

fn server(slot: u32) -> SessionKey {
    SessionKey { slot, generation: 0 }
}

fn to(asker: Option<&str>, gid: u64) -> Addressee {
    Addressee { asker: asker.map(Arc::from), gids: Gid::new(gid).into_iter().collect() }
}

/// What waits costs beside the messages, as "alloc" and "grow" less "dealloc" by 100,000.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn inbox_with_100_000_waiting(bencher: Bencher<'_, '_>) {
    let message = message();
    bencher.bench_local(|| inbox(100_000, &message, &to(None, 42)));
}

/// The second server of a share group fetches 20 messages, while so many wait for the first.
#[divan::bench(args = [0, 1_000, 100_000])]
fn inbox_pull_of_20_beside(bencher: Bencher<'_, '_>, waiting: usize) {
    pull_beside(bencher, waiting, &to(None, 42));
}

/// The same where answers wait that the first has asked for.
#[divan::bench(args = [0, 1_000, 100_000])]
fn inbox_pull_of_20_beside_answers(bencher: Bencher<'_, '_>, waiting: usize) {
    pull_beside(bencher, waiting, &to(Some("a"), 77));
}

fn pull_beside(bencher: Bencher<'_, '_>, waiting: usize, others: &Addressee) {
    let message = message();
    let mut inbox = inbox(waiting, &message, others);
    let (key, to) = (server(2), to(None, 77));
    bencher.bench_local(|| {
        for _ in 0..20 {
            inbox.post(&message, Some(nid(7)), &to, NOW);
        }
        let fetched = inbox.pull(key, 20, NOW).messages;
        assert_eq!(fetched.len(), 20);
        fetched.iter().for_each(|(number, _)| inbox.acknowledge(key, *number));
    });
}

/// A server goes with all that waits for it, and comes back for it.
#[divan::bench(args = [1_000, 100_000], sample_count = 10, sample_size = 1)]
fn inbox_leave_and_return_with(bencher: Bencher<'_, '_>, waiting: usize) {
    let message = message();
    let mut inbox = inbox(waiting, &message, &to(None, 42));
    bencher.bench_local(|| {
        inbox.leave(server(1), NOW);
        inbox.subscribe(server(1), Some("g"), &"a".into(), None);
        assert_eq!(inbox.len(), waiting);
    });
}

/// An inbox where this much waits on two desks, so that each message has to be looked at when one
/// closes.
fn copied(waiting: usize) -> Inbox {
    let message = message();
    let mut inbox = inbox(0, &message, &to(None, 42));
    inbox.subscribe(server(3), None, &"for-all".into(), None);
    for number in 0..waiting {
        inbox.post(&message, Some(nid(number)), &to(None, 42), NOW);
    }
    inbox
}

/// The first desk closes: the messages are on the other one.
#[divan::bench(args = [1_000, 100_000], sample_count = 10, sample_size = 1)]
fn inbox_leave_copies_of(bencher: Bencher<'_, '_>, waiting: usize) {
    bencher.with_inputs(|| copied(waiting)).bench_local_values(|mut inbox| {
        inbox.leave(server(1), NOW);
        assert_eq!(inbox.len(), waiting);
        inbox
    });
}

/// The other one closes as well, and the first server comes back.
#[divan::bench(args = [1_000, 100_000], sample_count = 10, sample_size = 1)]
fn inbox_leave_and_return_with_copies_of(bencher: Bencher<'_, '_>, waiting: usize) {
    let closed = || {
        let mut inbox = copied(waiting);
        inbox.leave(server(1), NOW);
        inbox
    };
    bencher.with_inputs(closed).bench_local_values(|mut inbox| {
        inbox.leave(server(3), NOW);
        inbox.subscribe(server(1), Some("g"), &"a".into(), None);
        assert_eq!(inbox.len(), waiting);
        inbox
    });
}

const SIZES: [usize; 3] = [256, 12_500, 32_768];

#[divan::bench(args = SIZES)]
fn read_json(bencher: Bencher<'_, '_>, size: usize) {
    let mut text =
        String::from(r#"{"nid":"89049032123451234512345678901235","gid":0,"type":"msg","body":""#);
    while text.len() < size - 2 {
        text.push('A');
    }
    text.push_str("\"}");
    bencher.bench(|| envelope::read(black_box(text.as_bytes()), NidScheme::Eid));
}

/// A body of many small members: the depth has to be counted.
#[divan::bench(args = SIZES)]
fn read_json_with_object_body(bencher: Bencher<'_, '_>, size: usize) {
    let mut text = String::from(
        r#"{"nid":"89049032123451234512345678901235","gid":0,"type":"msg","body":{"a":0"#,
    );
    let mut member = 0;
    while text.len() < size - 30 {
        member += 1;
        write!(text, r#","m{member}":[{member},"x"]"#).expect("a String takes everything");
    }
    text.push_str("}}");
    bencher.bench(|| envelope::read(black_box(text.as_bytes()), NidScheme::Eid));
}

#[divan::bench(args = SIZES)]
fn read_cbor(bencher: Bencher<'_, '_>, size: usize) {
    let mut bytes = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut bytes);
    let nid = 89_049_032_123_451_234_512_345_678_901_235_u128.to_be_bytes();
    let written = (|| {
        encoder.map(4)?.u8(1)?.tag(minicbor::data::Tag::new(2))?.bytes(&nid)?;
        encoder.u8(2)?.u8(0)?.u8(3)?.str("msg")?.u8(4)?.bytes(&vec![0; size - 40])?;
        Ok::<(), minicbor::encode::Error<std::convert::Infallible>>(())
    })();
    written.expect("a Vec takes everything");
    bencher.bench(|| envelope::read(black_box(&bytes), NidScheme::Eid));
}

/// The answer to an exchange with a proof that the profile is deleted: found, read, and verified
/// with three signatures.
#[divan::bench(args = [Wire::Json, Wire::Cbor])]
fn check_proof(bencher: Bencher<'_, '_>, wire: Wire) {
    let eid = sample_eid(1);
    let ca = EuiccCa::new(NOW).expect("P-256 is there");
    let notification = ca.euicc(eid).and_then(|euicc| euicc.delete_notification(1, None));
    let notification = notification.expect("P-256 is there");
    let body = match wire {
        Wire::Json => sent::Body::Value(STANDARD.encode(notification).into()),
        Wire::Cbor => sent::Body::Bytes(notification),
    };
    let kind = sent::Kind::Profile(eid.get());
    let payload = Envelope::new(sample_eid(2).get(), 42, kind).with_body(body).encode(wire);
    let (_, ci) = parse_x509_pem(ca.ci_pem().as_bytes()).expect("is PEM");
    let mut issuers = TrustedIssuers::default();
    issuers.add(&ci.contents).expect("is a CI certificate");
    bencher.bench(|| proof::check(black_box(&payload), eid, &issuers, NOW).expect("is a proof"));
}

/// What the reference client needs for a notification, its eUICC and the chain being there.
#[divan::bench]
fn sign_notification(bencher: Bencher<'_, '_>) {
    let ca = EuiccCa::new(NOW).expect("P-256 is there");
    let euicc = ca.euicc(sample_eid(1)).expect("P-256 is there");
    bencher.bench(|| euicc.delete_notification(black_box(1), None));
}

/// … and for an eUICC: its key and its certificate.
#[divan::bench]
fn make_euicc(bencher: Bencher<'_, '_>) {
    let ca = EuiccCa::new(NOW).expect("P-256 is there");
    bencher.bench(|| ca.euicc(black_box(sample_eid(1))));
}

/// A B1 of 256 KiB: a package of base64 in JSON, as a byte string in CBOR, or text.
fn large(form: &str) -> Bytes {
    let size = if form == "cbor" { 256 << 10 } else { 190 << 10 };
    let package = bound_profile_package(1, size).expect("is a size there is");
    let mut message = Envelope::new(89_049_032_123_451_234_512_345_678_901_235, 0, Msg);
    message.body = match form {
        "text" => Body::Value(vec!["some \"text\" of it"; 10_000].into()),
        _ => Body::Bytes(package),
    };
    message.encode(if form == "cbor" { Wire::Cbor } else { Wire::Json }).into()
}

const FORMS: [&str; 3] = ["base64", "cbor", "text"];

/// One piece of many: it takes one pass over the payload.
#[divan::bench(args = FORMS)]
fn one_piece_of_256_kib(bencher: Bencher<'_, '_>, form: &str) {
    let payload = large(form);
    bencher.bench(|| chunk::piece(black_box(&payload), 0, 1, 1024).expect("fits"));
}

/// All pieces of 1 KiB of 256 KiB.
#[divan::bench(args = FORMS, sample_count = 10, sample_size = 1)]
fn all_pieces_of_256_kib(bencher: Bencher<'_, '_>, form: &str) {
    let payload = large(form);
    bencher.bench(|| {
        let (mut offset, mut number) = (Some(0), 0);
        while let Some(at) = offset {
            number += 1;
            offset = chunk::piece(&payload, at, number, 1024).expect("fits").next;
        }
        number
    });
}

/// A usual package, in what an NB-IoT device may take.
#[divan::bench]
fn one_piece_of_a_package(bencher: Bencher<'_, '_>) {
    let package = bound_profile_package(1, BPP_BYTES).expect("is a size there is");
    let message = Envelope::new(1, 0, Msg).with_body(package);
    let payload = Bytes::from(message.encode(Wire::Cbor));
    bencher.bench(|| chunk::piece(black_box(&payload), 0, 1, 2048).expect("fits"));
}

/// 1,000 parts of 250 bytes; "max alloc" is what their places take.
fn in_parts() -> Bytes {
    let mut text = String::from(r#"{"nid":0,"gid":42,"type":"msg","parts":true,"body":{"parts":{"#);
    for number in 0..1000 {
        let comma = if number == 0 { "" } else { "," };
        let part = "A".repeat(250);
        write!(text, r#"{comma}"{}":"{part}""#, nid(number)).expect("a String takes everything");
    }
    Bytes::from(text + "}}}")
}

#[divan::bench]
fn find_1000_parts(bencher: Bencher<'_, '_>) {
    let payload = in_parts();
    bencher.bench(|| Parts::read(black_box(&payload), NidScheme::Decimal).expect("are parts"));
}

#[divan::bench]
fn letter_of_one_of_1000_parts(bencher: Bencher<'_, '_>) {
    let parts = Parts::read(&in_parts(), NidScheme::Decimal).expect("are parts");
    bencher.bench(|| parts.letter(black_box(Some(nid(500)))));
}
