//! What ports have besides addresses: bindings, names, DHCP options, and the filters on parts of addresses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use common::{Api, assert_refused, text};
use reqwest::Method;
use serde_json::{Value, json};

async fn compute_port(api: &Api, network: &str, host: &str) -> String {
    let port = json!({"network_id": network, "device_owner": "compute:nova", "binding:host_id": host});
    text(&api.make("port", port).await["id"])
}

/// The bindings of a port as `host/vif_type/status`.
async fn bindings(api: &Api, port: &str, query: &str) -> Vec<String> {
    let (status, body) = api.get(&format!("/v2.0/ports/{port}/bindings{query}")).await;
    assert_eq!(status, 200, "{body}");
    let line = |b: &Value| {
        let text = |key: &str| b[key].as_str().unwrap().to_owned();
        format!("{}/{}/{}", text("host"), text("vif_type"), text("status"))
    };
    body["bindings"].as_array().unwrap().iter().map(line).collect()
}

#[tokio::test]
async fn a_live_migration_with_two_bindings() {
    let api = Api::start().await;
    let (network, _) = api.network_with_subnet("10.0.0.0/24").await;
    let port = compute_port(&api, &network, "host-a").await;
    let path = format!("/v2.0/ports/{port}/bindings");
    assert_eq!(bindings(&api, &port, "").await, ["host-a/tap/ACTIVE"]);

    let asked =
        json!({"binding": {"host": "host-b", "vnic_type": "normal", "profile": {"migrating_to": "host-b"}}});
    let (status, made) = api.post(&path, asked.clone()).await;
    assert_eq!(status, 201, "{made}");
    let details = json!({"port_filter": true, "connectivity": "l2", "bound_drivers": {"0": "alcor"}});
    assert_eq!(
        made["binding"],
        json!({"host": "host-b", "vif_type": "tap", "vif_details": details, "vnic_type": "normal",
               "profile": {"migrating_to": "host-b"}, "status": "INACTIVE"})
    );
    assert_refused(
        &api.post(&path, asked).await,
        409,
        "PortBindingAlreadyExists",
        &format!("Binding for port {port} on host host-b already exists."),
    );
    assert_eq!(
        bindings(&api, &port, "").await,
        ["host-a/tap/ACTIVE", "host-b/tap/INACTIVE"]
    );
    assert_eq!(
        api.get(&format!("{path}/host-b")).await.1["binding"],
        made["binding"]
    );
    assert_eq!(
        bindings(&api, &port, "?status=INACTIVE").await,
        ["host-b/tap/INACTIVE"]
    );
    assert_eq!(
        bindings(&api, &port, "?host=host-a&host=host-c").await,
        ["host-a/tap/ACTIVE"]
    );
    let (_, shown) = api.get(&format!("/v2.0/ports/{port}")).await;
    assert_eq!(shown["port"]["binding:host_id"], "host-a");

    let changed = json!({"binding": {"profile": null}});
    let (status, body) = api.put(&format!("{path}/host-b"), changed).await;
    assert_eq!((status, &body["binding"]["profile"]), (200, &json!({})), "{body}");

    let (status, body) = api
        .call(Method::PUT, &format!("{path}/host-b/activate"), None)
        .await;
    assert_eq!(
        (status, &body["binding"]["status"]),
        (200, &json!("ACTIVE")),
        "{body}"
    );
    assert_eq!(
        bindings(&api, &port, "").await,
        ["host-b/tap/ACTIVE", "host-a/unbound/INACTIVE"]
    );
    let (_, shown) = api.get(&format!("/v2.0/ports/{port}")).await;
    assert_eq!(shown["port"]["binding:host_id"], "host-b");
    assert_eq!(shown["port"]["status"], "BUILD");
    assert_refused(
        &api.call(Method::PUT, &format!("{path}/host-b/activate"), None)
            .await,
        409,
        "PortBindingAlreadyActive",
        "is already active",
    );
    let (status, _) = api.delete(&format!("{path}/host-a")).await;
    assert_eq!(status, 204);
    assert_eq!(bindings(&api, &port, "").await, ["host-b/tap/ACTIVE"]);
    // Without its only binding the port is nowhere.
    let (status, _) = api.delete(&format!("{path}/host-b")).await;
    assert_eq!(status, 204);
    assert_eq!(bindings(&api, &port, "").await, ["/unbound/ACTIVE"]);
}

#[tokio::test]
async fn bindings_that_are_refused() {
    let api = Api::start().await;
    let (network, _) = api.network_with_subnet("10.0.0.0/24").await;
    let port = compute_port(&api, &network, "host-a").await;
    let path = format!("/v2.0/ports/{port}/bindings");
    for (method, path) in [
        (Method::GET, format!("{path}/host-c")),
        (Method::DELETE, format!("{path}/host-c")),
        (Method::PUT, format!("{path}/host-c/activate")),
    ] {
        let answer = api.call(method, &path, None).await;
        assert_refused(
            &answer,
            404,
            "PortBindingNotFound",
            "for host host-c could not be found",
        );
    }
    let answer = api
        .put(&format!("{path}/host-c"), json!({"binding": {"profile": {}}}))
        .await;
    assert_refused(&answer, 404, "PortBindingNotFound", "host-c");
    for (body, kind) in [
        (json!({"binding": {"vnic_type": "normal"}}), "HTTPBadRequest"),
        (json!({"binding": {"host": ""}}), "HTTPBadRequest"),
        (
            json!({"binding": {"host": "h", "vnic_type": "sideways"}}),
            "HTTPBadRequest",
        ),
        (
            json!({"binding": {"host": "h", "status": "ACTIVE"}}),
            "HTTPBadRequest",
        ),
        (json!({"port": {"host": "h"}}), "HTTPBadRequest"),
    ] {
        assert_refused(&api.post(&path, body).await, 400, kind, "");
    }
    let direct = json!({"binding": {"host": "host-b", "vnic_type": "direct"}});
    assert_refused(
        &api.post(&path, direct).await,
        409,
        "PortBindingError",
        "could not be created",
    );
    for number in 0..8 {
        let body = json!({"binding": {"host": format!("host-{number}")}});
        assert_eq!(api.post(&path, body).await.0, 201);
    }
    let body = json!({"binding": {"host": "one too many"}});
    assert_refused(
        &api.post(&path, body).await,
        400,
        "InvalidInput",
        "at most 8 inactive bindings",
    );

    let nobody = text(&api.make("port", json!({"network_id": network})).await["id"]);
    let answer = api.get(&format!("/v2.0/ports/{nobody}/bindings")).await;
    assert_refused(&answer, 400, "BadRequest", "Operation only valid on compute");
    let unknown = "/v2.0/ports/00000000-0000-4000-8000-000000000000/bindings";
    assert_refused(&api.get(unknown).await, 404, "PortNotFound", "could not be found");
}

#[tokio::test]
async fn a_kind_of_interface_that_no_host_plugs_fails_to_bind() {
    let api = Api::start().await;
    let (network, _) = api.network_with_subnet("10.0.0.0/24").await;
    let asked = json!({"network_id": network, "binding:vnic_type": "direct", "binding:host_id": "host-a"});
    let port = api.make("port", asked).await;
    assert_eq!(port["binding:vif_type"], "binding_failed");
    assert_eq!(port["binding:vif_details"], json!({}));
    assert_eq!(port["status"], "DOWN");
    let path = format!("/v2.0/ports/{}", text(&port["id"]));
    let (_, list) = api.get("/v2.0/ports?binding:host_id=host-a").await;
    assert_eq!(list["ports"].as_array().unwrap().len(), 1);
    let body = json!({"port": {"binding:vnic_type": "normal", "binding:profile": null}});
    let (status, body) = api.put(&path, body).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["port"]["binding:vif_type"], "tap");
    assert_eq!(body["port"]["status"], "BUILD");
    let (_, body) = api.put(&path, json!({"port": {"binding:host_id": ""}})).await;
    assert_eq!(body["port"]["binding:vif_type"], "unbound");
}

#[tokio::test]
async fn a_mac_address_is_replaced_on_demand_but_not_while_plugged() {
    let api = Api::start().await;
    let (network, _) = api.network_with_subnet("10.0.0.0/24").await;
    let port = api
        .make("port", json!({"network_id": network, "mac_address": null}))
        .await;
    let path = format!("/v2.0/ports/{}", text(&port["id"]));
    let (status, body) = api.put(&path, json!({"port": {"mac_address": null}})).await;
    assert_eq!(status, 200, "{body}");
    assert_ne!(body["port"]["mac_address"], port["mac_address"]);
    let body = json!({"port": {"mac_address": "02:00:00:00:00:07", "binding:host_id": "host-a"}});
    assert_eq!(api.put(&path, body).await.0, 200);
    let other = json!({"port": {"mac_address": "02:00:00:00:00:08"}});
    assert_refused(
        &api.put(&path, other).await,
        409,
        "PortBound",
        "old_mac 02:00:00:00:00:07, new_mac 02:00:00:00:00:08",
    );
    let same = json!({"port": {"mac_address": "02:00:00:00:00:07"}});
    assert_eq!(api.put(&path, same).await.0, 200);
}

#[tokio::test]
async fn names_in_the_regions_domain() {
    let config = alcor_region::RegionConfig {
        dns_domain: "cloud.example".into(),
        ..Default::default()
    };
    let api = Api::start_with_region(config).await;
    let (network, _) = api.network_with_subnet("10.0.0.0/24").await;
    let port = api
        .make(
            "port",
            json!({"network_id": network, "dns_name": "VM", "dns_domain": "Mine.Example.",
                   "fixed_ips": [{"ip_address": "10.0.0.9"}]}),
        )
        .await;
    assert_eq!(
        (&port["dns_name"], &port["dns_domain"]),
        (&json!("vm"), &json!("mine.example."))
    );
    assert_eq!(
        port["dns_assignment"],
        json!([{"ip_address": "10.0.0.9", "hostname": "vm", "fqdn": "vm.cloud.example."}])
    );
    let path = format!("/v2.0/ports/{}", text(&port["id"]));
    for (name, hostname, fqdn) in [
        ("", "host-10-0-0-9", "host-10-0-0-9.cloud.example."),
        ("a.cloud.example.", "a.cloud.example.", "a.cloud.example."),
    ] {
        let (_, body) = api.put(&path, json!({"port": {"dns_name": name}})).await;
        let assignment = &body["port"]["dns_assignment"][0];
        assert_eq!(
            (&assignment["hostname"], &assignment["fqdn"]),
            (&json!(hostname), &json!(fqdn))
        );
    }
    for (body, kind) in [
        (json!({"dns_name": "a.elsewhere.example."}), "InvalidInput"),
        (json!({"dns_name": "cloud.example."}), "InvalidInput"),
        (
            json!({"dns_name": format!("{0}.{0}.{0}.{0}", "a".repeat(61))}),
            "InvalidInput",
        ),
        (json!({"dns_name": "-a"}), "HTTPBadRequest"),
        (json!({"dns_name": "a.1"}), "HTTPBadRequest"),
        (json!({"dns_domain": "no.dot"}), "HTTPBadRequest"),
        (
            json!({"dns_domain": format!("{}.", "a.".repeat(130))}),
            "HTTPBadRequest",
        ),
        (json!({"dns_domain": 7}), "HTTPBadRequest"),
    ] {
        assert_refused(&api.put(&path, json!({ "port": body })).await, 400, kind, "");
    }
    let (_, list) = api.get("/v2.0/ports?dns_domain=mine.example.").await;
    assert_eq!(list["ports"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn extra_dhcp_options_one_for_each_name_and_version() {
    let api = Api::start().await;
    let (network, _) = api.network_with_subnet("10.0.0.0/24").await;
    let option = |name: &str, value: Value, version: u8| json!({"opt_name": name, "opt_value": value, "ip_version": version});
    let port = api
        .make(
            "port",
            json!({"network_id": network, "extra_dhcp_opts": [
                {"opt_name": "bootfile-name", "opt_value": "a"},
                option("bootfile-name", json!("six"), 6),
                option("router", json!(""), 4),
                option("tftp-server", json!(null), 4),
            ]}),
        )
        .await;
    assert_eq!(
        port["extra_dhcp_opts"],
        json!([
            option("bootfile-name", json!("a"), 4),
            option("bootfile-name", json!("six"), 6),
            option("router", json!(""), 4)
        ])
    );
    let path = format!("/v2.0/ports/{}", text(&port["id"]));
    let change = |list: Value| json!({"port": {"extra_dhcp_opts": list}});
    let list = json!([
        option("bootfile-name", json!("b"), 4),
        option("bootfile-name", json!(null), 6),
        option("42", json!("192.0.2.1"), 4)
    ]);
    let (status, body) = api.put(&path, change(list)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        body["port"]["extra_dhcp_opts"],
        json!([
            option("bootfile-name", json!("b"), 4),
            option("router", json!(""), 4),
            option("42", json!("192.0.2.1"), 4)
        ])
    );
    let (_, body) = api.put(&path, change(json!(null))).await;
    assert_eq!(body["port"]["extra_dhcp_opts"].as_array().unwrap().len(), 3);
    let twice = option("x", json!("1"), 4);
    let many: Vec<Value> = (0..65).map(|n| option(&n.to_string(), json!("1"), 4)).collect();
    for bad in [
        json!([{"opt_name": "", "opt_value": "1"}]),
        json!([{"opt_name": "a"}]),
        json!([{"opt_name": "a", "opt_value": ""}]),
        json!([{"opt_name": "a", "opt_value": "1\n2"}]),
        json!([{"opt_name": "a", "opt_value": "1", "ip_version": 5}]),
        json!([{"opt_name": "a", "opt_value": "1", "more": 1}]),
        json!([{"opt_name": "a".repeat(65), "opt_value": "1"}]),
        json!([{"opt_name": "a", "opt_value": "1".repeat(256)}]),
        json!([twice, twice]),
        json!(many),
        json!({"opt_name": "a", "opt_value": "1"}),
    ] {
        let answer = api.put(&path, change(bad)).await;
        assert_refused(
            &answer,
            400,
            "HTTPBadRequest",
            "Invalid input for extra_dhcp_opts. Reason: ",
        );
    }
    // What is there and what comes together are too many.
    let more: Vec<Value> = (0..64).map(|n| option(&format!("o{n}"), json!("1"), 4)).collect();
    assert_refused(
        &api.put(&path, change(json!(more))).await,
        400,
        "InvalidInput",
        "at most 64",
    );
}

#[tokio::test]
async fn the_word_about_the_data_plane_and_whether_there_are_addresses() {
    let api = Api::start().await;
    let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let port = api.make("port", json!({"network_id": network})).await;
    assert_eq!(
        (&port["data_plane_status"], &port["ip_allocation"]),
        (&json!(null), &json!("immediate"))
    );
    let path = format!("/v2.0/ports/{}", text(&port["id"]));
    for word in [json!("ACTIVE"), json!("DOWN"), json!(null)] {
        let (_, body) = api.put(&path, json!({"port": {"data_plane_status": word}})).await;
        assert_eq!(body["port"]["data_plane_status"], word);
    }
    let bad = api
        .put(&path, json!({"port": {"data_plane_status": "active"}}))
        .await;
    assert_refused(&bad, 400, "HTTPBadRequest", "data_plane_status");
    let early = json!({"port": {"network_id": network, "data_plane_status": "DOWN"}});
    assert_refused(
        &api.post("/v2.0/ports", early).await,
        400,
        "HTTPBadRequest",
        "not allowed in POST",
    );

    let (_, body) = api.put(&path, json!({"port": {"fixed_ips": []}})).await;
    assert_eq!(body["port"]["ip_allocation"], "none");
    let (_, list) = api.get("/v2.0/ports?ip_allocation=none").await;
    assert_eq!(list["ports"].as_array().unwrap().len(), 1);
    let (_, body) = api
        .put(&path, json!({"port": {"fixed_ips": [{"subnet_id": subnet}]}}))
        .await;
    assert_eq!(body["port"]["ip_allocation"], "immediate");
}

#[tokio::test]
async fn ports_by_a_part_of_an_address() {
    let api = Api::start().await;
    let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let (other, _) = api.network_with_subnet("10.10.0.0/24").await;
    for (network, ip) in [
        (&network, "10.0.0.14"),
        (&network, "10.0.0.25"),
        (&other, "10.10.0.14"),
    ] {
        api.make(
            "port",
            json!({"network_id": network, "fixed_ips": [{"ip_address": ip}]}),
        )
        .await;
    }
    for (query, count) in [
        ("fixed_ips=ip_address_substr%3D.14", 2),
        ("fixed_ips=ip_address_substr%3D0.0.1", 2),
        (
            "fixed_ips=ip_address_substr%3D.14&fixed_ips=ip_address_substr%3D.25",
            3,
        ),
        (
            &format!("fixed_ips=ip_address_substr%3D.14&fixed_ips=subnet_id%3D{subnet}"),
            1,
        ),
        ("fixed_ips=ip_address_substr%3D99", 0),
    ] {
        let (status, list) = api.get(&format!("/v2.0/ports?{query}")).await;
        assert_eq!(
            (status, list["ports"].as_array().unwrap().len()),
            (200, count),
            "{query}"
        );
    }
}
