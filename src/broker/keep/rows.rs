//! How the rows are written: as CBOR arrays, to which members may be added at the end, and
//! messages as the PUBLISH packets of MQTT 5 that would carry them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use minicbor::{Decode, Encode};

use crate::ids::{NidScheme, PacketId, Timestamp};
use crate::mqtt::{
    Message, Packet, Publish, PublishProperties, QoS, Sender, Version, Will, decode, encode,
};
use crate::route::Grant;
use crate::rsp::{Identity, Role};
use crate::session::Origin;
use crate::store::Key;

/// The kinds of rows. The numbers stand in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::broker) enum Table {
    /// A message, whoever needs it.
    Message = 1,
    /// A session.
    Session = 2,
    /// A subscription of one.
    Subscription = 3,
    /// A message that waits for a session.
    Queued = 4,
    /// A QoS 2 message on its way to a client: id is the session, part the packet id.
    InFlight = 5,
    /// A QoS 2 message taken from a client and not released: as above.
    Received = 6,
    /// A retained message.
    Retained = 7,
    /// A Will that waits for its delay.
    Will = 8,
}

impl Table {
    const ALL: [Self; 8] = [
        Self::Message,
        Self::Session,
        Self::Subscription,
        Self::Queued,
        Self::InFlight,
        Self::Received,
        Self::Retained,
        Self::Will,
    ];

    /// The kind of a row.
    pub(in crate::broker) fn of(key: Key) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == key.table)
    }

    pub(in crate::broker) fn key(self, id: u64, part: u32) -> Key {
        Key { table: self as u8, id, part }
    }
}

/// What can stand in a row.
pub(in crate::broker) trait Encoded: Encode<()> {
    fn bytes(&self) -> Vec<u8> {
        // Writing to memory does not fail.
        minicbor::to_vec(self).unwrap_or_default()
    }
}

impl<T: Encode<()>> Encoded for T {}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::broker) struct SessionRow {
    #[n(0)]
    pub(in crate::broker) client_id: String,
    #[n(1)]
    pub(in crate::broker) identity: IdentityRow,
    #[n(2)]
    pub(in crate::broker) mount_point: Option<String>,
    /// Protocol level of the last connection.
    #[n(3)]
    pub(in crate::broker) level: u8,
    /// How long it outlives a connection.
    #[n(4)]
    pub(in crate::broker) expiry_ms: u64,
    /// Until when it is kept, where its client is away.
    #[n(5)]
    pub(in crate::broker) until: Option<u64>,
}

/// Who a session belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::broker) struct IdentityRow {
    #[n(0)]
    role: u8,
    #[n(1)]
    name: String,
    /// Digits.
    #[n(2)]
    nid: Option<String>,
    #[n(3)]
    password_file: Option<u32>,
}

impl From<&Identity> for IdentityRow {
    fn from(identity: &Identity) -> Self {
        let role = match identity.role {
            Role::Server => SERVER,
            Role::Device => DEVICE,
            Role::Client => CLIENT,
        };
        Self {
            role,
            name: (*identity.name).to_owned(),
            nid: identity.nid.map(|nid| nid.to_string()),
            password_file: identity.password_file.and_then(|at| u32::try_from(at).ok()),
        }
    }
}

impl IdentityRow {
    /// `None`: devices are numbered in another way now.
    pub(in crate::broker) fn identity(&self, scheme: NidScheme) -> Option<Identity> {
        let role = match self.role {
            SERVER => Role::Server,
            DEVICE => Role::Device,
            CLIENT => Role::Client,
            _unknown => return None,
        };
        let nid = self.nid.as_deref().map(|digits| crate::ids::Nid::parse(digits, scheme));
        Some(Identity {
            role,
            name: self.name.as_str().into(),
            nid: nid.transpose().ok()?,
            password_file: self.password_file.and_then(|at| usize::try_from(at).ok()),
        })
    }
}

const CLIENT: u8 = 0;
const DEVICE: u8 = 1;
const SERVER: u8 = 2;

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::broker) struct SubscriptionRow {
    #[n(0)]
    pub(in crate::broker) session: u64,
    #[n(1)]
    pub(in crate::broker) filter: String,
    #[n(2)]
    qos: u8,
    #[n(3)]
    no_local: bool,
    #[n(4)]
    retain_as_published: bool,
    #[n(5)]
    id: Option<u32>,
}

impl SubscriptionRow {
    pub(in crate::broker) fn new(session: u64, filter: &str, grant: Grant) -> Self {
        Self {
            session,
            filter: filter.to_owned(),
            qos: grant.qos as u8,
            no_local: grant.no_local,
            retain_as_published: grant.retain_as_published,
            id: grant.id,
        }
    }

    pub(in crate::broker) fn grant(&self) -> Option<Grant> {
        let qos = QoS::from_bits(self.qos)?;
        let Self { no_local, retain_as_published, id, .. } = *self;
        Some(Grant { qos, no_local, retain_as_published, id })
    }
}

/// A message that waits for a session, or is on its way to its client.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::broker) struct QueuedRow {
    #[n(0)]
    pub(in crate::broker) session: u64,
    #[n(1)]
    pub(in crate::broker) message: u64,
    #[n(2)]
    pub(in crate::broker) qos: u8,
    #[n(3)]
    pub(in crate::broker) retain: bool,
    #[n(4)]
    pub(in crate::broker) subscription_ids: Vec<u32>,
    #[n(5)]
    pub(in crate::broker) share: Option<String>,
}

/// A QoS 2 message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::broker) struct InFlightRow {
    /// Where it waits: [`QUEUE`], [`MAILBOX`], [`INBOX`].
    #[n(0)]
    place: u8,
    /// Under which number it waits there.
    #[n(1)]
    number: u64,
    /// The client has it, and PUBREL is due or under way.
    #[n(2)]
    pub(in crate::broker) is_released: bool,
    /// In which order they were sent.
    #[n(3)]
    pub(in crate::broker) turn: u64,
}

impl InFlightRow {
    /// `queued` is the row of the message where it waits in the session's own queue.
    pub(in crate::broker) fn new(origin: Origin, queued: u64, turn: u64) -> Self {
        let (place, number) = match origin {
            Origin::Queue => (QUEUE, queued),
            Origin::Mailbox(number) => (MAILBOX, number),
            Origin::Inbox(number) => (INBOX, number),
        };
        Self { place, number, is_released: false, turn }
    }

    /// The client has it.
    pub(in crate::broker) fn released(turn: u64) -> Self {
        Self { place: QUEUE, number: 0, is_released: true, turn }
    }

    /// Where it waits; beside it, its row in the queue.
    pub(in crate::broker) fn origin(&self) -> Option<(Origin, u64)> {
        match self.place {
            QUEUE => Some((Origin::Queue, self.number)),
            MAILBOX => Some((Origin::Mailbox(self.number), 0)),
            INBOX => Some((Origin::Inbox(self.number), 0)),
            _unknown => None,
        }
    }
}

const QUEUE: u8 = 0;
const MAILBOX: u8 = 1;
const INBOX: u8 = 2;

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::broker) struct RetainedRow {
    #[n(0)]
    pub(in crate::broker) message: u64,
    /// The client whose share of the room it takes.
    #[n(1)]
    pub(in crate::broker) owner: String,
    /// Under which rights it was published, where there was an ACL.
    #[n(2)]
    pub(in crate::broker) author: Option<PermitRow>,
}

/// A publisher under an ACL.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::broker) struct PermitRow {
    /// The file.
    #[n(0)]
    pub(in crate::broker) acl: String,
    #[n(1)]
    pub(in crate::broker) user: String,
    #[n(2)]
    pub(in crate::broker) client_id: String,
}

/// A message with its times.
pub(in crate::broker) fn message(message: &Message) -> Vec<u8> {
    let Message { topic, payload, qos, retain, properties, expires, published, .. } = message;
    let (topic, payload, properties) = (topic.clone(), payload.clone(), properties.clone());
    let publish = publish(topic, payload, *qos, *retain, properties);
    timed(&[expires.0, published.0], publish)
}

/// The message of a row; `None`: this was never a row of a message.
pub(in crate::broker) fn read_message(row: Bytes) -> Option<Message> {
    let ([expires, published], publish) = read_timed(row)?;
    let Publish { topic, payload, qos, retain, properties, .. } = publish;
    let message = Message::new(topic, payload, qos, retain, properties, Timestamp(expires));
    Some(message.taken_at(Timestamp(published)))
}

/// A Will of this session that waits until it is due.
pub(in crate::broker) fn will(session: u64, due: Timestamp, will: &Will) -> Vec<u8> {
    let Will { qos, retain, topic, payload, properties, .. } = will;
    let (topic, payload, properties) = (topic.clone(), payload.clone(), properties.clone());
    timed(&[session, due.0], publish(topic, payload, *qos, *retain, properties))
}

/// Session, due time and Will of a row.
pub(in crate::broker) fn read_will(row: Bytes) -> Option<(u64, Timestamp, Will)> {
    let ([session, due], publish) = read_timed(row)?;
    let Publish { topic, payload, qos, retain, properties, .. } = publish;
    let will = Will { qos, retain, delay_secs: 0, topic, payload, properties };
    Some((session, Timestamp(due), will))
}

fn publish(
    topic: ByteString,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    properties: Option<Box<PublishProperties>>,
) -> Publish {
    // One that is valid, and means nothing.
    let packet_id = if qos == QoS::AtMostOnce { None } else { PacketId::new(1) };
    Publish { dup: false, qos, retain, topic, packet_id, properties, payload }
}

fn timed(times: &[u64; 2], publish: Publish) -> Vec<u8> {
    let mut row = BytesMut::with_capacity(ROOM_BYTES + publish.kept_bytes() + publish.topic.len());
    times.iter().for_each(|time| row.put_u64(*time));
    encode(&Packet::Publish(publish), Version::V5, &mut row);
    row.into()
}

/// About what stands beside topic, payload and properties.
const ROOM_BYTES: usize = 32;

fn read_timed(mut row: Bytes) -> Option<([u64; 2], Publish)> {
    let times = [row.try_get_u64().ok()?, row.try_get_u64().ok()?];
    match decode(row, Version::V5, Sender::Server) {
        Ok(Packet::Publish(publish)) => Some((times, publish)),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let properties = PublishProperties {
                message_expiry_secs: Some(7),
                content_type: Some("text".into()),
                user: vec![("a".into(), "b".into()), ("a".into(), "".into())],
                ..PublishProperties::default()
            };
            let written = Message::new(
                "a/ü/$x".into(),
                "body".into(),
                qos,
                true,
                Some(Box::new(properties)),
                Timestamp(4711),
            );
            let row = Bytes::from(message(&written.taken_at(Timestamp(4000))));
            let read = read_message(row.clone()).unwrap();
            assert_eq!((&*read.topic, &read.payload[..]), ("a/ü/$x", &b"body"[..]));
            assert_eq!((read.qos, read.retain), (qos, true));
            assert_eq!((read.expires, read.published), (Timestamp(4711), Timestamp(4000)));
            assert_eq!(read.properties.as_deref().unwrap().user.len(), 2);
            for len in 0..row.len() {
                assert!(read_message(row.slice(..len)).is_none(), "{len} bytes of {}", row.len());
            }
        }
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let nid = crate::ids::Nid::parse("89049032123451234512345678901235", NidScheme::Eid);
        for (role, nid, password_file) in [
            (Role::Device, nid.ok(), None),
            (Role::Server, None, None),
            (Role::Client, None, Some(3)),
        ] {
            let identity = Identity { role, name: "somebody".into(), nid, password_file };
            let row = minicbor::to_vec(IdentityRow::from(&identity)).unwrap();
            let read: IdentityRow = minicbor::decode(&row).unwrap();
            assert_eq!(read.identity(NidScheme::Eid), Some(identity));
        }
    }
}
