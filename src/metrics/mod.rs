//! What the broker counts, for Prometheus.
//!
//! One [`Metrics`], passed by `Arc`, with a registry of its own. Every series exists from the
//! start, so that a count is one atomic addition and the number of series is constant. Sums of
//! state (queues, sessions, mail) are not kept here: they are taken once per scrape, as a
//! [`Snapshot`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec, Registry, TextEncoder};

use crate::mqtt::{QoS, Version};

mod family;
mod label;
mod store;
mod totals;

pub use label::{
    AclAction, Certificate, ConnectResult, Direction, DisconnectReason, DropReason,
    HandshakeResult, Label, PacketType, ProtocolError, RspDecision, RspDelivery, RspDirection,
    RspExchange, RspMode, RspType, StoreTrouble, TlsRejection,
};
pub use totals::{Both, Totals, Waiting, anonymous_bytes};

use family::{Family, Registrar, Table, observe};
use store::StoreMetrics;

/// Media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Listeners with a label of their own; those beyond share one.
const LISTENERS_MAX: usize = 4;
const OTHER: &str = "other";

const HANDSHAKE_BUCKETS_SECS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 30.0];
const ACK_BUCKETS_SECS: &[f64] = &[0.0001, 0.0005, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0];
/// From a device that listens to one that is switched on weeks later.
const DELIVERY_BUCKETS_SECS: &[f64] =
    &[0.005, 0.05, 0.5, 5.0, 60.0, 600.0, 3_600.0, 86_400.0, 604_800.0, 1_814_400.0];

/// Every counter of the broker. Methods that count cost one atomic addition each.
pub struct Metrics {
    registry: Registry,
    /// Per listener, then per version.
    connections: Vec<Vec<IntGauge>>,
    /// Over all listeners, of which two may have the same name; not exported.
    clients: Arc<AtomicU64>,
    sockets: IntCounter,
    connects: Family<ConnectResult>,
    disconnects: Family<DisconnectReason>,
    takeovers: IntCounter,
    keepalive_timeouts: IntCounter,
    tls: Tls,
    packets: Table<Direction, PacketType>,
    messages: Table<Direction, QoS>,
    messages_dropped: Family<DropReason>,
    acl_denied: Family<AclAction>,
    bytes: Family<Direction>,
    payload_bytes: Family<Direction>,
    waiting_packets: IntGauge,
    waiting_bytes: IntGauge,
    sessions_expired: IntCounter,
    protocol_errors: Family<ProtocolError>,
    publish_ack: Histogram,
    store: StoreMetrics,
    state: State,
    rsp: Rsp,
}

/// Sums of state, taken when somebody asks for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Sessions with a connection.
    pub sessions_connected: usize,
    /// Sessions that wait for their client.
    pub sessions_away: usize,
    /// Messages waiting in all sessions.
    pub queue_messages: usize,
    /// Bytes of payload waiting in all sessions.
    pub queue_bytes: usize,
    /// Messages sent and not yet acknowledged.
    pub inflight_messages: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Those to shared subscriptions among them.
    pub shared_subscriptions: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Bytes of retained messages with their topics.
    pub retained_bytes: usize,
    /// Bytes of the store's files.
    pub store_bytes: u64,
    /// Bytes that wait for the disk.
    pub store_queued_bytes: u64,
    /// Failures to write since the start, by [`StoreTrouble`].
    pub store_errors: [u64; 3],
    /// Messages waiting for devices.
    pub rsp_mail_messages: usize,
    /// Bytes waiting for devices.
    pub rsp_mail_bytes: usize,
    /// Registered devices with a connection.
    pub rsp_devices_connected: usize,
    /// Registered devices without one.
    pub rsp_devices_away: usize,
    /// Those that have given their profile away and take no part, of both kinds.
    pub rsp_devices_replaced: usize,
    /// Groups with members.
    pub rsp_groups: usize,
    /// Campaigns that are remembered, by the name of where each is in its life.
    pub rsp_campaigns: Vec<(&'static str, usize)>,
    /// Their devices, by the name of how far each is.
    pub rsp_campaign_devices: Vec<(&'static str, usize)>,
    /// Bytes that only a retry may want.
    pub rsp_retry_bytes: usize,
}

impl Snapshot {
    /// Subscriptions that are not shared.
    #[must_use]
    pub fn ordinary_subscriptions(&self) -> usize {
        self.subscriptions.saturating_sub(self.shared_subscriptions)
    }
}

/// A connection while it is open; counts it out when dropped.
#[derive(Debug)]
pub struct OpenConnection {
    open: IntGauge,
    clients: Arc<AtomicU64>,
    waiting_packets: IntGauge,
    waiting_bytes: IntGauge,
    /// Its share of the two.
    waits: Waiting,
}

impl Metrics {
    /// Fresh metrics. `listeners` are the names of the listeners, `refusals` the names of the
    /// reasons for which the control unit refuses a message.
    #[must_use]
    pub fn new(listeners: &[String], refusals: &[&'static str]) -> Self {
        let registry = Registry::new();
        let add = Registrar(&registry);
        register_process(&registry);
        let build = add.gauges("build_info", "Always 1; the labels say what runs.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            connections: connections(&add, listeners),
            clients: Arc::default(),
            sockets: add.counter("sockets_total", "Connections accepted by the listeners."),
            connects: add.family("connects_total", "CONNECTs, by what became of them.", "result"),
            disconnects: add.family("disconnects_total", "Ended connections.", "reason"),
            takeovers: add.counter("takeovers_total", "Sessions taken over by a new connection."),
            keepalive_timeouts: add
                .counter("keepalive_timeouts_total", "Connections that fell silent."),
            tls: Tls::new(&add),
            packets: add.table(
                "packets_total",
                "Control packets.",
                ["direction", "type"],
                |direction, packet: PacketType| packet.goes(direction),
            ),
            messages: add.table(
                "messages_total",
                "PUBLISH packets by QoS.",
                ["direction", "qos"],
                |_, _| true,
            ),
            messages_dropped: add.family(
                "messages_dropped_total",
                "Messages that did not reach a receiver.",
                "reason",
            ),
            acl_denied: add.family("acl_denied_total", "What ACLs denied.", "action"),
            bytes: add.family("bytes_total", "Bytes of MQTT on the wire.", "direction"),
            payload_bytes: add.family(
                "payload_bytes_total",
                "Bytes of payload in messages.",
                "direction",
            ),
            waiting_packets: add.gauge("output_packets", "Packets that sockets do not take."),
            waiting_bytes: add.gauge("output_bytes", "Bytes that sockets do not take."),
            sessions_expired: add
                .counter("sessions_expired_total", "Sessions whose clients stayed away."),
            protocol_errors: add.family("protocol_errors_total", "Mistakes of peers.", "kind"),
            store: StoreMetrics::new(&add),
            publish_ack: add.histogram(
                "publish_ack_seconds",
                "From receiving a PUBLISH to its acknowledgement.",
                ACK_BUCKETS_SECS,
            ),
            state: State::new(&add),
            rsp: Rsp::new(&add, refusals),
            registry,
        }
    }

    /// A connection of the listener at this position was accepted as MQTT client.
    #[must_use]
    pub fn connection_opened(&self, listener: usize, version: Version) -> OpenConnection {
        let last = self.connections.len() - 1;
        let gauge = &self.connections[listener.min(last)][version.index()];
        gauge.inc();
        self.clients.fetch_add(1, Ordering::Relaxed);
        OpenConnection {
            open: gauge.clone(),
            clients: Arc::clone(&self.clients),
            waiting_packets: self.waiting_packets.clone(),
            waiting_bytes: self.waiting_bytes.clone(),
            waits: Waiting::default(),
        }
    }

    /// A listener accepted a connection; nothing is known of it yet.
    pub fn socket_accepted(&self) {
        self.sockets.inc();
    }

    /// A CONNECT was answered, or did not come.
    pub fn connect(&self, result: ConnectResult) {
        self.connects.of(result).inc();
    }

    /// An accepted connection ended. Counts take-overs and keep alive timeouts too.
    pub fn disconnected(&self, reason: DisconnectReason) {
        self.disconnects.of(reason).inc();
        if reason == DisconnectReason::TakenOver {
            self.takeovers.inc();
        }
        if reason == DisconnectReason::KeepAlive {
            self.keepalive_timeouts.inc();
        }
    }

    /// A session ended because its client stayed away.
    pub fn session_expired(&self) {
        self.sessions_expired.inc();
    }

    /// A TLS handshake succeeded.
    pub fn tls_handshake(&self, resumed: bool, took: Duration) {
        let result = if resumed { HandshakeResult::Resumed } else { HandshakeResult::Full };
        self.tls.handshakes.of(result).inc();
        observe(&self.tls.handshake, took);
    }

    /// A TLS handshake failed.
    pub fn tls_rejected(&self, reason: TlsRejection) {
        self.tls.handshakes.of(HandshakeResult::Failed).inc();
        self.tls.rejected.of(reason).inc();
    }

    /// When a certificate in use ends, in seconds of Unix time: where several listeners have one,
    /// give the earliest.
    pub fn certificate_not_after(&self, which: Certificate, unix_secs: i64) {
        self.tls.not_after[which.index()].set(unix_secs);
    }

    /// A packet was read. Packets that only a server may send are counted as protocol errors alone.
    pub fn packet_in(&self, packet: PacketType) {
        self.packets.add(Direction::In, packet, 1);
    }

    /// A packet was written.
    pub fn packet_out(&self, packet: PacketType) {
        self.packets.add(Direction::Out, packet, 1);
    }

    /// A message came from a client.
    pub fn message_in(&self, qos: QoS, payload_bytes: usize) {
        self.messages.add(Direction::In, qos, 1);
        self.payload_bytes.of(Direction::In).inc_by(payload_bytes as u64);
    }

    /// A message went to a client. Counts its packet too.
    pub fn message_out(&self, qos: QoS, payload_bytes: usize) {
        self.packet_out(PacketType::Publish);
        self.messages.add(Direction::Out, qos, 1);
        self.payload_bytes.of(Direction::Out).inc_by(payload_bytes as u64);
    }

    /// A message did not reach a receiver.
    pub fn dropped(&self, reason: DropReason) {
        self.messages_dropped.of(reason).inc();
    }

    /// An ACL denied something.
    pub fn acl_denied(&self, action: AclAction) {
        self.acl_denied.of(action).inc();
    }

    /// Bytes were read.
    pub fn bytes_in(&self, bytes: usize) {
        self.bytes.of(Direction::In).inc_by(bytes as u64);
    }

    /// Bytes were written.
    pub fn bytes_out(&self, bytes: usize) {
        self.bytes.of(Direction::Out).inc_by(bytes as u64);
    }

    /// A peer made a mistake.
    pub fn protocol_error(&self, kind: ProtocolError) {
        self.protocol_errors.of(kind).inc();
    }

    /// A batch of changes is on the disk.
    pub fn store_committed(&self, took: Duration) {
        self.store.committed(took);
    }

    /// A PUBLISH of QoS 1 or 2 was acknowledged by us.
    pub fn publish_acked(&self, took: Duration) {
        observe(&self.publish_ack, took);
    }

    /// A provisioning message was accepted.
    pub fn rsp_message(&self, kind: RspType, mode: RspMode, direction: RspDirection) {
        let table = match direction {
            RspDirection::ToEuicc => &self.rsp.to_euicc,
            RspDirection::ToSmSr => &self.rsp.to_sm_sr,
        };
        table.add(kind, mode, 1);
    }

    /// The control unit refused a message; the reason is one of those given to [`Metrics::new`].
    pub fn refused(&self, reason: &str) {
        self.rsp.refusals.get(reason).unwrap_or(&self.rsp.refusals_other).inc();
    }

    /// Provisioning messages are settled, so many, each for one receiver.
    pub fn rsp_settled(&self, mode: RspMode, result: RspDelivery, count: u64) {
        self.rsp.deliveries.add(mode, result, count);
    }

    /// A device has acknowledged a provisioning message, so long after it was published. Counts
    /// the delivery too.
    pub fn rsp_delivered(&self, mode: RspMode, took: Duration) {
        self.rsp_settled(mode, RspDelivery::Delivered, 1);
        observe(&self.rsp.delivery, took);
    }

    /// The control unit decided something by itself, about so many messages.
    pub fn rsp_decided(&self, decision: RspDecision, messages: u32) {
        self.rsp.decisions.of(decision).inc();
        let saved = messages.saturating_sub(1).into();
        match decision {
            RspDecision::Coalesced => {
                self.rsp.coalesced.inc_by(messages.into());
                self.rsp.saved.inc_by(saved);
            }
            RspDecision::Merged => self.rsp.saved.inc_by(saved),
            RspDecision::NotMerged => {}
        }
    }

    /// Profile exchanges got on, so many.
    pub fn rsp_exchange(&self, result: RspExchange, count: u64) {
        self.rsp.exchanges.of(result).inc_by(count);
    }

    /// Takes over the sums of state, before [`Metrics::text`].
    pub fn observe(&self, snapshot: &Snapshot) {
        self.state.set(snapshot);
        self.store.set(snapshot);
    }

    /// Everything in the text format of Prometheus, see [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// If the encoder finds its own data inconsistent.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// TLS handshakes.
struct Tls {
    handshakes: Family<HandshakeResult>,
    handshake: Histogram,
    rejected: Family<TlsRejection>,
    not_after: Vec<IntGauge>,
}

impl Tls {
    fn new(add: &Registrar<'_>) -> Self {
        let not_after = add.gauges(
            "certificate_not_after_timestamp_seconds",
            "Unix time at which the first certificate of its kind ends; 0 when there is none.",
            &["which"],
        );
        Self {
            handshakes: add.family("tls_handshakes_total", "TLS handshakes.", "result"),
            handshake: add.histogram(
                "tls_handshake_seconds",
                "Duration of TLS handshakes that succeeded.",
                HANDSHAKE_BUCKETS_SECS,
            ),
            rejected: add.family("tls_rejected_total", "TLS handshakes that failed.", "reason"),
            not_after: Certificate::ALL
                .iter()
                .map(|which| not_after.with_label_values(&[which.name()]))
                .collect(),
        }
    }
}

/// The gauges of a [`Snapshot`].
struct State {
    sessions_connected: IntGauge,
    sessions_away: IntGauge,
    queue_messages: IntGauge,
    queue_bytes: IntGauge,
    inflight_messages: IntGauge,
    subscriptions: IntGauge,
    retained_messages: IntGauge,
    mail_messages: IntGauge,
    mail_bytes: IntGauge,
    devices_connected: IntGauge,
    devices_away: IntGauge,
    devices_replaced: IntGauge,
    groups: IntGauge,
    campaigns: IntGaugeVec,
    campaign_devices: IntGaugeVec,
    retry_bytes: IntGauge,
}

impl State {
    fn new(add: &Registrar<'_>) -> Self {
        let sessions = add.gauges("sessions", "Sessions.", &["state"]);
        let devices = add.gauges("rsp_devices", "Registered devices.", &["state"]);
        Self {
            sessions_connected: sessions.with_label_values(&["connected"]),
            sessions_away: sessions.with_label_values(&["away"]),
            queue_messages: add.gauge("queue_messages", "Messages waiting in sessions."),
            queue_bytes: add.gauge("queue_bytes", "Bytes of payload waiting in sessions."),
            inflight_messages: add.gauge("inflight_messages", "Messages not yet acknowledged."),
            subscriptions: add.gauge("subscriptions", "Subscriptions."),
            retained_messages: add.gauge("retained_messages", "Retained messages."),
            mail_messages: add.gauge("rsp_mail_messages", "Messages waiting for devices."),
            mail_bytes: add.gauge("rsp_mail_bytes", "Bytes waiting for devices."),
            devices_connected: devices.with_label_values(&["connected"]),
            devices_away: devices.with_label_values(&["away"]),
            devices_replaced: devices.with_label_values(&["replaced"]),
            groups: add.gauge("rsp_groups", "Groups of devices."),
            campaigns: add.gauges("rsp_campaigns", "A1, B1 and C1 remembered.", &["state"]),
            campaign_devices: add.gauges(
                "rsp_campaign_devices",
                "Devices of the campaigns that are remembered, each counted for every one.",
                &["state"],
            ),
            retry_bytes: add.gauge("rsp_retry_bytes", "Bytes kept for a retry of a campaign."),
        }
    }

    fn set(&self, snapshot: &Snapshot) {
        let pairs = [
            (&self.sessions_connected, snapshot.sessions_connected),
            (&self.sessions_away, snapshot.sessions_away),
            (&self.queue_messages, snapshot.queue_messages),
            (&self.queue_bytes, snapshot.queue_bytes),
            (&self.inflight_messages, snapshot.inflight_messages),
            (&self.subscriptions, snapshot.subscriptions),
            (&self.retained_messages, snapshot.retained_messages),
            (&self.mail_messages, snapshot.rsp_mail_messages),
            (&self.mail_bytes, snapshot.rsp_mail_bytes),
            (&self.devices_connected, snapshot.rsp_devices_connected),
            (&self.devices_away, snapshot.rsp_devices_away),
            (&self.devices_replaced, snapshot.rsp_devices_replaced),
            (&self.groups, snapshot.rsp_groups),
            (&self.retry_bytes, snapshot.rsp_retry_bytes),
        ];
        let set = |gauge: &IntGauge, value| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        pairs.iter().for_each(|(gauge, value)| set(gauge, *value));
        for (state, value) in &snapshot.rsp_campaigns {
            set(&self.campaigns.with_label_values(&[state]), *value);
        }
        for (state, value) in &snapshot.rsp_campaign_devices {
            set(&self.campaign_devices.with_label_values(&[state]), *value);
        }
    }
}

/// The control unit.
struct Rsp {
    to_euicc: Table<RspType, RspMode>,
    to_sm_sr: Table<RspType, RspMode>,
    refusals: HashMap<&'static str, IntCounter>,
    refusals_other: IntCounter,
    deliveries: Table<RspMode, RspDelivery>,
    exchanges: Family<RspExchange>,
    decisions: Family<RspDecision>,
    coalesced: IntCounter,
    saved: IntCounter,
    delivery: Histogram,
}

impl Rsp {
    fn new(add: &Registrar<'_>, reasons: &[&'static str]) -> Self {
        let refusals = add.counters(
            "rsp_refusals_total",
            "Messages that the control unit refused.",
            &["reason"],
        );
        let messages = add.counters(
            "rsp_messages_total",
            "Provisioning messages that the control unit accepted.",
            &["type", "mode", "direction"],
        );
        Self {
            to_euicc: Table::one_way(&messages, RspDirection::ToEuicc),
            to_sm_sr: Table::one_way(&messages, RspDirection::ToSmSr),
            refusals: reasons.iter().map(|r| (*r, refusals.with_label_values(&[*r]))).collect(),
            refusals_other: refusals.with_label_values(&[OTHER]),
            deliveries: add.table(
                "rsp_deliveries_total",
                "Provisioning messages settled for one receiver.",
                ["mode", "result"],
                |_, _| true,
            ),
            exchanges: add.family("rsp_exchanges_total", "Profile exchanges.", "result"),
            decisions: add.family(
                "rsp_decisions_total",
                "What the control unit decided by itself.",
                "reason",
            ),
            coalesced: add.counter(
                "rsp_triggers_coalesced_total",
                "Triggers of devices that reached the servers together with others.",
            ),
            saved: add.counter(
                "rsp_messages_saved_total",
                "Messages that did not have to be sent, since one stood for several.",
            ),
            delivery: add.histogram(
                "rsp_delivery_seconds",
                "From the publish to the device's acknowledgement.",
                DELIVERY_BUCKETS_SECS,
            ),
        }
    }
}

fn connections(add: &Registrar<'_>, listeners: &[String]) -> Vec<Vec<IntGauge>> {
    let vec = add.gauges("connections", "Open connections.", &["listener", "protocol"]);
    let names = listeners.iter().map(String::as_str).take(LISTENERS_MAX);
    let more = (listeners.len() > LISTENERS_MAX || listeners.is_empty()).then_some(OTHER);
    let of_one = |name: &str| {
        Version::ALL.iter().map(|v| vec.with_label_values(&[name, v.name()])).collect()
    };
    names.chain(more).map(of_one).collect()
}

/// CPU, memory and file descriptors of this process, under their usual names.
fn register_process(registry: &Registry) {
    #[cfg(target_os = "linux")]
    {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("a fresh registry knows no process");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = registry;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many listeners and reasons as a large installation may have.
    fn large() -> Metrics {
        let listeners: Vec<String> = (0..100).map(|i| format!("0.0.0.0:{i}")).collect();
        let reasons: Vec<&'static str> =
            "abcdefghijklmnopqrstuvwxyz0123456789".split("").filter(|r| !r.is_empty()).collect();
        Metrics::new(&listeners, &reasons)
    }

    fn series(metrics: &Metrics) -> HashMap<String, f64> {
        let text = metrics.text().unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn the_number_of_series_is_small_and_constant() {
        // case D24, case O12. Every refusal has a counter of its own.
        let metrics = large();
        let before = series(&metrics);
        assert!(before.len() < 280, "{} series", before.len());
        for i in 0..10_000 {
            metrics.refused(&format!("reason {i}"));
            let _ = metrics.connection_opened(i, Version::V5);
        }
        for packet in PacketType::ALL {
            metrics.packet_in(*packet);
            metrics.packet_out(*packet);
        }
        let after = series(&metrics);
        assert_eq!(before.len(), after.len());
        assert_eq!(after["simcast_rsp_refusals_total{reason=\"other\"}"], 10_000.0);
    }

    #[test]
    fn every_series_but_those_of_the_process_has_our_prefix() {
        for name in series(&large()).keys() {
            assert!(name.starts_with("simcast_") || name.starts_with("process_"), "{name}");
        }
        assert!(series(&large()).contains_key("process_open_fds"));
    }

    #[test]
    fn a_connection_counts_while_it_is_open() {
        let metrics = Metrics::new(&["127.0.0.1:1883".to_owned()], &[]);
        let name = "simcast_connections{listener=\"127.0.0.1:1883\",protocol=\"3.1.1\"}";
        let mut open = metrics.connection_opened(0, Version::V311);
        assert_eq!(series(&metrics)[name], 1.0);
        open.output_waits(Waiting { packets: 2, bytes: 90 });
        open.output_waits(Waiting { packets: 2, bytes: 40 });
        assert_eq!(series(&metrics)["simcast_output_bytes"], 40.0);
        drop(open);
        assert_eq!(series(&metrics)[name], 0.0);
        assert_eq!(metrics.totals(), Totals::default());
    }

    #[test]
    fn counts_arrive_at_their_series() {
        let metrics = Metrics::new(&[], &["spoofed_nid"]);
        metrics.disconnected(DisconnectReason::TakenOver);
        metrics.disconnected(DisconnectReason::KeepAlive);
        metrics.message_in(QoS::AtLeastOnce, 3);
        metrics.message_out(QoS::AtMostOnce, 4);
        metrics.dropped(DropReason::QueueFull);
        metrics.dropped(DropReason::NotAuthorized);
        metrics.bytes_in(7);
        metrics.refused("spoofed_nid");
        metrics.tls_rejected(TlsRejection::NoCertificate);
        metrics.rsp_message(RspType::Trigger, RspMode::Multi, RspDirection::ToEuicc);
        metrics.rsp_delivered(RspMode::Multi, Duration::from_secs(2));
        metrics.observe(&Snapshot { queue_bytes: 9, ..Snapshot::default() });
        let totals = metrics.totals();
        assert_eq!(totals.payload_bytes, Both { received: 3, sent: 4 });
        assert_eq!((totals.bytes.received, totals.packets.sent, totals.dropped), (7, 1, 1));

        let series = series(&metrics);
        let labels = "direction=\"to_euicc\",mode=\"multi\",type=\"trigger\"";
        let trigger = format!("simcast_rsp_messages_total{{{labels}}}");
        let expected = [
            ("simcast_disconnects_total{reason=\"taken_over\"}", 1.0),
            ("simcast_takeovers_total", 1.0),
            ("simcast_keepalive_timeouts_total", 1.0),
            ("simcast_messages_total{direction=\"in\",qos=\"1\"}", 1.0),
            ("simcast_packets_total{direction=\"out\",type=\"publish\"}", 1.0),
            ("simcast_payload_bytes_total{direction=\"in\"}", 3.0),
            ("simcast_bytes_total{direction=\"in\"}", 7.0),
            ("simcast_rsp_refusals_total{reason=\"spoofed_nid\"}", 1.0),
            ("simcast_tls_handshakes_total{result=\"failed\"}", 1.0),
            ("simcast_tls_rejected_total{reason=\"no_certificate\"}", 1.0),
            (&trigger, 1.0),
            ("simcast_rsp_deliveries_total{mode=\"multi\",result=\"delivered\"}", 1.0),
            ("simcast_rsp_delivery_seconds_sum", 2.0),
            ("simcast_queue_bytes", 9.0),
        ];
        for (name, value) in expected {
            assert_eq!(series.get(name), Some(&value), "{name}");
        }
    }

    #[test]
    fn the_text_has_help_and_type_for_each_metric() {
        let text = large().text().unwrap();
        for name in ["simcast_connects_total", "simcast_sessions", "simcast_tls_handshake_seconds"]
        {
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
}
