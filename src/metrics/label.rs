//! The closed sets of label values. Nothing that a peer chooses is ever a label (case D24).

use crate::mqtt::{Packet, QoS, Version};

/// A closed set of values of one label.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// The value as it stands in the text format.
    fn name(self) -> &'static str;

    /// Position in [`Label::ALL`].
    fn index(self) -> usize;
}

/// An enum whose variants are the values of one label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Which way bytes, packets and messages go.
    Direction {
        /// From a client to the broker.
        In = "in",
        /// From the broker to a client.
        Out = "out",
    }
}

label! {
    /// Kind of control packet.
    PacketType {
        /// CONNECT.
        Connect = "connect",
        /// CONNACK.
        ConnAck = "connack",
        /// PUBLISH.
        Publish = "publish",
        /// PUBACK.
        PubAck = "puback",
        /// PUBREC.
        PubRec = "pubrec",
        /// PUBREL.
        PubRel = "pubrel",
        /// PUBCOMP.
        PubComp = "pubcomp",
        /// SUBSCRIBE.
        Subscribe = "subscribe",
        /// SUBACK.
        SubAck = "suback",
        /// UNSUBSCRIBE.
        Unsubscribe = "unsubscribe",
        /// UNSUBACK.
        UnsubAck = "unsuback",
        /// PINGREQ.
        PingReq = "pingreq",
        /// PINGRESP.
        PingResp = "pingresp",
        /// DISCONNECT.
        Disconnect = "disconnect",
        /// AUTH.
        Auth = "auth",
    }
}

impl PacketType {
    /// Whether MQTT lets such a packet go this way.
    #[must_use]
    pub fn goes(self, direction: Direction) -> bool {
        match self {
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::PingReq => {
                direction == Direction::In
            }
            Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp => {
                direction == Direction::Out
            }
            Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubRel
            | Self::PubComp
            | Self::Disconnect
            | Self::Auth => true,
        }
    }
}

impl From<&Packet> for PacketType {
    fn from(packet: &Packet) -> Self {
        match packet {
            Packet::Connect(_) => Self::Connect,
            Packet::ConnAck(_) => Self::ConnAck,
            Packet::Publish(_) => Self::Publish,
            Packet::PubAck(_) => Self::PubAck,
            Packet::PubRec(_) => Self::PubRec,
            Packet::PubRel(_) => Self::PubRel,
            Packet::PubComp(_) => Self::PubComp,
            Packet::Subscribe(_) => Self::Subscribe,
            Packet::SubAck(_) => Self::SubAck,
            Packet::Unsubscribe(_) => Self::Unsubscribe,
            Packet::UnsubAck(_) => Self::UnsubAck,
            Packet::PingReq => Self::PingReq,
            Packet::PingResp => Self::PingResp,
            Packet::Disconnect(_) => Self::Disconnect,
            Packet::Auth(_) => Self::Auth,
        }
    }
}

label! {
    /// What became of a CONNECT.
    ConnectResult {
        /// Let in with a new session.
        Accepted = "accepted",
        /// Let in, and its session was there.
        Resumed = "resumed",
        /// No CONNECT within its time.
        Timeout = "timeout",
        /// The peer went away before it said what it wanted.
        Closed = "closed",
        /// Not MQTT, or not well-formed.
        Malformed = "malformed",
        /// Well-formed and against the rules.
        ProtocolError = "protocol_error",
        /// A version we do not speak.
        UnsupportedVersion = "unsupported_version",
        /// A client id we do not take.
        BadClientId = "bad_client_id",
        /// No proof of identity, or a wrong one.
        NotAuthorized = "not_authorized",
        /// A wrong user name, password or answer of an authentication method.
        BadCredentials = "bad_credentials",
        /// Too many failed logins before this one.
        Banned = "banned",
        /// Too many clients are logging in at once.
        Busy = "busy",
        /// The client id belongs to another identity.
        ClientIdTaken = "client_id_taken",
        /// Its Will breaks a rule.
        BadWill = "bad_will",
        /// A limit on connections or sessions is reached.
        QuotaExceeded = "quota_exceeded",
        /// More connects in a second than there may be.
        RateExceeded = "rate_exceeded",
        /// The header of a proxy is missing, wrong, or says that there was no TLS.
        ProxyHeader = "proxy_header",
        /// No WebSocket came about, or a frame broke its rules.
        WebSocket = "websocket",
        /// The broker is stopping.
        ShuttingDown = "shutting_down",
    }
}

label! {
    /// Why an accepted connection ended.
    DisconnectReason {
        /// The client said DISCONNECT.
        Client = "client",
        /// The client said DISCONNECT and asked for its Will.
        ClientWithWill = "client_with_will",
        /// The client closed the connection without a word.
        Closed = "closed",
        /// The network failed.
        Io = "io",
        /// Nothing came for one and a half times the keep alive.
        KeepAlive = "keep_alive",
        /// The client connected again.
        TakenOver = "taken_over",
        /// A packet was not well-formed.
        Malformed = "malformed",
        /// A packet was against the rules.
        ProtocolError = "protocol_error",
        /// A packet was too large.
        PacketTooLarge = "packet_too_large",
        /// The client had too many messages under way.
        ReceiveMaximum = "receive_maximum",
        /// The client reached another of its limits.
        QuotaExceeded = "quota_exceeded",
        /// The client may not do what it did.
        NotAuthorized = "not_authorized",
        /// The client spoke for another device or a foreign group.
        IdentityViolation = "identity_violation",
        /// The client did not read what was sent to it.
        SlowReader = "slow_reader",
        /// An operator ended the connection.
        Administrative = "administrative",
        /// The broker stops.
        ShuttingDown = "shutting_down",
    }
}

label! {
    /// Why a message did not reach somebody.
    DropReason {
        /// Nobody subscribes to its topic.
        NoSubscribers = "no_subscribers",
        /// The receiver's queue is full.
        QueueFull = "queue_full",
        /// An SM-SR server does not fetch what waits for it, and there is no more room.
        InboxFull = "inbox_full",
        /// QoS 0 to a receiver that does not read fast enough.
        SlowReader = "slow_reader",
        /// The message's time was over.
        Expired = "expired",
        /// Larger than the receiver takes.
        TooLarge = "too_large",
        /// The receiver's session ended.
        SessionEnded = "session_ended",
        /// No more room for retained messages.
        RetainedFull = "retained_full",
        /// The disk cannot be written.
        NotKept = "not_kept",
        /// The publisher may not.
        NotAuthorized = "not_authorized",
        /// Said to be UTF-8, and is not.
        PayloadFormat = "payload_format",
        /// Published above the highest QoS of the publisher's listener.
        QosExceeded = "qos_exceeded",
        /// Its topic has no name below the receiver's mount point.
        OutsideMountPoint = "outside_mount_point",
    }
}

label! {
    /// What an ACL denied.
    AclAction {
        /// To publish.
        Publish = "publish",
        /// To subscribe.
        Subscribe = "subscribe",
        /// To be sent a message, under a subscription wider than the rights.
        Deliver = "deliver",
        /// To have a Will, or to have it published.
        Will = "will",
        /// To be sent a retained message, or to have one's own served.
        Retained = "retained",
    }
}

label! {
    /// What a peer got wrong.
    ProtocolError {
        /// Not MQTT at all.
        NotMqtt = "not_mqtt",
        /// A packet that is not well-formed.
        Malformed = "malformed",
        /// A packet that is against the rules.
        Violation = "violation",
        /// A packet that is too large.
        TooLarge = "too_large",
    }
}

label! {
    /// What became of a TLS handshake.
    HandshakeResult {
        /// A full handshake.
        Full = "full",
        /// A resumed session.
        Resumed = "resumed",
        /// None.
        Failed = "failed",
    }
}

label! {
    /// Why a TLS handshake failed.
    TlsRejection {
        /// The client has no certificate.
        NoCertificate = "no_certificate",
        /// A certificate is not valid now.
        Expired = "expired",
        /// A certificate is revoked.
        Revoked = "revoked",
        /// A certificate is not issued by one we know.
        UnknownCa = "unknown_ca",
        /// A certificate is wrong in another way.
        BadCertificate = "bad_certificate",
        /// The two sides do not agree on the protocol.
        Protocol = "protocol",
        /// The client speaks something else.
        NotTls = "not_tls",
        /// The handshake took too long.
        Timeout = "timeout",
        /// The network failed.
        Io = "io",
    }
}

label! {
    /// Which certificate a validity date belongs to.
    Certificate {
        /// The broker's own.
        Broker = "broker",
        /// The issuer of client certificates.
        ClientCa = "client_ca",
    }
}

label! {
    /// Type of a provisioning message `[0064]`.
    RspType {
        /// `trigger`.
        Trigger = "trigger",
        /// `msg`.
        Msg = "msg",
        /// `ret(trigger)`.
        RetTrigger = "ret_trigger",
        /// `ret(msg)`.
        RetMsg = "ret_msg",
        /// `req(<nid>)`.
        Req = "req",
        /// `profile(<nid>)`.
        Profile = "profile",
    }
}

label! {
    /// Addressing of a provisioning message.
    RspMode {
        /// One device.
        Single = "single",
        /// A group.
        Multi = "multi",
        /// From device to device within a group.
        Peer = "peer",
    }
}

label! {
    /// Topic of a provisioning message.
    RspDirection {
        /// Towards the devices.
        ToEuicc = "to_euicc",
        /// Towards the servers.
        ToSmSr = "to_sm_sr",
    }
}

impl RspType {
    /// Whether the protocol has such messages.
    #[must_use]
    pub fn goes(self, mode: RspMode, direction: RspDirection) -> bool {
        let down = direction == RspDirection::ToEuicc;
        let peer = mode == RspMode::Peer;
        match self {
            Self::Trigger | Self::RetTrigger => !peer,
            Self::Msg => !peer && down,
            Self::RetMsg => !peer && !down,
            Self::Req => peer && down,
            Self::Profile => peer,
        }
    }
}

label! {
    /// What became of a provisioning message for one receiver.
    RspDelivery {
        /// The receiver has acknowledged it.
        Delivered = "delivered",
        /// Its time was over.
        Expired = "expired",
        /// It came too late or is larger than the receiver takes.
        Discarded = "discarded",
    }
}

label! {
    /// What the control unit decided by itself `[0119]`.
    RspDecision {
        /// Several triggers of a group reached the servers as one.
        Coalesced = "coalesced",
        /// Several equal messages to devices were delivered as one to their group.
        Merged = "merged",
        /// They were too few for that.
        NotMerged = "not_merged",
    }
}

label! {
    /// What became of a profile exchange between two devices.
    RspExchange {
        /// The new device asked.
        Requested = "requested",
        /// The new device has acknowledged the profile.
        Completed = "completed",
        /// The new device has reported the change to the servers.
        Confirmed = "confirmed",
        /// It has not, and its time is over.
        Unconfirmed = "unconfirmed",
        /// The time was over.
        Expired = "expired",
    }
}

label! {
    /// Why the disk cannot be written.
    StoreTrouble {
        /// No space, no quota, or no inodes left.
        Full = "full",
        /// The file system is read-only.
        ReadOnly = "read_only",
        /// Anything else, as a rule the hardware.
        Io = "io",
    }
}

impl Label for QoS {
    const ALL: &'static [Self] = &[Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce];

    fn name(self) -> &'static str {
        match self {
            Self::AtMostOnce => "0",
            Self::AtLeastOnce => "1",
            Self::ExactlyOnce => "2",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for Version {
    const ALL: &'static [Self] = &[Self::V31, Self::V311, Self::V5];

    fn name(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}
