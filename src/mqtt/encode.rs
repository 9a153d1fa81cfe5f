//! Packets to bytes. What a version does not have is left out, never an error: properties before
//! version 5 vanish, reason codes become the return codes of old.

use bytes::BytesMut;

use super::packet::{
    Ack, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Packet, PublishProperties, QoS, ReasonProperties, SubAck, Subscribe,
    SubscribeOptions, Unsubscribe, Version, Will,
};
use super::property::{Property as P, PropertySink, WriteProperties, write_block};
use super::reason::{ReasonCode, SERVER_UNAVAILABLE};
use super::wire::{Length, Sink, VARINT_MAX};
use crate::ids::PacketId;

/// Appends `packet` to `out`. Fields too long for their two-byte length are cut off; a packet
/// that exceeds 268,435,455 bytes has no encoding, and nothing is appended: compare
/// [`encoded_len`] with the receiver's Maximum Packet Size first where payloads are large.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) {
    let body_len = body_len(packet, version);
    if body_len > VARINT_MAX {
        return;
    }
    out.reserve(body_len + 5);
    out.u8(first_byte(packet));
    out.varint(body_len);
    body(packet, version, out);
}

/// Bytes that [`encode`] appends, to be held against a Maximum Packet Size.
#[must_use]
pub fn encoded_len(packet: &Packet, version: Version) -> usize {
    frame_len_of(body_len(packet, version))
}

/// The packet as a receiver takes it whose Maximum Packet Size is `bytes_max`: without what is
/// there for people alone where that would make it too large `[MQTT-3.4.2-2]`, `[MQTT-3.2.2-19]`.
/// `None`: it is too large even so, and must not be sent `[MQTT-3.1.2-24]`.
#[must_use]
pub fn fitted(mut packet: Packet, version: Version, bytes_max: usize) -> Option<Packet> {
    // Most receivers set no bound, and cost no measuring.
    let fits =
        |packet: &Packet| bytes_max == usize::MAX || encoded_len(packet, version) <= bytes_max;
    if !fits(&packet) {
        packet.strip_explanations();
    }
    fits(&packet).then_some(packet)
}

/// The part of a PUBLISH before its payload, encoded once and patched for each receiver.
#[derive(Clone, Debug)]
pub struct PublishHead {
    /// First byte with all flags zero, Remaining Length, topic, packet id zero, properties.
    bytes: Box<[u8]>,
    /// Where the packet identifier stands; only QoS 1 and 2 have one.
    packet_id_at: Option<usize>,
    payload_len: usize,
}

impl PublishHead {
    /// The head of a PUBLISH that will be followed by `payload_len` bytes of payload. The
    /// sum, [`Self::frame_len`], must not exceed what the receiver takes.
    #[must_use]
    pub fn new(
        version: Version,
        with_packet_id: bool,
        topic: &str,
        properties: Option<&PublishProperties>,
        payload_len: usize,
    ) -> Self {
        let packet_id = with_packet_id.then_some(0);
        let mut length = Length::default();
        publish_head(version, topic, packet_id, properties, &mut length);
        let mut bytes = BytesMut::with_capacity(length.0 + 5);
        bytes.u8(PUBLISH);
        bytes.varint(length.0 + payload_len);
        let header_len = bytes.len();
        publish_head(version, topic, packet_id, properties, &mut bytes);
        let topic_len = usize::from(u16::from_be_bytes([bytes[header_len], bytes[header_len + 1]]));
        Self {
            bytes: Box::from(&bytes[..]),
            packet_id_at: with_packet_id.then_some(header_len + 2 + topic_len),
            payload_len,
        }
    }

    /// Appends the head for one receiver. `packet_id` is for the layout with an identifier, where
    /// `qos` is not 0; the other layout ignores it and goes out with QoS 0 and no DUP.
    pub fn write(
        &self,
        dup: bool,
        qos: QoS,
        retain: bool,
        packet_id: Option<PacketId>,
        out: &mut BytesMut,
    ) {
        debug_assert_eq!(self.packet_id_at.is_some(), packet_id.is_some(), "layout and id");
        debug_assert_eq!(packet_id.is_some(), qos != QoS::AtMostOnce, "id and QoS");
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        out[start] |= u8::from(retain);
        if let (Some(at), Some(id)) = (self.packet_id_at, packet_id) {
            out[start] |= u8::from(dup) << 3 | (qos as u8) << 1;
            out[start + at..start + at + 2].copy_from_slice(&id.get().to_be_bytes());
        }
    }

    /// Bytes of the head.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the whole packet, to be held against a Maximum Packet Size.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.bytes.len() + self.payload_len
    }
}

const PUBLISH: u8 = 0x30;

fn first_byte(packet: &Packet) -> u8 {
    match packet {
        Packet::Connect(_) => 0x10,
        Packet::ConnAck(_) => 0x20,
        Packet::Publish(p) => {
            PUBLISH | u8::from(p.dup) << 3 | (p.qos as u8) << 1 | u8::from(p.retain)
        }
        Packet::PubAck(_) => 0x40,
        Packet::PubRec(_) => 0x50,
        Packet::PubRel(_) => 0x62,
        Packet::PubComp(_) => 0x70,
        Packet::Subscribe(_) => 0x82,
        Packet::SubAck(_) => 0x90,
        Packet::Unsubscribe(_) => 0xA2,
        Packet::UnsubAck(_) => 0xB0,
        Packet::PingReq => 0xC0,
        Packet::PingResp => 0xD0,
        Packet::Disconnect(_) => 0xE0,
        Packet::Auth(_) => 0xF0,
    }
}

fn body_len(packet: &Packet, version: Version) -> usize {
    let mut length = Length::default();
    body(packet, version, &mut length);
    length.0
}

fn frame_len_of(body_len: usize) -> usize {
    let mut length = Length(1);
    length.varint(body_len);
    length.0 + body_len
}

fn body(packet: &Packet, version: Version, out: &mut impl Sink) {
    match packet {
        Packet::Connect(packet) => connect(packet, out),
        Packet::ConnAck(packet) => connack(packet, version, out),
        Packet::Publish(packet) => {
            let packet_id = packet.packet_id.map(PacketId::get);
            publish_head(version, &packet.topic, packet_id, packet.properties.as_deref(), out);
            out.bytes(&packet.payload);
        }
        Packet::PubAck(packet)
        | Packet::PubRec(packet)
        | Packet::PubRel(packet)
        | Packet::PubComp(packet) => ack(packet, version, out),
        Packet::Subscribe(packet) => subscribe(packet, version, out),
        Packet::SubAck(packet) => suback(packet, version, out),
        Packet::Unsubscribe(packet) => unsubscribe(packet, version, out),
        Packet::UnsubAck(packet) => unsuback(packet, version, out),
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(packet) => disconnect(packet, version, out),
        Packet::Auth(packet) => auth(packet, out),
    }
}

/// The packet's own version decides: it is what the packet says.
fn connect(packet: &Connect, out: &mut impl Sink) {
    let (name, level) = match packet.version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    out.text(name);
    out.u8(level | u8::from(packet.bridge) << 7);
    out.u8(connect_flags(packet));
    out.u16(packet.keep_alive_secs);
    if packet.version == Version::V5 {
        write_block(out, Some(&packet.properties));
    }
    out.text(&packet.client_id);
    if let Some(will) = &packet.will {
        if packet.version == Version::V5 {
            write_block(out, Some(will));
        }
        out.text(&will.topic);
        out.binary(&will.payload);
    }
    if let Some(username) = &packet.username {
        out.text(username);
    }
    if let Some(password) = &packet.password {
        out.binary(password);
    }
}

fn connect_flags(packet: &Connect) -> u8 {
    let will = packet
        .will
        .as_ref()
        .map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    u8::from(packet.clean_start) << 1
        | will
        | u8::from(packet.password.is_some()) << 6
        | u8::from(packet.username.is_some()) << 7
}

fn connack(packet: &ConnAck, version: Version, out: &mut impl Sink) {
    // [MQTT-3.2.2-6]; 3.1 has no such flag.
    let present = packet.session_present && packet.reason == ReasonCode::Success;
    out.u8(u8::from(present && version != Version::V31));
    match version {
        Version::V31 | Version::V311 => {
            out.u8(packet.reason.return_code().unwrap_or(SERVER_UNAVAILABLE));
        }
        Version::V5 => {
            out.u8(packet.reason as u8);
            write_block(out, packet.properties.as_deref());
        }
    }
}

fn publish_head(
    version: Version,
    topic: &str,
    packet_id: Option<u16>,
    properties: Option<&PublishProperties>,
    out: &mut impl Sink,
) {
    out.text(topic);
    if let Some(id) = packet_id {
        out.u16(id);
    }
    if version == Version::V5 {
        write_block(out, properties);
    }
}

/// In the shortest form that says everything.
fn ack(packet: &Ack, version: Version, out: &mut impl Sink) {
    out.u16(packet.packet_id.get());
    let bare = packet.reason == ReasonCode::Success && packet.properties.is_none();
    if version != Version::V5 || bare {
        return;
    }
    out.u8(packet.reason as u8);
    if packet.properties.is_some() {
        write_block(out, packet.properties.as_deref());
    }
}

fn subscribe(packet: &Subscribe, version: Version, out: &mut impl Sink) {
    out.u16(packet.packet_id.get());
    if version == Version::V5 {
        write_block(out, Some(packet));
    }
    for entry in &packet.filters {
        out.text(&entry.filter);
        out.u8(match version {
            Version::V31 | Version::V311 => entry.options.qos as u8,
            Version::V5 => options_byte(entry.options),
        });
    }
}

fn options_byte(options: SubscribeOptions) -> u8 {
    options.qos as u8
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4
}

fn suback(packet: &SubAck, version: Version, out: &mut impl Sink) {
    out.u16(packet.packet_id.get());
    if version == Version::V5 {
        write_block(out, packet.properties.as_deref());
    }
    for &reason in &packet.reasons {
        let old = version != Version::V5;
        out.u8(if old && reason.is_error() { 0x80 } else { reason as u8 });
    }
}

fn unsubscribe(packet: &Unsubscribe, version: Version, out: &mut impl Sink) {
    out.u16(packet.packet_id.get());
    if version == Version::V5 {
        write_block(out, Some(packet));
    }
    for filter in &packet.filters {
        out.text(filter);
    }
}

fn unsuback(packet: &SubAck, version: Version, out: &mut impl Sink) {
    match version {
        Version::V31 | Version::V311 => out.u16(packet.packet_id.get()),
        Version::V5 => suback(packet, version, out),
    }
}

fn disconnect(packet: &Disconnect, version: Version, out: &mut impl Sink) {
    let bare = packet.reason == ReasonCode::Success && packet.properties.is_none();
    if version != Version::V5 || bare {
        return;
    }
    out.u8(packet.reason as u8);
    if packet.properties.is_some() {
        write_block(out, packet.properties.as_deref());
    }
}

fn auth(packet: &Auth, out: &mut impl Sink) {
    if packet.reason == ReasonCode::Success && packet.properties.is_none() {
        return;
    }
    out.u8(packet.reason as u8);
    write_block(out, packet.properties.as_deref());
}

impl WriteProperties for ConnectProperties {
    fn write(&self, out: &mut impl Sink) {
        let default = Self::default();
        let expiry = self.session_expiry_secs;
        let expiry = (expiry != default.session_expiry_secs).then_some(expiry);
        let receive_maximum = self.receive_maximum;
        let receive_maximum =
            (receive_maximum != default.receive_maximum).then_some(receive_maximum);
        let aliases = self.topic_alias_maximum;
        let aliases = (aliases != default.topic_alias_maximum).then_some(aliases);
        let response = self.request_response_information.then_some(true);
        let problem = (!self.request_problem_information).then_some(false);
        out.put_u32(P::SessionExpiryInterval, expiry);
        out.put_u16(P::ReceiveMaximum, receive_maximum);
        out.put_u32(P::MaximumPacketSize, self.maximum_packet_size);
        out.put_u16(P::TopicAliasMaximum, aliases);
        out.put_bool(P::RequestResponseInformation, response);
        out.put_bool(P::RequestProblemInformation, problem);
        out.put_text(P::AuthenticationMethod, self.authentication_method.as_ref());
        out.put_binary(P::AuthenticationData, self.authentication_data.as_ref());
        out.put_user(&self.user);
    }
}

impl WriteProperties for Will {
    fn write(&self, out: &mut impl Sink) {
        let delay = (self.delay_secs != 0).then_some(self.delay_secs);
        out.put_u32(P::WillDelayInterval, delay);
        if let Some(properties) = &self.properties {
            message_properties(properties, out);
        }
    }
}

impl WriteProperties for ConnAckProperties {
    fn write(&self, out: &mut impl Sink) {
        // QoS 2 is said by leaving the property out.
        let maximum_qos = match self.maximum_qos {
            Some(QoS::AtMostOnce) => Some(false),
            Some(QoS::AtLeastOnce) => Some(true),
            Some(QoS::ExactlyOnce) | None => None,
        };
        // The order is free. This is mosquitto's, for clients that know no other CONNACK.
        out.put_u32(P::SessionExpiryInterval, self.session_expiry_secs);
        out.put_u16(P::TopicAliasMaximum, self.topic_alias_maximum);
        out.put_text(P::AssignedClientIdentifier, self.assigned_client_id.as_ref());
        out.put_u16(P::ServerKeepAlive, self.server_keep_alive_secs);
        out.put_bool(P::RetainAvailable, self.retain_available);
        out.put_bool(P::MaximumQoS, maximum_qos);
        out.put_u32(P::MaximumPacketSize, self.maximum_packet_size);
        out.put_u16(P::ReceiveMaximum, self.receive_maximum);
        out.put_text(P::ReasonString, self.reason_string.as_ref());
        out.put_user(&self.user);
        out.put_bool(P::WildcardSubscriptionAvailable, self.wildcard_subscription_available);
        out.put_bool(P::SubscriptionIdentifierAvailable, self.subscription_ids_available);
        out.put_bool(P::SharedSubscriptionAvailable, self.shared_subscription_available);
        out.put_text(P::ResponseInformation, self.response_information.as_ref());
        out.put_text(P::ServerReference, self.server_reference.as_ref());
        out.put_text(P::AuthenticationMethod, self.authentication_method.as_ref());
        out.put_binary(P::AuthenticationData, self.authentication_data.as_ref());
    }
}

impl WriteProperties for PublishProperties {
    fn write(&self, out: &mut impl Sink) {
        out.put_u16(P::TopicAlias, self.topic_alias);
        out.put_subscription_ids(&self.subscription_ids);
        message_properties(self, out);
    }
}

/// What a Will and a PUBLISH have in common.
fn message_properties(properties: &PublishProperties, out: &mut impl Sink) {
    out.put_bool(P::PayloadFormatIndicator, properties.payload_is_utf8);
    out.put_u32(P::MessageExpiryInterval, properties.message_expiry_secs);
    out.put_text(P::ContentType, properties.content_type.as_ref());
    out.put_text(P::ResponseTopic, properties.response_topic.as_ref());
    out.put_binary(P::CorrelationData, properties.correlation_data.as_ref());
    out.put_user(&properties.user);
}

impl WriteProperties for ReasonProperties {
    fn write(&self, out: &mut impl Sink) {
        out.put_text(P::ReasonString, self.reason_string.as_ref());
        out.put_user(&self.user);
    }
}

impl WriteProperties for Subscribe {
    fn write(&self, out: &mut impl Sink) {
        out.put_subscription_ids(self.subscription_id.as_slice());
        out.put_user(&self.user);
    }
}

impl WriteProperties for Unsubscribe {
    fn write(&self, out: &mut impl Sink) {
        out.put_user(&self.user);
    }
}

impl WriteProperties for DisconnectProperties {
    fn write(&self, out: &mut impl Sink) {
        out.put_u32(P::SessionExpiryInterval, self.session_expiry_secs);
        out.put_text(P::ReasonString, self.reason_string.as_ref());
        out.put_user(&self.user);
        out.put_text(P::ServerReference, self.server_reference.as_ref());
    }
}

impl WriteProperties for AuthProperties {
    fn write(&self, out: &mut impl Sink) {
        out.put_text(P::AuthenticationMethod, self.authentication_method.as_ref());
        out.put_binary(P::AuthenticationData, self.authentication_data.as_ref());
        out.put_text(P::ReasonString, self.reason_string.as_ref());
        out.put_user(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use bytestring::ByteString;

    use super::*;
    use crate::mqtt::packet::Publish;

    fn publish(payload_len: usize) -> Packet {
        Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: ByteString::from_static("t"),
            packet_id: None,
            properties: None,
            payload: Bytes::from(vec![0; payload_len]),
        })
    }

    #[test]
    fn what_no_length_can_express_is_not_written() {
        let mut out = BytesMut::new();
        let packet = publish(VARINT_MAX - 2);
        encode(&packet, Version::V311, &mut out);
        assert_eq!(out.len(), 0);
        assert!(encoded_len(&packet, Version::V311) > VARINT_MAX + 5);
        let head = PublishHead::new(Version::V311, false, "t", None, VARINT_MAX - 2);
        assert_eq!(head.frame_len(), encoded_len(&packet, Version::V311));
    }

    #[test]
    fn acknowledgements_take_their_shortest_form() {
        let packet_id = PacketId::new(7).unwrap();
        let lens = [(ReasonCode::Success, 4), (ReasonCode::QuotaExceeded, 5)];
        for (reason, len) in lens {
            let packet = Packet::PubAck(Ack { packet_id, reason, properties: None });
            assert_eq!(encoded_len(&packet, Version::V5), len);
            assert_eq!(encoded_len(&packet, Version::V311), 4);
        }
    }
}
