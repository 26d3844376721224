//! Floating IPs and port forwardings over HTTP: where they lead, what frees them, and every refusal.

#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use std::sync::Arc;

use alcor_model::{FloatingIp, Id, resource::FloatingIpWord};
use common::{Answer, Api, PROJECT, assert_refused, text};
use serde_json::{Value, json};

/// A member of `value` with the path.
fn at(value: &Value, pointer: &str) -> Value {
    value.pointer(pointer).cloned().unwrap_or(Value::Null)
}

/// An external network, an inner one, and a router between them.
struct Cloud {
    api: Api,
    external: String,
    external_subnet: String,
    network: String,
    subnet: String,
    router: String,
}

impl Cloud {
    async fn start() -> Self {
        let api = Api::start().await;
        let (external, external_subnet) = api.network_with_subnet("203.0.113.0/24").await;
        let body = json!({"network": {"router:external": true}});
        assert_eq!(api.put(&format!("/v2.0/networks/{external}"), body).await.0, 200);
        let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
        let router = json!({"external_gateway_info": {"network_id": external}});
        let router = text(&api.make("router", router).await["id"]);
        let path = format!("/v2.0/routers/{router}/add_router_interface");
        assert_eq!(api.put(&path, json!({"subnet_id": subnet})).await.0, 200);
        Self {
            api,
            external,
            external_subnet,
            network,
            subnet,
            router,
        }
    }

    async fn port(&self) -> Value {
        self.api.make("port", json!({"network_id": self.network})).await
    }

    /// Tries to make a floating IP with these attributes besides the network.
    async fn try_make(&self, attributes: Value) -> Answer {
        let mut body = json!({"floatingip": attributes});
        body["floatingip"]["floating_network_id"] = json!(self.external);
        self.api.post("/v2.0/floatingips", body).await
    }

    async fn make(&self, attributes: Value) -> Value {
        let (status, body) = self.try_make(attributes).await;
        assert_eq!(status, 201, "{body}");
        body["floatingip"].clone()
    }

    async fn update(&self, id: &str, attributes: Value) -> Answer {
        let body = json!({"floatingip": attributes});
        self.api.put(&format!("/v2.0/floatingips/{id}"), body).await
    }

    async fn show(&self, id: &str) -> Value {
        let (status, body) = self.api.get(&format!("/v2.0/floatingips/{id}")).await;
        assert_eq!(status, 200, "{body}");
        body["floatingip"].clone()
    }

    async fn remove_interface(&self) -> Answer {
        let path = format!("/v2.0/routers/{}/remove_router_interface", self.router);
        self.api.put(&path, json!({"subnet_id": self.subnet})).await
    }
}

#[tokio::test]
async fn a_floating_ip_leads_to_a_port_and_away_again() {
    let cloud = Cloud::start().await;
    let port = cloud.port().await;
    let inside = at(&port, "/fixed_ips/0/ip_address");
    let made = cloud
        .make(json!({"port_id": port["id"], "description": "d"}))
        .await;
    let id = text(&made["id"]);
    let details = json!({
        "name": "", "network_id": cloud.network, "mac_address": port["mac_address"], "admin_state_up": true,
        "status": "DOWN", "device_id": "", "device_owner": "",
    });
    for (name, value) in [
        ("floating_network_id", json!(cloud.external)),
        ("router_id", json!(cloud.router)),
        ("port_id", port["id"].clone()),
        ("fixed_ip_address", inside),
        ("status", json!("DOWN")),
        ("port_details", details),
        ("description", json!("d")),
        ("qos_policy_id", Value::Null),
        ("port_forwardings", json!([])),
        ("project_id", json!(PROJECT)),
        ("name", Value::Null),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    let address = text(&made["floating_ip_address"]);
    for filter in [
        format!("floating_ip_address={address}"),
        format!("port_id={}", text(&port["id"])),
        format!("router_id={}", cloud.router),
        format!("floating_network_id={}", cloud.external),
        "status=DOWN".to_owned(),
    ] {
        let (_, list) = cloud
            .api
            .get(&format!("/v2.0/floatingips?{filter}&fields=id"))
            .await;
        assert_eq!(list, json!({"floatingips": [{"id": id}]}), "{filter}");
    }
    let (_, ports) = cloud.api.get("/v2.0/ports?device_owner=network:floatingip").await;
    assert_eq!(at(&ports, "/ports/0/device_id"), json!(id));
    assert_eq!(at(&ports, "/ports/0/fixed_ips/0/ip_address"), json!(address));
    let own = format!("/v2.0/ports/{}", text(&at(&ports, "/ports/0/id")));
    assert_refused(
        &cloud.api.delete(&own).await,
        409,
        "ServicePortInUse",
        "network:floatingip",
    );

    let (status, same) = cloud.update(&id, json!({"description": "e"})).await;
    assert_eq!(
        (status, at(&same, "/floatingip/port_id")),
        (200, port["id"].clone())
    );
    assert_refused(
        &cloud.remove_interface().await,
        409,
        "RouterInterfaceInUseByFloatingIP",
        &cloud.subnet,
    );
    let router = format!("/v2.0/routers/{}", cloud.router);
    let clear = json!({"router": {"external_gateway_info": null}});
    let clear = cloud.api.put(&router, clear).await;
    assert_refused(
        &clear,
        409,
        "RouterExternalGatewayInUseByFloatingIp",
        &cloud.router,
    );
    let port_path = format!("/v2.0/ports/{}", text(&port["id"]));
    let bare = cloud
        .api
        .put(&port_path, json!({"port": {"fixed_ips": []}}))
        .await;
    assert_refused(&bare, 400, "BadRequest", "associated to a floating ip");

    let (status, away) = cloud.update(&id, json!({"port_id": null})).await;
    assert_eq!(status, 200, "{away}");
    for name in ["port_id", "fixed_ip_address", "router_id", "port_details"] {
        assert_eq!(away["floatingip"][name], Value::Null, "{name}");
    }
    assert_eq!(cloud.update(&id, json!({"port_id": port["id"]})).await.0, 200);
    assert_eq!(cloud.api.delete(&port_path).await.0, 204);
    assert_eq!(cloud.show(&id).await["port_id"], Value::Null);
    let path = format!("/v2.0/floatingips/{id}");
    assert_eq!(cloud.api.put(&format!("{path}/tags/t"), json!({})).await.0, 201);
    assert_eq!(cloud.api.delete(&path).await.0, 204);
    assert_refused(&cloud.api.get(&path).await, 404, "FloatingIPNotFound", &id);
    assert_eq!(cloud.api.get(&own).await.0, 404);
    assert_eq!(cloud.remove_interface().await.0, 200);
}

#[tokio::test]
async fn a_change_of_nothing_ends_the_association() {
    let cloud = Cloud::start().await;
    let port = cloud.port().await;
    let made = cloud.make(json!({"port_id": port["id"]})).await;
    let id = text(&made["id"]);
    assert_eq!(cloud.update(&id, json!({"description": "d"})).await.0, 200);
    assert_eq!(cloud.show(&id).await["port_id"], port["id"]);
    assert_eq!(cloud.update(&id, json!({})).await.0, 200);
    assert_eq!(cloud.show(&id).await["port_id"], Value::Null);
}

#[tokio::test]
async fn addresses_and_subnets_can_be_chosen() {
    let cloud = Cloud::start().await;
    let made = cloud
        .make(json!({"floating_ip_address": "203.0.113.99", "dns_name": "www", "dns_domain": "example.org."}))
        .await;
    assert_eq!(made["floating_ip_address"], json!("203.0.113.99"));
    assert_eq!(made["dns_name"], json!("www"));
    assert_eq!(made["dns_domain"], json!("example.org."));
    let of_subnet = cloud.make(json!({"subnet_id": cloud.external_subnet})).await;
    assert!(text(&of_subnet["floating_ip_address"]).starts_with("203.0.113."));
    assert_eq!(of_subnet.get("subnet_id"), None);
    let twice = cloud
        .try_make(json!({"floating_ip_address": "203.0.113.99"}))
        .await;
    assert_refused(&twice, 409, "IpAddressAlreadyAllocated", "203.0.113.99");
    let elsewhere = cloud.try_make(json!({"subnet_id": cloud.subnet})).await;
    assert_refused(&elsewhere, 400, "InvalidInput", &cloud.subnet);
    let (status, pools) = cloud.api.get("/v2.0/floatingip_pools").await;
    let pool = json!({
        "subnet_id": cloud.external_subnet, "subnet_name": "", "network_id": cloud.external,
        "cidr": "203.0.113.0/24", "project_id": PROJECT, "tenant_id": PROJECT,
    });
    assert_eq!((status, pools), (200, json!({"floatingip_pools": [pool]})));
    let (_, pools) = cloud.api.get("/v2.0/floatingip_pools?fields=cidr").await;
    assert_eq!(pools, json!({"floatingip_pools": [{"cidr": "203.0.113.0/24"}]}));
    let filtered = cloud.api.get("/v2.0/floatingip_pools?cidr=x").await;
    assert_refused(
        &filtered,
        400,
        "HTTPBadRequest",
        "invalid attribute for filtering",
    );
}

#[tokio::test]
async fn associations_that_cannot_be_are_refused() {
    let cloud = Cloud::start().await;
    let port = cloud.port().await;
    let first = cloud.make(json!({"port_id": port["id"]})).await;
    let free = text(&cloud.make(json!({})).await["id"]);
    let (lonely, _) = cloud.api.network_with_subnet("10.7.0.0/24").await;
    let lonely = text(&cloud.api.make("port", json!({"network_id": lonely})).await["id"]);
    let bare = json!({"network_id": cloud.network, "fixed_ips": []});
    let bare = text(&cloud.api.make("port", bare).await["id"]);
    let two = json!({"network_id": cloud.network, "fixed_ips": [{"subnet_id": cloud.subnet}, {"subnet_id": cloud.subnet}]});
    let two = cloud.api.make("port", two).await;
    for (attributes, status, kind, words) in [
        (
            json!({"port_id": port["id"]}),
            409,
            "FloatingIPPortAlreadyAssociated",
            "already has a floating IP",
        ),
        (
            json!({"port_id": lonely}),
            404,
            "ExternalGatewayForFloatingIPNotFound",
            "is not reachable",
        ),
        (
            json!({"port_id": bare}),
            400,
            "BadRequest",
            "no fixed IPv4 addresses",
        ),
        (
            json!({"port_id": two["id"]}),
            400,
            "BadRequest",
            "multiple fixed IPv4",
        ),
        (json!({"port_id": free}), 404, "PortNotFound", &free),
        (
            json!({"fixed_ip_address": "10.0.0.9"}),
            400,
            "BadRequest",
            "without a port_id",
        ),
        (
            json!({"port_id": two["id"], "fixed_ip_address": "10.0.0.250"}),
            400,
            "BadRequest",
            "does not have fixed ip",
        ),
        (
            json!({"port_id": two["id"], "fixed_ip_address": "fd00::1"}),
            400,
            "BadRequest",
            "not an IPv4 address",
        ),
        (json!({"port_id": "x"}), 400, "HTTPBadRequest", "not a valid UUID"),
        (
            json!({"floating_ip_address": "203.0.113.5"}),
            400,
            "HTTPBadRequest",
            "read-only",
        ),
        (
            json!({"port_id": bare, "router_id": free}),
            400,
            "BadRequest",
            "no fixed IPv4",
        ),
    ] {
        assert_refused(&cloud.update(&free, attributes).await, status, kind, words);
    }
    let second = at(&two, "/fixed_ips/1/ip_address");
    let chosen = json!({"port_id": two["id"], "fixed_ip_address": second, "router_id": cloud.router});
    let (status, chosen) = cloud.update(&free, chosen).await;
    assert_eq!(
        (status, at(&chosen, "/floatingip/fixed_ip_address")),
        (200, second)
    );
    let other = text(&cloud.api.make("router", json!({})).await["id"]);
    let by_other = json!({"port_id": port["id"], "router_id": other});
    let by_other = cloud.update(&text(&first["id"]), by_other).await;
    assert_refused(&by_other, 409, "Conflict", "has no external gateway");
    for (network, words) in [(&cloud.network, "is not a valid external network")] {
        let body = json!({"floatingip": {"floating_network_id": network}});
        assert_refused(
            &cloud.api.post("/v2.0/floatingips", body).await,
            400,
            "BadRequest",
            words,
        );
    }
    let missing = cloud
        .api
        .post("/v2.0/floatingips", json!({"floatingip": {}}))
        .await;
    assert_refused(&missing, 400, "HTTPBadRequest", "floating_network_id");
    let ipv6 = text(&cloud.api.make("network", json!({"router:external": true})).await["id"]);
    let body = json!({"floatingip": {"floating_network_id": ipv6}});
    let ipv6 = cloud.api.post("/v2.0/floatingips", body).await;
    assert_refused(&ipv6, 400, "BadRequest", "does not contain any IPv4 subnet");
}

#[tokio::test]
async fn an_external_network_takes_unused_floating_ips_along() {
    let cloud = Cloud::start().await;
    let (network, subnet) = cloud.api.network_with_subnet("198.51.100.0/24").await;
    let path = format!("/v2.0/networks/{network}");
    let body = json!({"network": {"router:external": true}});
    assert_eq!(cloud.api.put(&path, body).await.0, 200);
    let body = json!({"floatingip": {"floating_network_id": network, "subnet_id": subnet}});
    let (_, made) = cloud.api.post("/v2.0/floatingips", body).await;
    let id = text(&at(&made, "/floatingip/id"));
    assert_eq!(cloud.api.delete(&path).await.0, 204);
    assert_eq!(cloud.api.get(&format!("/v2.0/floatingips/{id}")).await.0, 404);
    cloud.make(json!({"port_id": cloud.port().await["id"]})).await;
    let used = cloud
        .api
        .delete(&format!("/v2.0/networks/{}", cloud.external))
        .await;
    assert_refused(&used, 409, "NetworkInUse", &cloud.external);
}

/// A port forwarding of TCP port 80 to a port's 8080.
fn forwarding(port: &Value) -> Value {
    json!({
        "external_port": 80, "internal_port": 8080, "protocol": "TCP", "internal_port_id": port["id"],
        "internal_ip_address": port["fixed_ips"][0]["ip_address"],
    })
}

/// The same with other attributes.
fn with(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().into_iter().flatten() {
        base[name] = value.clone();
    }
    base
}

#[tokio::test]
async fn ports_are_forwarded() {
    let cloud = Cloud::start().await;
    let (floating_ip, port) = (cloud.make(json!({})).await, cloud.port().await);
    let id = text(&floating_ip["id"]);
    let collection = format!("/v2.0/floatingips/{id}/port_forwardings");
    let post = async |body: Value| {
        cloud
            .api
            .post(&collection, json!({"port_forwarding": body}))
            .await
    };
    let (status, made) = post(forwarding(&port)).await;
    assert_eq!(status, 201, "{made}");
    let first = text(&at(&made, "/port_forwarding/id"));
    let expected = json!({
        "id": first, "external_port": 80, "external_port_range": "80:80", "internal_port": 8080,
        "internal_port_range": "8080:8080", "protocol": "tcp", "internal_port_id": port["id"],
        "internal_ip_address": port["fixed_ips"][0]["ip_address"], "description": "",
    });
    assert_eq!(made["port_forwarding"], expected);
    assert_eq!(cloud.show(&id).await["router_id"], json!(cloud.router));
    let ranges = json!({
        "external_port": null, "internal_port": null, "protocol": "udp",
        "external_port_range": "100:109", "internal_port_range": "200:209",
    });
    let (status, ranged) = post(with(forwarding(&port), ranges)).await;
    assert_eq!(status, 201, "{ranged}");
    assert_eq!(at(&ranged, "/port_forwarding/external_port"), Value::Null);
    let (_, list) = cloud
        .api
        .get(&format!("{collection}?protocol=tcp&external_port_range=80:80"))
        .await;
    assert_eq!(list, json!({"port_forwardings": [expected]}));
    let (_, page) = cloud.api.get(&format!("{collection}?limit=1&fields=id")).await;
    let next = text(&at(&page, "/port_forwardings_links/0/href"));
    let next = next.split_once("/v2.0").unwrap().1;
    let (status, page) = cloud.api.get(&format!("/v2.0{next}")).await;
    assert_eq!(
        (status, page["port_forwardings"].as_array().unwrap().len()),
        (200, 1)
    );
    let shown = cloud.show(&id).await;
    assert_eq!(at(&shown, "/port_forwardings/0/external_port"), json!(80));
    let member = format!("{collection}/{first}");
    let (status, one) = cloud.api.get(&member).await;
    assert_eq!((status, &one["port_forwarding"]), (200, &expected));
    let change = json!({"port_forwarding": {"external_port": 443, "description": "web"}});
    let (status, changed) = cloud.api.put(&member, change).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(
        at(&changed, "/port_forwarding/external_port_range"),
        json!("443:443")
    );

    let used = cloud.api.delete(&format!("/v2.0/floatingips/{id}")).await;
    assert_refused(&used, 409, "FipInUseByPortForwarding", &id);
    let whole = cloud.update(&id, json!({"port_id": port["id"]})).await;
    assert_refused(&whole, 409, "FipInUseByPortForwarding", &id);
    assert_refused(
        &cloud.remove_interface().await,
        409,
        "RouterInterfaceInUseByFloatingIP",
        &cloud.subnet,
    );
    assert_eq!(cloud.api.delete(&member).await.0, 204);
    assert_refused(
        &cloud.api.get(&member).await,
        404,
        "PortForwardingNotFound",
        &first,
    );
    assert_eq!(cloud.show(&id).await["router_id"], json!(cloud.router));
    assert_eq!(
        cloud
            .api
            .delete(&format!("/v2.0/ports/{}", text(&port["id"])))
            .await
            .0,
        204
    );
    let freed = cloud.show(&id).await;
    assert_eq!(
        (&freed["router_id"], &freed["port_forwardings"]),
        (&Value::Null, &json!([]))
    );
    assert_eq!(cloud.api.delete(&format!("/v2.0/floatingips/{id}")).await.0, 204);
}

#[tokio::test]
async fn port_forwardings_that_cannot_be_are_refused() {
    let cloud = Cloud::start().await;
    let (floating_ip, port) = (cloud.make(json!({})).await, cloud.port().await);
    let id = text(&floating_ip["id"]);
    let collection = format!("/v2.0/floatingips/{id}/port_forwardings");
    let good = forwarding(&port);
    let post = async |body: Value| {
        cloud
            .api
            .post(&collection, json!({"port_forwarding": body}))
            .await
    };
    let (status, made) = post(good.clone()).await;
    assert_eq!(status, 201, "{made}");
    for (changes, status, kind, words) in [
        (
            json!({"external_port": 81}),
            400,
            "BadRequest",
            "collision with the internal_port_range",
        ),
        (
            json!({"internal_port": 81}),
            400,
            "BadRequest",
            "collision with the external_port_range",
        ),
        (
            json!({"external_port": 0}),
            400,
            "HTTPBadRequest",
            "external_port",
        ),
        (
            json!({"internal_port": 70_000}),
            400,
            "HTTPBadRequest",
            "internal_port",
        ),
        (json!({"protocol": "icmp"}), 400, "HTTPBadRequest", "protocol"),
        (
            json!({"internal_ip_address": "10.0.0.251"}),
            400,
            "BadRequest",
            "is not suitable",
        ),
        (
            json!({"internal_ip_address": "fd00::1"}),
            400,
            "BadRequest",
            "not an IPv4 address",
        ),
        (
            json!({"internal_ip_address": null}),
            400,
            "HTTPBadRequest",
            "internal_ip_address",
        ),
        (json!({"internal_port_id": id}), 404, "PortNotFound", &id),
        (
            json!({"external_port_range": "9:8"}),
            400,
            "HTTPBadRequest",
            "lower than the second",
        ),
        (
            json!({"external_port_range": "9:10"}),
            400,
            "BadRequest",
            "Ambiguous",
        ),
        (
            json!({"internal_port": null, "internal_port_range": "1:2"}),
            400,
            "BadRequest",
            "N-N or 1-N",
        ),
        (
            json!({"floatingip_id": id}),
            400,
            "HTTPBadRequest",
            "floatingip_id",
        ),
    ] {
        let changes = with(json!({"external_port": 90, "internal_port": 9090}), changes);
        let words_of = changes.to_string();
        let changes = match words {
            "collision with the internal_port_range" => with(changes, json!({"internal_port": 8080})),
            "collision with the external_port_range" => with(changes, json!({"external_port": 80})),
            _ => changes,
        };
        let answer = post(with(good.clone(), changes)).await;
        assert_eq!(answer.0, status, "{words_of}: {}", answer.1);
        assert_refused(&answer, status, kind, words);
    }
    let nobody = "/v2.0/floatingips/01a1fd00-0000-7000-8000-000000000000/port_forwardings";
    let body = json!({"port_forwarding": good});
    assert_refused(
        &cloud.api.post(nobody, body.clone()).await,
        404,
        "FloatingIPNotFound",
        "01a1fd00",
    );
    assert_refused(
        &cloud.api.get(nobody).await,
        404,
        "FloatingIPNotFound",
        "01a1fd00",
    );
    let other = text(&cloud.make(json!({})).await["id"]);
    let elsewhere = format!(
        "/v2.0/floatingips/{other}/port_forwardings/{}",
        text(&at(&made, "/port_forwarding/id"))
    );
    assert_refused(
        &cloud.api.get(&elsewhere).await,
        404,
        "PortForwardingNotFound",
        "could not be found",
    );
    assert_refused(
        &cloud.api.delete(&elsewhere).await,
        404,
        "PortForwardingNotFound",
        "could not be found",
    );
    let filter = cloud
        .api
        .get(&format!("{collection}?floatingip_id={other}"))
        .await;
    assert_refused(&filter, 400, "HTTPBadRequest", "floatingip_id");

    let taken = cloud.port().await;
    cloud.make(json!({"port_id": taken["id"]})).await;
    let taken = post(with(forwarding(&taken), json!({"external_port": 22}))).await;
    assert_refused(
        &taken,
        409,
        "PortHasBindingFloatingIP",
        "already has a binding floating IP",
    );
    let whole = cloud.port().await;
    let whole_ip = text(&cloud.make(json!({"port_id": whole["id"]})).await["id"]);
    let whole = format!("/v2.0/floatingips/{whole_ip}/port_forwardings");
    let free = cloud.port().await;
    let whole = cloud
        .api
        .post(&whole, json!({"port_forwarding": forwarding(&free)}))
        .await;
    assert_refused(
        &whole,
        409,
        "FloatingIPPortAlreadyAssociated",
        "already has a floating IP",
    );
}

/// What an NCM says of a floating IP counts for the association that it is about.
#[tokio::test]
async fn a_floating_ip_is_active_while_it_is_in_force() {
    let cloud = Cloud::start().await;
    let (port, other) = (cloud.port().await, cloud.port().await);
    let made = cloud.make(json!({"port_id": port["id"]})).await;
    let id = text(&made["id"]);
    let region = &cloud.api.region;
    let key: Id<FloatingIp> = id.parse().unwrap();
    let row = || Arc::clone(region.snapshot().state.floating_ips().get(&key).unwrap());
    let note = async |revision, in_force| {
        let word = FloatingIpWord {
            id: key,
            revision,
            in_force,
        };
        region.note_floating_ips(vec![word]).await.unwrap()
    };
    let numbers = (made["revision_number"].clone(), made["updated_at"].clone());
    let first = row().revision;
    assert_eq!(note(first, true).await, 1);
    let shown = cloud.show(&id).await;
    assert_eq!(shown["status"], "ACTIVE");
    assert_eq!(
        (shown["revision_number"].clone(), shown["updated_at"].clone()),
        numbers
    );
    assert_eq!(note(first, false).await, 0, "of a row that is another one now");
    assert_eq!(note(row().revision, true).await, 0, "no news");
    // A name is no other association, another port is, and nowhere is never in force.
    for (attributes, status) in [
        (json!({"description": "d"}), "ACTIVE"),
        (json!({"port_id": other["id"]}), "DOWN"),
        (json!({"port_id": null}), "DOWN"),
    ] {
        let (code, body) = cloud.update(&id, attributes).await;
        assert_eq!((code, &body["floatingip"]["status"]), (200, &json!(status)));
    }
    assert_eq!(note(row().revision, true).await, 0);
    assert_eq!(cloud.show(&id).await["status"], "DOWN");
}
