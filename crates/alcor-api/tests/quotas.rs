//! Quotas through HTTP, as admins and members of projects see them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use alcor_region::{RegionConfig, command::Caller};
use common::{Api, PROJECT, assert_refused};
use serde_json::{Value, json};

async fn small() -> Api {
    Api::start_with_region(RegionConfig {
        quotas: [("network", 2), ("port", 5)].into(),
        ..RegionConfig::default()
    })
    .await
}

#[tokio::test]
async fn limits_are_shown_set_enforced_and_reset() {
    let api = small().await;
    let path = format!("/v2.0/quotas/{PROJECT}");
    let (status, body) = api.get(&path).await;
    assert_eq!(status, 200);
    assert_eq!(
        (
            &body["quota"]["network"],
            &body["quota"]["port"],
            &body["quota"]["subnet"]
        ),
        (&json!(2), &json!(5), &json!(-1))
    );
    let three = json!({"networks": [{}, {}, {}]});
    assert_refused(
        &api.post("/v2.0/networks", three.clone()).await,
        409,
        "OverQuota",
        "Quota exceeded for resources: ['network'].",
    );
    assert_eq!(api.get("/v2.0/networks").await.1, json!({"networks": []}));
    let (status, body) = api
        .put(&path, json!({"quota": {"network": "3", "check_limit": true}}))
        .await;
    assert_eq!((status, &body["quota"]["network"]), (200, &json!(3)));
    assert_eq!(api.post("/v2.0/networks", three).await.0, 201);
    let (_, details) = api.get(&format!("{path}/details")).await;
    assert_eq!(
        details["quota"]["network"],
        json!({"limit": 3, "used": 3, "reserved": 0})
    );
    assert_refused(
        &api.put(&path, json!({"quota": {"network": 1}})).await,
        400,
        "HTTPBadRequest",
        "Quota limit 1 for network must be greater than or equal to already used 3",
    );
    let forced = json!({"quota": {"network": 1, "force": true}});
    assert_eq!(api.put(&path, forced).await.1["quota"]["network"], json!(1));
    let (_, list) = api.get("/v2.0/quotas").await;
    let rows = list["quotas"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&rows[0]["network"], &rows[0]["project_id"], &rows[0]["tenant_id"]),
        (&json!(1), &json!(PROJECT), &json!(PROJECT))
    );
    assert_eq!(
        api.get(&format!("{path}/default")).await.1["quota"]["network"],
        json!(2)
    );
    assert_eq!(
        api.get("/v2.0/quotas/default").await.1["quota"]["network"],
        json!(2)
    );
    assert_eq!(api.delete(&path).await.0, 204);
    assert_eq!(api.get(&path).await.1["quota"]["network"], json!(2));
    assert_refused(
        &api.delete(&path).await,
        404,
        "TenantQuotaNotFound",
        &format!("Quota for project {PROJECT} could not be found."),
    );
    assert_eq!(api.get("/v2.0/quotas").await.1, json!({"quotas": []}));
}

#[tokio::test]
async fn bad_limits_are_refused_and_change_nothing() {
    let api = small().await;
    let path = "/v2.0/quotas/p";
    let refused = async |quota: Value, kind: &str, message: &str| {
        assert_refused(&api.put(path, json!({"quota": quota})).await, 400, kind, message);
    };
    refused(
        json!({"network": -2, "port": 1}),
        "HTTPBadRequest",
        "Invalid input for network. Reason: '-2' is too small - must be at least '-1'.",
    )
    .await;
    refused(
        json!({"network": 2_147_483_648_u64}),
        "HTTPBadRequest",
        "'2147483648' is too large",
    )
    .await;
    refused(json!({"network": "x"}), "InvalidInput", "'x' is not an integer").await;
    refused(json!({"network": null}), "InvalidInput", "is not an integer").await;
    refused(
        json!({"zip": 1}),
        "HTTPBadRequest",
        "Unrecognized attribute(s) 'zip'",
    )
    .await;
    refused(
        json!({"project_id": "q"}),
        "HTTPBadRequest",
        "Unrecognized attribute(s) 'project_id'",
    )
    .await;
    refused(
        json!([]),
        "HTTPBadRequest",
        "Object 'quota' contains invalid data",
    )
    .await;
    assert_refused(
        &api.put(path, json!({})).await,
        400,
        "HTTPBadRequest",
        "Unable to find 'quota' in request body",
    );
    let long = format!("/v2.0/quotas/{}", "x".repeat(256));
    assert_refused(
        &api.put(&long, json!({"quota": {"port": 1}})).await,
        400,
        "HTTPBadRequest",
        "exceeds maximum length of 255",
    );
    assert_eq!(api.put(path, json!({"quota": {}})).await.0, 200);
    assert_eq!(api.get("/v2.0/quotas").await.1, json!({"quotas": []}));
    assert_refused(
        &api.post("/v2.0/quotas", json!({"quota": {}})).await,
        501,
        "HTTPNotImplemented",
        "POST requests are not supported on this resource.",
    );
}

#[tokio::test]
async fn members_see_their_own_quota_only() {
    let api = Api::start_with(|config| {
        config.authentication = alcor_api::Authentication::NoAuth(Caller {
            project_id: "mine".to_owned(),
            is_admin: false,
        });
    })
    .await;
    for (path, status) in [
        ("/v2.0/quotas/mine", 200),
        ("/v2.0/quotas/mine/default", 200),
        ("/v2.0/quotas/mine/details", 200),
        ("/v2.0/quotas/theirs", 403),
        ("/v2.0/quotas/theirs/default", 403),
        ("/v2.0/quotas/theirs/details", 403),
        ("/v2.0/quotas", 403),
    ] {
        assert_eq!(api.get(path).await.0, status, "{path}");
    }
    let change = api.put("/v2.0/quotas/mine", json!({"quota": {"port": 1}})).await;
    assert_refused(
        &change,
        403,
        "PolicyNotAuthorized",
        "rule:update_quota is disallowed by policy",
    );
    assert_eq!(api.delete("/v2.0/quotas/mine").await.0, 403);
    assert_eq!(
        api.get("/v2.0/quotas/project").await.1,
        json!({"project": {"project_id": "mine"}})
    );
    assert_eq!(
        api.get("/v2.0/quotas/tenant").await.1,
        json!({"tenant": {"tenant_id": "mine"}})
    );
}

/// A quota that nobody can set or see would be none.
#[test]
fn every_collections_quota_is_in_the_table() {
    for collection in alcor_api::collections() {
        if let Some(name) = collection.quota {
            assert!(
                alcor_region::quota::find(name).is_some(),
                "{} is not in quota::QUOTAS",
                name
            );
        }
    }
}
