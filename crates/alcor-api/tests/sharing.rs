//! RBAC policies over HTTP: shapes, filters, refusals, and what `shared` shows.

mod common;

use common::{Api, PROJECT, assert_refused, text};
use serde_json::json;

const OTHER: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";

#[tokio::test]
async fn a_policy_is_made_listed_changed_and_deleted() {
    let api = Api::start().await;
    let network = text(&api.make("network", json!({})).await["id"]);
    let body = json!({"rbac_policy": {
        "object_type": " Network ", "object_id": network, "action": "access_as_shared", "target_tenant": OTHER,
    }});
    let (status, made) = api.post("/v2.0/rbac-policies", body.clone()).await;
    assert_eq!(status, 201, "{made}");
    let policy = &made["rbac_policy"];
    let id = text(&policy["id"]);
    let expected = json!({
        "id": id, "object_type": "network", "object_id": network, "action": "access_as_shared",
        "target_tenant": OTHER, "project_id": PROJECT, "tenant_id": PROJECT,
    });
    assert_eq!(policy, &expected);
    assert_refused(
        &api.post("/v2.0/rbac-policies", body).await,
        409,
        "DuplicateRbacPolicy",
        "already exists",
    );
    for filter in [
        "object_type=network",
        "action=access_as_shared",
        &format!("target_tenant={OTHER}"),
    ] {
        let (_, list) = api.get(&format!("/v2.0/rbac-policies?{filter}")).await;
        assert_eq!(list, json!({"rbac_policies": [expected]}), "{filter}");
    }
    let (_, list) = api.get("/v2.0/rbac-policies?object_type=subnetpool").await;
    assert_eq!(list, json!({"rbac_policies": []}));
    let path = format!("/v2.0/rbac-policies/{id}");
    let (_, shown) = api.get(&path).await;
    assert_eq!(shown["rbac_policy"], expected);
    let (status, changed) = api
        .put(&path, json!({"rbac_policy": {"target_tenant": "*"}}))
        .await;
    assert_eq!(
        (status, &changed["rbac_policy"]["target_tenant"]),
        (200, &json!("*"))
    );
    let (_, shown) = api.get(&format!("/v2.0/networks/{network}")).await;
    assert_eq!(shown["network"]["shared"], json!(true));
    assert_eq!(api.delete(&path).await.0, 204);
    let (_, shown) = api.get(&format!("/v2.0/networks/{network}")).await;
    assert_eq!(shown["network"]["shared"], json!(false));
    assert_refused(&api.get(&path).await, 404, "RbacPolicyNotFound", &id);
}

#[tokio::test]
async fn shared_filters_networks_and_subnets() {
    let api = Api::start().await;
    let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    api.network_with_subnet("10.1.0.0/24").await;
    let body = json!({"network": {"shared": true}});
    assert_eq!(api.put(&format!("/v2.0/networks/{network}"), body).await.0, 200);
    for (plural, id) in [("networks", &network), ("subnets", &subnet)] {
        let (_, list) = api.get(&format!("/v2.0/{plural}?shared=true&fields=id")).await;
        assert_eq!(list[plural], json!([{"id": id}]));
        let (_, list) = api.get(&format!("/v2.0/{plural}?shared=false&fields=id")).await;
        assert_eq!(list[plural].as_array().unwrap().len(), 1);
        assert_ne!(list[plural][0]["id"], json!(id));
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let api = Api::start().await;
    let network = text(&api.make("network", json!({})).await["id"]);
    let good = json!({
        "object_type": "network", "object_id": network, "action": "access_as_shared", "target_tenant": OTHER,
    });
    let cases = [
        ("object_type", json!("planet"), 400, "InvalidInput"),
        ("object_id", json!("7"), 400, "HTTPBadRequest"),
        ("object_id", json!(OTHER), 404, "NetworkNotFound"),
        ("action", json!("access_as_king"), 400, "HTTPBadRequest"),
        ("target_tenant", json!(null), 400, "InvalidInput"),
        ("target_tenant", json!("1234".repeat(100)), 400, "InvalidInput"),
    ];
    for (name, value, status, kind) in cases {
        let mut body = good.clone();
        body[name] = value;
        let answer = api
            .post("/v2.0/rbac-policies", json!({"rbac_policy": body}))
            .await;
        assert_refused(&answer, status, kind, "");
    }
    for name in ["object_type", "object_id", "action", "target_tenant"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        let answer = api
            .post("/v2.0/rbac-policies", json!({"rbac_policy": body}))
            .await;
        assert_refused(&answer, 400, "HTTPBadRequest", name);
    }
    let made = api
        .post("/v2.0/rbac-policies", json!({"rbac_policy": good}))
        .await
        .1;
    let path = format!("/v2.0/rbac-policies/{}", text(&made["rbac_policy"]["id"]));
    let answer = api
        .put(&path, json!({"rbac_policy": {"action": "access_as_external"}}))
        .await;
    assert_refused(&answer, 400, "HTTPBadRequest", "read-only");
}
