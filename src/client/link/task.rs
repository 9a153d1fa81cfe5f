//! The task that owns the socket of a [`Link`](super::Link).

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4::{self, Packet, SubscribeReasonCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, timeout};

use super::{Closed, Incoming, LinkError, LinkOptions, Traffic};

/// Our own messages without acknowledgement.
const IN_FLIGHT_MAX: usize = 10_000;
/// Unacknowledged messages that the broker may send; more than any in-flight window in use.
const BACKLOG_MAX: usize = 4096;
const BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Above this, neither requests nor packets are taken in until some of it is written.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Without keep alive the timer still ticks, and nothing happens.
const IDLE: Duration = Duration::from_secs(3600);

type Done<T> = oneshot::Sender<Result<T, LinkError>>;

#[derive(Debug)]
pub(super) enum Command {
    Publish(v4::Publish, Done<()>),
    Subscribe(v4::Subscribe, Done<Option<QoS>>),
    Unsubscribe(v4::Unsubscribe, Done<()>),
    Acknowledge(u16, QoS),
    Disconnect,
}

/// What the broker owes us for a packet identifier.
enum Owed {
    PubAck(Done<()>),
    PubRec(Done<()>),
    PubComp(Done<()>),
    SubAck(Done<Option<QoS>>),
    UnsubAck(Done<()>),
}

pub(super) struct Task {
    options: LinkOptions,
    traffic: Arc<Traffic>,
    requests: mpsc::Receiver<Command>,
    messages: mpsc::Sender<Incoming>,
    input: BytesMut,
    output: BytesMut,
    unflushed: bool,
    owed: HashMap<u16, Owed>,
    last_id: u16,
    /// QoS 0 messages in `output`: taken when it is written.
    unwritten: Vec<Done<()>>,
    backlog: VecDeque<Incoming>,
    backlog_bytes: usize,
    /// QoS 2 messages whose PUBREL has not come.
    unreleased: HashSet<u16>,
    ping_open: bool,
    closing: bool,
}

impl Task {
    pub(super) fn new(
        options: LinkOptions,
        traffic: Arc<Traffic>,
        requests: mpsc::Receiver<Command>,
        messages: mpsc::Sender<Incoming>,
        input: BytesMut,
    ) -> Self {
        Self {
            options,
            traffic,
            requests,
            messages,
            input,
            output: BytesMut::new(),
            unflushed: false,
            owed: HashMap::new(),
            last_id: 0,
            unwritten: Vec::new(),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            unreleased: HashSet::new(),
            ping_open: false,
            closing: false,
        }
    }

    /// Until the connection ends.
    pub(super) async fn run<S: AsyncRead + AsyncWrite>(mut self, socket: S) -> Closed {
        let (mut reader, mut writer) = tokio::io::split(socket);
        let result = self.serve(&mut reader, &mut writer).await;
        // A farewell to a socket that is broken already may fail.
        let _ = timeout(self.options.patience, writer.shutdown()).await;
        match result {
            Ok(()) => Closed::ByUs,
            Err(reason) => reason,
        }
    }

    async fn serve<R, W>(&mut self, reader: &mut R, writer: &mut W) -> Result<(), Closed>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let pings = self.options.keep_alive_secs > 0;
        let half = Duration::from_secs(self.options.keep_alive_secs.into()) / 2;
        let mut timer = interval(if pings { half } else { IDLE });
        timer.tick().await; // the first comes at once
        self.digest()?; // what came together with the CONNACK
        loop {
            let unwritten = !self.output.is_empty() || self.unflushed;
            if self.closing && !unwritten {
                return Ok(());
            }
            let room = self.output.len() < OUTPUT_BYTES_MAX;
            tokio::select! {
                result = write_some(writer, &mut self.output), if unwritten => {
                    self.wrote(result.map_err(|error| network(&error))?);
                }
                result = reader.read_buf(&mut self.input), if room => {
                    self.read(result.map_err(|error| network(&error))?)?;
                }
                command = self.requests.recv(), if room && !self.closing => match command {
                    Some(command) => self.obey(command),
                    None => return Err(Closed::Dropped),
                },
                () = room_in(&self.messages), if !self.backlog.is_empty() => self.hand_over(),
                _ = timer.tick(), if pings => self.ping()?,
            }
        }
    }

    fn wrote(&mut self, count: usize) {
        self.traffic.sent_bytes.fetch_add(count as u64, Ordering::Relaxed);
        self.unflushed = count > 0 || !self.output.is_empty();
        if !self.unflushed {
            for done in self.unwritten.drain(..) {
                answer(done, Ok(()));
            }
        }
    }

    fn read(&mut self, count: usize) -> Result<(), Closed> {
        if count == 0 {
            return Err(Closed::ByBroker);
        }
        self.traffic.received_bytes.fetch_add(count as u64, Ordering::Relaxed);
        self.digest()
    }

    fn digest(&mut self) -> Result<(), Closed> {
        loop {
            match v4::read(&mut self.input, self.options.packet_bytes_max) {
                Ok(packet) => self.take(packet)?,
                Err(mqttbytes::Error::InsufficientBytes(_)) => return Ok(()),
                Err(error) => return Err(Closed::Unreadable(error)),
            }
        }
    }

    fn ping(&mut self) -> Result<(), Closed> {
        if self.ping_open {
            return Err(Closed::Silent);
        }
        self.ping_open = true;
        self.put(|output| v4::PingReq.write(output));
        Ok(())
    }
}

/// What the program wants.
impl Task {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Publish(publish, done) => self.publish(publish, done),
            Command::Subscribe(mut subscribe, done) => {
                let Some(id) = self.fresh_id() else {
                    return answer(done, Err(LinkError::TooManyInFlight));
                };
                subscribe.pkid = id;
                self.put(|output| subscribe.write(output));
                self.owed.insert(id, Owed::SubAck(done));
            }
            Command::Unsubscribe(mut unsubscribe, done) => {
                let Some(id) = self.fresh_id() else {
                    return answer(done, Err(LinkError::TooManyInFlight));
                };
                unsubscribe.pkid = id;
                self.put(|output| unsubscribe.write(output));
                self.owed.insert(id, Owed::UnsubAck(done));
            }
            Command::Acknowledge(id, qos) => self.acknowledge(id, qos),
            Command::Disconnect => {
                self.put(|output| v4::Disconnect.write(output));
                self.closing = true;
            }
        }
    }

    fn publish(&mut self, mut publish: v4::Publish, done: Done<()>) {
        if publish.qos != QoS::AtMostOnce {
            let Some(id) = self.fresh_id() else {
                return answer(done, Err(LinkError::TooManyInFlight));
            };
            publish.pkid = id;
        }
        let before = self.output.len();
        let too_long = publish.topic.len() > usize::from(u16::MAX);
        let result = match publish.write(&mut self.output) {
            Ok(_) if too_long => Err(mqttbytes::Error::PayloadTooLong),
            other => other,
        };
        if let Err(error) = result {
            self.output.truncate(before);
            return answer(done, Err(LinkError::Unwritable(error)));
        }
        match publish.qos {
            QoS::AtMostOnce => self.unwritten.push(done),
            QoS::AtLeastOnce => {
                self.owed.insert(publish.pkid, Owed::PubAck(done));
            }
            QoS::ExactlyOnce => {
                self.owed.insert(publish.pkid, Owed::PubRec(done));
            }
        }
    }

    fn fresh_id(&mut self) -> Option<u16> {
        if self.owed.len() >= IN_FLIGHT_MAX {
            return None;
        }
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.owed.contains_key(&self.last_id) {
                return Some(self.last_id);
            }
        }
    }
}

/// What the broker sends.
impl Task {
    fn take(&mut self, packet: Packet) -> Result<(), Closed> {
        match packet {
            Packet::Publish(publish) => return self.receive(publish),
            Packet::PubRel(pubrel) => {
                self.unreleased.remove(&pubrel.pkid);
                self.put(|output| v4::PubComp::new(pubrel.pkid).write(output));
            }
            Packet::PubAck(ack) => match self.owed.remove(&ack.pkid) {
                Some(Owed::PubAck(done)) => answer(done, Ok(())),
                Some(_) | None => return Err(Closed::Unexpected("PUBACK")),
            },
            Packet::PubRec(ack) => return self.release(ack.pkid),
            Packet::PubComp(ack) => match self.owed.remove(&ack.pkid) {
                Some(Owed::PubComp(done)) => answer(done, Ok(())),
                Some(_) | None => return Err(Closed::Unexpected("PUBCOMP")),
            },
            Packet::SubAck(ack) => match self.owed.remove(&ack.pkid) {
                Some(Owed::SubAck(done)) => answer(done, Ok(granted(&ack))),
                Some(_) | None => return Err(Closed::Unexpected("SUBACK")),
            },
            Packet::UnsubAck(ack) => match self.owed.remove(&ack.pkid) {
                Some(Owed::UnsubAck(done)) => answer(done, Ok(())),
                Some(_) | None => return Err(Closed::Unexpected("UNSUBACK")),
            },
            Packet::PingResp => self.ping_open = false,
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Disconnect => return Err(Closed::Unexpected(name_of(&packet))),
        }
        Ok(())
    }

    fn receive(&mut self, publish: v4::Publish) -> Result<(), Closed> {
        // Repeating is for a new connection [MQTT-4.4.0-1]; here it is a broker's mistake.
        if publish.qos == QoS::ExactlyOnce && !self.unreleased.insert(publish.pkid) {
            return Err(Closed::Unexpected("second PUBLISH"));
        }
        let bytes = self.backlog_bytes + publish.payload.len();
        if self.backlog.len() >= BACKLOG_MAX || bytes > BACKLOG_BYTES_MAX {
            if publish.qos == QoS::AtMostOnce {
                self.traffic.dropped.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            return Err(Closed::Overrun);
        }
        self.backlog_bytes = bytes;
        self.backlog.push_back(Incoming {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            duplicate: publish.dup,
            packet_id: publish.pkid,
        });
        Ok(())
    }

    fn hand_over(&mut self) {
        let Some(message) = self.backlog.pop_front() else { return };
        let (id, qos, bytes) = (message.packet_id, message.qos, message.payload.len());
        // There is room, as only this task sends. Without an inbox nobody wants messages: they
        // are acknowledged and forgotten.
        let _ = self.messages.try_send(message);
        self.backlog_bytes -= bytes;
        if !self.options.manual_acks {
            self.acknowledge(id, qos);
        }
    }

    fn acknowledge(&mut self, id: u16, qos: QoS) {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.put(|output| v4::PubAck::new(id).write(output)),
            QoS::ExactlyOnce => self.put(|output| v4::PubRec::new(id).write(output)),
        }
    }

    fn release(&mut self, id: u16) -> Result<(), Closed> {
        let Some(Owed::PubRec(done)) = self.owed.remove(&id) else {
            return Err(Closed::Unexpected("PUBREC"));
        };
        self.owed.insert(id, Owed::PubComp(done));
        self.put(|output| v4::PubRel::new(id).write(output));
        Ok(())
    }

    fn put(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<usize, mqttbytes::Error>) {
        let before = self.output.len();
        // Only a remaining length beyond 256 MiB fails, and the packets here are small.
        if write(&mut self.output).is_err() {
            self.output.truncate(before);
        }
    }
}

/// The packet type, as the standard writes it.
pub(super) fn name_of(packet: &Packet) -> &'static str {
    match packet {
        Packet::Connect(_) => "CONNECT",
        Packet::ConnAck(_) => "CONNACK",
        Packet::Publish(_) => "PUBLISH",
        Packet::PubAck(_) => "PUBACK",
        Packet::PubRec(_) => "PUBREC",
        Packet::PubRel(_) => "PUBREL",
        Packet::PubComp(_) => "PUBCOMP",
        Packet::Subscribe(_) => "SUBSCRIBE",
        Packet::SubAck(_) => "SUBACK",
        Packet::Unsubscribe(_) => "UNSUBSCRIBE",
        Packet::UnsubAck(_) => "UNSUBACK",
        Packet::PingReq => "PINGREQ",
        Packet::PingResp => "PINGRESP",
        Packet::Disconnect => "DISCONNECT",
    }
}

/// Writes a part of the output, or flushes when all is written. Nothing is lost when the
/// caller stops waiting.
async fn write_some<W: AsyncWrite + Unpin>(
    writer: &mut W,
    output: &mut BytesMut,
) -> io::Result<usize> {
    if output.is_empty() {
        writer.flush().await?;
        return Ok(0);
    }
    match writer.write_buf(output).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

/// Waits until the inbox has room, or is gone.
async fn room_in(messages: &mpsc::Sender<Incoming>) {
    drop(messages.reserve().await);
}

fn granted(ack: &v4::SubAck) -> Option<QoS> {
    match ack.return_codes.first() {
        Some(SubscribeReasonCode::Success(qos)) => Some(*qos),
        Some(SubscribeReasonCode::Failure) | None => None,
    }
}

fn answer<T>(done: Done<T>, result: Result<T, LinkError>) {
    // Whoever asked may have stopped waiting.
    let _ = done.send(result);
}

fn network(error: &io::Error) -> Closed {
    Closed::Network(error.to_string())
}
