//! What a packet costs: PUBLISH read and written by ours and by mqttbytes, side by side, the
//! patched head that fan-out uses, and topic matching. `cargo bench --bench codec`.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use divan::{Bencher, black_box};
use simcast::ids::{PacketId, Timestamp};
use simcast::mqtt::{
    Message, Packet, Publish, QoS, Sender, Version, decode, encode, frame_len, topic,
};

const TOPIC: &str = "fleet/eu-west/device/8904903212345123/telemetry";
const PAYLOADS: [usize; 3] = [64, 1024, 16_384];

fn main() {
    divan::main();
}

fn publish(payload_len: usize) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: ByteString::from_static(TOPIC),
        packet_id: PacketId::new(7),
        properties: None,
        payload: Bytes::from(vec![b'x'; payload_len]),
    }
}

fn frame(payload_len: usize) -> Bytes {
    let mut out = BytesMut::new();
    encode(&Packet::Publish(publish(payload_len)), Version::V311, &mut out);
    out.freeze()
}

mod decode_publish {
    use super::*;

    /// Packets in one read buffer, as a busy connection finds them; times are for all of them.
    const PACKETS: usize = 32;

    fn read_buffer(payload_len: usize) -> BytesMut {
        BytesMut::from(&frame(payload_len).repeat(PACKETS)[..])
    }

    #[divan::bench(args = PAYLOADS)]
    fn simcast(bencher: Bencher<'_, '_>, payload_len: usize) {
        let counted = bencher.counter(divan::counter::ItemsCount::new(PACKETS));
        counted.with_inputs(|| read_buffer(payload_len)).bench_refs(|buffer| {
            while let Ok(Some(len)) = frame_len(buffer) {
                let frame = buffer.split_to(len).freeze();
                black_box(decode(frame, Version::V311, Sender::Client).is_ok());
            }
        });
    }

    #[divan::bench(args = PAYLOADS)]
    fn mqttbytes(bencher: Bencher<'_, '_>, payload_len: usize) {
        let counted = bencher.counter(divan::counter::ItemsCount::new(PACKETS));
        counted
            .with_inputs(|| read_buffer(payload_len))
            .bench_refs(|buffer| while mqttbytes::v4::read(buffer, 1 << 20).is_ok() {});
    }
}

mod encode_publish {
    use super::*;

    #[divan::bench(args = PAYLOADS)]
    fn simcast(bencher: Bencher<'_, '_>, payload_len: usize) {
        let packet = Packet::Publish(publish(payload_len));
        let mut out = BytesMut::with_capacity(1 << 20);
        bencher.bench_local(|| {
            out.clear();
            encode(black_box(&packet), Version::V311, &mut out);
        });
    }

    /// What each receiver of a fan-out costs: the head is there, the payload is copied.
    #[divan::bench(args = PAYLOADS)]
    fn simcast_patched_head(bencher: Bencher<'_, '_>, payload_len: usize) {
        let p = publish(payload_len);
        let message = Message::new(p.topic, p.payload, p.qos, p.retain, None, Timestamp::NEVER);
        let mut out = BytesMut::with_capacity(1 << 20);
        bencher.bench_local(|| {
            out.clear();
            let head = black_box(&message).head(Version::V311, true);
            head.write(false, QoS::AtLeastOnce, false, PacketId::new(8), &mut out);
            out.extend_from_slice(&message.payload);
        });
    }

    /// The same where the payload is shared instead of copied.
    #[divan::bench]
    fn simcast_patched_head_alone(bencher: Bencher<'_, '_>) {
        let p = publish(1024);
        let message = Message::new(p.topic, p.payload, p.qos, p.retain, None, Timestamp::NEVER);
        let mut out = BytesMut::with_capacity(1 << 20);
        bencher.bench_local(|| {
            out.clear();
            let head = black_box(&message).head(Version::V311, true);
            head.write(false, QoS::AtLeastOnce, false, PacketId::new(8), &mut out);
        });
    }

    #[divan::bench(args = PAYLOADS)]
    fn mqttbytes(bencher: Bencher<'_, '_>, payload_len: usize) {
        let mut packet =
            mqttbytes::v4::Publish::new(TOPIC, mqttbytes::QoS::AtLeastOnce, vec![0; payload_len]);
        packet.pkid = 7;
        let mut out = BytesMut::with_capacity(1 << 20);
        bencher.bench_local(|| {
            out.clear();
            black_box(&packet).write(&mut out)
        });
    }
}

mod matching {
    use super::*;

    const FILTERS: [&str; 3] = [TOPIC, "fleet/+/device/+/telemetry", "fleet/#"];

    #[divan::bench(args = FILTERS)]
    fn simcast(filter: &str) -> bool {
        topic::matches(black_box(filter), black_box(TOPIC))
    }

    #[divan::bench(args = FILTERS)]
    fn mqttbytes(filter: &str) -> bool {
        mqttbytes::matches(black_box(TOPIC), black_box(filter))
    }
}
