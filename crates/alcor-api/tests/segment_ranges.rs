//! Ranges of VXLAN network identifiers, over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use alcor_model::Vni;
use alcor_region::RegionConfig;
use common::{Api, PROJECT, assert_refused, text};
use serde_json::{Value, json};

const PATH: &str = "/v2.0/network_segment_ranges";

async fn small() -> Api {
    Api::start_with_region(RegionConfig {
        vni_first: Vni::try_from(1).unwrap(),
        vni_last: Vni::try_from(3_000).unwrap(),
        ..RegionConfig::default()
    })
    .await
}

#[tokio::test]
async fn a_range_is_made_used_listed_changed_and_deleted() {
    let api = small().await;
    let create = json!({
        "name": "r", "network_type": "vxlan", "physical_network": "", "shared": false, "project_id": PROJECT,
        "minimum": 5000, "maximum": "5003",
    });
    let range = api.make("network_segment_range", create).await;
    let network = api.make("network", json!({})).await;
    assert_eq!(network["provider:segmentation_id"], 5000);
    let path = format!("{PATH}/{}", text(&range["id"]));
    let (status, body) = api.get(&path).await;
    assert_eq!(status, 200, "{body}");
    let shown = &body["network_segment_range"];
    for (name, value) in [
        ("name", json!("r")),
        ("default", json!(false)),
        ("shared", json!(false)),
        ("project_id", json!(PROJECT)),
        ("network_type", json!("vxlan")),
        ("minimum", json!(5000)),
        ("maximum", json!(5003)),
        ("used", json!({"5000": PROJECT})),
        ("available", json!([5001, 5002, 5003])),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    let used = api.delete(&path).await;
    assert_refused(
        &used,
        409,
        "NetworkSegmentRangeReferencedByProject",
        "one or more",
    );
    let change = |change: Value| json!({ "network_segment_range": change });
    let outside = api.put(&path, change(json!({"minimum": 5001}))).await;
    assert_refused(
        &outside,
        409,
        "NetworkSegmentRangeReferencedByProject",
        "one or more",
    );
    let (status, body) = api
        .put(&path, change(json!({"name": "s", "maximum": 5000})))
        .await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["network_segment_range"]["available"], json!([]));
    assert_refused(
        &api.put(&path, change(json!({"shared": true}))).await,
        400,
        "HTTPBadRequest",
        "read-only attribute shared",
    );
    // Its last identifier is given: the region's are next.
    let next = api.make("network", json!({})).await;
    assert!(next["provider:segmentation_id"].as_u64().unwrap() <= 3_000);

    assert_eq!(api.put(&format!("{path}/tags/blue"), json!({})).await.0, 201);
    let (_, body) = api.get(&format!("{PATH}?tags=blue&fields=name")).await;
    assert_eq!(body, json!({"network_segment_ranges": [{"name": "s"}]}));
    let (_, body) = api.get(&format!("{PATH}?id=33")).await;
    assert_eq!(body, json!({"network_segment_ranges": []}));
    let network = format!("/v2.0/networks/{}", text(&network["id"]));
    assert_eq!(api.delete(&network).await.0, 204);
    assert_eq!(api.delete(&path).await.0, 204);
    assert_refused(
        &api.get(&path).await,
        404,
        "NetworkSegmentRangeNotFound",
        "could not be found",
    );
}

#[tokio::test]
async fn the_regions_own_range_is_shown_in_part_and_stays() {
    let api = small().await;
    api.make("network", json!({})).await;
    let (status, body) = api.get(PATH).await;
    assert_eq!(status, 200, "{body}");
    let [range] = body["network_segment_ranges"].as_array().unwrap().as_slice() else {
        panic!("one range: {body}");
    };
    for (name, value) in [
        ("default", json!(true)),
        ("shared", json!(true)),
        ("project_id", Value::Null),
        ("minimum", json!(1)),
        ("maximum", json!(3_000)),
    ] {
        assert_eq!(range[name], value, "{name}");
    }
    assert_eq!(range["used"].as_object().unwrap().len(), 1);
    assert_eq!(
        range["available"].as_array().unwrap().len(),
        1_000,
        "not all 2,999"
    );
    let path = format!("{PATH}/{}", text(&range["id"]));
    let change = json!({"network_segment_range": {"name": "x"}});
    let refused = api.put(&path, change).await;
    assert_refused(
        &refused,
        400,
        "NetworkSegmentRangeDefaultReadOnly",
        "default segment range",
    );
    let refused = api.delete(&path).await;
    assert_refused(
        &refused,
        400,
        "NetworkSegmentRangeDefaultReadOnly",
        "default segment range",
    );
}

#[tokio::test]
async fn wrong_ranges_are_refused() {
    let api = small().await;
    let ask = |change: Value| {
        let mut range = json!({"network_type": "vxlan", "minimum": 1, "maximum": 2});
        range
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        json!({ "network_segment_range": range })
    };
    for (change, status, kind) in [
        (
            json!({"network_type": "vlan"}),
            400,
            "NetworkSegmentRangeNetTypeNotSupported",
        ),
        (json!({"network_type": "flat"}), 400, "HTTPBadRequest"),
        (json!({"minimum": 3}), 400, "NetworkTunnelRangeError"),
        (json!({"maximum": 16_777_216}), 400, "NetworkTunnelRangeError"),
        (json!({"maximum": -1}), 400, "HTTPBadRequest"),
        (json!({"maximum": u64::MAX}), 400, "HTTPBadRequest"),
        (json!({"used": {}}), 400, "HTTPBadRequest"),
    ] {
        let refused = api.post(PATH, ask(change.clone())).await;
        assert_eq!(
            (refused.0, &refused.1["NeutronError"]["type"]),
            (status, &json!(kind)),
            "{change}"
        );
    }
    let missing = json!({"network_segment_range": {"network_type": "vxlan", "minimum": 1}});
    assert_refused(
        &api.post(PATH, missing).await,
        400,
        "HTTPBadRequest",
        "'maximum' not specified",
    );
    assert_eq!(api.post(PATH, ask(json!({}))).await.0, 201);
    let twice = api.post(PATH, ask(json!({"minimum": 2, "maximum": 9}))).await;
    assert_refused(&twice, 409, "NetworkSegmentRangeOverlaps", "overlaps");
}

#[tokio::test]
async fn hyphens_in_its_name_lead_to_the_same_collection() {
    let api = small().await;
    let url = api.url("/v2.0/network-segment-ranges?default=x&fields=name");
    let refused = api.client.get(url).send().await.unwrap();
    assert_eq!(refused.status(), 400, "the query is read too");
    let url = api.url("/v2.0/network-segment-ranges?fields=default");
    let body: Value = api.client.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(body, json!({"network_segment_ranges": [{"default": true}]}));
}
