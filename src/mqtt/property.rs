//! Property blocks of version 5 (section 2.2.2): which packet may carry what, how often, and with
//! which values.

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

use super::error::DecodeError;
use super::packet::{QoS, UserProperty};
use super::wire::{Cursor, Length, Sink};

/// A property, by its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Property {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0B,
    SessionExpiryInterval = 0x11,
    AssignedClientIdentifier = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1A,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQoS = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
    WildcardSubscriptionAvailable = 0x28,
    SubscriptionIdentifierAvailable = 0x29,
    SharedSubscriptionAvailable = 0x2A,
}

use Property as P; // shorter tables

impl Property {
    /// Every property there is.
    pub const ALL: [Self; 27] = [
        Self::PayloadFormatIndicator,
        Self::MessageExpiryInterval,
        Self::ContentType,
        Self::ResponseTopic,
        Self::CorrelationData,
        Self::SubscriptionIdentifier,
        Self::SessionExpiryInterval,
        Self::AssignedClientIdentifier,
        Self::ServerKeepAlive,
        Self::AuthenticationMethod,
        Self::AuthenticationData,
        Self::RequestProblemInformation,
        Self::WillDelayInterval,
        Self::RequestResponseInformation,
        Self::ResponseInformation,
        Self::ServerReference,
        Self::ReasonString,
        Self::ReceiveMaximum,
        Self::TopicAliasMaximum,
        Self::TopicAlias,
        Self::MaximumQoS,
        Self::RetainAvailable,
        Self::UserProperty,
        Self::MaximumPacketSize,
        Self::WildcardSubscriptionAvailable,
        Self::SubscriptionIdentifierAvailable,
        Self::SharedSubscriptionAvailable,
    ];

    fn from_id(id: usize) -> Result<Self, DecodeError> {
        let known = BY_ID.get(id).copied().flatten();
        known.ok_or(DecodeError::PropertyUnknown(id))
    }
}

const BY_ID: [Option<Property>; 0x2B] = {
    let mut table = [None; 0x2B];
    let mut index = 0;
    while index < Property::ALL.len() {
        table[Property::ALL[index] as usize] = Some(Property::ALL[index]);
        index += 1;
    }
    table
};

/// Some of the properties, one bit each.
#[derive(Clone, Copy)]
pub(super) struct Set(u64);

impl Set {
    const fn of(properties: &[Property]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < properties.len() {
            bits |= 1 << properties[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    fn contains(self, property: Property) -> bool {
        self.0 & (1 << property as u8) != 0
    }

    fn insert(&mut self, property: Property) {
        self.0 |= 1 << property as u8;
    }
}

/// What a packet may carry.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    allowed: Set,
    repeatable: Set,
}

impl Rules {
    const fn of(allowed: &[Property]) -> Self {
        Self { allowed: Set::of(allowed), repeatable: Set::of(&[P::UserProperty]) }
    }
}

pub(super) const CONNECT: Rules = Rules::of(&[
    P::SessionExpiryInterval,
    P::AuthenticationMethod,
    P::AuthenticationData,
    P::RequestProblemInformation,
    P::RequestResponseInformation,
    P::ReceiveMaximum,
    P::TopicAliasMaximum,
    P::UserProperty,
    P::MaximumPacketSize,
]);

pub(super) const WILL: Rules = Rules::of(&[
    P::PayloadFormatIndicator,
    P::MessageExpiryInterval,
    P::ContentType,
    P::ResponseTopic,
    P::CorrelationData,
    P::WillDelayInterval,
    P::UserProperty,
]);

pub(super) const CONNACK: Rules = Rules::of(&[
    P::SessionExpiryInterval,
    P::AssignedClientIdentifier,
    P::ServerKeepAlive,
    P::AuthenticationMethod,
    P::AuthenticationData,
    P::ResponseInformation,
    P::ServerReference,
    P::ReasonString,
    P::ReceiveMaximum,
    P::TopicAliasMaximum,
    P::MaximumQoS,
    P::RetainAvailable,
    P::UserProperty,
    P::MaximumPacketSize,
    P::WildcardSubscriptionAvailable,
    P::SubscriptionIdentifierAvailable,
    P::SharedSubscriptionAvailable,
]);

/// One Subscription Identifier for each matching subscription, so it may repeat.
pub(super) const PUBLISH: Rules = Rules {
    repeatable: Set::of(&[P::SubscriptionIdentifier, P::UserProperty]),
    ..Rules::of(&[
        P::PayloadFormatIndicator,
        P::MessageExpiryInterval,
        P::ContentType,
        P::ResponseTopic,
        P::CorrelationData,
        P::SubscriptionIdentifier,
        P::TopicAlias,
        P::UserProperty,
    ])
};

pub(super) const SUBSCRIBE: Rules = Rules::of(&[P::SubscriptionIdentifier, P::UserProperty]);
pub(super) const UNSUBSCRIBE: Rules = Rules::of(&[P::UserProperty]);

/// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
pub(super) const ACK: Rules = Rules::of(&[P::ReasonString, P::UserProperty]);

pub(super) const DISCONNECT: Rules =
    Rules::of(&[P::SessionExpiryInterval, P::ServerReference, P::ReasonString, P::UserProperty]);

pub(super) const AUTH: Rules =
    Rules::of(&[P::AuthenticationMethod, P::AuthenticationData, P::ReasonString, P::UserProperty]);

/// All a block can hold; the packet's own type takes what it knows.
#[derive(Default)]
pub(super) struct Properties {
    pub(super) payload_is_utf8: Option<bool>,
    pub(super) message_expiry_secs: Option<u32>,
    pub(super) content_type: Option<ByteString>,
    pub(super) response_topic: Option<ByteString>,
    pub(super) correlation_data: Option<Bytes>,
    pub(super) subscription_ids: SmallVec<[u32; 2]>,
    pub(super) session_expiry_secs: Option<u32>,
    pub(super) assigned_client_id: Option<ByteString>,
    pub(super) server_keep_alive_secs: Option<u16>,
    pub(super) authentication_method: Option<ByteString>,
    pub(super) authentication_data: Option<Bytes>,
    pub(super) request_problem_information: Option<bool>,
    pub(super) will_delay_secs: Option<u32>,
    pub(super) request_response_information: Option<bool>,
    pub(super) response_information: Option<ByteString>,
    pub(super) server_reference: Option<ByteString>,
    pub(super) reason_string: Option<ByteString>,
    pub(super) receive_maximum: Option<u16>,
    pub(super) topic_alias_maximum: Option<u16>,
    pub(super) topic_alias: Option<u16>,
    pub(super) maximum_qos: Option<QoS>,
    pub(super) retain_available: Option<bool>,
    pub(super) user: Vec<UserProperty>,
    pub(super) maximum_packet_size: Option<u32>,
    pub(super) wildcard_subscription_available: Option<bool>,
    pub(super) subscription_ids_available: Option<bool>,
    pub(super) shared_subscription_available: Option<bool>,
}

impl Properties {
    /// Reads a whole block, length included; `None` when it is empty.
    pub(super) fn read(cursor: &mut Cursor, rules: Rules) -> Result<Option<Self>, DecodeError> {
        let len = cursor.varint()?;
        if len == 0 {
            return Ok(None);
        }
        let end = cursor.narrow(len)?;
        let mut properties = Self::default();
        let mut seen = Set::of(&[]);
        while !cursor.is_empty() {
            let property = Property::from_id(cursor.varint()?)?;
            if !rules.allowed.contains(property) {
                return Err(DecodeError::PropertyNotAllowed(property));
            }
            if seen.contains(property) && !rules.repeatable.contains(property) {
                return Err(DecodeError::PropertyRepeated(property));
            }
            seen.insert(property);
            properties.read_value(property, cursor)?;
        }
        cursor.reopen(end);
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeError::AuthDataWithoutMethod);
        }
        Ok(Some(properties))
    }

    fn read_value(&mut self, property: P, block: &mut Cursor) -> Result<(), DecodeError> {
        match property {
            P::PayloadFormatIndicator => self.payload_is_utf8 = Some(boolean(property, block)?),
            P::MessageExpiryInterval => self.message_expiry_secs = Some(block.u32()?),
            P::ContentType => self.content_type = Some(block.text()?),
            P::ResponseTopic => self.response_topic = Some(block.text()?),
            P::CorrelationData => self.correlation_data = Some(block.binary()?),
            P::SubscriptionIdentifier => {
                let id = non_zero(property, block.varint()?)?;
                self.subscription_ids.push(id as u32); // a varint has 28 bits
            }
            P::SessionExpiryInterval => self.session_expiry_secs = Some(block.u32()?),
            P::AssignedClientIdentifier => self.assigned_client_id = Some(block.text()?),
            P::ServerKeepAlive => self.server_keep_alive_secs = Some(block.u16()?),
            P::AuthenticationMethod => self.authentication_method = Some(block.text()?),
            P::AuthenticationData => self.authentication_data = Some(block.binary()?),
            P::RequestProblemInformation => {
                self.request_problem_information = Some(boolean(property, block)?);
            }
            P::WillDelayInterval => self.will_delay_secs = Some(block.u32()?),
            P::RequestResponseInformation => {
                self.request_response_information = Some(boolean(property, block)?);
            }
            P::ResponseInformation => self.response_information = Some(block.text()?),
            P::ServerReference => self.server_reference = Some(block.text()?),
            P::ReasonString => self.reason_string = Some(block.text()?),
            P::ReceiveMaximum => self.receive_maximum = Some(non_zero(property, block.u16()?)?),
            P::TopicAliasMaximum => self.topic_alias_maximum = Some(block.u16()?),
            P::TopicAlias => self.topic_alias = Some(topic_alias(block)?),
            P::MaximumQoS => self.maximum_qos = Some(maximum_qos(block)?),
            P::RetainAvailable => self.retain_available = Some(boolean(property, block)?),
            P::UserProperty => self.user.push((block.text()?, block.text()?)),
            P::MaximumPacketSize => {
                self.maximum_packet_size = Some(non_zero(property, block.u32()?)?);
            }
            P::WildcardSubscriptionAvailable => {
                self.wildcard_subscription_available = Some(boolean(property, block)?);
            }
            P::SubscriptionIdentifierAvailable => {
                self.subscription_ids_available = Some(boolean(property, block)?);
            }
            P::SharedSubscriptionAvailable => {
                self.shared_subscription_available = Some(boolean(property, block)?);
            }
        }
        Ok(())
    }
}

/// A packet's properties, ready to be written without the length of their block.
pub(super) trait WriteProperties {
    fn write(&self, out: &mut impl Sink);
}

/// Writes a whole block, length included; without properties a single zero.
pub(super) fn write_block(out: &mut impl Sink, properties: Option<&impl WriteProperties>) {
    let Some(properties) = properties else { return out.u8(0) };
    let mut length = Length::default();
    properties.write(&mut length);
    out.varint(length.0);
    properties.write(out);
}

/// Writes one property, or nothing where it is absent.
pub(super) trait PropertySink: Sink {
    fn put_bool(&mut self, property: Property, value: Option<bool>) {
        if let Some(value) = value {
            self.u8(property as u8);
            self.u8(u8::from(value));
        }
    }

    fn put_u16(&mut self, property: Property, value: Option<u16>) {
        if let Some(value) = value {
            self.u8(property as u8);
            self.u16(value);
        }
    }

    fn put_u32(&mut self, property: Property, value: Option<u32>) {
        if let Some(value) = value {
            self.u8(property as u8);
            self.u32(value);
        }
    }

    fn put_text(&mut self, property: Property, value: Option<&ByteString>) {
        if let Some(value) = value {
            self.u8(property as u8);
            self.text(value);
        }
    }

    fn put_binary(&mut self, property: Property, value: Option<&Bytes>) {
        if let Some(value) = value {
            self.u8(property as u8);
            self.binary(value);
        }
    }

    fn put_subscription_ids(&mut self, ids: &[u32]) {
        for &id in ids {
            self.u8(P::SubscriptionIdentifier as u8);
            self.varint(id as usize);
        }
    }

    fn put_user(&mut self, user: &[UserProperty]) {
        for (name, value) in user {
            self.u8(P::UserProperty as u8);
            self.text(name);
            self.text(value);
        }
    }
}

impl<S: Sink> PropertySink for S {}

fn boolean(property: Property, block: &mut Cursor) -> Result<bool, DecodeError> {
    match block.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyValue(property)),
    }
}

fn non_zero<T: Default + PartialEq>(property: Property, value: T) -> Result<T, DecodeError> {
    if value == T::default() { Err(DecodeError::PropertyValue(property)) } else { Ok(value) }
}

fn topic_alias(block: &mut Cursor) -> Result<u16, DecodeError> {
    match block.u16()? {
        0 => Err(DecodeError::TopicAliasZero),
        alias => Ok(alias),
    }
}

/// QoS 2 is said by leaving the property out.
fn maximum_qos(block: &mut Cursor) -> Result<QoS, DecodeError> {
    let highest = boolean(P::MaximumQoS, block)?;
    Ok(if highest { QoS::AtLeastOnce } else { QoS::AtMostOnce })
}
