//! The link against a broker of a few lines that does what each test tells it.
#![allow(clippy::wildcard_enum_match_arm, reason = "any other packet fails the test")]

use super::*;
use mqttbytes::v4::{PingResp, PubAck, PubComp, PubRec, PubRel, SubAck, SubscribeReasonCode};
use tokio::net::TcpListener;

/// The broker's end of one connection.
struct Peer {
    socket: TcpStream,
    input: BytesMut,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        Self { socket: listener.accept().await.unwrap().0, input: BytesMut::new() }
    }

    async fn next(&mut self) -> Option<Packet> {
        loop {
            match v4::read(&mut self.input, 1024 * 1024) {
                Ok(packet) => return Some(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
            if self.socket.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn send(&mut self, packets: &[Packet]) {
        let mut output = BytesMut::new();
        for packet in packets {
            match packet {
                Packet::ConnAck(p) => p.write(&mut output),
                Packet::Publish(p) => p.write(&mut output),
                Packet::PubAck(p) => p.write(&mut output),
                Packet::PubRec(p) => p.write(&mut output),
                Packet::PubRel(p) => p.write(&mut output),
                Packet::PubComp(p) => p.write(&mut output),
                Packet::SubAck(p) => p.write(&mut output),
                Packet::PingResp => PingResp.write(&mut output),
                other => panic!("{other:?} is not for a broker"),
            }
            .unwrap();
        }
        self.socket.write_all(&output).await.unwrap();
    }

    async fn expect_publish(&mut self) -> v4::Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("{other:?}"),
        }
    }
}

fn connack() -> Packet {
    Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))
}

fn message(id: u16, qos: QoS, payload: &'static [u8]) -> Packet {
    let mut publish = v4::Publish::from_bytes("t", qos, Bytes::from_static(payload));
    publish.pkid = id;
    Packet::Publish(publish)
}

async fn listen() -> (TcpListener, LinkOptions) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, LinkOptions::new("127.0.0.1", port, "c"))
}

async fn connected(options: LinkOptions, listener: &TcpListener) -> (Link, Inbox, Peer) {
    let serving = async {
        let mut peer = Peer::accept(listener).await;
        assert!(matches!(peer.next().await, Some(Packet::Connect(_))));
        peer.send(&[connack()]).await;
        peer
    };
    let (link, peer) = tokio::join!(Link::connect(options), serving);
    let (link, inbox) = link.unwrap();
    (link, inbox, peer)
}

#[tokio::test]
async fn connect_carries_every_option() {
    let (listener, mut options) = listen().await;
    options.clean_session = false;
    options.keep_alive_secs = 7;
    options.login = Some(("u".into(), "p".into()));
    options.will = Some(("w".into(), Bytes::from_static(b"gone"), QoS::AtLeastOnce, true));
    let serving = async {
        let mut peer = Peer::accept(&listener).await;
        let Some(Packet::Connect(connect)) = peer.next().await else { panic!() };
        peer.send(&[Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, true))]).await;
        (connect, peer)
    };
    let (link, (connect, _peer)) = tokio::join!(Link::connect(options), serving);
    assert!(link.unwrap().0.session_present());
    assert_eq!((connect.client_id.as_str(), connect.keep_alive), ("c", 7));
    assert!(!connect.clean_session);
    assert!(connect.login.unwrap().validate(&"u".into(), &"p".into()));
    let will = connect.last_will.unwrap();
    assert_eq!((will.topic.as_str(), &will.message[..]), ("w", &b"gone"[..]));
    assert!(will.retain && will.qos == QoS::AtLeastOnce);
}

#[tokio::test]
async fn a_refused_connection_says_why() {
    let (listener, options) = listen().await;
    let serving = async {
        let mut peer = Peer::accept(&listener).await;
        peer.next().await;
        let refusal = ConnAck::new(ConnectReturnCode::NotAuthorized, false);
        peer.send(&[Packet::ConnAck(refusal)]).await;
    };
    let (result, ()) = tokio::join!(Link::connect(options), serving);
    assert!(matches!(result, Err(LinkError::Refused(ConnectReturnCode::NotAuthorized))));
}

#[tokio::test]
async fn nobody_listening_is_an_error_with_the_address() {
    let (listener, options) = listen().await;
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = Link::connect(options).await.unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[tokio::test]
async fn a_publish_resolves_at_its_last_acknowledgement() {
    let (listener, options) = listen().await;
    let (link, _inbox, mut peer) = connected(options, &listener).await;
    link.publish("t", QoS::AtMostOnce, false, "zero").await.unwrap();
    assert_eq!(peer.expect_publish().await.payload, "zero");

    let serving = async {
        let publish = peer.expect_publish().await;
        assert!(publish.retain);
        peer.send(&[Packet::PubAck(PubAck::new(publish.pkid))]).await;
    };
    let (result, ()) = tokio::join!(link.publish("t", QoS::AtLeastOnce, true, "one"), serving);
    result.unwrap();

    let serving = async {
        let id = peer.expect_publish().await.pkid;
        peer.send(&[Packet::PubRec(PubRec::new(id))]).await;
        assert_eq!(peer.next().await, Some(Packet::PubRel(PubRel::new(id))));
        peer.send(&[Packet::PubComp(PubComp::new(id))]).await;
    };
    let (result, ()) = tokio::join!(link.publish("t", QoS::ExactlyOnce, false, "two"), serving);
    result.unwrap();
    assert!(link.traffic().sent_bytes() > 20);
}

#[tokio::test]
async fn publishes_overlap_and_their_identifiers_differ() {
    let (listener, options) = listen().await;
    let (link, _inbox, mut peer) = connected(options, &listener).await;
    let serving = async {
        let (one, two) = (peer.expect_publish().await.pkid, peer.expect_publish().await.pkid);
        assert_ne!(one, two);
        peer.send(&[Packet::PubAck(PubAck::new(two)), Packet::PubAck(PubAck::new(one))]).await;
    };
    let (one, two, ()) = tokio::join!(
        link.publish("t", QoS::AtLeastOnce, false, "1"),
        link.publish("t", QoS::AtLeastOnce, false, "2"),
        serving
    );
    one.unwrap();
    two.unwrap();
}

#[tokio::test]
async fn a_subscription_is_granted_or_refused() {
    let (listener, options) = listen().await;
    let (link, _inbox, mut peer) = connected(options, &listener).await;
    let serving = async {
        for code in [SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Failure] {
            let Some(Packet::Subscribe(subscribe)) = peer.next().await else { panic!() };
            peer.send(&[Packet::SubAck(SubAck::new(subscribe.pkid, vec![code]))]).await;
        }
    };
    let asking = async {
        let one = link.subscribe("a", QoS::ExactlyOnce).await.unwrap();
        let two = link.subscribe("b", QoS::ExactlyOnce).await.unwrap();
        (one, two)
    };
    let (codes, ()) = tokio::join!(asking, serving);
    assert_eq!(codes, (Some(QoS::AtLeastOnce), None));
}

#[tokio::test]
async fn incoming_messages_are_acknowledged_once_the_inbox_has_them() {
    let (listener, mut options) = listen().await;
    options.inbox_max = 1;
    let (_link, mut inbox, mut peer) = connected(options, &listener).await;
    let one = message(1, QoS::AtLeastOnce, b"1");
    let two = message(2, QoS::ExactlyOnce, b"2");
    peer.send(&[one, two]).await;
    assert_eq!(peer.next().await, Some(Packet::PubAck(PubAck::new(1))));
    // The inbox is full: the second is not acknowledged, and a ping would still be answered.
    let early = timeout(Duration::from_millis(50), peer.next()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(inbox.recv().await.unwrap().payload, "1");
    assert_eq!(peer.next().await, Some(Packet::PubRec(PubRec::new(2))));
    peer.send(&[Packet::PubRel(PubRel::new(2))]).await;
    assert_eq!(peer.next().await, Some(Packet::PubComp(PubComp::new(2))));
    assert_eq!(inbox.recv().await.unwrap().payload, "2");
}

#[tokio::test]
async fn a_full_inbox_does_not_hold_up_our_own_publishes() {
    let (listener, mut options) = listen().await;
    options.inbox_max = 1;
    let (link, _inbox, mut peer) = connected(options, &listener).await;
    let flood: Vec<Packet> = (1..20).map(|id| message(id, QoS::AtLeastOnce, b"x")).collect();
    peer.send(&flood).await;
    let serving = async {
        loop {
            if let Some(Packet::Publish(publish)) = peer.next().await {
                peer.send(&[Packet::PubAck(PubAck::new(publish.pkid))]).await;
                return;
            }
        }
    };
    let (result, ()) = tokio::join!(link.publish("t", QoS::AtLeastOnce, false, "me"), serving);
    result.unwrap();
}

#[tokio::test]
async fn manual_acknowledgement_is_left_to_the_program() {
    let (listener, mut options) = listen().await;
    options.manual_acks = true;
    let (link, mut inbox, mut peer) = connected(options, &listener).await;
    peer.send(&[message(1, QoS::AtLeastOnce, b"1"), message(2, QoS::AtLeastOnce, b"2")]).await;
    let (_first, second) = (inbox.recv().await.unwrap(), inbox.recv().await.unwrap());
    link.acknowledge(&second).await.unwrap();
    assert_eq!(peer.next().await, Some(Packet::PubAck(PubAck::new(2))));
}

#[tokio::test]
async fn a_broker_that_leaves_ends_every_wait() {
    let (listener, options) = listen().await;
    let (link, mut inbox, mut peer) = connected(options, &listener).await;
    let serving = async move {
        peer.expect_publish().await;
        drop(peer);
    };
    let (result, ()) = tokio::join!(link.publish("t", QoS::AtLeastOnce, false, "x"), serving);
    assert!(matches!(result, Err(LinkError::Closed(_))), "{result:?}");
    assert_ne!(link.closed().await, Closed::ByUs);
    assert!(inbox.recv().await.is_none());
    let again = link.publish("t", QoS::AtMostOnce, false, "y").await;
    assert!(matches!(again, Err(LinkError::Closed(_))), "{again:?}");
}

#[tokio::test]
async fn a_broker_that_talks_nonsense_is_left() {
    for (bytes, reason) in [
        (&[0xd0, 0x00, 0xc0, 0x00][..], Closed::Unexpected("PINGREQ")),
        (&[0x40, 0x02, 0x00, 0x07][..], Closed::Unexpected("PUBACK")),
        (
            &[0x30, 0xff, 0xff, 0xff, 0x7f][..],
            Closed::Unreadable(mqttbytes::Error::PayloadSizeLimitExceeded(268_435_455)),
        ),
    ] {
        let (listener, options) = listen().await;
        let (link, _inbox, mut peer) = connected(options, &listener).await;
        peer.socket.write_all(bytes).await.unwrap();
        assert_eq!(link.closed().await, reason);
    }
}

#[tokio::test]
async fn disconnect_says_goodbye_and_a_dropped_link_does_not() {
    let (listener, options) = listen().await;
    let (link, _inbox, mut peer) = connected(options.clone(), &listener).await;
    link.disconnect().await;
    assert_eq!(link.closed().await, Closed::ByUs);
    assert_eq!(peer.next().await, Some(Packet::Disconnect));
    assert_eq!(peer.next().await, None);
    let (link, _inbox, mut peer) = connected(options, &listener).await;
    drop(link);
    assert_eq!(peer.next().await, None);
}

#[tokio::test]
async fn a_silent_broker_is_left_after_the_keep_alive_time() {
    let (near, far) = tokio::io::duplex(1024);
    let mut peer = far;
    let mut hello = BytesMut::new();
    ConnAck::new(ConnectReturnCode::Success, false).write(&mut hello).unwrap();
    peer.write_all(&hello).await.unwrap();
    let mut options = LinkOptions::new("", 0, "c");
    options.keep_alive_secs = 1;
    let (link, _inbox) = Link::greet(near, options).await.unwrap();
    assert_eq!(link.closed().await, Closed::Silent);
}

#[tokio::test]
async fn a_missing_acknowledgement_is_a_timeout() {
    let (near, far) = tokio::io::duplex(1024);
    let mut peer = far;
    let mut hello = BytesMut::new();
    ConnAck::new(ConnectReturnCode::Success, false).write(&mut hello).unwrap();
    peer.write_all(&hello).await.unwrap();
    let mut options = LinkOptions::new("", 0, "c");
    options.patience = Duration::from_millis(50);
    let (link, _inbox) = Link::greet(near, options).await.unwrap();
    let result = link.publish("t", QoS::AtLeastOnce, false, "x").await;
    assert!(matches!(result, Err(LinkError::Timeout("PUBACK"))), "{result:?}");
}
