//! What happens between two steps of a publish; and a small broker for the unit tests of others.

mod servers;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::mqtt::{
    Connect, ConnectProperties, Publish, QoS, RetainHandling, Subscribe, SubscribeFilter,
    SubscribeOptions, Version,
};
use crate::rsp::{ControlOptions, Identity};
use crate::session::{Opening, SessionRules};

/// Bounds of sessions that end with their connections.
pub(crate) fn session_limits() -> SessionLimits {
    SessionLimits {
        receive_maximum: 10,
        in_flight_max: 10,
        packet_bytes_max: 1000,
        keep_alive_secs_max: 60,
        client_id_bytes_max: 10,
        topic_alias_max: 0,
        topic_alias_outbound_max: 0,
        rules: SessionRules::default(),
        expiry_max: Duration::ZERO,
    }
}

/// A CONNECT of version 5 with nothing but a client id.
pub(crate) fn connect(client_id: &'static str) -> Connect {
    Connect {
        version: Version::V5,
        bridge: false,
        clean_start: true,
        keep_alive_secs: 0,
        client_id: client_id.into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A broker with room for little.
pub(crate) fn broker() -> Broker {
    broker_with(ControlOptions::default())
}

/// The same with another control unit.
fn broker_with(control: ControlOptions) -> Broker {
    broker_on(control, None)
}

/// One whose sessions may outlive their connections, and which writes into this store.
pub(crate) fn broker_with_store(store: Arc<dyn Store>) -> Broker {
    let mut broker = broker_on(ControlOptions::default(), Some(store));
    broker.options.session.expiry_max = Duration::from_secs(60);
    broker
}

fn broker_on(control: ControlOptions, store: Option<Arc<dyn Store>>) -> Broker {
    let (messages_max, bytes_max) = (10, 10_000);
    let options = BrokerOptions {
        session: session_limits(),
        outbox: OutboxLimits { messages_max, bytes_max },
        retained: RetainedLimits { messages_max, messages_per_client_max: 10, bytes_max },
        inbox: InboxLimits { messages_max, bytes_max, absence_max: Duration::ZERO },
        sessions_max: 10,
        subscriptions_max: 10,
        subscription_bytes_max: 10_000,
        topic_levels_max: 10,
        scheme: NidScheme::Eid,
        topics: TopicNames::default(),
        close_on_identity_violation: true,
        stamps_member: false,
        issuers: Default::default(),
        untold_denial: Untold::Dropped,
        delivers_overlap_once: true,
        takes_bridge_notifications: false,
        checks_payload_format: false,
        assigned_client_id_prefix: "auto-".into(),
    };
    let control = ControlUnit::new(control);
    let clock = Clock::start();
    let audit = AuditLog::open(&crate::config::Audit::default(), clock).unwrap();
    let metrics = Arc::new(Metrics::new(&[], &[]));
    Broker::new(options, control, clock, metrics, audit, store)
}

async fn member(broker: &Broker, client_id: &'static str) -> Attached {
    let opening =
        Opening::new(&connect(client_id), &broker.options.session, || "fresh".into()).unwrap();
    let identity = Identity::anonymous("");
    let who = Who { identity: &identity, client_id, peer: None };
    let attached = broker.attach(&who, &opening, None).await.unwrap();
    subscribe(broker, &attached, "$share/g/work").await;
    attached
}

async fn subscribe(broker: &Broker, attached: &Attached, filter: &'static str) {
    let options = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    };
    let filter = SubscribeFilter { filter: filter.into(), options };
    let subscribe = Subscribe {
        packet_id: crate::ids::PacketId::new(1).unwrap(),
        subscription_id: None,
        user: Vec::new(),
        filters: [filter].into_iter().collect(),
    };
    let Subscribed { reasons, refused, .. } = broker.subscribe(&attached.handle, &subscribe).await;
    assert!(refused.is_none() && reasons.iter().all(|reason| !reason.is_error()), "{refused:?}");
}

#[tokio::test]
async fn a_message_on_its_way_to_a_member_that_leaves_goes_to_another() {
    // case Q14
    let broker = broker();
    let heir = member(&broker, "heir").await;
    let mut chosen = [0, 0];
    for _ in 0..4 {
        let leaving = member(&broker, "leaving").await;
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "work".into(),
            packet_id: None,
            properties: None,
            payload: "x".into(),
        };
        let message = Arc::new(broker.message(publish));
        let (receivers, _wanted) = broker.receivers(None, "work");
        chosen[usize::from(receivers[0].key == heir.handle.key)] += 1;
        // Between choosing a receiver and appending to its queue.
        broker.detach(&Arc::clone(&leaving.handle), leaving.session, Parting::Ended);
        broker.fan_out(&message, &receivers, broker.keeper.step());
    }
    assert!(chosen[0] > 0, "the one that leaves is chosen, too");
    assert_eq!(lock(&heir.handle.outbox).size().0, 4);
}

#[tokio::test]
async fn a_queue_that_is_closed_takes_nothing_more() {
    // case Q14: the publisher found the session just before it was gone
    let broker = broker();
    let [heir, leaving] = [member(&broker, "heir").await, member(&broker, "leaving").await];
    assert!(lock(&leaving.handle.outbox).close().is_empty());
    for _ in 0..4 {
        let message = crate::mqtt::Message::new(
            "work".into(),
            "x".into(),
            QoS::AtLeastOnce,
            false,
            None,
            Timestamp::NEVER,
        );
        let (receivers, _wanted) = broker.receivers(None, "work");
        broker.fan_out(&Arc::new(message), &receivers, broker.keeper.step());
    }
    assert_eq!(lock(&heir.handle.outbox).size().0, 4);
}
