//! The segment of each network, over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use common::{Api, assert_refused, text};
use serde_json::{Value, json};

const PATH: &str = "/v2.0/segments";

async fn of_network(api: &Api, network: &Value) -> Vec<Value> {
    let (status, body) = api
        .get(&format!("{PATH}?network_id={}", text(&network["id"])))
        .await;
    assert_eq!(status, 200, "{body}");
    body["segments"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_network_has_one_segment_from_its_first_moment_to_its_last() {
    let api = Api::start().await;
    let network = api.make("network", json!({})).await;
    let other = api.make("network", json!({})).await;
    let segments = of_network(&api, &network).await;
    assert_eq!(segments.len(), 1);
    let segment = &segments[0];
    for (name, value) in [
        ("network_id", network["id"].clone()),
        ("network_type", json!("vxlan")),
        ("physical_network", Value::Null),
        ("segmentation_id", network["provider:segmentation_id"].clone()),
        ("name", json!("")),
        ("description", json!("")),
    ] {
        assert_eq!(segment[name], value, "{name}");
    }
    let path = format!("{PATH}/{}", text(&segment["id"]));
    let change = json!({"segment": {"name": "s", "description": "d"}});
    let (status, changed) = api.put(&path, change).await;
    assert_eq!(
        (status, &changed["segment"]["name"]),
        (200, &json!("s")),
        "{changed}"
    );
    assert_eq!(api.get(&path).await.1["segment"], changed["segment"]);
    let (_, named) = api.get(&format!("{PATH}?name=s&fields=id")).await;
    assert_eq!(named, json!({"segments": [{"id": segment["id"]}]}));
    let gone = format!("/v2.0/networks/{}", text(&network["id"]));
    assert_eq!(api.delete(&gone).await.0, 204);
    assert_eq!(of_network(&api, &network).await, Vec::<Value>::new());
    assert_eq!(of_network(&api, &other).await.len(), 1);
    assert_refused(
        &api.get(&path).await,
        404,
        "SegmentNotFound",
        &text(&segment["id"]),
    );
}

#[tokio::test]
async fn nobody_makes_a_second_one_or_deletes_the_only_one() {
    let api = Api::start().await;
    let network = api.make("network", json!({})).await;
    let id = text(&network["id"]);
    let post = |network: &str, kind: &str| {
        let body = json!({"segment": {"network_id": network, "network_type": kind}});
        api.post(PATH, body)
    };
    assert_refused(
        &post(&id, "vxlan").await,
        400,
        "InvalidInput",
        "one VXLAN segment",
    );
    assert_refused(&post(&id, "vlan").await, 400, "HTTPBadRequest", "vlan");
    let nowhere = "8d6f1b57-5e0e-4ad6-9d0e-000000000000";
    assert_refused(&post(nowhere, "vxlan").await, 404, "NetworkNotFound", nowhere);
    let segment = text(&of_network(&api, &network).await[0]["id"]);
    let path = format!("{PATH}/{segment}");
    assert_refused(&api.delete(&path).await, 409, "SegmentInUse", &id);
    let change = json!({"segment": {"segmentation_id": 7}});
    assert_refused(
        &api.put(&path, change).await,
        400,
        "HTTPBadRequest",
        "segmentation_id",
    );
    assert_eq!(of_network(&api, &network).await.len(), 1);
}
