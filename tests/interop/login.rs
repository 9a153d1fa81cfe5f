//! mosquitto's clients with user names and passwords.

use simcast::auth::{Scheme, Stored};

use crate::common::Rig;
use crate::common::program::Program;
use crate::programs::{Door, MosquittoSub, clients_are_here, mosquitto_pub};

#[tokio::test]
async fn mosquittos_clients_log_in_with_their_passwords() {
    if !clients_are_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passwords");
    let hash = Stored::new(Scheme::Argon2id, b"secret", &[1; 16]).encoded();
    std::fs::write(&file, format!("ann:{hash}\n")).unwrap();
    let rig = Rig::with(|config| {
        config.auth.password_file = Some(file);
        config.listeners[0].allow_anonymous = false;
    });
    let rig = rig.await;
    let door = Door::plain(rig.plain.port());
    for version in ["311", "5"] {
        let ann = ["-u", "ann", "-P", "secret"];
        let mut sub = MosquittoSub::start(&door, (version, 1), "sub", "t", &ann).await;
        mosquitto_pub(&door, (version, 1), "t", &["hello".to_owned()], &ann).await;
        assert_eq!(sub.message().await.payload, "hello");
        sub.vanish().await;
        // 3.x is told what mosquitto tells it.
        let wrong = if version == "5" { "bad user name or password" } else { "not authori" };
        for (arguments, refusal) in [
            (&["-u", "ann", "-P", "wrong"][..], wrong),
            (&["-u", "bob", "-P", "secret"], wrong),
            (&[], "not authori"),
        ] {
            let mut command = door.mosquitto("mosquitto_pub", version);
            command.args(["-t", "t", "-m", "x"]).args(arguments);
            let (status, said) = Program::start(&mut command).end().await;
            assert!(!status.success());
            let said = said.join("\n").to_lowercase();
            assert!(said.contains(refusal), "{version}: {said}");
        }
    }
}
