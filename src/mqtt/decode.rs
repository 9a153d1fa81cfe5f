//! Bytes to packets: strict, without copying, and without panicking whatever the bytes.
//!
//! The connection collects bytes until [`frame_len`] knows how long the next packet is, then
//! gives that many to [`decode`]. Text and payloads of the packet are slices of that frame.

mod connect;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

pub use super::error::DecodeError;
use super::packet::{
    Ack, Auth, AuthProperties, Connect, Disconnect, DisconnectProperties, Packet, Publish, QoS,
    ReasonProperties, RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscribeOptions,
    Unsubscribe, Version,
};
use super::property::{self, Properties};
use super::reason::{self, ReasonCode};
use super::topic;
use super::wire::{self, Cursor};

/// Which side a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The side that sent the CONNECT.
    Client,
    /// The broker.
    Server,
}

/// Length in bytes of the packet that begins `buf`, fixed header included; `None` as long as the
/// fixed header is incomplete. The length is what the peer claims: compare it with the limit
/// before any memory is set aside for it.
///
/// # Errors
/// Packet type 0, or a Remaining Length that is too long or not minimal.
pub fn frame_len(buf: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some((&first, rest)) = buf.split_first() else { return Ok(None) };
    if first >> 4 == 0 {
        return Err(DecodeError::PacketType);
    }
    let remaining = wire::varint(rest)?;
    Ok(remaining.map(|(len, len_bytes)| 1 + len_bytes + len))
}

/// What is overlooked in the CONNECTs of devices that cannot be mended (`[mqtt]`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// The highest bit of the protocol level, by which bridges of mosquitto make themselves known
    /// to 3.1 and 3.1.1 brokers.
    pub bridge_bit: bool,
    /// 3.1 and 3.1.1: a password without a user name.
    pub password_without_user_name: bool,
    /// 3.1: user name or password announced and not there.
    pub missing_user_name: bool,
}

/// Decodes `frame`, which is one whole CONNECT.
///
/// # Errors
/// [`DecodeError`] says which rule the client broke, beyond what is tolerated.
pub fn decode_connect(frame: Bytes, tolerance: Tolerance) -> Result<Connect, DecodeError> {
    let (mut cursor, kind, flags) = open(frame)?;
    if kind != CONNECT {
        return Err(DecodeError::PacketType);
    }
    let connect = connect::connect(&mut cursor, flags, tolerance)?;
    cursor.finish()?;
    Ok(connect)
}

/// The version that a CONNECT names, whatever is wrong with the rest of it: it decides how the
/// client can be told.
#[must_use]
pub fn version_of_connect(frame: Bytes) -> Option<Version> {
    let (mut cursor, kind, _flags) = open(frame).ok()?;
    if kind == CONNECT { connect::version(&mut cursor) } else { None }
}

/// Decodes `frame`, which is one whole packet. `version` is what the connection speaks; a CONNECT
/// says itself what it is.
///
/// # Errors
/// [`DecodeError`] says which rule the sender broke.
pub fn decode(frame: Bytes, version: Version, from: Sender) -> Result<Packet, DecodeError> {
    let (mut cursor, kind, flags) = open(frame)?;
    check_type(kind, version, from)?;
    check_header_flags(kind, flags, version)?;
    let packet = body(kind, flags, &mut cursor, version, from)?;
    cursor.finish()?;
    Ok(packet)
}

/// Type and flags of a packet, and what stands behind its fixed header.
fn open(frame: Bytes) -> Result<(Cursor, u8, u8), DecodeError> {
    let len = frame_len(&frame)?.ok_or(DecodeError::Truncated)?;
    if frame.len() != len {
        let short = frame.len() < len;
        return Err(if short { DecodeError::Truncated } else { DecodeError::TrailingBytes });
    }
    let (kind, flags) = (frame[0] >> 4, frame[0] & 0x0F);
    let header_len = 2 + frame[1..].iter().take_while(|&&byte| byte & 0x80 != 0).count();
    Ok((Cursor::new(frame, header_len), kind, flags))
}

const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const UNSUBACK: u8 = 11;
const PINGREQ: u8 = 12;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

fn body(
    kind: u8,
    flags: u8,
    cursor: &mut Cursor,
    version: Version,
    from: Sender,
) -> Result<Packet, DecodeError> {
    Ok(match kind {
        CONNECT => {
            let strict = Tolerance::default();
            Packet::Connect(Box::new(connect::connect(cursor, flags, strict)?))
        }
        CONNACK => Packet::ConnAck(Box::new(connect::connack(cursor, version)?)),
        PUBLISH => Packet::Publish(publish(cursor, flags, version, from)?),
        PUBACK => Packet::PubAck(ack(cursor, version, reason::RECEIPT)?),
        PUBREC => Packet::PubRec(ack(cursor, version, reason::RECEIPT)?),
        PUBREL => Packet::PubRel(ack(cursor, version, reason::RELEASE)?),
        PUBCOMP => Packet::PubComp(ack(cursor, version, reason::RELEASE)?),
        SUBSCRIBE => Packet::Subscribe(subscribe(cursor, version)?),
        SUBACK => Packet::SubAck(suback(cursor, version)?),
        UNSUBSCRIBE => Packet::Unsubscribe(unsubscribe(cursor, version)?),
        UNSUBACK => Packet::UnsubAck(unsuback(cursor, version)?),
        PINGREQ => Packet::PingReq,
        PINGRESP => Packet::PingResp,
        DISCONNECT => Packet::Disconnect(disconnect(cursor, version)?),
        AUTH => Packet::Auth(auth(cursor)?),
        _ => return Err(DecodeError::PacketType),
    })
}

fn check_type(kind: u8, version: Version, from: Sender) -> Result<(), DecodeError> {
    let v5 = version == Version::V5;
    let fits = match kind {
        CONNECT | SUBSCRIBE | UNSUBSCRIBE | PINGREQ => from == Sender::Client,
        CONNACK | SUBACK | UNSUBACK | PINGRESP => from == Sender::Server,
        DISCONNECT => v5 || from == Sender::Client,
        AUTH if !v5 => return Err(DecodeError::PacketType),
        _ => true,
    };
    if fits { Ok(()) } else { Err(DecodeError::WrongDirection) }
}

/// `[MQTT-2.1.3-1]`. In 3.1 every packet has DUP, QoS and RETAIN bits, some of them without
/// meaning, none of them forbidden (case P6).
fn check_header_flags(kind: u8, flags: u8, version: Version) -> Result<(), DecodeError> {
    let wanted = match kind {
        CONNECT | PUBLISH => return Ok(()), // judged with the rest of the packet
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    if flags == wanted || version == Version::V31 { Ok(()) } else { Err(DecodeError::HeaderFlags) }
}

fn publish(
    cursor: &mut Cursor,
    flags: u8,
    version: Version,
    from: Sender,
) -> Result<Publish, DecodeError> {
    let qos = QoS::from_bits(flags >> 1 & 0b11).ok_or(DecodeError::QoS)?;
    let mut dup = flags & 0b1000 != 0;
    if dup && qos == QoS::AtMostOnce {
        if version != Version::V31 {
            return Err(DecodeError::DupWithQoS0); // [MQTT-3.3.1-2]
        }
        dup = false; // 3.1 gives it no meaning there
    }
    let topic = cursor.text()?;
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(cursor.packet_id()?) };
    let properties = match version {
        Version::V31 | Version::V311 => None,
        Version::V5 => Properties::read(cursor, property::PUBLISH)?,
    };
    check_publish(&topic, version, properties.as_ref(), from)?;
    Ok(Publish {
        dup,
        qos,
        retain: flags & 0b0001 != 0,
        topic,
        packet_id,
        properties: properties.and_then(Properties::into_publish),
        payload: cursor.rest(),
    })
}

fn check_publish(
    name: &ByteString,
    version: Version,
    properties: Option<&Properties>,
    from: Sender,
) -> Result<(), DecodeError> {
    if version != Version::V5 || !name.is_empty() {
        topic::validate_name(name).map_err(DecodeError::TopicName)?;
    } else if properties.is_none_or(|p| p.topic_alias.is_none()) {
        return Err(DecodeError::TopicMissing);
    }
    let Some(properties) = properties else { return Ok(()) };
    if let Some(response_topic) = &properties.response_topic {
        topic::validate_name(response_topic).map_err(DecodeError::ResponseTopic)?;
    }
    if from == Sender::Client && !properties.subscription_ids.is_empty() {
        return Err(DecodeError::SubscriptionIdFromClient); // [MQTT-3.3.4-6]
    }
    Ok(())
}

/// PUBACK and its kin: two bytes; in version 5 a reason and properties may follow.
fn ack(cursor: &mut Cursor, version: Version, allowed: &[ReasonCode]) -> Result<Ack, DecodeError> {
    let packet_id = cursor.packet_id()?;
    if version != Version::V5 || cursor.is_empty() {
        return Ok(Ack { packet_id, reason: ReasonCode::Success, properties: None });
    }
    let reason = reason_code(cursor.u8()?, allowed)?;
    let properties = if cursor.is_empty() { None } else { reason_properties(cursor)? };
    Ok(Ack { packet_id, reason, properties })
}

fn subscribe(cursor: &mut Cursor, version: Version) -> Result<Subscribe, DecodeError> {
    let packet_id = cursor.packet_id()?;
    let properties = match version {
        Version::V31 | Version::V311 => Properties::default(),
        Version::V5 => Properties::read(cursor, property::SUBSCRIBE)?.unwrap_or_default(),
    };
    let mut filters = SmallVec::new();
    while !cursor.is_empty() {
        let filter = filter(cursor, version)?;
        let options = subscribe_options(cursor.u8()?, version)?;
        if options.no_local && topic::split_shared(&filter).0.is_some() {
            return Err(DecodeError::NoLocalShared); // [MQTT-3.8.3-4]
        }
        check_count(filters.len())?;
        filters.push(SubscribeFilter { filter, options });
    }
    if filters.is_empty() {
        return Err(DecodeError::NoEntries); // [MQTT-3.8.3-2]
    }
    let subscription_id = properties.subscription_ids.first().copied();
    Ok(Subscribe { packet_id, subscription_id, user: properties.user, filters })
}

/// Topic filters in one packet (cases D11, P20).
const FILTERS_MAX: usize = 1 << 14;

fn check_count(filters: usize) -> Result<(), DecodeError> {
    if filters < FILTERS_MAX { Ok(()) } else { Err(DecodeError::TooManyFilters) }
}

fn filter(cursor: &mut Cursor, version: Version) -> Result<ByteString, DecodeError> {
    let filter = cursor.text()?;
    let valid = match version {
        Version::V31 | Version::V311 => topic::validate_filter(&filter),
        Version::V5 => topic::validate_shared(&filter),
    };
    valid.map_err(DecodeError::TopicFilter)?;
    Ok(filter)
}

fn subscribe_options(byte: u8, version: Version) -> Result<SubscribeOptions, DecodeError> {
    let reserved = match version {
        Version::V31 => 0, // not used, not forbidden
        Version::V311 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if byte & reserved != 0 {
        return Err(DecodeError::SubscribeOptions); // [MQTT-3.8.3-5]
    }
    let qos = QoS::from_bits(byte & 0b11).ok_or(DecodeError::QoS)?;
    if version != Version::V5 {
        return Ok(SubscribeOptions { qos, ..SubscribeOptions::default() });
    }
    let retain_handling = match byte >> 4 {
        0 => RetainHandling::Always,
        1 => RetainHandling::IfNew,
        2 => RetainHandling::Never,
        _ => return Err(DecodeError::RetainHandling),
    };
    let (no_local, retain_as_published) = (byte & 0b0100 != 0, byte & 0b1000 != 0);
    Ok(SubscribeOptions { qos, no_local, retain_as_published, retain_handling })
}

fn suback(cursor: &mut Cursor, version: Version) -> Result<SubAck, DecodeError> {
    match version {
        Version::V31 | Version::V311 => {
            let packet_id = cursor.packet_id()?;
            let reasons = reason_codes(cursor, reason::SUBACK_V3)?;
            Ok(SubAck { packet_id, properties: None, reasons })
        }
        Version::V5 => reasons_v5(cursor, reason::SUBACK),
    }
}

fn unsuback(cursor: &mut Cursor, version: Version) -> Result<SubAck, DecodeError> {
    match version {
        Version::V31 | Version::V311 => {
            let packet_id = cursor.packet_id()?;
            Ok(SubAck { packet_id, properties: None, reasons: SmallVec::new() })
        }
        Version::V5 => reasons_v5(cursor, reason::UNSUBACK),
    }
}

fn reasons_v5(cursor: &mut Cursor, allowed: &[ReasonCode]) -> Result<SubAck, DecodeError> {
    let packet_id = cursor.packet_id()?;
    let properties = reason_properties(cursor)?;
    Ok(SubAck { packet_id, properties, reasons: reason_codes(cursor, allowed)? })
}

fn unsubscribe(cursor: &mut Cursor, version: Version) -> Result<Unsubscribe, DecodeError> {
    let packet_id = cursor.packet_id()?;
    let user = match version {
        Version::V31 | Version::V311 => Vec::new(),
        Version::V5 => {
            Properties::read(cursor, property::UNSUBSCRIBE)?.map(|p| p.user).unwrap_or_default()
        }
    };
    let mut filters = SmallVec::new();
    while !cursor.is_empty() {
        check_count(filters.len())?;
        filters.push(filter(cursor, version)?);
    }
    if filters.is_empty() {
        return Err(DecodeError::NoEntries); // [MQTT-3.10.3-2]
    }
    Ok(Unsubscribe { packet_id, user, filters })
}

/// DISCONNECT: in version 5 the reason may be left out, and the properties behind it.
fn disconnect(cursor: &mut Cursor, version: Version) -> Result<Disconnect, DecodeError> {
    if version != Version::V5 || cursor.is_empty() {
        return Ok(Disconnect { reason: ReasonCode::Success, properties: None });
    }
    let code = cursor.u8()?;
    let reason = reason_code(code, reason::DISCONNECT_CLIENT)
        .or_else(|_| reason_code(code, reason::DISCONNECT_SERVER))?;
    let properties =
        if cursor.is_empty() { None } else { Properties::read(cursor, property::DISCONNECT)? };
    let properties = properties.map(|p| {
        Box::new(DisconnectProperties {
            session_expiry_secs: p.session_expiry_secs,
            reason_string: p.reason_string,
            user: p.user,
            server_reference: p.server_reference,
        })
    });
    Ok(Disconnect { reason, properties })
}

/// AUTH: empty means success without properties; with properties, the method is among them.
fn auth(cursor: &mut Cursor) -> Result<Auth, DecodeError> {
    if cursor.is_empty() {
        return Ok(Auth { reason: ReasonCode::Success, properties: None });
    }
    let reason = reason_code(cursor.u8()?, reason::AUTH)?;
    let properties = Properties::read(cursor, property::AUTH)?.unwrap_or_default();
    if properties.authentication_method.is_none() {
        return Err(DecodeError::AuthMethodMissing);
    }
    let properties = AuthProperties {
        authentication_method: properties.authentication_method,
        authentication_data: properties.authentication_data,
        reason_string: properties.reason_string,
        user: properties.user,
    };
    Ok(Auth { reason, properties: Some(Box::new(properties)) })
}

fn reason_properties(cursor: &mut Cursor) -> Result<Option<Box<ReasonProperties>>, DecodeError> {
    let properties = Properties::read(cursor, property::ACK)?;
    Ok(properties
        .map(|p| Box::new(ReasonProperties { reason_string: p.reason_string, user: p.user })))
}

/// One reason code for each filter of the request, so at least one.
fn reason_codes(
    cursor: &mut Cursor,
    allowed: &[ReasonCode],
) -> Result<SmallVec<[ReasonCode; 1]>, DecodeError> {
    if cursor.is_empty() {
        return Err(DecodeError::NoEntries);
    }
    cursor.rest().iter().map(|&byte| reason_code(byte, allowed)).collect()
}

fn reason_code(byte: u8, allowed: &[ReasonCode]) -> Result<ReasonCode, DecodeError> {
    let known = allowed.iter().find(|&&reason| reason as u8 == byte);
    known.copied().ok_or(DecodeError::ReasonCode(byte))
}
