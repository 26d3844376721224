//! A network for who wants no more than a network, over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use common::{Api, PROJECT, assert_refused, text};
use serde_json::json;

#[tokio::test]
async fn a_network_is_given_and_taken_away() {
    let api = Api::start().await;
    let own = "/v2.0/auto-allocated-topology/None";
    let dry = format!("{own}?fields=dry-run");
    assert_refused(
        &api.get(&dry).await,
        409,
        "AutoAllocationFailure",
        "No default router:external network",
    );
    let external = json!({"router:external": true, "is_default": true});
    let external = text(&api.make("network", external).await["id"]);
    let subnet = json!({"network_id": external, "cidr": "203.0.113.0/24", "ip_version": 4});
    api.make("subnet", subnet).await;
    assert_refused(
        &api.get(&dry).await,
        409,
        "AutoAllocationFailure",
        "No default subnetpools defined",
    );
    let pool = json!({"name": "p", "prefixes": ["10.9.0.0/16"], "default_prefixlen": 24, "is_default": true});
    api.make("subnetpool", pool).await;
    let pass = json!({"auto_allocated_topology": {"id": "dry-run=pass", "project_id": PROJECT, "tenant_id": PROJECT}});
    assert_eq!(api.get(&dry).await, (200, pass));

    let (status, body) = api.get(own).await;
    assert_eq!(status, 200, "{body}");
    let topology = &body["auto_allocated_topology"];
    assert_eq!(topology["project_id"], PROJECT);
    let (_, networks) = api.get("/v2.0/networks?name=auto_allocated_network").await;
    assert_eq!(networks["networks"][0]["id"], topology["id"]);
    assert_eq!(networks["networks"][0]["admin_state_up"], true);
    let (_, again) = api.get(&format!("/v2.0/auto-allocated-topology/{PROJECT}")).await;
    assert_eq!(again, body);
    let (_, routers) = api.get("/v2.0/routers?name=auto_allocated_router").await;
    let router = &routers["routers"][0];
    assert_eq!(router["external_gateway_info"]["network_id"], json!(external));
    let (_, ports) = api
        .get(&format!("/v2.0/ports?device_id={}", text(&router["id"])))
        .await;
    assert_eq!(
        ports["ports"].as_array().unwrap().len(),
        2,
        "one inside, one outside"
    );

    assert_eq!(api.delete(own).await.0, 204);
    let (_, networks) = api.get("/v2.0/networks?fields=id").await;
    assert_eq!(networks, json!({"networks": [{"id": external}]}));
    let (_, routers) = api.get("/v2.0/routers").await;
    assert_eq!(routers, json!({"routers": []}));
    assert_eq!(api.delete(own).await.0, 204);
    let field = api.get(&format!("{own}?fields=zip")).await;
    assert_refused(&field, 400, "BadRequest", "Unrecognized field");
}
