//! The request that opens a WebSocket: what is refused is told why over HTTP.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::common::{Dial, Rig, in_time};
use crate::{CONNACK, CONNECT, rest, take, ws};

/// What is answered to a request before the connection closes.
async fn answer(rig: &Rig, request: &str) -> String {
    let mut socket = rig.tcp(rig.extra()).await;
    socket.write_all(request.as_bytes()).await.unwrap();
    String::from_utf8(rest(socket).await).unwrap()
}

/// The status and the protocol that a request leads to.
async fn opened(rig: &Rig, request: &str) -> Option<String> {
    let mut socket = rig.tcp(rig.extra()).await;
    socket.write_all(request.as_bytes()).await.unwrap();
    let head = ws::head(&mut socket).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The example of RFC 6455, 1.3.
    assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    // case D22
    assert!(!head.to_lowercase().contains("extensions"), "{head}");
    let chosen = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
    chosen.map(str::to_owned)
}

#[tokio::test]
async fn mqtt_is_agreed_upon_and_nothing_else() {
    // case P28
    let rig = ws::rig().await;
    let deflate = "permessage-deflate; client_max_window_bits";
    for (change, chosen) in [
        (&[][..], "mqtt"),
        (&[("Sec-WebSocket-Protocol", Some("mqttv3.1"))], "mqttv3.1"),
        (&[("Sec-WebSocket-Protocol", Some("soap, mqttv3.1 ,mqtt"))], "mqtt"),
        (&[("Sec-WebSocket-Extensions", Some(deflate))], "mqtt"),
        (&[("Connection", Some("keep-alive, UPGRADE")), ("Upgrade", Some("WebSocket"))], "mqtt"),
        (&[("Origin", Some("https://anywhere.example"))], "mqtt"),
    ] {
        assert_eq!(opened(&rig, &ws::request(change)).await.as_deref(), Some(chosen));
    }
}

#[tokio::test]
async fn each_refusal_has_its_status_and_a_sentence() {
    // cases P28, P30
    let rig = ws::rig().await;
    let plain = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let many: String = (0..65).map(|number| format!("X-{number}: y\r\n")).collect();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(9000));
    let changed = |name, value| ws::request(&[(name, value)]);
    for (request, status, text) in [
        (plain.to_owned(), 426, "connect with an MQTT client over WebSocket"),
        (ws::request(&[]).replace("HTTP/1.1", "HTTP/1.0"), 426, "WebSocket"),
        (changed("Upgrade", Some("h2c")), 426, "WebSocket"),
        (changed("Connection", None), 426, "WebSocket"),
        (changed("Sec-WebSocket-Version", Some("8")), 426, "version 13"),
        (changed("Sec-WebSocket-Version", None), 426, "version 13"),
        (changed("Sec-WebSocket-Key", None), 400, "Sec-WebSocket-Key"),
        (changed("Sec-WebSocket-Key", Some("c2hvcnQ=")), 400, "Sec-WebSocket-Key"),
        (changed("Sec-WebSocket-Protocol", None), 400, "Sec-WebSocket-Protocol: mqtt"),
        (changed("Sec-WebSocket-Protocol", Some("MQTT")), 400, "Sec-WebSocket-Protocol: mqtt"),
        (ws::request(&[]).replace("GET", "POST"), 405, "GET"),
        ("GARBAGE\r\n\r\n".to_owned(), 400, "no HTTP"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400, "no HTTP"),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431, "fewer headers"),
        (long, 431, "fewer headers"),
    ] {
        let answer = answer(&rig, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains(text), "{request}: {answer}");
    }
    let refused = "simcast_connects_total{result=\"websocket\"}";
    assert_eq!(rig.counter(refused).await, 15);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_and_devices_have_none() {
    // case P28
    let rig = ws::rig_with(|listener| {
        listener.websocket_origins = vec!["https://console.example".to_owned()];
    })
    .await;
    for origin in [None, Some("https://console.example"), Some("HTTPS://Console.Example")] {
        let opened = opened(&rig, &ws::request(&[("Origin", origin)])).await;
        assert_eq!(opened.as_deref(), Some("mqtt"), "{origin:?}");
    }
    for origin in ["https://evil.example", "null", "https://console.example.evil.example", ""] {
        let answer = answer(&rig, &ws::request(&[("Origin", Some(origin))])).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{origin}: {answer}");
    }
    let twice = ws::request(&[("Origin", Some("https://console.example\r\nOrigin: null"))]);
    assert!(answer(&rig, &twice).await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn frames_may_come_right_behind_the_request_and_in_whatever_pieces() {
    // case N14
    let rig = ws::rig().await;
    let bytes = [ws::request(&[]).as_bytes(), &ws::frame(ws::BINARY, CONNECT)].concat();
    for piece in [1, 7, bytes.len()] {
        let mut socket = rig.tcp(rig.extra()).await;
        for piece in bytes.chunks(piece) {
            socket.write_all(piece).await.unwrap();
        }
        ws::head(&mut socket).await;
        assert_eq!(take(&mut socket, 6).await, [&[ws::BINARY, 4], CONNACK].concat());
    }
}

#[tokio::test]
async fn the_handshake_counts_into_the_connect_timeout() {
    let timeout = Duration::from_millis(500);
    let rig = Rig::with(|config| {
        config.limits.connect_timeout = timeout;
        let mut listener = config.listeners[0].clone();
        listener.protocol = simcast::config::Protocol::Websocket;
        config.listeners.push(listener);
    })
    .await;
    let request = ws::request(&[]);
    let mut sockets = Vec::new();
    for len in [0, 1, 20, request.len() - 1] {
        let mut socket = rig.tcp(rig.extra()).await;
        socket.write_all(&request.as_bytes()[..len]).await.unwrap();
        sockets.push(socket);
    }
    // Pings buy no time either.
    let mut pinging = ws::by_hand(&rig, rig.extra()).await;
    pinging.write_all(&ws::frame(ws::PING, b"still here")).await.unwrap();
    for socket in sockets {
        assert!(rest(socket).await.is_empty());
    }
    rest(pinging).await;
    assert_eq!(rig.counter("simcast_connects_total{result=\"timeout\"}").await, 5);
}

#[tokio::test]
async fn each_wrong_port_is_closed_at_once_and_named() {
    // case P30
    const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    const PROXY: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0";
    let rig = ws::rig().await;
    let request = ws::request(&[]);
    let closed = |address, bytes: Vec<u8>| {
        let rig = &rig;
        async move {
            let mut socket = rig.tcp(address).await;
            socket.write_all(&bytes).await.unwrap();
            let end = tokio::time::timeout(Duration::from_secs(5), rest(socket));
            assert!(end.await.expect("closed long before any timeout").is_empty(), "{bytes:02x?}");
        }
    };
    for bytes in [request.as_bytes(), TLS_HELLO, PROXY, PROXY_V2] {
        closed(rig.plain, bytes.to_vec()).await;
    }
    for bytes in [CONNECT, TLS_HELLO, PROXY, PROXY_V2] {
        closed(rig.extra(), bytes.to_vec()).await;
    }
    let not_mqtt = "simcast_protocol_errors_total{kind=\"not_mqtt\"}";
    assert_eq!(rig.counter(not_mqtt).await, 8);
    // Everybody else goes on.
    let mut page = ws::client(&rig, Dial::v5("page")).await;
    in_time("an answer", page.ping()).await;
}
