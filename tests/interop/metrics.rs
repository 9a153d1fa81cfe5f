//! The metrics, judged by Prometheus' own tool.

use std::process::Command;

use simcast::mqtt::QoS;

use crate::common::program::{Program, is_here};
use crate::common::{Dial, Rig, TO_EUICC, TO_SM_SR, envelope};

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    let mut probe = Command::new("promtool");
    if !is_here("promtool", "Debian: prometheus", probe.arg("--version")) {
        return;
    }
    let rig = Rig::start().await;
    some_traffic(&rig).await;
    let answer = rig.metrics().await;
    let (_, metrics) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(metrics.contains("simcast_rsp_messages_total{"), "{metrics}");

    let mut promtool = Program::start(Command::new("promtool").args(["check", "metrics"]));
    metrics.lines().for_each(|line| promtool.say(line));
    let (status, complaints) = promtool.end().await;
    assert!(complaints.is_empty() && status.success(), "{status}: {complaints:#?}");
}

/// Something of everything: letters, an answer, a refusal, an ordinary message, a goodbye.
async fn some_traffic(rig: &Rig) {
    let mut server = rig.server(Dial::v5("server")).await;
    let mut device = rig.reader(1, Dial::v311("device")).await;
    let mut client = rig.client(Dial::v5("client")).await;
    let trigger = envelope(1, 0, "trigger");
    assert!(server.publish(TO_EUICC, trigger, QoS::AtLeastOnce).await.is_ok());
    assert!(server.publish(TO_EUICC, envelope(0, 7, "msg"), QoS::ExactlyOnce).await.is_ok());
    device.expect_payloads(2).await;
    device.publish(TO_SM_SR, envelope(1, 0, "ret(trigger)"), QoS::AtLeastOnce).await;
    assert!(!client.publish(TO_EUICC, "not yours", QoS::AtLeastOnce).await.is_ok());
    assert!(client.retain("ordinary", "message").await.is_ok());
    client.disconnect().await;
}
