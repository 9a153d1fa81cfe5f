//! The API against its own description: schemathesis makes requests of it, good ones and bad ones,
//! and judges the answers.

use std::process::Command;

use serde_json::Value;
use simcast::ids::NidScheme;
use simcast::mqtt::QoS;

use crate::common::program::is_here;
use crate::common::{Dial, Rig, TO_EUICC, envelope, envelope_with, kind_of};
use crate::http::{Request, TOKEN, secret};

/// What schemathesis has to know beside the description.
const SETTINGS: &str = r#"
[checks]
enabled = true
# 422 is for what is as described and yet not possible, such as too many bytes of labels.
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "422", "503"]

# To it, a text can be of a wrong type. To us, any text is a file, perhaps of broken lines.
[[operations]]
include-operation-id = "importDevices"
checks.negative_data_rejection.enabled = false

# A session that is there; it would not guess one.
[[operations]]
include-operation-id = "getSession"
parameters = { client_id = "somebody" }

# Campaigns that are there, likewise.
[[operations]]
include-operation-id = "getCampaign"
parameters = { id = 1 }
[[operations]]
include-operation-id = "listDevicesOfCampaign"
parameters = { id = 1 }
[[operations]]
include-operation-id = "retryCampaign"
parameters = { id = 1 }
[[operations]]
include-operation-id = "cancelCampaign"
parameters = { id = 1 }
[[operations]]
include-operation-id = "releaseCampaign"
parameters = { id = 2 }

# It has no end. `events.rs` tests it.
[[operations]]
include-operation-id = "streamEvents"
enabled = false
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_what_its_description_says() {
    let package = "Python 3; pip install -r tests/interop/requirements.txt";
    let mut probe = Command::new("schemathesis");
    if !is_here("schemathesis", package, probe.arg("--version")) {
        return;
    }
    let rig = Rig::with(|config| {
        config.admin.token_file = Some(secret(config, "token", TOKEN));
        // Any number: no pattern knows the check digits of an EID.
        config.rsp.nid = NidScheme::Decimal;
    })
    .await;
    let _somebody = rig.client(Dial::v5("somebody")).await;
    let _device = rig.reader(1, Dial::v5("device")).await;
    let mut server = rig.server(Dial::v5("server")).await;
    let in_waves = envelope_with(0, 7, "msg", r#""wave":2,"campaign":"autumn","tid":7,"body":1"#);
    for message in [envelope(1, 0, "msg"), in_waves] {
        let answer = server.publish(TO_EUICC, message, QoS::AtLeastOnce).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
    let mut asking = rig.device(2, Dial::v5("asking")).await;
    let e1 = envelope(1, 7, &kind_of("req", 2));
    assert!(asking.publish(TO_EUICC, e1, QoS::AtLeastOnce).await.is_ok());
    let description = rig.dir.path().join("openapi.json");
    let answer = Request::get("/api/v1/openapi.json").token(TOKEN).send(&rig).await;
    let document = answer.ok();
    std::fs::write(&description, document.to_string()).unwrap();
    let settings = rig.dir.path().join("schemathesis.toml");
    std::fs::write(&settings, SETTINGS).unwrap();

    let mut command = Command::new("timeout");
    command.args(["300", "schemathesis", "--config-file"]).arg(&settings).arg("run");
    command.args(["--no-color", "--max-examples", "25", "--generation-database", "none"]);
    // The same requests in each run: what else there is to find is not found by chance.
    command.args(["--seed", "20261125"]);
    command.args(["--suppress-health-check", "all", "--url", &format!("http://{}", rig.admin)]);
    command.args(["--header", &format!("Authorization: Bearer {TOKEN}")]).arg(&description);
    command.current_dir(rig.dir.path());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}:\n{said}", output.status);
    let all_but_events = operations(&document) - 1;
    assert!(said.contains(&format!("Tested: {all_but_events}\n")), "{all_but_events}:\n{said}");
}

fn operations(document: &Value) -> usize {
    let paths = document["paths"].as_object().unwrap().values();
    // Beside them there are the parameters that they share.
    paths.map(|path| path.as_object().unwrap().values().filter(|m| m.is_object()).count()).sum()
}

#[tokio::test]
async fn the_description_asks_for_a_token_where_the_broker_does() {
    let open = Rig::start().await;
    let document = Request::get("/api/v1/openapi.json").send(&open).await.ok();
    assert_eq!(document["security"], Value::Array(Vec::new()));
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let closed = crate::http::rig_with_tokens().await;
    let answer = Request::get("/api/v1/openapi.json").token(TOKEN).send(&closed).await;
    assert_eq!(answer.ok()["security"][0]["token"], Value::Array(Vec::new()));
}
