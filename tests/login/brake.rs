//! Guessing is slowed down, and hashing holds nobody up.

use simcast::auth::{Scheme, Stored};
use simcast::mqtt::{Packet, ReasonCode};
use tokio::task::JoinSet;

use crate::common::{Client, Denied, Dial};
use crate::{BAD, Guarded, line, scram_line};

const BANNED: Denied = Denied::ConnAck(ReasonCode::Banned);

#[tokio::test]
async fn who_guesses_too_often_is_not_listened_to() {
    // case S19
    let users = line("ann", "secret") + &line("bob", "other");
    let guarded = Guarded::with(&users, |config| config.auth.max_failures = 3).await;
    let mut early = guarded.user("ann", "secret").await;
    for _ in 0..3 {
        assert_eq!(guarded.refuses(Dial::v5("c").user("ann", "guess")).await, BAD);
    }
    for password in ["guess", "secret"] {
        assert_eq!(guarded.refuses(Dial::v5("c").user("ann", password)).await, BANNED);
    }
    let code_5 = Denied::ConnAck(ReasonCode::NotAuthorized);
    assert_eq!(guarded.refuses(Dial::v311("c").user("ann", "secret")).await, code_5);
    // Others behind the same address are not touched, and neither is who is in already.
    guarded.user("bob", "other").await.ping().await;
    early.ping().await;
    // Until the address has ten times as many.
    for i in 3..30 {
        let name = format!("guess {i}");
        assert_eq!(guarded.refuses(Dial::v5("c").user(&name, "")).await, BAD, "{name}");
    }
    assert_eq!(guarded.refuses(Dial::v5("c").user("bob", "other")).await, BANNED);
    let counted = guarded.rig.counter("simcast_connects_total{result=\"banned\"}").await;
    assert_eq!(counted, 4);
}

#[tokio::test]
async fn an_exchange_counts_as_a_login() {
    // case S19
    let users = scram_line("ann", "secret") + &line("bob", "other");
    let guarded = Guarded::with(&users, |config| config.auth.max_failures = 2).await;
    for _ in 0..2 {
        assert_eq!(crate::scram::log_in(&guarded, "ann", "guess").await.err(), Some(BAD));
    }
    let banned = crate::scram::log_in(&guarded, "ann", "secret").await.err();
    assert_eq!(banned, Some(BANNED));
    let banned = guarded.refuses(Dial::v5("c").user("ann", "secret")).await;
    assert_eq!(banned, BANNED, "by password, too");
}

#[tokio::test]
async fn nonsense_of_strangers_shuts_out_nobody_who_waits_to_be_asked() {
    // case S19
    let users = scram_line("ann", "secret");
    let guarded = Guarded::with(&users, |config| config.auth.max_failures = 2).await;
    for _ in 0..5 {
        let nonsense = guarded.refuses(Dial::v5("c").method("SCRAM-SHA-256", "nonsense")).await;
        assert_eq!(nonsense, crate::NOT_AUTHORIZED);
    }
    let dial = Dial::v5("ann").method("SCRAM-SHA-256", "");
    let mut ann = Client::begin(guarded.rig.tcp(guarded.rig.plain).await, &dial).await;
    assert!(matches!(ann.read().await, Some(Packet::Auth(_))), "asked for its first message");
}

#[tokio::test]
async fn who_has_logged_in_from_here_is_not_shut_out_by_strangers_elsewhere() {
    // case S19
    let users = line("ann", "secret") + &scram_line("bob", "other");
    let guarded = Guarded::with(&users, |config| config.auth.max_failures = 3).await;
    guarded.user("ann", "secret").await.disconnect().await;
    crate::scram::log_in(&guarded, "bob", "other").await.unwrap().disconnect().await;
    for name in ["ann", "bob"] {
        for expected in [BAD, BAD, BAD, BANNED] {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
            let stream = socket.connect(guarded.rig.plain).await.unwrap();
            let denied = Client::open(stream, &Dial::v5("c").user(name, "guess")).await.err();
            assert_eq!(denied, Some(expected));
        }
    }
    guarded.user("ann", "secret").await.ping().await;
    crate::scram::log_in(&guarded, "bob", "other").await.unwrap().ping().await;
}

/// While a crowd of strangers waits for its hashes, the messages of others flow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wrong_passwords_stalls_nobody() {
    // case D25
    let costly = Stored::new(Scheme::Argon2id, b"secret", &[1; 16]).encoded();
    let guarded = Guarded::with(format!("ann:{costly}\n"), |config| {
        config.auth.max_failures = 100_000;
    });
    let guarded = guarded.await;
    let mut client = guarded.rig.device(1, Dial::v5("device")).await;
    let mut flood = JoinSet::new();
    for i in 0..60 {
        let stream = guarded.rig.tcp(guarded.rig.plain).await;
        let dial = Dial::v5("c").user(&format!("stranger {i}"), "wrong");
        let mut stranger = Client::begin(stream, &dial).await;
        flood.spawn(async move { stranger.read().await });
    }
    for _ in 0..20 {
        client.ping().await;
    }
    let mut answers = Vec::new();
    while let Some(answer) = flood.try_join_next() {
        answers.push(answer);
    }
    assert!(!flood.is_empty(), "the flood is over before anything was measured");
    while let Some(answer) = flood.join_next().await {
        answers.push(answer);
    }
    for answer in answers {
        let Some(Packet::ConnAck(connack)) = answer.unwrap() else { panic!("no CONNACK") };
        assert_eq!(connack.reason, ReasonCode::BadUserNameOrPassword, "each in its turn");
    }
}
