//! `/api/v1/settings`, of all and of groups.

use serde_json::{Value, json};
use simcast::mqtt::QoS;

use crate::audit::audited;
use crate::common::{Dial, Rig, TO_EUICC, envelope};
use crate::http::{Answer, Request, get};

const ALL: &str = "/api/v1/settings";
const SEVEN: &str = "/api/v1/groups/7/settings";

async fn patch(rig: &Rig, path: &str, patch: &Value) -> Answer {
    let request = Request::new("PATCH", path);
    request.body("application/merge-patch+json", patch.to_string()).send(rig).await
}

#[tokio::test]
async fn settings_change_what_is_permitted_from_the_next_message_on() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("server")).await;
    let mut refused = async |message: String| {
        let answer = server.publish(TO_EUICC, message, QoS::AtLeastOnce).await;
        (!answer.is_ok()).then(|| answer.text.unwrap_or_default())
    };
    assert_eq!(refused(envelope(1, 0, "msg")).await, None);
    let now = patch(&rig, ALL, &json!({"mode": "multi"})).await.ok();
    assert_eq!((&now["mode"], &now["peer"]), (&json!("multi"), &json!("client")));
    assert_eq!(get(&rig, ALL).await, now);
    let name = refused(envelope(1, 0, "msg")).await;
    assert!(name.is_some(), "no B1 to a member of a group");
    assert_eq!(refused(envelope(4, 0, "msg")).await, name);

    // A group may deviate, and takes that back.
    let seven = patch(&rig, SEVEN, &json!({"mode": "any"})).await.ok();
    assert_eq!((&seven["own"], &seven["gid"]), (&json!({"mode": "any"}), &json!(7)));
    assert_eq!(seven["effective"]["mode"], "any");
    assert_eq!(refused(envelope(1, 0, "msg")).await, None);
    assert_eq!(refused(envelope(4, 0, "msg")).await, name, "another group");
    let seven = patch(&rig, SEVEN, &json!({"mode": null})).await.ok();
    assert_eq!((&seven["own"], &seven["effective"]["mode"]), (&json!({}), &json!("multi")));
    assert_eq!(get(&rig, SEVEN).await, seven);
    assert_eq!(refused(envelope(1, 0, "msg")).await, name);
    patch(&rig, ALL, &json!({"mode": null})).await.ok();
    assert_eq!(refused(envelope(1, 0, "msg")).await, None);
}

#[tokio::test]
async fn every_change_is_on_record_with_what_was_before() {
    let rig = Rig::start().await;
    let mut listener = rig.service.broker().listen();
    patch(&rig, ALL, &json!({"ttl": {"msg": "3d"}, "mode": "any"})).await.ok();
    patch(&rig, SEVEN, &json!({"ttl": {"msg": "1h"}, "chunk": 1024.0})).await.ok();
    patch(&rig, SEVEN, &json!({"ttl": null})).await.ok();
    for nothing in [json!({}), json!({"mode": "any"}), json!({"ttl": {}})] {
        patch(&rig, ALL, &nothing).await.ok();
    }
    patch(&rig, ALL, &json!({"mode": "both"})).await.problem(400);
    let local = |details| ("local".to_owned(), details);
    assert_eq!(
        audited(&rig, "settings").await,
        [
            local(json!({"gid": null, "before": {"ttl.msg": "21d"}, "after": {"ttl.msg": "3d"}})),
            local(json!({
                "gid": 7,
                "before": {"ttl.msg": null, "chunk": null},
                "after": {"ttl.msg": "1h", "chunk": 1024},
            })),
            local(json!({"gid": 7, "before": {"ttl.msg": "1h"}, "after": {"ttl.msg": null}})),
        ]
    );
    for gid in [json!(null), json!(7), json!(7)] {
        let heard = crate::common::in_time("an event", listener.next()).await.unwrap();
        let simcast::broker::Heard::Event(occurrence) = heard else { panic!("{heard:?}") };
        assert_eq!(occurrence.event.name(), "settings");
        assert_eq!(json!(*occurrence)["gid"], gid);
    }
}

#[tokio::test]
async fn what_cannot_be_set_changes_nothing_and_is_named() {
    let rig = Rig::start().await;
    let before = get(&rig, ALL).await;
    for (change, status, words) in [
        (json!({"colour": "red"}), 400, "colour"),
        (json!({"ttl": {"mgs": "3d"}}), 400, "mgs"),
        (json!({"colour": null}), 400, "colour: unknown key `colour`; known here: "),
        (
            json!({"mode": null, "ttl": {"mgs": null}}),
            400,
            "ttl.mgs: unknown key `mgs`; known here: ",
        ),
        (json!({"ttl": 5}), 400, "ttl: invalid type: integer `5`, expected a table"),
        (json!({"mode": "both"}), 400, "mode: "),
        (json!({"mode": "multi", "ttl": {"msg": 5}}), 400, "ttl.msg: "),
        (json!({"trigger_rate": {"device": "60"}}), 400, "trigger_rate.device: "),
        (json!({"auto_members": 1.5}), 400, "auto_members: "),
        (json!({"auto_members": 1}), 422, "auto_members: must be at least 2"),
        (json!({"mode": "multi", "ttl": {"msg": "0s"}}), 422, "ttl.msg: must not be zero"),
        (json!({"conditions": ["a=b"]}), 422, "conditions: "),
        (json!({"conditions": ["x".repeat(257)]}), 422, "conditions: "),
        (json!({"peer_proof": "required"}), 422, "peer_proof: needs rsp.proof_issuers"),
    ] {
        for path in [ALL, SEVEN] {
            let detail = patch(&rig, path, &change).await.problem(status);
            assert!(detail.starts_with("Nothing has changed: "), "{detail}");
            assert!(detail.contains(words), "{detail}");
        }
    }
    for path in [ALL, SEVEN] {
        let patch = |body: &str| Request::new("PATCH", path).json(body);
        for body in ["", "null", "[]", "[{}]", "{"] {
            patch(body).send(&rig).await.problem(400);
        }
        patch("{}").instead("Content-Type", "text/csv").send(&rig).await.problem(415);
        Request::get(&format!("{path}?gid=7")).send(&rig).await.problem(400);
    }
    assert_eq!(get(&rig, ALL).await, before);
    assert_eq!(get(&rig, SEVEN).await, json!({"gid": 7, "own": {}, "effective": before}));
    for gid in ["0", "x", "18446744073709551616"] {
        let path = format!("/api/v1/groups/{gid}/settings");
        Request::get(&path).send(&rig).await.problem(400);
        patch(&rig, &path, &json!({})).await.problem(400);
    }
    assert_eq!(audited(&rig, "settings").await, []);
}
