//! SCRAM-SHA-256 (RFC 5802, RFC 7677): the password never leaves the client, and the broker shows
//! that it knows the user, too.
//!
//! Without channel binding: `n` and `y` are taken, `p=` is not. A user that does not exist is asked
//! for its proof like any other.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::enhanced::{Exchange, Fault, Method, Nonce, Step};
use super::password::Passwords;
use super::stored::{ScramSecret, same};

/// Longest message of a client, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The method, over the users of a password file.
#[derive(Clone, Debug)]
pub struct ScramSha256(pub Arc<Passwords>);

impl Method for ScramSha256 {
    fn name(&self) -> &'static str {
        "SCRAM-SHA-256"
    }

    fn begin(&self, nonce: Nonce) -> Box<dyn Exchange> {
        Box::new(Scram { users: Arc::clone(&self.0), nonce, state: State::Begun, user: None })
    }
}

/// One client.
struct Scram {
    users: Arc<Passwords>,
    nonce: Nonce,
    state: State,
    user: Option<Arc<str>>,
}

enum State {
    Begun,
    /// The client has sent no first message and was asked for it.
    Asked,
    Challenged(Box<Challenged>),
    Over,
}

/// What has to be remembered until the client has sent its proof.
struct Challenged {
    secret: ScramSecret,
    /// The user exists.
    known: bool,
    /// What the client repeats in its last message, in base64 (RFC 5802, `c=`).
    header: String,
    /// Both nonces, one behind the other.
    nonce: String,
    /// What both sides have said so far (RFC 5802, `AuthMessage`).
    transcript: String,
}

impl Exchange for Scram {
    fn step(&mut self, data: &[u8]) -> Step {
        let state = std::mem::replace(&mut self.state, State::Over);
        match self.advance(state, data) {
            Ok(step) => step,
            Err(fault) => Step::Failed(fault),
        }
    }

    fn claimed(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl Scram {
    fn advance(&mut self, state: State, data: &[u8]) -> Result<Step, Fault> {
        if data.len() > MESSAGE_BYTES_MAX {
            return Err(Fault::Unreadable("too long"));
        }
        let message = std::str::from_utf8(data).map_err(|_| Fault::Unreadable("not UTF-8"))?;
        match state {
            State::Begun if message.is_empty() => {
                self.state = State::Asked;
                Ok(Step::Continue(Vec::new()))
            }
            State::Begun | State::Asked => self.challenge(message),
            State::Challenged(challenged) => {
                let user = self.user.clone().ok_or(Fault::Credentials)?;
                let data = challenged.judge(message)?;
                Ok(Step::Done { user, data })
            }
            State::Over => Err(Fault::Unreadable("the exchange is over")),
        }
    }

    /// Takes the client's first message.
    fn challenge(&mut self, message: &str) -> Result<Step, Fault> {
        let first = ClientFirst::parse(message)?;
        let (secret, known) = self.users.scram(&first.user).ok_or(Fault::Credentials)?;
        let nonce = format!("{}{}", first.nonce, self.nonce.0);
        let salt = STANDARD.encode(&secret.salt);
        let answer = format!("r={nonce},s={salt},i={}", secret.iterations);
        let transcript = format!("{},{answer}", first.bare);
        let header = STANDARD.encode(first.header);
        self.user = Some(first.user.into());
        let challenged = Challenged { secret, known, header, nonce, transcript };
        self.state = State::Challenged(Box::new(challenged));
        Ok(Step::Continue(answer.into_bytes()))
    }
}

impl Challenged {
    /// Takes the client's last message, and gives the broker's.
    fn judge(&self, message: &str) -> Result<Vec<u8>, Fault> {
        let without = Fault::Unreadable("no proof in the last message");
        let (said, proof) = message.rsplit_once(",p=").ok_or(without)?;
        let mut attributes = said.split(',');
        if attributes.next().and_then(|a| a.strip_prefix("c=")) != Some(&*self.header) {
            return Err(Fault::Unreadable("another channel binding than at first"));
        }
        if attributes.next().and_then(|a| a.strip_prefix("r=")) != Some(&*self.nonce) {
            return Err(Fault::Unreadable("another nonce than the broker's"));
        }
        let proof = STANDARD.decode(proof);
        let proof = proof.map_err(|_| Fault::Unreadable("a proof that is no base64"))?;
        if proof.len() != digest::SHA256_OUTPUT_LEN {
            return Err(Fault::Unreadable("a proof of another length"));
        }
        let transcript = format!("{},{said}", self.transcript);
        let sign =
            |key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), transcript.as_bytes());
        let signature = sign(&self.secret.stored_key);
        let client_key: Vec<u8> =
            proof.iter().zip(signature.as_ref()).map(|(proof, sign)| proof ^ sign).collect();
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        // A user that does not exist has random keys; nobody can fit them, and if somebody did …
        if !(same(stored_key.as_ref(), &self.secret.stored_key) & self.known) {
            return Err(Fault::Credentials);
        }
        let signature = STANDARD.encode(sign(&self.secret.server_key));
        Ok(format!("v={signature}").into_bytes())
    }
}

/// The client's first message: `gs2-header` and `client-first-message-bare` of RFC 5802.
#[derive(Debug)]
struct ClientFirst<'a> {
    header: &'a str,
    bare: &'a str,
    user: String,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a str) -> Result<Self, Fault> {
        let broken = Fault::Unreadable("the first message is n,,n=…,r=…");
        let mut parts = message.splitn(3, ',');
        let (Some(binding), Some(authority), Some(bare)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(broken);
        };
        if binding.starts_with("p=") {
            return Err(Fault::Unreadable("channel binding is not offered here"));
        }
        if !matches!(binding, "n" | "y") {
            return Err(broken);
        }
        let mut attributes = bare.split(',');
        // A mandatory extension (`m=`) would stand here; none is known.
        let user = attributes.next().and_then(|a| a.strip_prefix("n=")).ok_or(broken)?;
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r=")).ok_or(broken)?;
        let user = unescaped(user).filter(|user| !user.is_empty()).ok_or(broken)?;
        let is_nonce = |byte: u8| byte.is_ascii_graphic() && byte != b',';
        if nonce.is_empty() || !nonce.bytes().all(is_nonce) {
            return Err(Fault::Unreadable("the nonce is not printable"));
        }
        let acts_for = authority.strip_prefix("a=").map(unescaped);
        if !authority.is_empty() && acts_for != Some(Some(user.clone())) {
            return Err(Fault::Unreadable("nobody acts for another user here"));
        }
        let header = &message[..message.len() - bare.len()];
        Ok(Self { header, bare, user, nonce })
    }
}

/// `=2C` is a comma and `=3D` an equals sign; other equals signs must not be.
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match part.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        text.push(sign);
        text.push_str(rest);
    }
    Some(text)
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::LazyLock;

    use super::*;
    use crate::auth::{Disguise, Scheme, Stored};

    fn line(name: &str, password: &[u8], salt: &[u8], iterations: u32) -> String {
        let iterations = NonZeroU32::new(iterations).unwrap();
        let secret = ScramSecret::derive(password, iterations, salt.into());
        let keys = [&secret.salt[..], &secret.stored_key, &secret.server_key];
        let [salt, stored, server] = keys.map(|bytes| STANDARD.encode(bytes));
        format!("{name}:$scram-sha-256${iterations}${salt}${stored}${server}")
    }

    /// The user of the RFC, and one with a name that has to be escaped.
    static FLEET: LazyLock<Arc<Passwords>> = LazyLock::new(|| {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let scheme = Scheme::Sha512Pbkdf2;
        let plain = Stored::new(scheme, b"x", &vec![0; scheme.salt_bytes()]).encoded();
        let lines = [
            line("user", b"pencil", &salt, 4096),
            line("a,b=c", b"pencil", &salt, 4096),
            format!("plain:{plain}"),
        ];
        let disguise = Disguise::new(&[5; 32]);
        Arc::new(Passwords::parse(lines.join("\n").as_bytes(), &disguise).unwrap())
    });

    fn begin() -> Box<dyn Exchange> {
        let nonce = Nonce("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned());
        ScramSha256(Arc::clone(&FLEET)).begin(nonce)
    }

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const VERDICT: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn continues(step: &Step) -> String {
        let Step::Continue(data) = step else { panic!("{step:?}") };
        String::from_utf8(data.clone()).unwrap()
    }

    /// A client, as RFC 5802 describes it.
    fn last_message(bare: &str, header: &str, challenge: &str, password: &[u8]) -> String {
        let attribute = |name: &str| {
            challenge.split(',').find_map(|a| a.strip_prefix(name)).unwrap().to_owned()
        };
        let salt = STANDARD.decode(attribute("s=")).unwrap();
        let iterations = attribute("i=").parse().unwrap();
        let mut salted = [0; 32];
        let algorithm = aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256;
        aws_lc_rs::pbkdf2::derive(algorithm, iterations, &salt, password, &mut salted);
        let sign = |key: &[u8], text: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
        };
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let said = format!("c={},r={}", STANDARD.encode(header), attribute("r="));
        let signature = sign(stored_key.as_ref(), format!("{bare},{challenge},{said}").as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        format!("{said},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let mut exchange = begin();
        assert_eq!(exchange.claimed(), None);
        assert_eq!(continues(&exchange.step(FIRST.as_bytes())), CHALLENGE);
        assert_eq!(exchange.claimed(), Some("user"));
        let done = Step::Done { user: "user".into(), data: VERDICT.into() };
        assert_eq!(exchange.step(LAST.as_bytes()), done);
        let over = exchange.step(LAST.as_bytes());
        assert!(matches!(over, Step::Failed(_)), "nothing is proven twice: {over:?}");
    }

    #[test]
    fn a_client_may_wait_to_be_asked() {
        let mut exchange = begin();
        assert_eq!(continues(&exchange.step(b"")), "");
        assert_eq!(continues(&exchange.step(FIRST.as_bytes())), CHALLENGE);
        let mut exchange = begin();
        exchange.step(b"");
        assert!(matches!(exchange.step(b""), Step::Failed(_)), "but once");
    }

    #[test]
    fn names_headers_and_passwords_in_every_form() {
        let cases: [(&str, &str, &[u8], Option<&str>); 9] = [
            ("n,,", "n=user,r=x", b"pencil", Some("user")),
            ("y,,", "n=user,r=x", b"pencil", Some("user")),
            ("n,a=user,", "n=user,r=x", b"pencil", Some("user")),
            ("n,,", "n=user,r=x,ext=1", b"pencil", Some("user")),
            ("n,,", "n=a=2Cb=3Dc,r=x", b"pencil", Some("a,b=c")),
            ("n,,", "n=user,r=x", b"pencils", None),
            ("n,,", "n=user,r=x", b"", None),
            ("n,,", "n=nobody,r=x", b"pencil", None),
            ("n,,", "n=plain,r=x", b"x", None),
        ];
        for (header, bare, password, user) in cases {
            let mut exchange = begin();
            let challenge = continues(&exchange.step(format!("{header}{bare}").as_bytes()));
            let last = last_message(bare, header, &challenge, password);
            match (exchange.step(last.as_bytes()), user) {
                (Step::Done { user, .. }, Some(name)) => assert_eq!(&*user, name),
                (Step::Failed(fault), None) => assert_eq!(fault, Fault::Credentials, "{bare}"),
                (step, _) => panic!("{header}{bare}: {step:?}"),
            }
        }
    }

    #[test]
    fn what_a_client_may_not_say() {
        for first in [
            "n",
            "n,",
            "n,,",
            "n,,r=x",
            "n,,n=user",
            "n,,n=,r=x",
            "n,,n=user,r=",
            "x,,n=user,r=x",
            "p=tls-unique,,n=user,r=x",
            "n,a=admin,n=user,r=x",
            "n,user,n=user,r=x",
            "n,,m=1,n=user,r=x",
            "n,,n=us=er,r=x",
            "n,,n=user=2,r=x",
            "n,,n=user,r=\u{e9}",
            "n,,n=user,r=a b",
            ",,n=user,r=x",
            "N,,n=user,r=x",
        ] {
            let step = begin().step(first.as_bytes());
            assert!(matches!(step, Step::Failed(Fault::Unreadable(_))), "{first}: {step:?}");
        }
        let too_long = format!("{FIRST}{}", "x".repeat(MESSAGE_BYTES_MAX));
        for first in [too_long.as_bytes(), b"n,,n=\xff,r=x"] {
            assert!(matches!(begin().step(first), Step::Failed(Fault::Unreadable(_))));
        }
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        for last in [
            "",
            "c=biws",
            &format!("c=biws,r={nonce}"),
            &format!("c=biws,r={nonce},p="),
            &format!("c=eSws,r={nonce},p={proof}"),
            &format!("c=biws,r=x{nonce},p={proof}"),
            &format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={proof}"),
            &format!("r={nonce},p={proof}"),
            &format!("c=biws,r={nonce},p={proof}="),
            &format!("c=biws,r={nonce},p=YQ=="),
        ] {
            let mut exchange = begin();
            exchange.step(FIRST.as_bytes());
            let step = exchange.step(last.as_bytes());
            assert!(matches!(step, Step::Failed(Fault::Unreadable(_))), "{last}: {step:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_gets_in(messages in proptest::collection::vec(".{0,80}", 1..4)) {
            let mut exchange = begin();
            for message in messages {
                let step = exchange.step(message.as_bytes());
                let done = matches!(step, Step::Done { .. });
                proptest::prop_assert!(!done);
            }
        }

        #[test]
        fn a_changed_last_message_never_gets_in(at in 0_usize..200, byte: u8) {
            let mut exchange = begin();
            exchange.step(FIRST.as_bytes());
            let mut last = LAST.as_bytes().to_vec();
            let at = at % last.len();
            proptest::prop_assume!(last[at] != byte);
            last[at] = byte;
            let failed = matches!(exchange.step(&last), Step::Failed(_));
            proptest::prop_assert!(failed);
        }
    }
}
