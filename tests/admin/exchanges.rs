//! `/api/v1/exchanges`, and devices that have given their profile away.

use serde_json::json;
use simcast::mqtt::QoS;

use crate::audit::audited;
use crate::common::{Dial, Rig, TO_EUICC, envelope, envelope_with, kind_of, nid};
use crate::http::{Request, get, pages};

const ONE: QoS = QoS::AtLeastOnce;

#[tokio::test]
async fn exchanges_come_by_their_devices_with_how_far_they_are() {
    let rig = Rig::start().await;
    assert_eq!(get(&rig, "/api/v1/exchanges").await, json!({"items": [], "next": null}));
    let mut one = rig.reader(1, Dial::v5("one")).await;
    let mut two = rig.reader(2, Dial::v5("two")).await;
    for of in [2, 3, 5] {
        let e1 = envelope(of, 7, &kind_of("req", 1));
        assert!(one.publish(TO_EUICC, e1, ONE).await.is_ok());
    }
    two.expect_publish().await;
    let e2 = envelope(1, 7, &kind_of("profile", 2));
    assert!(two.publish(TO_EUICC, e2, ONE).await.is_ok());
    one.expect_publish().await;
    one.barrier().await;

    let list = pages(&rig, "/api/v1/exchanges", 1, "from").await.concat();
    assert_eq!(list, [2, 3, 5].map(|number| nid(number).to_string()));
    assert_eq!(pages(&rig, "/api/v1/exchanges", 2, "from").await.len(), 2);
    let states = pages(&rig, "/api/v1/exchanges", 9, "state").await.concat();
    assert_eq!(states, ["unreported", "requested", "requested"]);
    let first = &get(&rig, "/api/v1/exchanges?limit=1").await["items"][0];
    assert_eq!((&first["to"], &first["gid"]), (&json!(nid(1).to_string()), &json!(7)));
    for query in ["?after=x", "?after=1", "?after=0-1", "?limit=0", "?gid=7"] {
        Request::get(&format!("/api/v1/exchanges{query}")).send(&rig).await.problem(400);
    }
}

#[tokio::test]
async fn a_device_that_has_given_its_profile_away_is_reinstated() {
    let rig = Rig::with(|config| config.rsp.retire = true).await;
    let mut server = rig.server(Dial::v5("server")).await;
    let mut one = rig.reader(1, Dial::v5("one")).await;
    let mut two = rig.reader(2, Dial::v5("two")).await;
    let path = |number| format!("/api/v1/devices/{}", nid(number));
    let reinstate =
        |number| Request::new("POST", &format!("{}/reinstate", path(number))).json("{}");
    assert!(one.publish(TO_EUICC, envelope(2, 7, &kind_of("req", 1)), ONE).await.is_ok());
    two.expect_publish().await;
    let e2 = envelope(1, 7, &kind_of("profile", 2));
    assert!(two.publish(TO_EUICC, e2, ONE).await.is_ok());
    one.expect_publish().await;
    one.barrier().await;
    assert_eq!(get(&rig, &path(2)).await["replaced"], true);
    assert_eq!(get(&rig, &path(1)).await["replaced"], false);
    let c1 = |number| envelope_with(0, 7, "msg", &format!(r#""body":{number}"#));
    assert!(server.publish(TO_EUICC, c1(1), ONE).await.is_ok());
    assert_eq!(one.expect_payload().await, c1(1));
    two.expect_nothing().await;

    for _ in 0..2 {
        assert_eq!(reinstate(2).send(&rig).await.ok()["replaced"], false);
    }
    assert!(server.publish(TO_EUICC, c1(2), ONE).await.is_ok());
    for device in [&mut one, &mut two] {
        assert_eq!(device.expect_payload().await, c1(2));
    }
    let entry = ("local".to_owned(), json!({"nid": nid(2).to_string()}));
    assert_eq!(audited(&rig, "reinstated").await, [entry], "once, for it was news once");
    reinstate(50).send(&rig).await.problem(404);
    reinstate(2).instead("Content-Type", "text/plain").send(&rig).await.problem(415);
    let answer = Request::new("POST", &format!("{}/reinstate", path(2)));
    answer.json(r#"{"now":true}"#).send(&rig).await.problem(400);
}
