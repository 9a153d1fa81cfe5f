//! A broker without any socket, and devices that knock at the doors that connections use.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use simcast::broker::{Attached, Broker, Calls, Peer, Who};
use simcast::config::Config;
use simcast::ids::PacketId;
use simcast::mqtt::{
    Publish, PublishProperties, QoS, RetainHandling, Subscribe, SubscribeFilter, SubscribeOptions,
    Version,
};
use simcast::rsp::Identity;
use simcast::service::Service;
use simcast::service::embedded::{Received, SmSr};
use simcast::session::{Opening, Routed};

use crate::common::{TO_EUICC, TO_SM_SR, envelope_with, gid, in_time, nid};

/// The registry: running numbers and groups.
const FLEET: [(u128, &[u64]); 4] = [(1, &[7]), (2, &[7]), (3, &[8]), (4, &[])];

/// A broker without any socket that knows the fleet.
pub(crate) struct House {
    pub(crate) service: Service,
}

/// A device whose connection is this value.
pub(crate) struct Device {
    broker: Arc<Broker>,
    attached: Attached,
    number: u128,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::with(|_config| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::without_sockets();
        change(&mut config);
        config.validate().expect("a valid configuration");
        let service = Service::start(config).await.expect("a broker");
        assert!(service.addresses().is_empty() && service.admin_address().is_none());
        for (number, gids) in FLEET {
            let gids: Vec<_> = gids.iter().map(|number| gid(*number)).collect();
            assert!(service.broker().put_device("rsp-server", nid(number), &gids, "").unwrap());
        }
        Self { service }
    }

    pub(crate) async fn sm_sr(&self) -> SmSr {
        self.service.sm_sr("sm-sr.test").await.expect("a server")
    }

    /// A device of the fleet that reads its mail.
    pub(crate) async fn device(&self, number: u128) -> Device {
        let broker = Arc::clone(self.service.broker());
        let identity = Identity::device(nid(number));
        let opening = opening(&format!("device-{number}"));
        let client_id = &*opening.client_id;
        let who = Who { identity: &identity, client_id, peer: Some(Peer::Unix) };
        let attached = broker.attach(&who, &opening, None).await.unwrap();
        let subscribed = broker.subscribe(&attached.handle, &subscribe(TO_EUICC)).await;
        let (reasons, refused) = (subscribed.reasons, subscribed.refused);
        assert_eq!((reasons[0].is_error(), refused), (false, None));
        Device { broker, attached, number }
    }

    /// How often a counter has been raised.
    pub(crate) fn counter(&self, series: &str) -> u64 {
        crate::common::rig::sum(&self.service.broker().metrics().text().unwrap(), series)
    }

    pub(crate) fn refusals(&self, name: &str) -> u64 {
        self.counter(&format!("simcast_rsp_refusals_total{{reason=\"{name}\"}}"))
    }
}

impl Device {
    pub(crate) async fn publish(&self, topic: &'static str, payload: impl Into<Bytes>) -> Routed {
        self.publish_with(topic, payload, None).await
    }

    pub(crate) async fn publish_with(
        &self,
        topic: &'static str,
        payload: impl Into<Bytes>,
        message_expiry_secs: Option<u32>,
    ) -> Routed {
        let properties = PublishProperties { message_expiry_secs, ..PublishProperties::default() };
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: topic.into(),
            packet_id: None,
            properties: Some(Box::new(properties)),
            payload: payload.into(),
        };
        self.broker.publish(&self.attached.handle.publisher(), publish).await.routed
    }

    /// D1 that can be told from others, and its text.
    pub(crate) async fn ask(&self, number: usize) -> String {
        let text = wish(self.number, number);
        assert_eq!(self.publish(TO_SM_SR, text.clone()).await, Routed::Accepted);
        text
    }

    /// All that waits for it, taken and acknowledged.
    pub(crate) fn mail(&self) -> Vec<String> {
        let (mut texts, mut batch) = (Vec::new(), Vec::new());
        loop {
            self.broker.pull(&self.attached.handle, Calls::MAIL, 100, usize::MAX, &mut batch);
            if batch.is_empty() {
                return texts;
            }
            for delivery in batch.drain(..) {
                texts.push(text(&delivery.message.payload));
                self.broker.delivered(&self.attached.handle, delivery.origin, false);
            }
        }
    }

    /// Whether its connection was told to end.
    pub(crate) fn is_sent_away(&self) -> bool {
        self.attached.handle.signal.is_up(Calls::KICK)
    }
}

/// A D1 of a device that can be told from others.
pub(crate) fn wish(device: u128, number: usize) -> String {
    envelope_with(device, 0, "trigger", &format!(r#""body":{number}"#))
}

pub(crate) fn text(payload: &[u8]) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}

/// The next message, acknowledged.
pub(crate) async fn next(sm_sr: &mut SmSr) -> String {
    let received = hold(sm_sr).await;
    let payload = text(received.payload());
    received.acknowledge();
    payload
}

/// The next message, not acknowledged.
pub(crate) async fn hold(sm_sr: &mut SmSr) -> Received {
    in_time("a message", sm_sr.recv()).await.expect("a server that has not ended")
}

/// What can be had without waiting: here nothing is ever on its way.
pub(crate) async fn at_once(sm_sr: &mut SmSr) -> Option<Received> {
    // With a fresh budget: else a long test would be told to wait.
    tokio::task::yield_now().await;
    let recv = sm_sr.recv();
    tokio::time::timeout(Duration::ZERO, recv).await.ok().flatten()
}

fn opening(client_id: &str) -> Opening {
    Opening {
        version: Version::V5,
        bridge: false,
        client_id: client_id.into(),
        assigned: false,
        clean_start: true,
        expiry: Duration::ZERO,
        expiry_changed: false,
        keep_alive_secs: 0,
        keep_alive_changed: false,
        will: None,
        window: 1000,
        packet_bytes_max: usize::MAX,
        topic_alias_max: 0,
        response_information: None,
        problem_information: true,
        authentication_method: None,
        qos_max: QoS::ExactlyOnce,
        mount_point: None,
    }
}

fn subscribe(filter: &str) -> Subscribe {
    let options = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Never,
    };
    Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        subscription_id: None,
        user: Vec::new(),
        filters: [SubscribeFilter { filter: filter.into(), options }].into_iter().collect(),
    }
}
