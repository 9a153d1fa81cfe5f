//! `simcast demo` from the outside: nobody misses, doubles or sees what is not its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use serde_json::Value;

#[test]
fn the_demonstration_succeeds_and_says_what_it_did() {
    let arguments = ["demo", "--devices", "16", "--json"];
    let output = Command::new(env!("CARGO_BIN_EXE_simcast")).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let flows = report["flows"].as_array().unwrap();
    let names: Vec<&str> = flows.iter().map(|flow| flow["flow"].as_str().unwrap()).collect();
    assert_eq!(names, ["A→B", "A→C", "D→A→B", "D→A→C", "E1→E2", "A→E"]);
    for flow in flows {
        assert_eq!(flow["delivered"], flow["expected"], "{flow}");
        assert!(flow["expected"].as_u64().unwrap() > 0, "{flow}");
        assert_eq!((&flow["foreign"], &flow["doubled"]), (&Value::from(0), &Value::from(0)));
    }
    let (single, multi) = (&flows[0]["server_bytes"], &flows[1]["server_bytes"]);
    assert!(single.as_u64() > multi.as_u64(), "{single} {multi}");
    let attacks = report["attacks"].as_array().unwrap();
    assert_eq!(attacks.len(), 10);
    assert!(attacks.iter().all(|attack| attack["fault"].is_null()), "{attacks:?}");
}
