//! Routers over HTTP: interfaces, ways out, static routes, what their ports may not do, and every refusal.

#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use alcor_model::{Id, Port, resource::PortStatus};
use alcor_region::command::PortReport;
use common::{Answer, Api, PROJECT, assert_refused, text};
use serde_json::{Value, json};

/// A member of `value` with the path.
fn at(value: &Value, pointer: &str) -> Value {
    value.pointer(pointer).cloned().unwrap_or(Value::Null)
}

/// An external network with a subnet; their ids.
async fn external(api: &Api, cidr: &str) -> (String, String) {
    let (network, subnet) = api.network_with_subnet(cidr).await;
    let body = json!({"network": {"router:external": true}});
    assert_eq!(api.put(&format!("/v2.0/networks/{network}"), body).await.0, 200);
    (network, subnet)
}

async fn router(api: &Api, attributes: Value) -> String {
    text(&api.make("router", attributes).await["id"])
}

async fn action(api: &Api, router: &str, name: &str, body: Value) -> Answer {
    api.put(&format!("/v2.0/routers/{router}/{name}"), body).await
}

async fn add_subnet(api: &Api, router: &str, subnet: &str) -> Value {
    let (status, info) = action(api, router, "add_router_interface", json!({"subnet_id": subnet})).await;
    assert_eq!(status, 200, "{info}");
    info
}

/// What is said of a router's port.
async fn say(api: &Api, port: &str, status: PortStatus) -> usize {
    let id: Id<Port> = port.parse().unwrap();
    let known = api.region.snapshot().state.ports().get(&id).cloned().unwrap();
    let report = PortReport {
        port_id: id,
        host_id: String::new(),
        applied_revision: known.revision,
        status,
        reason: None,
    };
    api.region.report_ports(vec![report]).await.unwrap()
}

async fn status(api: &Api, port: &str) -> Value {
    at(&api.get(&format!("/v2.0/ports/{port}")).await.1, "/port/status")
}

#[tokio::test]
async fn a_port_of_a_router_is_what_was_said_of_it_while_both_are_up() {
    let api = Api::start().await;
    let (_, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let id = router(&api, json!({})).await;
    let port = text(&add_subnet(&api, &id, &subnet).await["port_id"]);
    assert_eq!(status(&api, &port).await, "DOWN");
    assert_eq!(say(&api, &port, PortStatus::Active).await, 1);
    assert_eq!(say(&api, &port, PortStatus::Active).await, 0, "no news");
    assert_eq!(status(&api, &port).await, "ACTIVE");
    let (_, listed) = api.get("/v2.0/ports?status=ACTIVE").await;
    assert_eq!(at(&listed, "/ports/0/id"), json!(port));
    for (path, name) in [
        (format!("/v2.0/routers/{id}"), "router"),
        (format!("/v2.0/ports/{port}"), "port"),
    ] {
        for (up, shown) in [(false, "DOWN"), (true, "ACTIVE")] {
            let (code, answer) = api.put(&path, json!({name: {"admin_state_up": up}})).await;
            assert_eq!(code, 200, "{answer}");
            assert_eq!(status(&api, &port).await, shown, "{name} {up}");
        }
    }
    // Its name is no news, and a port that is no router's is on a host or DOWN.
    let renamed = json!({"port": {"name": "renamed"}});
    assert_eq!(api.put(&format!("/v2.0/ports/{port}"), renamed).await.0, 200);
    assert_eq!(say(&api, &port, PortStatus::Active).await, 0);
    let network = api.make("network", json!({})).await;
    let other = text(&api.make("port", json!({"network_id": network["id"]})).await["id"]);
    say(&api, &other, PortStatus::Active).await;
    assert_eq!(status(&api, &other).await, "DOWN");
}

#[tokio::test]
async fn a_router_is_made_listed_changed_and_deleted() {
    let api = Api::start().await;
    let router = api
        .make("router", json!({"name": "r1", "description": "d"}))
        .await;
    let id = text(&router["id"]);
    for (name, value) in [
        ("name", json!("r1")),
        ("status", json!("ACTIVE")),
        ("admin_state_up", json!(true)),
        ("external_gateway_info", Value::Null),
        ("routes", json!([])),
        ("distributed", json!(false)),
        ("ha", json!(false)),
        ("availability_zone_hints", json!([])),
        ("flavor_id", Value::Null),
        ("project_id", json!(PROJECT)),
        ("revision_number", json!(1)),
    ] {
        assert_eq!(router[name], value, "{name}");
    }
    let path = format!("/v2.0/routers/{id}");
    let body = json!({"router": {"name": "r2", "admin_state_up": "no", "ha": true, "distributed": true}});
    let (status, changed) = api.put(&path, body).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(at(&changed, "/router/ha"), json!(true));
    let list = api
        .get("/v2.0/routers?name=r2&admin_state_up=false&fields=id")
        .await;
    assert_eq!(list, (200, json!({"routers": [{"id": id}]})));
    assert_eq!(api.put(&format!("{path}/tags/blue"), json!({})).await.0, 201);
    let (_, list) = api.get("/v2.0/routers?tags=blue&fields=name").await;
    assert_eq!(list, json!({"routers": [{"name": "r2"}]}));
    let up = json!({"router": {"admin_state_up": true}});
    assert_eq!(api.put(&path, up).await.0, 200);
    let back = api.put(&path, json!({"router": {"ha": false}})).await;
    assert_refused(&back, 400, "BadRequest", "admin_state_up to False");
    assert_eq!(api.delete(&path).await.0, 204);
    assert_refused(&api.get(&path).await, 404, "RouterNotFound", &id);
    assert_refused(&api.delete(&path).await, 404, "RouterNotFound", &id);
}

#[tokio::test]
async fn a_subnet_becomes_an_interface_and_leaves_again() {
    let api = Api::start().await;
    let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let id = router(&api, json!({})).await;
    let info = add_subnet(&api, &id, &subnet).await;
    let port = text(&info["port_id"]);
    let expected = json!({
        "id": id, "project_id": PROJECT, "tenant_id": PROJECT, "port_id": port, "network_id": network,
        "subnet_id": subnet, "subnet_ids": [subnet],
    });
    assert_eq!(info, expected);
    let (_, shown) = api.get(&format!("/v2.0/ports/{port}")).await;
    let fixed_ips = json!([{"subnet_id": subnet, "ip_address": "10.0.0.1"}]);
    for (name, value) in [
        ("device_owner", json!("network:router_interface")),
        ("device_id", json!(id)),
        ("fixed_ips", fixed_ips),
        ("status", json!("DOWN")),
        ("port_security_enabled", json!(false)),
        ("project_id", json!(PROJECT)),
    ] {
        assert_eq!(shown["port"][name], value, "{name}");
    }
    let twice = action(&api, &id, "add_router_interface", json!({"subnet_id": subnet})).await;
    assert_refused(&twice, 400, "BadRequest", "already has a port on subnet");
    let delete = api.delete(&format!("/v2.0/ports/{port}")).await;
    assert_refused(&delete, 409, "ServicePortInUse", "network:router_interface");
    let steal = json!({"port": {"device_id": "x"}});
    let steal = api.put(&format!("/v2.0/ports/{port}"), steal).await;
    assert_refused(&steal, 409, "PortInUse", &id);
    let subnet_gone = api.delete(&format!("/v2.0/subnets/{subnet}")).await;
    assert_refused(&subnet_gone, 409, "SubnetInUse", &subnet);
    let network_gone = api.delete(&format!("/v2.0/networks/{network}")).await;
    assert_refused(&network_gone, 409, "NetworkInUse", &network);
    let router_gone = api.delete(&format!("/v2.0/routers/{id}")).await;
    assert_refused(&router_gone, 409, "RouterInUse", &port);
    let removed = action(&api, &id, "remove_router_interface", json!({"subnet_id": subnet})).await;
    assert_eq!(removed, (200, expected));
    assert_eq!(api.get(&format!("/v2.0/ports/{port}")).await.0, 404);
    let again = action(&api, &id, "remove_router_interface", json!({"subnet_id": subnet})).await;
    assert_refused(&again, 404, "RouterInterfaceNotFoundForSubnet", &subnet);
    let again = action(&api, &id, "remove_router_interface", json!({"port_id": port})).await;
    assert_refused(&again, 404, "RouterInterfaceNotFound", &port);
    assert_eq!(api.delete(&format!("/v2.0/routers/{id}")).await.0, 204);
}

#[tokio::test]
async fn a_port_becomes_an_interface() {
    let api = Api::start().await;
    let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let (_, other_subnet) = api.network_with_subnet("10.5.0.0/24").await;
    let id = router(&api, json!({})).await;
    let port = text(
        &api.make("port", json!({"network_id": network, "name": "mine"}))
            .await["id"],
    );
    let by_port = json!({"port_id": port});
    let (status, info) = action(&api, &id, "add_router_interface", by_port.clone()).await;
    assert_eq!((status, &info["subnet_ids"]), (200, &json!([subnet])), "{info}");
    let used = action(&api, &id, "add_router_interface", by_port.clone()).await;
    assert_refused(&used, 409, "PortInUse", &id);
    let wrong = json!({"port_id": port, "subnet_id": other_subnet});
    let wrong = action(&api, &id, "remove_router_interface", wrong).await;
    assert_refused(&wrong, 400, "SubnetMismatchForPort", &other_subnet);
    assert_eq!(action(&api, &id, "remove_router_interface", by_port).await.0, 200);

    let device = json!({"network_id": network, "device_id": "vm"});
    let vm = text(&api.make("port", device).await["id"]);
    let vm = action(&api, &id, "add_router_interface", json!({"port_id": vm})).await;
    assert_refused(&vm, 409, "PortInUse", "vm");
    let bare = text(
        &api.make("port", json!({"network_id": network, "fixed_ips": []}))
            .await["id"],
    );
    let bare = action(&api, &id, "add_router_interface", json!({"port_id": bare})).await;
    assert_refused(&bare, 400, "BadRequest", "at least one fixed IP");
}

#[tokio::test]
async fn requests_that_name_no_interface_are_refused() {
    let api = Api::start().await;
    let (_, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let id = router(&api, json!({})).await;
    let nobody = "01a1fd00-0000-7000-8000-000000000000";
    for (name, body, status, kind, words) in [
        (
            "add_router_interface",
            json!({}),
            400,
            "BadRequest",
            "Either subnet_id or port_id",
        ),
        (
            "remove_router_interface",
            json!({}),
            400,
            "BadRequest",
            "Either subnet_id or port_id",
        ),
        (
            "add_router_interface",
            json!({"subnet_id": subnet, "port_id": nobody}),
            400,
            "BadRequest",
            "both",
        ),
        (
            "add_router_interface",
            json!({"port_id": "x"}),
            400,
            "BadRequest",
            "'x' is not a valid UUID",
        ),
        (
            "add_router_interface",
            json!({"subnet_id": null}),
            400,
            "BadRequest",
            "not a valid UUID",
        ),
        (
            "add_router_interface",
            json!({"subnet": subnet}),
            400,
            "HTTPBadRequest",
            "subnet",
        ),
        (
            "add_router_interface",
            json!({"subnet_id": nobody}),
            404,
            "SubnetNotFound",
            nobody,
        ),
        (
            "add_router_interface",
            json!({"port_id": nobody}),
            404,
            "PortNotFound",
            nobody,
        ),
        (
            "remove_router_interface",
            json!({"subnet_id": nobody}),
            404,
            "SubnetNotFound",
            nobody,
        ),
        (
            "remove_router_interface",
            json!({"port_id": nobody}),
            404,
            "RouterInterfaceNotFound",
            nobody,
        ),
        ("add_extraroutes", json!({}), 400, "HTTPBadRequest", "router"),
        (
            "remove_extraroutes",
            json!({"router": {}}),
            400,
            "HTTPBadRequest",
            "routes",
        ),
    ] {
        assert_refused(&action(&api, &id, name, body).await, status, kind, words);
    }
    for name in ["add_router_interface", "remove_router_interface"] {
        let answer = action(&api, nobody, name, json!({"subnet_id": subnet})).await;
        assert_refused(&answer, 404, "RouterNotFound", nobody);
    }
}

#[tokio::test]
async fn overlapping_subnets_and_those_without_gateway_are_refused() {
    let api = Api::start().await;
    let id = router(&api, json!({})).await;
    let (_, first) = api.network_with_subnet("10.0.0.0/24").await;
    let (_, same) = api.network_with_subnet("10.0.0.128/25").await;
    add_subnet(&api, &id, &first).await;
    let overlap = action(&api, &id, "add_router_interface", json!({"subnet_id": same})).await;
    assert_refused(&overlap, 400, "BadRequest", "overlaps with cidr 10.0.0.0/24");
    let network = text(&api.make("network", json!({})).await["id"]);
    let subnet = json!({"network_id": network, "cidr": "10.2.0.0/24", "ip_version": 4, "gateway_ip": null});
    let subnet = text(&api.make("subnet", subnet).await["id"]);
    let bare = action(&api, &id, "add_router_interface", json!({"subnet_id": subnet})).await;
    assert_refused(&bare, 400, "BadRequest", "must have a gateway IP");
    let (outside, _) = external(&api, "10.0.0.0/22").await;
    let body = json!({"router": {"external_gateway_info": {"network_id": outside}}});
    let outside = api.put(&format!("/v2.0/routers/{id}"), body).await;
    assert_refused(&outside, 400, "BadRequest", "overlaps");
    let (_, shown) = api.get(&format!("/v2.0/routers/{id}")).await;
    assert_eq!(at(&shown, "/router/external_gateway_info"), Value::Null);
}

#[tokio::test]
async fn prefixes_of_one_network_share_a_port() {
    let api = Api::start().await;
    let network = text(&api.make("network", json!({})).await["id"]);
    let mut subnets = Vec::new();
    for cidr in ["fd00:1::/64", "fd00:2::/64"] {
        let subnet = json!({
            "network_id": network, "cidr": cidr, "ip_version": 6,
            "gateway_ip": cidr.replace("/64", "1"), "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac",
        });
        subnets.push(text(&api.make("subnet", subnet).await["id"]));
    }
    let id = router(&api, json!({})).await;
    let first = add_subnet(&api, &id, &subnets[0]).await;
    let second = add_subnet(&api, &id, &subnets[1]).await;
    assert_eq!(first["port_id"], second["port_id"]);
    let port = format!("/v2.0/ports/{}", text(&first["port_id"]));
    let (_, shown) = api.get(&port).await;
    let addresses = json!([
        {"subnet_id": subnets[0], "ip_address": "fd00:1::1"},
        {"subnet_id": subnets[1], "ip_address": "fd00:2::1"},
    ]);
    assert_eq!(at(&shown, "/port/fixed_ips"), addresses);
    let another = text(&api.make("port", json!({"network_id": network})).await["id"]);
    let another = action(&api, &id, "add_router_interface", json!({"port_id": another})).await;
    assert_refused(&another, 400, "BadRequest", "Only one IPv6 port");
    let deleted = api.delete(&format!("/v2.0/subnets/{}", subnets[0])).await;
    assert_refused(&deleted, 409, "SubnetInUse", &subnets[0]);
    for left in [1, 0] {
        let subnet = json!({"subnet_id": subnets[1 - left]});
        assert_eq!(action(&api, &id, "remove_router_interface", subnet).await.0, 200);
        let (status, shown) = api.get(&port).await;
        let addresses = shown["port"]["fixed_ips"].as_array().map_or(0, Vec::len);
        assert_eq!((status == 200, addresses), (left > 0, left));
    }
}

#[tokio::test]
async fn a_way_out_is_set_changed_and_cleared() {
    let api = Api::start().await;
    let (network, subnet) = external(&api, "203.0.113.0/24").await;
    let (inside, _) = api.network_with_subnet("10.0.0.0/24").await;
    let id = router(&api, json!({"external_gateway_info": {"network_id": network}})).await;
    let path = format!("/v2.0/routers/{id}");
    let (_, shown) = api.get(&path).await;
    let info = at(&shown, "/router/external_gateway_info");
    assert_eq!(info["network_id"], json!(network));
    assert_eq!(info["enable_snat"], json!(true));
    assert_eq!(at(&info, "/external_fixed_ips/0/subnet_id"), json!(subnet));
    let (_, ports) = api.get(&format!("/v2.0/ports?device_id={id}")).await;
    assert_eq!(
        at(&ports, "/ports/0/device_owner"),
        json!("network:router_gateway")
    );
    assert_eq!(at(&ports, "/ports/0/project_id"), json!(""));
    let port = text(&at(&ports, "/ports/0/id"));
    let delete = api.delete(&format!("/v2.0/ports/{port}")).await;
    assert_refused(&delete, 409, "ServicePortInUse", "network:router_gateway");

    let set = |info: Value| json!({"router": {"external_gateway_info": info}});
    let chosen = json!([{"subnet_id": subnet, "ip_address": "203.0.113.77"}]);
    let info = json!({"network_id": network, "enable_snat": false, "external_fixed_ips": chosen});
    let (status, changed) = api.put(&path, set(info)).await;
    assert_eq!(status, 200, "{changed}");
    let expected = json!({
        "network_id": network, "enable_snat": false, "external_fixed_ips": chosen, "qos_policy_id": null,
    });
    assert_eq!(at(&changed, "/router/external_gateway_info"), expected);
    let in_use = api
        .put(
            &format!("/v2.0/networks/{network}"),
            json!({"network": {"router:external": false}}),
        )
        .await;
    assert_refused(&in_use, 409, "ExternalNetworkInUse", &network);

    for (info, status, kind, words) in [
        (
            json!({"network_id": inside}),
            400,
            "BadRequest",
            "is not an external network",
        ),
        (
            json!({"network_id": "x"}),
            400,
            "HTTPBadRequest",
            "not a valid UUID",
        ),
        (json!({"enable_snat": true}), 400, "HTTPBadRequest", "network_id"),
        (json!("x"), 400, "HTTPBadRequest", "not a dictionary"),
        (
            json!({"network_id": network, "x": 1}),
            400,
            "HTTPBadRequest",
            "Unexpected key: 'x'",
        ),
        (
            json!({"network_id": network, "qos_policy_id": id}),
            400,
            "HTTPBadRequest",
            "qos_policy_id",
        ),
        (json!({"network_id": id}), 404, "NetworkNotFound", &id),
        (
            json!({"network_id": network, "external_fixed_ips": [{"ip_address": "203.0.113.1"}]}),
            400,
            "BadRequest",
            "same as the gateway IP",
        ),
        (
            json!({"network_id": network, "external_fixed_ips": [{"ip_address": "192.0.2.9"}]}),
            400,
            "InvalidIpForNetwork",
            "192.0.2.9",
        ),
        (
            json!({"network_id": network, "external_fixed_ips": [{"subnet_id": id}]}),
            404,
            "SubnetNotFound",
            &id,
        ),
    ] {
        assert_refused(&api.put(&path, set(info)).await, status, kind, words);
    }
    let (status, cleared) = api.put(&path, set(json!({}))).await;
    assert_eq!(
        (status, at(&cleared, "/router/external_gateway_info")),
        (200, Value::Null)
    );
    assert_eq!(api.get(&format!("/v2.0/ports/{port}")).await.0, 404);
    let body = json!({"network": {"router:external": false}});
    assert_eq!(api.put(&format!("/v2.0/networks/{network}"), body).await.0, 200);
}

#[tokio::test]
async fn static_routes_lead_to_neighbours() {
    let api = Api::start().await;
    let (_, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let id = router(&api, json!({})).await;
    let path = format!("/v2.0/routers/{id}");
    add_subnet(&api, &id, &subnet).await;
    let route =
        |third: u8, hop: &str| json!({"destination": format!("192.168.{third}.0/24"), "nexthop": hop});
    let body = |routes: Value| json!({"router": {"routes": routes}});
    let (status, set) = api.put(&path, body(json!([route(1, "10.0.0.5")]))).await;
    assert_eq!(
        (status, at(&set, "/router/routes")),
        (200, json!([route(1, "10.0.0.5")]))
    );
    let more = body(json!([route(1, "10.0.0.5"), route(2, "10.0.0.6")]));
    let (status, added) = action(&api, &id, "add_extraroutes", more).await;
    assert_eq!(status, 200, "{added}");
    assert_eq!(
        at(&added, "/router/routes"),
        json!([route(1, "10.0.0.5"), route(2, "10.0.0.6")])
    );
    let less = body(json!([route(1, "10.0.0.5"), route(9, "10.0.0.9")]));
    let (status, removed) = action(&api, &id, "remove_extraroutes", less).await;
    assert_eq!(
        (status, at(&removed, "/router/routes")),
        (200, json!([route(2, "10.0.0.6")]))
    );
    let used = action(&api, &id, "remove_router_interface", json!({"subnet_id": subnet})).await;
    assert_refused(&used, 409, "RouterInterfaceInUseByRoute", &subnet);

    let far = json!([route(3, "10.9.0.1")]);
    let words = "[{'destination': '192.168.3.0/24', 'nexthop': '10.9.0.1'}], the nexthop is not connected with router";
    assert_refused(&api.put(&path, body(far)).await, 400, "InvalidRoutes", words);
    let own = api.put(&path, body(json!([route(3, "10.0.0.1")]))).await;
    assert_refused(&own, 400, "InvalidRoutes", "used by router");
    let text = api.put(&path, body(json!("foo"))).await;
    assert_refused(&text, 400, "HTTPBadRequest", "Invalid data format for hostroute");
    let many: Vec<Value> = (0..31).map(|third| route(third, "10.0.0.7")).collect();
    assert_refused(
        &api.put(&path, body(json!(many))).await,
        409,
        "OverQuota",
        "router_route",
    );
    let at_creation = json!({"router": {"routes": []}});
    let at_creation = api.post("/v2.0/routers", at_creation).await;
    assert_refused(
        &at_creation,
        400,
        "HTTPBadRequest",
        "'routes' not allowed in POST",
    );
    let (status, none) = api.put(&path, body(Value::Null)).await;
    assert_eq!((status, at(&none, "/router/routes")), (200, json!([])));
}

#[tokio::test]
async fn one_network_is_the_default_way_out() {
    let api = Api::start().await;
    let (first, _) = external(&api, "203.0.113.0/24").await;
    let (second, _) = external(&api, "198.51.100.0/24").await;
    let body = json!({"network": {"is_default": true}});
    assert_eq!(
        api.put(&format!("/v2.0/networks/{first}"), body.clone()).await.0,
        200
    );
    let twice = api.put(&format!("/v2.0/networks/{second}"), body).await;
    assert_refused(&twice, 409, "DefaultExternalNetworkExists", &first);
    let (_, list) = api
        .get("/v2.0/networks?is_default=true&router:external=true&fields=id")
        .await;
    assert_eq!(list, json!({"networks": [{"id": first}]}));
}
