//! `[limits]`: every bound of the broker by name.

use std::time::Duration;

use serde::Deserialize;

use crate::units;

/// The bounds. Counts and sizes are never zero in a configuration that passed
/// [`Config::validate`](super::Config::validate).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest control packet taken from a client, in bytes with its fixed header. Clients of
    /// version 5 are told; others are closed when they exceed it.
    #[serde(deserialize_with = "units::size")]
    pub max_packet_size: u32,
    /// QoS 1 and 2 messages under way to one client at once. The client's own Receive Maximum may
    /// lower it.
    pub max_inflight: u16,
    /// QoS 1 and 2 messages one client may have under way to the broker at once: the Receive
    /// Maximum of our CONNACK.
    pub receive_maximum: u16,
    /// Topic aliases one client of version 5 may set up; 0 switches them off.
    pub topic_alias_maximum: u16,
    /// Topic aliases the broker sets up towards one client of version 5 that takes any; 0 switches
    /// them off.
    pub topic_alias_maximum_outbound: u16,
    /// Messages that wait for one session beyond its in-flight window.
    pub max_queued_messages: usize,
    /// Bytes of payload, topic and properties that wait for one session.
    #[serde(deserialize_with = "units::size")]
    pub max_queued_bytes: usize,
    /// Longest keep alive a client may have, in whole seconds up to 65,535. Clients of version 5
    /// that ask for more, or for none, are given this.
    #[serde(deserialize_with = "units::duration")]
    pub max_keepalive: Duration,
    /// Levels of a topic name or filter below the first, that is, its slashes.
    pub max_topic_levels: usize,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Bytes of one session's topic filters; each level of a filter counts 256 more.
    #[serde(deserialize_with = "units::size")]
    pub max_subscription_bytes: usize,
    /// Length of a client identifier, in bytes.
    pub max_client_id_bytes: usize,
    /// From accept to a complete CONNECT, the TLS handshake included.
    #[serde(deserialize_with = "units::duration")]
    pub connect_timeout: Duration,
    /// Open connections, over all listeners.
    pub max_connections: usize,
    /// CONNECTs a second, over all listeners, in bursts of as many; 0 is no limit.
    pub connect_rate: u32,
    /// Bytes of the HTTP request that opens a WebSocket.
    #[serde(deserialize_with = "units::size")]
    pub max_websocket_handshake_bytes: usize,
    /// Sessions, connected or not.
    pub max_sessions: usize,
    /// How long a session may outlive its connection: what a persistent session of 3.1 and 3.1.1
    /// gets, and the most that a client of version 5 gets.
    #[serde(deserialize_with = "units::duration")]
    pub max_session_expiry: Duration,
    /// Retained messages.
    pub max_retained_messages: usize,
    /// Retained messages of one client.
    pub max_retained_per_client: usize,
    /// Bytes of all retained messages with their properties and topics; a topic counts 256 bytes
    /// for each level that no other has.
    #[serde(deserialize_with = "units::size")]
    pub max_retained_bytes: usize,
    /// Bytes that may wait for a slow client's socket.
    #[serde(deserialize_with = "units::size")]
    pub write_buffer: usize,
    /// How long connections get to finish when the broker stops.
    #[serde(deserialize_with = "units::duration")]
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet_size: 2_000_000,
            max_inflight: 20,
            receive_maximum: 20,
            topic_alias_maximum: 10,
            topic_alias_maximum_outbound: 10,
            max_queued_messages: 1_000,
            max_queued_bytes: 4 << 20,
            max_keepalive: Duration::from_secs(65_535),
            max_topic_levels: 200,
            max_subscriptions: 1_000,
            max_subscription_bytes: 4 << 20,
            max_client_id_bytes: 65_535,
            connect_timeout: Duration::from_secs(30),
            max_connections: 100_000,
            connect_rate: 5_000,
            max_websocket_handshake_bytes: 8_192,
            max_sessions: 250_000,
            max_session_expiry: Duration::from_secs(7 * 86_400),
            max_retained_messages: 100_000,
            max_retained_per_client: 10_000,
            max_retained_bytes: 256 << 20,
            write_buffer: 256 << 10,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// [`Limits::max_keepalive`] as it stands on the wire, in seconds.
    #[must_use]
    pub fn max_keepalive_secs(&self) -> u16 {
        u16::try_from(self.max_keepalive.as_secs()).unwrap_or(u16::MAX)
    }

    /// [`Limits::max_session_expiry`] as it stands on the wire, in seconds.
    #[must_use]
    pub fn max_session_expiry_secs(&self) -> u32 {
        u32::try_from(self.max_session_expiry.as_secs()).unwrap_or(u32::MAX)
    }

    /// What must not be zero, by key.
    pub(super) fn positive(&self) -> [(&'static str, bool); 19] {
        [
            ("max_packet_size", self.max_packet_size > 0),
            ("max_inflight", self.max_inflight > 0),
            ("receive_maximum", self.receive_maximum > 0),
            ("max_queued_messages", self.max_queued_messages > 0),
            ("max_queued_bytes", self.max_queued_bytes > 0),
            ("max_keepalive", self.max_keepalive.as_secs() > 0),
            ("max_topic_levels", self.max_topic_levels > 0),
            ("max_subscriptions", self.max_subscriptions > 0),
            ("max_subscription_bytes", self.max_subscription_bytes > 0),
            ("max_client_id_bytes", self.max_client_id_bytes > 0),
            ("connect_timeout", !self.connect_timeout.is_zero()),
            ("max_connections", self.max_connections > 0),
            ("max_sessions", self.max_sessions > 0),
            ("max_session_expiry", self.max_session_expiry.as_secs() > 0),
            ("max_websocket_handshake_bytes", self.max_websocket_handshake_bytes > 0),
            ("max_retained_per_client", self.max_retained_per_client > 0),
            ("max_retained_messages", self.max_retained_messages > 0),
            ("max_retained_bytes", self.max_retained_bytes > 0),
            ("write_buffer", self.write_buffer > 0),
        ]
    }
}
