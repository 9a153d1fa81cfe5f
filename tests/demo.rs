//! `simcast demo` from the outside: nobody misses, doubles or sees what is not its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use serde_json::{Value, json};

fn facts(flows: &[Value], name: &str) -> Value {
    flows.iter().find(|flow| flow["flow"] == name).unwrap()["facts"].clone()
}

#[test]
fn the_demonstration_succeeds_and_says_what_it_did() {
    let arguments = ["demo", "--devices", "16", "--json"];
    let output = Command::new(env!("CARGO_BIN_EXE_simcast")).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let flows = report["flows"].as_array().unwrap();
    let names: Vec<&str> = flows.iter().map(|flow| flow["flow"].as_str().unwrap()).collect();
    let of_the_patent = ["A→B", "A→C", "D→A→B", "D→A→C", "E1→E2", "A→E"];
    let of_settings = ["strict", "coalesce", "parts", "chunks", "proof", "retry"];
    assert_eq!(names, [of_the_patent, of_settings].concat());
    for flow in flows {
        assert_eq!(flow["delivered"], flow["expected"], "{flow}");
        assert!(flow["expected"].as_u64().unwrap() > 0, "{flow}");
        assert_eq!((&flow["foreign"], &flow["doubled"]), (&Value::from(0), &Value::from(0)));
    }
    assert_eq!(facts(flows, "strict"), json!({"agreed": 5, "refused": 2, "silent": 1}));
    assert_eq!(facts(flows, "coalesce"), json!({"requesters": 16, "messages_saved": 15}));
    assert_eq!(facts(flows, "proof"), json!({"proven": 1, "refused": 1}));
    assert_eq!(facts(flows, "retry"), json!({"answered_at_once": 3, "retried": 3}));
    let parts = facts(flows, "parts");
    assert_eq!(parts["packages"], 4);
    let bytes = |name: &str| parts[name].as_u64().unwrap();
    let (delivered, to_each) = (bytes("delivered_bytes"), bytes("whole_to_each_bytes"));
    assert!(4 * 12_500 < delivered && delivered < to_each / 3, "{parts}");
    let chunks = facts(flows, "chunks");
    let (pieces, before) = (chunks["pieces"].as_u64(), chunks["before_the_cut"].as_u64());
    assert!(Some(1) < before && before < pieces, "{chunks}");
    let (single, multi) = (&flows[0]["server_bytes"], &flows[1]["server_bytes"]);
    assert!(single.as_u64() > multi.as_u64(), "{single} {multi}");
    let attacks = report["attacks"].as_array().unwrap();
    assert_eq!(attacks.len(), 10);
    assert!(attacks.iter().all(|attack| attack["fault"].is_null()), "{attacks:?}");
}
