//! The control unit: what one publish costs, and what a registered device costs.
//!
//! The cost of a single-mode publish must not depend on how many devices there are, and that of a
//! group publish not on how many members are away.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use divan::{Bencher, black_box};
use simcast::client::envelope::Kind::Msg;
use simcast::client::envelope::{Body, Envelope, Wire};
use simcast::client::payload::{BPP_BYTES, bound_profile_package};
use simcast::ids::{Gid, Nid, NidScheme, SessionKey, Timestamp};
use simcast::mqtt::Message;
use simcast::rsp::parts::Parts;
use simcast::rsp::{
    ControlOptions, ControlUnit, Head, Identity, Kind, RspLimits, RspTopic, Submission, chunk,
    envelope,
};

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
        group_messages_max: 16,
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
    let submission = Submission {
        from: &from,
        topic: RspTopic::ToEuicc,
        head,
        payload_len: message.payload.len(),
        retain: false,
    };
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
#[divan::bench(args = [1_000, FLEET])]
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

/// Decide and commit a C1 to a million devices with this many of them online.
#[divan::bench(args = [100, 10_000], sample_count = 16, sample_size = 1)]
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
