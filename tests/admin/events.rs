//! `/api/v1/events`.

use serde_json::{Value, json};
use simcast::mqtt::QoS;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::common::{Dial, Rig, TO_EUICC, envelope, in_time, nid};
use crate::http::{READ_TOKEN, Request, rig_with_tokens, write_secret};

/// A reader of events that is there when this value is.
struct Stream {
    reader: BufReader<TcpStream>,
}

/// Name, number and data.
type Event = (String, Option<u64>, Value);

impl Stream {
    async fn open(rig: &Rig, query: &str) -> Self {
        Self::with(rig, &Request::get(&format!("/api/v1/events{query}"))).await
    }

    async fn with(rig: &Rig, request: &Request) -> Self {
        let mut socket = rig.tcp(rig.admin).await;
        socket.write_all(&request.bytes()).await.unwrap();
        let mut stream = Self { reader: BufReader::new(socket) };
        let status = stream.line().await.unwrap();
        assert!(status.starts_with("HTTP/1.1 200 "), "{status}");
        let mut head = String::new();
        while let Some(line) = stream.line().await.filter(|line| !line.is_empty()) {
            head.push_str(&line.to_lowercase());
        }
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        stream
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match in_time("an event", self.reader.read_line(&mut line)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Event> {
        let (mut name, mut number) = (String::new(), None);
        loop {
            // Between the lines are those of the chunks that they come in.
            let line = self.line().await?;
            match line.split_once(": ") {
                Some(("event", value)) => value.clone_into(&mut name),
                Some(("id", value)) => number = Some(value.parse().unwrap()),
                Some(("data", value)) => {
                    return Some((name, number, serde_json::from_str(value).unwrap()));
                }
                _other => {}
            }
        }
    }

    async fn expect(&mut self, name: &str) -> Value {
        let (found, _, data) = self.next().await.expect("an event");
        assert_eq!(found, name, "{data}");
        data
    }
}

#[tokio::test]
async fn a_stream_tells_who_comes_what_is_refused_and_who_goes() {
    let rig = Rig::start().await;
    let mut stream = Stream::open(&rig, "").await;
    let mut device = rig.device(1, Dial::v5("device").persistent()).await;
    let connected = stream.expect("connected").await;
    assert_eq!(connected["client_id"], "device");
    assert_eq!(connected["identity"], json!(nid(1).to_string()));
    assert_eq!((&connected["role"], &connected["version"]), (&json!("device"), &json!("5")));
    assert_eq!((&connected["resumed"], &connected["took_over"]), (&json!(false), &json!(false)));
    assert!(connected["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{connected}");
    assert!(connected["at"].as_str().unwrap().ends_with('Z'), "{connected}");

    let answer = device.publish(TO_EUICC, envelope(2, 0, "trigger"), QoS::AtLeastOnce).await;
    assert_eq!(answer.text.as_deref(), Some("server_type_from_device"));
    let refused = stream.expect("refused").await;
    assert_eq!(
        (&refused["refusal"], &refused["client_id"]),
        (&json!("server_type_from_device"), &json!("device"))
    );
    assert_eq!(refused["nid"], json!(nid(1).to_string()));
    assert!(refused["explanation"].as_str().unwrap().ends_with('.'), "{refused}");
    assert!(!refused.to_string().contains("[1,2,3]"), "no body, ever (case S18): {refused}");

    device.disconnect().await;
    let gone = stream.expect("disconnected").await;
    assert_eq!((&gone["client_id"], &gone["reason"]), (&json!("device"), &json!("client")));
    let _device = rig.device(1, Dial::v5("device").persistent()).await;
    assert_eq!(stream.expect("connected").await["resumed"], json!(true));
}

#[tokio::test]
async fn a_flood_of_refusals_is_no_flood_of_events() {
    // case D21
    let rig = Rig::start().await;
    let mut stream = Stream::open(&rig, "?types=refused,registry").await;
    let mut device = rig.device(1, Dial::v5("device")).await;
    for _ in 0..50 {
        device.publish(TO_EUICC, envelope(2, 0, "trigger"), QoS::AtLeastOnce).await;
    }
    assert!(rig.service.broker().remove_device("test", nid(2)));
    let mut refused = 0;
    while stream.next().await.expect("an event").0 == "refused" {
        refused += 1;
    }
    assert!((1..50).contains(&refused), "{refused}");
    assert_eq!(rig.refusals("server_type_from_device").await, 50);
}

#[tokio::test]
async fn changes_of_the_registry_are_told_whoever_makes_them() {
    let rig = Rig::start().await;
    let mut stream = Stream::open(&rig, "?types=registry").await;
    let path = format!("/api/v1/devices/{}", nid(50));
    let _other_type = rig.client(Dial::v5("nobody")).await;
    Request::new("PUT", &path).json(r#"{"gids":[7]}"#).send(&rig).await.ok();
    let mut put = stream.expect("registry").await;
    put.as_object_mut().unwrap().remove("at");
    let nid = nid(50).to_string();
    assert_eq!(put, json!({"change": "put", "nid": nid, "gids": [7], "is_new": true}));
    Request::new("DELETE", &path).send(&rig).await;
    let removed = stream.expect("registry").await;
    assert_eq!((&removed["change"], &removed["nid"]), (&json!("removed"), &json!(nid)));
    rig.service.reload_registry().unwrap();
    let imported = stream.expect("registry").await;
    assert_eq!((&imported["change"], &imported["accepted"]), (&json!("imported"), &json!(7)));
    // What is refused changes nothing.
    Request::new("DELETE", &path).send(&rig).await.problem(404);
    rig.service.reload_registry().unwrap();
    assert_eq!(stream.expect("registry").await["change"], "imported");
}

#[tokio::test]
async fn events_are_numbered_for_all_streams_alike() {
    let rig = Rig::start().await;
    let (mut all, mut some) =
        (Stream::open(&rig, "").await, Stream::open(&rig, "?types=disconnected").await);
    rig.client(Dial::v5("client")).await.disconnect().await;
    let numbers = [all.next().await, all.next().await].map(|event| event.unwrap().1.unwrap());
    assert_eq!(numbers, [1, 2]);
    assert_eq!(some.next().await.unwrap().1, Some(2));
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_has_missed() {
    let rig = Rig::start().await;
    let mut stream = Stream::open(&rig, "").await;
    // This thread is the server's, too: nothing is sent meanwhile.
    for _ in 0..2000 {
        rig.service.broker().put_device("test", nid(50), &[], "").unwrap();
    }
    let (name, number, data) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), number), ("lagged", None));
    let missed = data["missed"].as_u64().unwrap();
    assert!((1..2000).contains(&missed), "{missed}");
    assert_eq!(stream.next().await.unwrap().1, Some(missed + 1));
}

#[tokio::test]
async fn there_are_so_many_streams_and_others_can_be_served_beside_them() {
    let rig = Rig::start().await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(Stream::open(&rig, "").await);
    }
    let one_more = Request::get("/api/v1/events");
    let answer = one_more.send(&rig).await;
    assert!(answer.problem(503).contains("32"), "{answer:?}");
    assert_eq!(Request::get("/livez").send(&rig).await.status, 200);
    streams.pop();
    let place = async {
        loop {
            let mut socket = rig.tcp(rig.admin).await;
            socket.write_all(&one_more.bytes()).await.unwrap();
            let mut status = String::new();
            BufReader::new(socket).read_line(&mut status).await.unwrap();
            if status.contains(" 200 ") {
                return;
            }
        }
    };
    in_time("a place", place).await;
}

#[tokio::test]
async fn unknown_types_are_refused_by_name() {
    let rig = Rig::start().await;
    for query in ["?types=", "?types=connect", "?types=connected,,", "?type=connected", "?types"] {
        let answer = Request::get(&format!("/api/v1/events{query}")).send(&rig).await;
        answer.problem(400);
    }
    let answer = Request::get("/api/v1/events?types=connect").send(&rig).await;
    assert!(answer.problem(400).contains("connected, disconnected, refused, registry"));
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let rig = rig_with_tokens().await;
    let request = Request::get("/api/v1/events").token(READ_TOKEN);
    let mut stream = Stream::with(&rig, &request).await;
    write_secret(&rig.dir.path().join("read-token"), "other-0123456789abcdef");
    rig.service.reload_tokens().unwrap();
    assert_eq!(stream.next().await, None);
    request.send(&rig).await.problem(401);
}
