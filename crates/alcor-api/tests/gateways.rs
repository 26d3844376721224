//! Gateways as operators see them, over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use alcor_region::gateway::GatewayRegistration;
use common::{Api, GATEWAY, assert_refused};
use serde_json::{Value, json};

/// An API that knows two gateways: one lives, `gw-2` was never heard. Their paths.
async fn two_gateways() -> (Api, [String; 2]) {
    let api = Api::start().await;
    let mut paths = Vec::new();
    for (name, set, tunnel_ip) in [(GATEWAY, "default", "192.0.2.1"), ("gw-2", "edge", "192.0.2.2")] {
        let said = GatewayRegistration {
            name: name.to_owned(),
            set: set.to_owned(),
            tunnel_ip: tunnel_ip.parse().unwrap(),
        };
        let row = api.region.register_gateway(said).await.unwrap();
        paths.push(format!("/alcor/v1/gateways/{}", row.id));
    }
    (api, paths.try_into().unwrap())
}

#[tokio::test]
async fn gateways_are_listed_and_shown() {
    let (api, [first, _]) = two_gateways().await;
    let (status, body) = api.get(&first).await;
    assert_eq!(status, 200, "{body}");
    for (name, value) in [
        ("name", json!(GATEWAY)),
        ("set", json!("default")),
        ("tunnel_ip", json!("192.0.2.1")),
        ("draining", json!(false)),
        ("alive", json!(true)),
        ("in_use", json!(true)),
        ("stale", json!(false)),
        ("packets_per_s", json!(40)),
        ("bytes_per_s", json!(null)),
        ("dropped", json!(2)),
        ("drops_per_s", json!(0)),
    ] {
        assert_eq!(body["gateway"][name], value, "{name}");
    }
    for (query, names) in [
        ("sort_key=name&sort_dir=asc", json!(["gw-1", "gw-2"])),
        ("set=edge", json!(["gw-2"])),
        (
            "sort_key=packets_per_s&sort_dir=desc&fields=name",
            json!(["gw-1", "gw-2"]),
        ),
        ("alive=true", json!(["gw-1"])),
        ("in_use=false", json!(["gw-2"])),
        ("name=gw-2&fields=name", json!(["gw-2"])),
        ("tunnel_ip=192.0.2.1", json!(["gw-1"])),
    ] {
        let (status, body) = api.get(&format!("/alcor/v1/gateways?{query}")).await;
        assert_eq!(status, 200, "{query}: {body}");
        let gateways = body["gateways"].as_array().unwrap();
        let shown: Vec<&Value> = gateways.iter().map(|gateway| &gateway["name"]).collect();
        assert_eq!(json!(shown), names, "{query}");
    }
    let unknown = api.get("/alcor/v1/gateways/zip").await;
    assert_refused(&unknown, 404, "GatewayNotFound", "Gateway zip could not be found");
}

#[tokio::test]
async fn a_gateways_state_is_what_the_ncm_says() {
    let (api, [first, second]) = two_gateways().await;
    let (status, body) = api.get(&format!("{first}/state")).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        (&body["alive"], &body["networks"][0]["intended"], &body["resyncs"]),
        (&json!(true), &json!(2), &json!(1))
    );
    let load = &body["load"];
    assert_eq!(
        (
            &load["passed"][0]["packets"],
            &load["nat"]["busiest"][0]["connections"]
        ),
        (&json!(100), &json!(3))
    );
    assert_eq!(load["devices"], json!([{"device": "eth0", "mode": "native"}]));
    let (_, body) = api.get(&format!("{second}/state")).await;
    assert_eq!(
        (&body["alive"], &body["networks"], &body["last_seen_at"]),
        (&json!(false), &json!([]), &json!(null))
    );
    assert_eq!(body["load"], json!(null), "not known, and not zero");
    let unknown = api.get("/alcor/v1/gateways/zip/state").await;
    assert_refused(&unknown, 404, "GatewayNotFound", "zip");
}

#[tokio::test]
async fn gateways_are_drained_and_only_the_dead_are_deleted() {
    let (api, [first, second]) = two_gateways().await;
    for draining in [true, false] {
        let (status, body) = api.put(&first, json!({"gateway": {"draining": draining}})).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["gateway"]["draining"], json!(draining));
        assert_eq!(api.get(&first).await.1, body);
    }
    for (body, message) in [
        (json!({"gateway": {"set": "edge"}}), "read-only attribute set"),
        (json!({"gateways": {}}), "'gateway'"),
    ] {
        assert_refused(&api.put(&first, body).await, 400, "HTTPBadRequest", message);
    }
    let bad = api.put(&first, json!({"gateway": {"draining": "maybe"}})).await;
    assert_refused(&bad, 400, "InvalidInput", "cannot be converted to boolean");
    assert_refused(&api.delete(&first).await, 409, "GatewayInUse", GATEWAY);
    assert_eq!(api.delete(&second).await.0, 204);
    assert_refused(&api.get(&second).await, 404, "GatewayNotFound", "Gateway");
    let gone = api.put(&second, json!({"gateway": {"draining": true}})).await;
    assert_refused(&gone, 404, "GatewayNotFound", "Gateway");
}

#[tokio::test]
async fn sets_are_shown_by_their_members() {
    let (api, paths) = two_gateways().await;
    let ids = paths.map(|path| path.rsplit('/').next().unwrap().to_owned());
    let (status, body) = api.get("/alcor/v1/gateway-sets").await;
    assert_eq!(status, 200, "{body}");
    let member = |id: &str, name: &str, is: bool| json!({"id": id, "name": name, "draining": false, "alive": is, "in_use": is});
    let first =
        json!({"name": "default", "in_use": 1, "networks": 1, "members": [member(&ids[0], GATEWAY, true)]});
    let second =
        json!({"name": "edge", "in_use": 0, "networks": null, "members": [member(&ids[1], "gw-2", false)]});
    assert_eq!(body["gateway_sets"], json!([first, second]));
}

#[tokio::test]
async fn nothing_is_said_of_gateways_when_the_ncm_does_not_answer() {
    let api = Api::start_without_ncm().await;
    let said = GatewayRegistration {
        name: GATEWAY.to_owned(),
        set: "edge".to_owned(),
        tunnel_ip: "192.0.2.1".parse().unwrap(),
    };
    let row = api.region.register_gateway(said).await.unwrap();
    let (_, body) = api.get("/alcor/v1/gateways").await;
    let listed = &body["gateways"][0];
    assert_eq!(
        (&listed["name"], &listed["stale"]),
        (&json!(GATEWAY), &json!(true))
    );
    for number in [
        "packets_per_s",
        "bytes_per_s",
        "dropped",
        "drops_per_s",
        "nat_refused",
    ] {
        assert_eq!(listed[number], json!(null), "{number}");
    }
    let (_, body) = api.get("/alcor/v1/gateway-sets").await;
    let member = json!({"id": row.id, "name": GATEWAY, "draining": false, "alive": null, "in_use": null});
    let set = json!({"name": "edge", "in_use": null, "networks": null, "members": [member]});
    assert_eq!(body["gateway_sets"], json!([set]));
    let (_, body) = api.get(&format!("/alcor/v1/gateways/{}/state", row.id)).await;
    assert_eq!(body["load"], json!(null));
}
