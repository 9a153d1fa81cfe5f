//! mosquitto's own clients under an ACL.

use std::process::Command;

use crate::Stage;
use crate::common::program::{Program, is_here};

const ACL: &str = "\
topic read news/#
pattern write dev/%c/#
topic write news/%c
";

fn mosquitto(stage: &Stage, program: &str, version: &str, id: &str) -> Command {
    let mut command = Command::new("stdbuf");
    let port = stage.rig.plain.port().to_string();
    command.args(["-oL", program, "-h", "127.0.0.1", "-p", &port, "-V", version, "-i", id]);
    command
}

#[tokio::test]
async fn mosquittos_clients_are_told_what_they_may_not() {
    let mut probe = Command::new("which");
    probe.args(["mosquitto_sub", "mosquitto_pub"]);
    if !is_here("mosquitto_sub and mosquitto_pub", "Debian: mosquitto-clients", &mut probe) {
        return;
    }
    // `%c` means something in patterns alone.
    let stage = Stage::start(ACL).await;
    for version in ["311", "5"] {
        let mut all = mosquitto(&stage, "mosquitto_sub", version, "all");
        let mut all = Program::start(all.args(["-d", "-v", "-q", "1", "-t", "#"]));
        all.until("Subscribed (mid: 1): 1").await;
        let publish = |id: &str, topic: &str| {
            let mut command = mosquitto(&stage, "mosquitto_pub", version, id);
            Program::start(command.args(["-d", "-q", "1", "-t", topic, "-m", "hello"])).end()
        };
        let (_, denied) = publish("p", "dev/q/up").await;
        let answer = denied.iter().find(|line| line.contains("PUBACK")).expect("a PUBACK");
        assert_eq!(answer.contains("RC:135"), version == "5", "{denied:?}");
        let (status, _) = publish("p", "dev/p/up").await;
        assert!(status.success());
        let (status, _) = publish("%c", "news/%c").await;
        assert!(status.success());
        let line = all.until("hello").await;
        assert!(
            line.contains("news/%c hello"),
            "what may be read, not what may be written: {line}"
        );
        let mut nothing = mosquitto(&stage, "mosquitto_sub", version, "nothing");
        let nothing = Program::start(nothing.args(["-d", "-t", "dev/#"]));
        let (_, said) = nothing.end().await;
        let refused =
            said.iter().any(|line| line.contains("All subscription requests were denied"));
        assert!(refused, "{said:?}");
    }
    assert_eq!(stage.denied("subscribe").await, 2);
    assert_eq!(stage.denied("publish").await, 2);
    assert_eq!(stage.denied("deliver").await, 2);
}
