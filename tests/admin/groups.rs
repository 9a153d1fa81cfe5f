//! `/api/v1/groups`.

use serde_json::json;

use crate::common::{Dial, Rig, nid};
use crate::http::{Request, get, pages};

#[tokio::test]
async fn groups_come_by_number_with_their_sizes() {
    let rig = Rig::start().await;
    let all = json!([
        {"gid": 7, "devices": 4}, {"gid": 8, "devices": 2}, {"gid": 9, "devices": 1},
    ]);
    assert_eq!(get(&rig, "/api/v1/groups").await, json!({"items": all, "next": null}));
    assert_eq!(pages(&rig, "/api/v1/groups", 1, "gid").await, [["7"], ["8"], ["9"]]);
    assert_eq!(pages(&rig, "/api/v1/groups", 2, "gid").await.len(), 2);
    assert_eq!(get(&rig, "/api/v1/groups/7").await, all[0]);

    let put = Request::new("PUT", &format!("/api/v1/devices/{}", nid(10)));
    put.json(r#"{"gids":[18446744073709551615]}"#).send(&rig).await.ok();
    let gids = pages(&rig, "/api/v1/groups", 1, "gid").await.concat();
    assert_eq!(gids, ["7", "8", "18446744073709551615"], "a group without members is none");
    let last = get(&rig, "/api/v1/groups?after=fffffffffffffffe").await;
    assert_eq!(last["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_devices_of_a_group_come_page_by_page() {
    let rig = Rig::start().await;
    let members = pages(&rig, "/api/v1/groups/7/devices", 2, "nid").await;
    let expected = [[1, 2], [3, 5]].map(|page| page.map(|number| nid(number).to_string()));
    assert_eq!(members, expected);
    let _five = rig.reader(5, Dial::v5("five")).await;
    let online = pages(&rig, "/api/v1/groups/7/devices?online=true", 2, "nid").await.concat();
    assert_eq!(online, [nid(5).to_string()]);
}

#[tokio::test]
async fn a_group_without_devices_is_none() {
    let rig = Rig::start().await;
    for (gid, status) in [("10", 404), ("0", 400), ("x", 400), ("18446744073709551616", 400)] {
        Request::get(&format!("/api/v1/groups/{gid}")).send(&rig).await.problem(status);
        Request::get(&format!("/api/v1/groups/{gid}/devices")).send(&rig).await.problem(status);
    }
    Request::get("/api/v1/groups/7?limit=1").send(&rig).await.problem(400);
    Request::get("/api/v1/groups?gid=7").send(&rig).await.problem(400);
    let answer = Request::new("PUT", "/api/v1/groups/7").json("{}").send(&rig).await;
    assert_eq!(answer.status, 405, "{answer:?}");
}
