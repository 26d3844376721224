//! Hosts as agents, availability zones and who provides services, over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use alcor_model::{Host, resource::HostWord};
use common::{Api, assert_refused, text};
use serde_json::{Value, json};

/// An API that knows two hosts: `host-1` lives, `host-2` was never heard.
async fn two_hosts() -> Api {
    let api = Api::start().await;
    for (name, zone) in [("host-1", "east"), ("host-2", "west")] {
        let tunnel_ip = "192.0.2.1".parse().unwrap();
        api.region
            .register_host(name, HostWord::new(tunnel_ip, zone))
            .await
            .unwrap();
    }
    api
}

fn path_of(host: &str) -> String {
    format!("/v2.0/agents/{}", Host::agent_id(host))
}

#[tokio::test]
async fn hosts_are_agents() {
    let api = two_hosts().await;
    let (status, body) = api.get(&path_of("host-1")).await;
    assert_eq!(status, 200, "{body}");
    let agent = &body["agent"];
    for (name, value) in [
        ("agent_type", json!("Alcor agent")),
        ("binary", json!("alcor-agent")),
        ("topic", json!("N/A")),
        ("host", json!("host-1")),
        ("alive", json!(true)),
        ("admin_state_up", json!(true)),
        ("availability_zone", json!("east")),
        ("description", json!("")),
    ] {
        assert_eq!(agent[name], value, "{name}");
    }
    assert_eq!(
        agent["configurations"],
        json!({"tunneling_ip": "192.0.2.1", "tunnel_types": ["vxlan"], "dataplane": "model", "devices": 1})
    );
    for time in ["created_at", "started_at", "heartbeat_timestamp"] {
        let shown = text(&agent[time]).replace(' ', "T");
        assert!(shown.parse::<jiff::civil::DateTime>().is_ok(), "{time}: {shown}");
    }
    for (query, hosts) in [
        ("", json!(["host-1", "host-2"])),
        ("alive=true", json!(["host-1"])),
        ("alive=False", json!(["host-2"])),
        ("availability_zone=west", json!(["host-2"])),
        (
            "host=host-1&host=host-2&binary=alcor-agent",
            json!(["host-1", "host-2"]),
        ),
        ("agent_type=L3+agent", json!([])),
        ("sort_key=host&sort_dir=desc", json!(["host-2", "host-1"])),
        ("sort_key=host&sort_dir=desc&limit=1", json!(["host-2"])),
        (
            &format!("sort_key=host&sort_dir=desc&marker={}", Host::agent_id("host-2")),
            json!(["host-1"]),
        ),
    ] {
        let (status, body) = api.get(&format!("/v2.0/agents?{query}")).await;
        assert_eq!(status, 200, "{query}: {body}");
        let agents = body["agents"].as_array().unwrap();
        let mut shown: Vec<Value> = agents.iter().map(|agent| agent["host"].clone()).collect();
        if !query.contains("sort_key") {
            shown.sort_by_key(ToString::to_string);
        }
        assert_eq!(json!(shown), hosts, "{query}");
    }
    let unknown = api.get("/v2.0/agents?configurations=x").await;
    assert_refused(&unknown, 400, "HTTPBadRequest", "configurations");
    let marker = api
        .get(&format!("/v2.0/agents?marker={}", uuid::Uuid::nil()))
        .await;
    assert_refused(&marker, 404, "AgentNotFound", "could not be found");
}

#[tokio::test]
async fn agents_are_changed_and_only_the_dead_are_deleted() {
    let api = two_hosts().await;
    let path = path_of("host-2");
    let change = json!({"agent": {"admin_state_up": "no", "description": "in the cellar"}});
    let (status, body) = api.put(&path, change).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        (&body["agent"]["admin_state_up"], &body["agent"]["description"]),
        (&json!(false), &json!("in the cellar"))
    );
    let (_, body) = api.get("/v2.0/agents?admin_state_up=0&fields=description").await;
    assert_eq!(body, json!({"agents": [{"description": "in the cellar"}]}));
    let (_, body) = api.put(&path, json!({"agent": {"description": null}})).await;
    assert_eq!(
        (&body["agent"]["description"], &body["agent"]["admin_state_up"]),
        (&json!(""), &json!(false))
    );
    let read_only = api.put(&path, json!({"agent": {"host": "x"}})).await;
    assert_refused(
        &read_only,
        400,
        "HTTPBadRequest",
        "Cannot update read-only attribute host",
    );
    let bad = api
        .put(&path, json!({"agent": {"admin_state_up": "maybe"}}))
        .await;
    assert_refused(&bad, 400, "InvalidInput", "cannot be converted to boolean");
    let empty = api.put(&path, json!({"agnet": {}})).await;
    assert_refused(&empty, 400, "HTTPBadRequest", "'agent'");

    let alive = api.delete(&path_of("host-1")).await;
    assert_refused(&alive, 409, "AgentInUse", "alive on host host-1");
    assert_eq!(api.delete(&path).await.0, 204);
    assert_refused(&api.delete(&path).await, 404, "AgentNotFound", "Agent");
    assert_refused(
        &api.get("/v2.0/agents/zip").await,
        404,
        "AgentNotFound",
        "Agent zip",
    );
}

#[tokio::test]
async fn zones_are_those_of_the_hosts() {
    let api = two_hosts().await;
    let down = json!({"agent": {"admin_state_up": false}});
    assert_eq!(api.put(&path_of("host-2"), down).await.0, 200);
    let zone =
        |name: &str, resource: &str, state: &str| json!({"name": name, "resource": resource, "state": state});
    let query = "sort_key=name&sort_dir=asc&sort_key=resource&sort_dir=asc";
    let (status, body) = api.get(&format!("/v2.0/availability_zones?{query}")).await;
    assert_eq!(status, 200);
    let all = [
        zone("east", "network", "available"),
        zone("east", "router", "available"),
        zone("west", "network", "unavailable"),
        zone("west", "router", "unavailable"),
    ];
    assert_eq!(body, json!({"availability_zones": all}));
    let (_, body) = api
        .get("/v2.0/availability_zones?state=available&resource=router")
        .await;
    assert_eq!(body, json!({"availability_zones": [all[1]]}));
    assert_eq!(api.delete(&path_of("host-2")).await.0, 204);
    let (_, body) = api.get("/v2.0/availability_zones?name=west").await;
    assert_eq!(body, json!({"availability_zones": []}));
}

#[tokio::test]
async fn hints_name_zones_that_there_are() {
    let api = two_hosts().await;
    for singular in ["network", "router"] {
        let path = format!("/v2.0/{singular}s");
        let ask = |hints: Value| json!({ singular: {"availability_zone_hints": hints} });
        let (status, body) = api.post(&path, ask(json!(["west", "east"]))).await;
        assert_eq!(status, 201, "{body}");
        assert_eq!(body[singular]["availability_zone_hints"], json!(["west", "east"]));
        assert_eq!(body[singular]["availability_zones"], json!(["east", "west"]));
        let unknown = api.post(&path, ask(json!(["east", "north"]))).await;
        assert_refused(
            &unknown,
            404,
            "AvailabilityZoneNotFound",
            "AvailabilityZone north could not be found.",
        );
        let twice = api.post(&path, ask(json!(["east", "east"]))).await;
        assert_refused(&twice, 400, "HTTPBadRequest", "Duplicate items");
        let number = api.post(&path, ask(json!([1]))).await;
        assert_refused(&number, 400, "HTTPBadRequest", "not a valid string");
        let long = api.post(&path, ask(json!(["x".repeat(300)]))).await;
        assert_refused(&long, 400, "InvalidInput", "Too many availability_zone_hints");
        let id = text(&body[singular]["id"]);
        let change = api.put(&format!("{path}/{id}"), ask(json!([]))).await;
        assert_refused(&change, 400, "HTTPBadRequest", "read-only");
    }
}

#[tokio::test]
async fn alcor_provides_the_services() {
    let api = Api::start().await;
    let alcor = json!({"service_type": "L3_ROUTER_NAT", "name": "alcor", "default": true});
    let (status, body) = api.get("/v2.0/service-providers").await;
    assert_eq!((status, body), (200, json!({"service_providers": [alcor]})));
    let (_, body) = api.get("/v2.0/service-providers?service_type=FIREWALL").await;
    assert_eq!(body, json!({"service_providers": []}));
}
