//! Any messages of a client to a SCRAM exchange: no panic, and nobody comes in without the one
//! right proof for the challenge; whoever has it does.
//!
//! The input is the client's first message and changes to the right last one, with a NUL between
//! them; each change is a position and a byte. Without a NUL, each line is a message.

#![no_main]

use std::sync::{Arc, LazyLock};

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use simcast::auth::{
    Disguise, Exchange, Method, Nonce, Passwords, Scheme, ScramSha256, Step, Stored,
};

/// One user, whose name has to be escaped.
const USER: &str = "a,b";
const SALT: [u8; 16] = [7; 16];

static METHOD: LazyLock<ScramSha256> = LazyLock::new(|| {
    let stored = Stored::new(Scheme::ScramSha256, b"pencil", &SALT);
    let file = format!("{USER}:{}", stored.encoded());
    let users = Passwords::parse(file.as_bytes(), &Disguise::new(&[5; 32])).expect("a good file");
    ScramSha256(Arc::new(users))
});

fuzz_target!(|input: &[u8]| {
    let mut exchange = METHOD.begin(Nonce::new([3; 18]));
    match input.iter().position(|byte| *byte == 0) {
        Some(at) => prove(&mut *exchange, &input[..at], &input[at + 1..]),
        None => {
            for message in input.split(|byte| *byte == b'\n') {
                let step = exchange.step(message);
                assert!(!matches!(step, Step::Done { .. }), "without knowing the password");
            }
        }
    }
});

fn prove(exchange: &mut dyn Exchange, first: &[u8], changes: &[u8]) {
    let Step::Continue(challenge) = exchange.step(first) else { return };
    let (Ok(first), Ok(challenge)) = (std::str::from_utf8(first), String::from_utf8(challenge))
    else {
        panic!("neither was text");
    };
    if challenge.is_empty() {
        return;
    }
    let right = last_message(first, &challenge);
    let mut last = right.clone().into_bytes();
    for change in changes.chunks_exact(2) {
        let at = usize::from(change[0]) % last.len();
        last[at] = change[1];
    }
    let is_right = last == right.as_bytes() && exchange.claimed() == Some(USER);
    match exchange.step(&last) {
        Step::Done { user, .. } => assert!(is_right && &*user == USER, "came in: {last:?}"),
        Step::Failed(_) => assert!(!is_right, "the right proof was refused"),
        Step::Continue(_) => panic!("there is nothing left to say"),
    }
    assert!(matches!(exchange.step(right.as_bytes()), Step::Failed(_)), "it was over");
}

/// What the password is good for (RFC 5802, section 3): `ClientKey` and `StoredKey`.
static KEYS: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let challenge = begin();
    let rounds = attribute(&challenge, "i=").parse().expect("a number that is not zero");
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &SALT, b"pencil", &mut salted);
    let client_key = sign(&salted, "Client Key");
    let stored_key = digest::digest(&digest::SHA256, &client_key).as_ref().to_vec();
    (client_key, stored_key)
});

/// The challenge to the user.
fn begin() -> String {
    let step = METHOD.begin(Nonce::new([3; 18])).step(b"n,,n=a=2Cb,r=x");
    let Step::Continue(challenge) = step else { panic!("{step:?}") };
    String::from_utf8(challenge).expect("a challenge is text")
}

fn attribute<'a>(message: &'a str, name: &str) -> &'a str {
    message.split(',').find_map(|a| a.strip_prefix(name)).expect("it is in every challenge")
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn last_message(first: &str, challenge: &str) -> String {
    let at = first.match_indices(',').nth(1).expect("the broker has taken it").0 + 1;
    let (header, bare) = first.split_at(at);
    let (client_key, stored_key) = &*KEYS;
    let said = format!("c={},r={}", STANDARD.encode(header), attribute(challenge, "r="));
    let signature = sign(stored_key, &format!("{bare},{challenge},{said}"));
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    format!("{said},p={}", STANDARD.encode(proof))
}
