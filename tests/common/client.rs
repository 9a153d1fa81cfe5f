//! A client that does what it is told, byte by byte if need be.
//!
//! Whatever it reads while it waits for something else is kept: messages wait in the client until
//! a test asks for them.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use simcast::ids::PacketId;
use simcast::mqtt::{
    Ack, ConnAck, Connect, ConnectProperties, Disconnect, Packet, Publish, PublishProperties, QoS,
    ReasonCode, Sender, SubAck, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe, Version,
    Will, decode, encode, frame_len,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::in_time;

/// Any connected socket.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A CONNECT in the making.
#[derive(Clone, Debug)]
pub struct Dial(pub Connect);

impl Dial {
    /// Version 5, clean start, no keep alive.
    pub fn v5(client_id: &str) -> Self {
        Self::new(Version::V5, client_id)
    }

    /// Version 3.1.1, clean session, no keep alive.
    pub fn v311(client_id: &str) -> Self {
        Self::new(Version::V311, client_id)
    }

    /// Any version.
    pub fn new(version: Version, client_id: &str) -> Self {
        Self(Connect {
            version,
            bridge: false,
            clean_start: true,
            keep_alive_secs: 0,
            client_id: client_id.into(),
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        })
    }

    /// Takes up an old session, and leaves one behind: for an hour in version 5.
    pub fn persistent(mut self) -> Self {
        self.0.clean_start = false;
        if self.0.version == Version::V5 {
            self.0.properties.session_expiry_secs = 3600;
        }
        self
    }

    /// Discards an old session; keeps the session expiry.
    pub fn clean(mut self) -> Self {
        self.0.clean_start = true;
        self
    }

    /// Session Expiry Interval.
    pub fn expiry_secs(mut self, secs: u32) -> Self {
        self.0.properties.session_expiry_secs = secs;
        self
    }

    /// Keep Alive.
    pub fn keep_alive_secs(mut self, secs: u16) -> Self {
        self.0.keep_alive_secs = secs;
        self
    }

    /// Receive Maximum.
    pub fn receive_maximum(mut self, messages: u16) -> Self {
        self.0.properties.receive_maximum = messages;
        self
    }

    /// Maximum Packet Size.
    pub fn packet_bytes_max(mut self, bytes: u32) -> Self {
        self.0.properties.maximum_packet_size = Some(bytes);
        self
    }

    /// User name and password.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.0.username = Some(name.into());
        self.0.password = Some(Bytes::copy_from_slice(password.as_bytes()));
        self
    }

    /// Authentication Method, and its first data.
    pub fn method(mut self, name: &str, data: &str) -> Self {
        self.0.properties.authentication_method = Some(name.into());
        self.0.properties.authentication_data = Some(Bytes::copy_from_slice(data.as_bytes()));
        self
    }

    /// A Will with QoS 1.
    pub fn will(mut self, topic: &str, payload: impl Into<Bytes>) -> Self {
        self.0.will = Some(Will {
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_secs: 0,
            topic: topic.into(),
            payload: payload.into(),
            properties: None,
        });
        self
    }

    /// QoS of the Will.
    pub fn will_qos(mut self, qos: QoS) -> Self {
        self.0.will.iter_mut().for_each(|will| will.qos = qos);
        self
    }

    /// The Will waits for this long (version 5).
    pub fn will_delay_secs(mut self, secs: u32) -> Self {
        self.0.will.iter_mut().for_each(|will| will.delay_secs = secs);
        self
    }

    /// The Will is to be retained.
    pub fn will_retained(mut self) -> Self {
        self.0.will.iter_mut().for_each(|will| will.retain = true);
        self
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A CONNACK with this reason.
    ConnAck(ReasonCode),
    /// No handshake, or closed without a CONNACK.
    Closed,
}

/// What the broker says to a PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Reason code of PUBACK or PUBREC.
    pub reason: ReasonCode,
    /// Its Reason String.
    pub text: Option<String>,
}

impl Answer {
    /// It was taken.
    pub fn is_ok(&self) -> bool {
        !self.reason.is_error()
    }
}

/// A connected client.
pub struct Client {
    stream: Box<dyn Stream>,
    version: Version,
    input: BytesMut,
    received: VecDeque<Publish>,
    last_id: u16,
    /// Messages are acknowledged as soon as they are read.
    pub auto_ack: bool,
    /// A PUBREL is answered as soon as it is read.
    pub auto_complete: bool,
    /// What the broker said to the CONNECT.
    pub connack: ConnAck,
}

impl Client {
    /// Says CONNECT and waits for the CONNACK.
    pub async fn open(stream: impl Stream + 'static, dial: &Dial) -> Result<Self, Denied> {
        let mut client = Self::begin(stream, dial).await;
        client.finish().await?;
        Ok(client)
    }

    /// Says CONNECT and waits for nothing.
    pub async fn begin(stream: impl Stream + 'static, dial: &Dial) -> Self {
        let nothing =
            ConnAck { session_present: false, reason: ReasonCode::Success, properties: None };
        let mut client = Self {
            stream: Box::new(stream),
            version: dial.0.version,
            input: BytesMut::new(),
            received: VecDeque::new(),
            last_id: 0,
            auto_ack: true,
            auto_complete: true,
            connack: nothing,
        };
        client.send(&Packet::Connect(Box::new(dial.0.clone()))).await;
        client
    }

    /// Waits for the CONNACK.
    pub async fn finish(&mut self) -> Result<(), Denied> {
        match self.read().await {
            Some(Packet::ConnAck(connack)) if connack.reason == ReasonCode::Success => {
                self.connack = *connack;
                Ok(())
            }
            Some(Packet::ConnAck(connack)) => Err(Denied::ConnAck(connack.reason)),
            None => Err(Denied::Closed),
            Some(other) => panic!("{other:?} instead of a CONNACK"),
        }
    }

    /// The session was there before.
    pub fn session_present(&self) -> bool {
        self.connack.session_present
    }

    /// Sends a packet.
    pub async fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        encode(packet, self.version, &mut bytes);
        self.send_raw(&bytes).await;
    }

    /// Sends any bytes; whether a broker that is closing takes them is not our concern.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let writing = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let _taken_or_not = in_time("a write", writing).await;
    }

    /// The next packet as it comes, answered only where `auto_ack` says so; `None` at the end.
    pub async fn read(&mut self) -> Option<Packet> {
        let frame = in_time("a packet", self.frame()).await?;
        let packet = decode(frame, self.version, Sender::Server).expect("the broker speaks MQTT");
        if let Packet::PubRel(ack) = &packet
            && self.auto_complete
        {
            self.send(&Packet::PubComp(success(ack.packet_id))).await;
        }
        if let Packet::Publish(publish) = &packet
            && self.auto_ack
        {
            self.acknowledge(publish).await;
        }
        Some(packet)
    }

    /// PUBACK or PUBREC.
    pub async fn acknowledge(&mut self, publish: &Publish) {
        let Some(id) = publish.packet_id else { return };
        let ack = success(id);
        let exactly_once = publish.qos == QoS::ExactlyOnce;
        let packet = if exactly_once { Packet::PubRec(ack) } else { Packet::PubAck(ack) };
        self.send(&packet).await;
    }

    /// Publishes, and waits for what the broker says. Version 3.1.1 gets no reason.
    pub async fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: QoS) -> Answer {
        self.publish_with(topic, payload, qos, false, None).await
    }

    /// Publishes with the retain flag, QoS 1.
    pub async fn retain(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Answer {
        self.publish_with(topic, payload, QoS::AtLeastOnce, true, None).await
    }

    /// Publishes with everything that a PUBLISH can have.
    pub async fn publish_with(
        &mut self,
        topic: &str,
        payload: impl AsRef<[u8]>,
        qos: QoS,
        retain: bool,
        properties: Option<PublishProperties>,
    ) -> Answer {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.fresh_id());
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain,
            topic: topic.into(),
            packet_id,
            properties: properties.map(Box::new),
            payload: Bytes::copy_from_slice(payload.as_ref()),
        }))
        .await;
        let Some(id) = packet_id else {
            self.ping().await;
            return Answer { reason: ReasonCode::Success, text: None };
        };
        let ack = self.until("an acknowledgement", |packet| acknowledgement(packet, id)).await;
        if qos == QoS::ExactlyOnce && !ack.reason.is_error() {
            self.send(&Packet::PubRel(success(id))).await;
            self.until("PUBCOMP", |p| {
                matches!(p, Packet::PubComp(a) if a.packet_id == id).then_some(())
            })
            .await;
        }
        let text = ack.properties.and_then(|properties| properties.reason_string);
        Answer { reason: ack.reason, text: text.map(|text| text.to_string()) }
    }

    /// Publishes with QoS 1 and does not wait: for brokers that close.
    pub async fn throw(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        let packet_id = Some(self.fresh_id());
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: topic.into(),
            packet_id,
            properties: None,
            payload: Bytes::copy_from_slice(payload.as_ref()),
        }))
        .await;
    }

    /// Subscribes to one filter; what the broker says to it.
    pub async fn subscribe(&mut self, filter: &str, qos: QoS) -> ReasonCode {
        let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
        self.subscribe_with(&[(filter, options)], None).await.reasons[0]
    }

    /// Subscribes with options and a Subscription Identifier.
    pub async fn subscribe_with(
        &mut self,
        filters: &[(&str, SubscribeOptions)],
        subscription_id: Option<u32>,
    ) -> SubAck {
        let packet_id = self.fresh_id();
        let filters = filters.iter().map(|(filter, options)| SubscribeFilter {
            filter: (*filter).into(),
            options: *options,
        });
        let filters = filters.collect();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            subscription_id,
            user: Vec::new(),
            filters,
        }))
        .await;
        self.until("SUBACK", |packet| match packet {
            Packet::SubAck(ack) if ack.packet_id == packet_id => Some(ack.clone()),
            _ => None,
        })
        .await
    }

    /// Unsubscribes from one filter; what a broker of version 5 says to it.
    pub async fn unsubscribe(&mut self, filter: &str) -> Option<ReasonCode> {
        let packet_id = self.fresh_id();
        let filters = [filter.into()].into_iter().collect();
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, user: Vec::new(), filters })).await;
        let ack = self.until("UNSUBACK", |packet| match packet {
            Packet::UnsubAck(ack) if ack.packet_id == packet_id => Some(ack.clone()),
            _ => None,
        });
        ack.await.reasons.first().copied()
    }

    /// One PINGREQ and its answer: the broker has carried out everything that was sent before.
    pub async fn ping(&mut self) {
        self.send(&Packet::PingReq).await;
        self.until("PINGRESP", |packet| matches!(packet, Packet::PingResp).then_some(())).await;
    }

    /// Afterwards everything that was on its way to this client, when it was called, is here.
    ///
    /// Whoever publishes is answered only after the receivers' tasks have been called (a flag is
    /// raised), and whoever calls this has seen that answer. A receiver's task looks at its flags,
    /// then at its socket, in this order, and delivers before it looks again. Between one look at
    /// the flags and the next look at the socket the flag may rise and the first PINGREQ arrive; so
    /// one PINGRESP may be early. The second PINGREQ is sent after the first answer, is therefore
    /// read in a later turn, and that turn has looked at the flags after they were raised.
    pub async fn barrier(&mut self) {
        self.ping().await;
        self.ping().await;
    }

    /// The next message, waiting for it if need be.
    pub async fn expect_publish(&mut self) -> Publish {
        loop {
            if let Some(publish) = self.received.pop_front() {
                return publish;
            }
            match self.read().await {
                Some(Packet::Publish(publish)) => self.received.push_back(publish),
                Some(Packet::PubRel(_)) => {}
                Some(other) => panic!("{other:?} instead of a message"),
                None => panic!("closed instead of a message"),
            }
        }
    }

    /// The payload of the next message.
    pub async fn expect_payload(&mut self) -> String {
        String::from_utf8_lossy(&self.expect_publish().await.payload).into_owned()
    }

    /// The payloads of the next messages.
    pub async fn expect_payloads(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::with_capacity(count);
        for _ in 0..count {
            payloads.push(self.expect_payload().await);
        }
        payloads
    }

    /// Nothing has come, and nothing that was published before is on its way.
    pub async fn expect_nothing(&mut self) {
        let surprise = self.arrived().await;
        assert!(surprise.is_empty(), "unexpected: {surprise:?}");
    }

    /// Everything that was on its way.
    pub async fn arrived(&mut self) -> Vec<Publish> {
        self.barrier().await;
        self.received.drain(..).collect()
    }

    /// Reads to the end of the connection: the DISCONNECT, if there was one. Messages are kept.
    pub async fn expect_closed(&mut self) -> Option<Disconnect> {
        let mut goodbye = None;
        while let Some(packet) = self.read().await {
            match packet {
                Packet::Disconnect(disconnect) => goodbye = Some(disconnect),
                Packet::Publish(publish) => self.received.push_back(publish),
                _ => {}
            }
        }
        goodbye
    }

    /// The reason of the DISCONNECT that ends the connection.
    pub async fn expect_goodbye(&mut self) -> ReasonCode {
        self.expect_closed().await.expect("a DISCONNECT").reason
    }

    /// Everything that came before the end.
    pub fn left_over(&mut self) -> Vec<Publish> {
        self.received.drain(..).collect()
    }

    /// DISCONNECT; returns when the broker has closed, that is, has let the session go.
    pub async fn disconnect(mut self) {
        let reason = ReasonCode::Success;
        self.send(&Packet::Disconnect(Disconnect { reason, properties: None })).await;
        self.expect_closed().await;
    }

    /// Goes without a word; returns when the broker has let the session go.
    pub async fn vanish(mut self) {
        self.half_close().await;
        self.expect_closed().await;
    }

    /// Ends our half of the connection.
    pub async fn half_close(&mut self) {
        let _closed_already_or_not = in_time("a shutdown", self.stream.shutdown()).await;
    }

    fn fresh_id(&mut self) -> PacketId {
        self.last_id += 1;
        PacketId::new(self.last_id).unwrap()
    }

    /// Reads until `pick` takes a packet; keeps messages meanwhile.
    async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&Packet) -> Option<T>) -> T {
        loop {
            let Some(packet) = self.read().await else { panic!("closed instead of {what}") };
            if let Some(picked) = pick(&packet) {
                return picked;
            }
            match packet {
                Packet::Publish(publish) => self.received.push_back(publish),
                Packet::Disconnect(goodbye) => panic!("{goodbye:?} instead of {what}"),
                _ => {}
            }
        }
    }

    async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(len) = frame_len(&self.input).expect("the broker speaks MQTT")
                && len <= self.input.len()
            {
                return Some(self.input.split_to(len).freeze());
            }
            // A reset is an end like any other.
            if matches!(self.stream.read_buf(&mut self.input).await, Ok(0) | Err(_)) {
                return None;
            }
        }
    }
}

/// An acknowledgement without a word.
pub fn success(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: None }
}

fn acknowledgement(packet: &Packet, id: PacketId) -> Option<Ack> {
    match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) if ack.packet_id == id => Some(ack.clone()),
        _ => None,
    }
}
