//! CONNECT and CONNACK.

use bytes::Bytes;

use super::{Tolerance, reason_code};
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::{
    ConnAck, ConnAckProperties, Connect, ConnectProperties, PublishProperties, QoS, Version, Will,
};
use crate::mqtt::property::{self, Properties};
use crate::mqtt::reason::{self, ReasonCode};
use crate::mqtt::wire::Cursor;

const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

/// Reads a CONNECT, which itself says what version it is. `header_flags` are judged here because
/// 3.1 does not forbid them.
pub(super) fn connect(
    cursor: &mut Cursor,
    header_flags: u8,
    tolerance: Tolerance,
) -> Result<Connect, DecodeError> {
    let (version, bridge) = protocol(cursor, tolerance)?;
    if version != Version::V31 && header_flags != 0 {
        return Err(DecodeError::HeaderFlags);
    }
    let flags = cursor.u8()?;
    check_flags(version, flags, tolerance)?;
    let keep_alive_secs = cursor.u16()?;
    let properties = match version {
        Version::V31 | Version::V311 => ConnectProperties::default(),
        Version::V5 => Properties::read(cursor, property::CONNECT)?
            .map(Properties::into_connect)
            .unwrap_or_default(),
    };
    let client_id = cursor.text()?;
    let will = if flags & WILL != 0 { Some(will(cursor, version, flags)?) } else { None };
    // 3.1 let a client announce them and send nothing.
    let left_out = |cursor: &Cursor| {
        tolerance.missing_user_name && version == Version::V31 && cursor.is_empty()
    };
    let has_username = flags & USERNAME != 0 && !left_out(cursor);
    let username = if has_username { Some(cursor.text()?) } else { None };
    let has_password = flags & PASSWORD != 0 && !left_out(cursor);
    let password = if has_password { Some(cursor.binary()?) } else { None };
    let clean_start = flags & CLEAN_START != 0;
    Ok(Connect {
        version,
        bridge,
        clean_start,
        keep_alive_secs,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

/// The version alone.
pub(super) fn version(cursor: &mut Cursor) -> Option<Version> {
    protocol(cursor, Tolerance::default()).ok().map(|(version, _bridge)| version)
}

/// Name and level belong together: level 3 is `MQIsdp`, 4 and 5 are `MQTT`. Beside the version,
/// whether the client calls itself a bridge.
fn protocol(cursor: &mut Cursor, tolerance: Tolerance) -> Result<(Version, bool), DecodeError> {
    let name: Bytes = cursor.binary()?;
    let old = match &name[..] {
        b"MQTT" => false,
        b"MQIsdp" => true,
        _ => return Err(DecodeError::ProtocolName),
    };
    match (old, cursor.u8()?) {
        (true, 3) => Ok((Version::V31, false)),
        (false, 4) => Ok((Version::V311, false)),
        (false, 5) => Ok((Version::V5, false)),
        (true, 0x83) if tolerance.bridge_bit => Ok((Version::V31, true)),
        (false, 0x84) if tolerance.bridge_bit => Ok((Version::V311, true)),
        (_, level) => Err(DecodeError::ProtocolLevel(level)),
    }
}

fn check_flags(version: Version, flags: u8, tolerance: Tolerance) -> Result<(), DecodeError> {
    // 3.1 leaves the reserved bit unused and disregards Will QoS and Retain without a Will.
    if version != Version::V31 {
        if flags & RESERVED != 0 {
            return Err(DecodeError::ConnectFlags); // [MQTT-3.1.2-3]
        }
        if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
            return Err(DecodeError::WillFlags); // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
        }
    }
    let alone = version != Version::V5 && flags & PASSWORD != 0 && flags & USERNAME == 0;
    if alone && !tolerance.password_without_user_name {
        return Err(DecodeError::PasswordWithoutUsername); // [MQTT-3.1.2-22] of 3.1.1
    }
    Ok(())
}

fn will(cursor: &mut Cursor, version: Version, flags: u8) -> Result<Will, DecodeError> {
    let qos = QoS::from_bits((flags & WILL_QOS) >> 3).ok_or(DecodeError::QoS)?;
    let mut properties = match version {
        Version::V31 | Version::V311 => None,
        Version::V5 => Properties::read(cursor, property::WILL)?,
    };
    let delay_secs = properties.as_mut().and_then(|p| p.will_delay_secs.take()).unwrap_or(0);
    Ok(Will {
        qos,
        retain: flags & WILL_RETAIN != 0,
        delay_secs,
        topic: cursor.text()?,
        payload: cursor.binary()?,
        properties: properties.and_then(Properties::into_publish),
    })
}

/// Reads a CONNACK.
pub(super) fn connack(cursor: &mut Cursor, version: Version) -> Result<ConnAck, DecodeError> {
    let flags = cursor.u8()?;
    let code = cursor.u8()?;
    let (reason, properties) = match version {
        Version::V31 | Version::V311 => {
            let reason = ReasonCode::from_return_code(code);
            (reason.ok_or(DecodeError::ReasonCode(code))?, None)
        }
        Version::V5 => {
            let reason = reason_code(code, reason::CONNACK)?;
            (reason, Properties::read(cursor, property::CONNACK)?)
        }
    };
    // 3.1 has no Session Present: its byte is reserved and not used.
    let session_present = version != Version::V31 && flags & 1 != 0;
    if version != Version::V31 && flags & 0xFE != 0 {
        return Err(DecodeError::ConnAckFlags); // [MQTT-3.2.2-1]
    }
    if session_present && reason != ReasonCode::Success {
        return Err(DecodeError::SessionPresentOnRefusal); // [MQTT-3.2.2-6]
    }
    let properties = properties.map(|p| Box::new(p.into_connack()));
    Ok(ConnAck { session_present, reason, properties })
}

impl Properties {
    fn into_connect(self) -> ConnectProperties {
        let default = ConnectProperties::default();
        ConnectProperties {
            session_expiry_secs: self.session_expiry_secs.unwrap_or(default.session_expiry_secs),
            receive_maximum: self.receive_maximum.unwrap_or(default.receive_maximum),
            maximum_packet_size: self.maximum_packet_size,
            topic_alias_maximum: self.topic_alias_maximum.unwrap_or(default.topic_alias_maximum),
            request_response_information: self
                .request_response_information
                .unwrap_or(default.request_response_information),
            request_problem_information: self
                .request_problem_information
                .unwrap_or(default.request_problem_information),
            authentication_method: self.authentication_method,
            authentication_data: self.authentication_data,
            user: self.user,
        }
    }

    fn into_connack(self) -> ConnAckProperties {
        ConnAckProperties {
            session_expiry_secs: self.session_expiry_secs,
            receive_maximum: self.receive_maximum,
            maximum_qos: self.maximum_qos,
            retain_available: self.retain_available,
            maximum_packet_size: self.maximum_packet_size,
            assigned_client_id: self.assigned_client_id,
            topic_alias_maximum: self.topic_alias_maximum,
            reason_string: self.reason_string,
            user: self.user,
            wildcard_subscription_available: self.wildcard_subscription_available,
            subscription_ids_available: self.subscription_ids_available,
            shared_subscription_available: self.shared_subscription_available,
            server_keep_alive_secs: self.server_keep_alive_secs,
            response_information: self.response_information,
            server_reference: self.server_reference,
            authentication_method: self.authentication_method,
            authentication_data: self.authentication_data,
        }
    }

    /// `None` where every property has its default.
    pub(super) fn into_publish(self) -> Option<Box<PublishProperties>> {
        let properties = PublishProperties {
            payload_is_utf8: self.payload_is_utf8,
            message_expiry_secs: self.message_expiry_secs,
            topic_alias: self.topic_alias,
            response_topic: self.response_topic,
            correlation_data: self.correlation_data,
            subscription_ids: self.subscription_ids,
            content_type: self.content_type,
            user: self.user,
        };
        (properties != PublishProperties::default()).then(|| Box::new(properties))
    }
}
