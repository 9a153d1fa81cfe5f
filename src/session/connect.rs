//! What a CONNECT asks for, judged and with the defaults of its version filled in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use super::{SessionLimits, Violation};
use crate::mqtt::{ConnAck, ConnAckProperties, Connect, Packet, QoS, ReasonCode, Version, Will};

/// A CONNECT that is in order.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Protocol of the connection.
    pub version: Version,
    /// A bridge of another broker.
    pub bridge: bool,
    /// The client's own id, or the one it gets.
    pub client_id: ByteString,
    /// The id is the broker's choice; version 5 is told `[MQTT-3.1.3-7]`.
    pub assigned: bool,
    /// An older session is to be discarded `[MQTT-3.1.2-4]`.
    pub clean_start: bool,
    /// How long the session outlives the connection.
    pub expiry: Duration,
    /// The client asked for another expiry and must be told.
    pub expiry_changed: bool,
    /// Seconds; 0 is none.
    pub keep_alive_secs: u16,
    /// The keep alive is the broker's choice and the client must be told `[MQTT-3.1.2-21]`.
    pub keep_alive_changed: bool,
    /// Published when the connection ends without a proper DISCONNECT.
    pub will: Option<Box<Will>>,
    /// QoS 1 and 2 messages that may be in flight towards the client.
    pub window: u16,
    /// Largest packet the client takes, in bytes `[MQTT-3.1.2-24]`.
    pub packet_bytes_max: usize,
    /// Topic aliases that may be set up towards the client.
    pub topic_alias_max: u16,
    /// Response Information, for a client that asks `[MQTT-3.1.2-28]`.
    pub response_information: Option<ByteString>,
    /// The client takes reason strings in acknowledgements `[MQTT-3.1.2-29]`.
    pub problem_information: bool,
    /// The method by which the client has shown who it is; it may do so again.
    pub authentication_method: Option<ByteString>,
    /// Highest QoS of a PUBLISH on this connection, as the CONNACK says `[MQTT-3.2.2-9]`.
    pub qos_max: QoS,
    /// What stands before every topic of this connection; a session is of one mount point.
    pub mount_point: Option<Arc<str>>,
}

impl Opening {
    /// Judges a CONNECT. `fresh_id` makes an id for a client without one. That the client is who
    /// it says it is has been shown before.
    ///
    /// # Errors
    /// The rule that the CONNECT breaks.
    pub fn new(
        connect: &Connect,
        limits: &SessionLimits,
        fresh_id: impl FnOnce() -> ByteString,
    ) -> Result<Self, Violation> {
        let assigned = connect.client_id.is_empty();
        connect.check()?;
        if assigned && !limits.rules.empty_client_id {
            return Err(Violation::ClientIdMissing);
        }
        if connect.client_id.len() > limits.client_id_bytes_max {
            return Err(Violation::ClientIdTooLong);
        }
        let retains = connect.will.as_ref().is_some_and(|will| will.retain);
        if retains && !limits.rules.retain_available {
            return Err(Violation::RetainNotSupported); // [MQTT-3.2.2-13]
        }
        if limits.rules.keep_alive_binds && exceeds_keep_alive(connect, limits) {
            return Err(Violation::KeepAliveTooLong);
        }
        let wished = wished_expiry(connect, limits);
        let expiry = wished.min(limits.expiry_max);
        let keep_alive_secs = bounded_keep_alive(connect, limits);
        let client_id = if assigned { fresh_id() } else { connect.client_id.clone() };
        Ok(Self {
            version: connect.version,
            bridge: connect.bridge,
            response_information: response_information(connect, &client_id, limits),
            client_id,
            assigned,
            clean_start: connect.clean_start,
            expiry,
            expiry_changed: expiry != wished,
            keep_alive_secs,
            keep_alive_changed: keep_alive_secs != connect.keep_alive_secs,
            will: connect.will.clone().map(Box::new),
            window: connect.properties.receive_maximum.min(limits.in_flight_max),
            packet_bytes_max: connect
                .properties
                .maximum_packet_size
                .map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            topic_alias_max: connect
                .properties
                .topic_alias_maximum
                .min(limits.topic_alias_outbound_max),
            problem_information: connect.properties.request_problem_information,
            authentication_method: connect.properties.authentication_method.clone(),
            qos_max: QoS::ExactlyOnce,
            mount_point: None,
        })
    }

    /// The CONNACK that accepts the client, with the last data of its authentication method
    /// `[MQTT-4.12.0-5]`.
    #[must_use]
    pub fn accepted(
        &self,
        session_present: bool,
        limits: &SessionLimits,
        authentication_data: Option<Bytes>,
    ) -> Packet {
        let properties = (self.version == Version::V5).then(|| {
            Box::new(ConnAckProperties {
                session_expiry_secs: self.expiry_changed.then(|| seconds(self.expiry)),
                receive_maximum: Some(limits.receive_maximum),
                maximum_qos: (self.qos_max < QoS::ExactlyOnce).then_some(self.qos_max),
                maximum_packet_size: announced(limits.packet_bytes_max),
                topic_alias_maximum: Some(limits.topic_alias_max),
                assigned_client_id: self.assigned.then(|| self.client_id.clone()),
                retain_available: (!limits.rules.retain_available).then_some(false),
                response_information: self.response_information.clone(),
                server_keep_alive_secs: self.keep_alive_changed.then_some(self.keep_alive_secs),
                authentication_method: self.authentication_method.clone(),
                authentication_data,
                ..ConnAckProperties::default()
            })
        });
        let reason = ReasonCode::Success;
        Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties }))
    }
}

/// The CONNACK that refuses a client, with a text for people where the version has room for one.
#[must_use]
pub fn refused(version: Version, reason: ReasonCode, text: &str) -> Option<Packet> {
    if version != Version::V5 {
        // `[MQTT-3.2.2-6]` of 3.1.1
        reason.return_code()?;
    }
    let properties = (version == Version::V5).then(|| {
        Box::new(ConnAckProperties { reason_string: Some(text.into()), ..Default::default() })
    });
    Some(Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties })))
}

fn wished_expiry(connect: &Connect, limits: &SessionLimits) -> Duration {
    match connect.version {
        Version::V31 | Version::V311 if connect.clean_start => Duration::ZERO,
        // Without clean session the standard sets no end; the broker's bound is one.
        Version::V31 | Version::V311 => limits.expiry_max,
        Version::V5 => expiry(connect.properties.session_expiry_secs),
    }
}

/// Session expiry as version 5 writes it: the highest number is "never" (3.1.2.11.2).
pub(super) fn expiry(secs: u32) -> Duration {
    if secs == u32::MAX { Duration::MAX } else { Duration::from_secs(u64::from(secs)) }
}

fn seconds(expiry: Duration) -> u32 {
    u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX)
}

/// A bound above what a packet can be long is none to speak of; some clients take such a number for
/// a malformed packet.
fn announced(packet_bytes_max: u32) -> Option<u32> {
    (packet_bytes_max <= REMAINING_LENGTH_MAX).then_some(packet_bytes_max)
}

/// Largest Remaining Length (1.5.5).
const REMAINING_LENGTH_MAX: u32 = 268_435_455;

/// Response Information is for those who ask `[MQTT-3.1.2-28]`.
fn response_information(
    connect: &Connect,
    client_id: &str,
    limits: &SessionLimits,
) -> Option<ByteString> {
    let text = &limits.rules.response_information;
    // A basis for topic names: no wildcard may come in by the client id.
    let plain = !text.contains("%c") || !client_id.contains(['+', '#']);
    let asked = connect.properties.request_response_information && !text.is_empty();
    (asked && plain).then(|| text.replace("%c", client_id).into())
}

fn exceeds_keep_alive(connect: &Connect, limits: &SessionLimits) -> bool {
    let (asked, most) = (connect.keep_alive_secs, limits.keep_alive_secs_max);
    connect.version < Version::V5 && most < u16::MAX && (asked == 0 || asked > most)
}

fn bounded_keep_alive(connect: &Connect, limits: &SessionLimits) -> u16 {
    let asked = connect.keep_alive_secs;
    match connect.version {
        // Only version 5 can be told of another keep alive; older clients keep their own.
        Version::V31 | Version::V311 => asked,
        Version::V5 if asked == 0 && limits.keep_alive_secs_max < u16::MAX => {
            limits.keep_alive_secs_max
        }
        Version::V5 => asked.min(limits.keep_alive_secs_max),
    }
}
