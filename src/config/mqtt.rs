//! `[mqtt]`: how the standards are taken, and each leniency towards devices in the field by name.

use serde::Deserialize;

/// Choices that the standards leave to a server, and what is overlooked in clients that break
/// them. What a client of version 5 gets wrong is always told to it by reason code.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// Payloads and Wills that claim to be UTF-8 text must be (0x99 otherwise).
    pub check_payload_format: bool,
    /// Response Information for clients of version 5 that ask for it: the beginning of the topics
    /// for their answers. `%c` is the client id. Empty: none.
    pub response_information: String,
    /// Whether messages may be retained (0x9A otherwise).
    pub retain: bool,
    /// Whether clients may come without a client id and be given one: of 3.1.1 with a clean
    /// session, of 5.
    pub empty_client_id: bool,
    /// What those ids begin with.
    pub assigned_client_id_prefix: String,
    /// Lets 3.1.1 clients bring a password without a user name, against `[MQTT-3.1.2-22]`.
    pub password_without_user_name: bool,
    /// Takes a user name of no bytes for none at all.
    pub empty_user_name_is_anonymous: bool,
    /// Lets 3.1 clients announce a user name or password and leave it out.
    pub missing_user_name: bool,
    /// Takes level 0x83 and 0x84 for 3 and 4, as bridges of mosquitto send it.
    pub bridge_protocol_bit: bool,
    /// Lets clients publish `$SYS/broker/connection/<name>/state`, as bridges of mosquitto do.
    pub bridge_notifications: bool,
    /// What a 3.x client gets that publishes above its listener's `max_qos`.
    pub qos_exceeded: DropOrDisconnect,
    /// What a client of version 5 gets that has more QoS 2 messages under way than
    /// `receive_maximum`. Older versions know no such bound.
    pub receive_maximum_exceeded: WarnOrDisconnect,
    /// What a 3.x client gets that publishes what it may not.
    pub denied_publish: DropOrDisconnect,
    /// What a 3.x client gets that asks for more than `max_keepalive`, or for no keep alive.
    pub keepalive_exceeded: KeepOrRefuse,
    /// What a client gets whose subscriptions overlap.
    pub overlapping: Overlapping,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            check_payload_format: false,
            response_information: String::new(),
            retain: true,
            empty_client_id: true,
            assigned_client_id_prefix: "auto-".to_owned(),
            password_without_user_name: false,
            empty_user_name_is_anonymous: false,
            missing_user_name: false,
            bridge_protocol_bit: true,
            bridge_notifications: false,
            qos_exceeded: DropOrDisconnect::Drop,
            receive_maximum_exceeded: WarnOrDisconnect::Disconnect,
            denied_publish: DropOrDisconnect::Drop,
            keepalive_exceeded: KeepOrRefuse::Keep,
            overlapping: Overlapping::Merge,
        }
    }
}

/// For a message that a client of 3.x cannot be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropOrDisconnect {
    /// Acknowledged and dropped.
    Drop,
    /// The connection is closed.
    Disconnect,
}

/// For a rule that clients in the field are known to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarnOrDisconnect {
    /// Counted and logged.
    Warn,
    /// The connection is closed.
    Disconnect,
}

/// For a keep alive that a client of 3.x cannot be talked out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepOrRefuse {
    /// The client's own holds.
    Keep,
    /// The client is refused with "identifier rejected", as mosquitto does.
    Refuse,
}

/// For a message that matches several subscriptions of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlapping {
    /// One PUBLISH with the highest QoS and all subscription identifiers.
    Merge,
    /// One PUBLISH for each subscription, as mosquitto's `allow_duplicate_messages`.
    Each,
}
