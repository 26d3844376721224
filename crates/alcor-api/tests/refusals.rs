//! Bad input through real HTTP: Neutron's status and message, nothing half done, never a 5xx.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use common::{Api, assert_refused, text};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn raw_body(api: &Api, method: Method, path: &str, body: impl Into<reqwest::Body>) -> common::Answer {
    let body = body.into();
    api.send(method, path, |request| {
        request.header("Content-Type", "application/json").body(body)
    })
    .await
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let api = Api::start().await;
    for (body, kind, message) in [
        ("", "HTTPBadRequest", "Resource body required"),
        ("{\"network\": {", "HTTPBadRequest", "Malformed request body: EOF"),
        ("\u{0}", "HTTPBadRequest", "Malformed request body"),
        ("[]", "HTTPBadRequest", "Body contains invalid data"),
        ("7", "HTTPBadRequest", "Body contains invalid data"),
        ("{}", "HTTPBadRequest", "Unable to find 'network' in request body"),
        (
            "{\"port\": {}}",
            "HTTPBadRequest",
            "Unable to find 'network' in request body",
        ),
        (
            "{\"network\": 7}",
            "HTTPBadRequest",
            "Object 'network' contains invalid data",
        ),
        ("{\"networks\": {}}", "HTTPBadRequest", "Resources required"),
        ("{\"networks\": []}", "HTTPBadRequest", "Resources required"),
        (
            "{\"networks\": [{}, 7]}",
            "HTTPBadRequest",
            "Object 'network' contains invalid data",
        ),
    ] {
        let answer = raw_body(&api, Method::POST, "/v2.0/networks", body).await;
        assert_refused(&answer, 400, kind, message);
    }
    let deep = "[".repeat(100_000);
    let answer = raw_body(
        &api,
        Method::POST,
        "/v2.0/networks",
        format!("{{\"network\": {deep}"),
    )
    .await;
    assert_refused(&answer, 400, "HTTPBadRequest", "recursion limit");
    let answer = raw_body(
        &api,
        Method::POST,
        "/v2.0/networks",
        b"{\"network\": {\"name\": \"\xff\"}}".to_vec(),
    )
    .await;
    assert_refused(&answer, 400, "HTTPBadRequest", "Malformed request body");
    assert_eq!(
        api.get("/v2.0/networks").await.1,
        json!({"networks": []}),
        "nothing half done"
    );
}

#[tokio::test]
async fn attributes_that_are_unknown_read_only_or_of_a_wrong_type() {
    let api = Api::start().await;
    let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let n = network.as_str();
    let long = "x".repeat(256);
    let cases = [
        (
            "network",
            json!({"zip": 1, "zap": 2}),
            "HTTPBadRequest",
            "Unrecognized attribute(s) 'zap, zip'",
        ),
        (
            "network",
            json!({"id": n}),
            "HTTPBadRequest",
            "Attribute 'id' not allowed in POST",
        ),
        (
            "network",
            json!({"status": "ACTIVE"}),
            "HTTPBadRequest",
            "Attribute 'status' not allowed in POST",
        ),
        (
            "network",
            json!({"name": 5}),
            "HTTPBadRequest",
            "Invalid input for name. Reason: '5' is not a valid string.",
        ),
        (
            "network",
            json!({"name": long}),
            "HTTPBadRequest",
            "exceeds maximum length of 255",
        ),
        (
            "network",
            json!({"admin_state_up": "maybe"}),
            "InvalidInput",
            "'maybe' cannot be converted to boolean",
        ),
        ("network", json!({"mtu": 70_000}), "HTTPBadRequest", "too large"),
        (
            "network",
            json!({"mtu": "x"}),
            "InvalidInput",
            "'x' is not an integer",
        ),
        (
            "network",
            json!({"is_default": true}),
            "InvalidInput",
            "not external",
        ),
        (
            "network",
            json!({"provider:network_type": "vlan"}),
            "HTTPBadRequest",
            "vlan",
        ),
        (
            "network",
            json!({"provider:physical_network": "physnet1"}),
            "HTTPBadRequest",
            "not supported",
        ),
        (
            "network",
            json!({"provider:segmentation_id": 1 << 24}),
            "HTTPBadRequest",
            "too large",
        ),
        (
            "network",
            json!({"project_id": "a", "tenant_id": "b"}),
            "HTTPBadRequest",
            "do not match",
        ),
        (
            "subnet",
            json!({"cidr": "10.1.0.0/24", "ip_version": 4}),
            "HTTPBadRequest",
            "Required attribute 'network_id' not specified",
        ),
        (
            "subnet",
            json!({"network_id": n, "cidr": "10.1.0.0/24"}),
            "HTTPBadRequest",
            "Required attribute 'ip_version' not specified",
        ),
        (
            "subnet",
            json!({"network_id": n, "ip_version": 4}),
            "BadRequest",
            "a subnetpool must be specified in the absence of a cidr",
        ),
        (
            "subnet",
            json!({"network_id": n, "cidr": "10.1.0.0/24", "ip_version": 6}),
            "InvalidInput",
            "does not match the ip_version '6'",
        ),
        (
            "subnet",
            json!({"network_id": n, "cidr": "10.1.0.0/24", "ip_version": 5}),
            "HTTPBadRequest",
            "5 is not in [4, 6]",
        ),
        (
            "subnet",
            json!({"network_id": n, "cidr": "10.1.0.0", "ip_version": 4}),
            "HTTPBadRequest",
            "'10.1.0.0/32' is recommended",
        ),
        (
            "subnet",
            json!({"network_id": n, "cidr": "zip", "ip_version": 4}),
            "InvalidInput",
            "zip is not in a CIDR format",
        ),
        (
            "subnet",
            json!({"network_id": "zip", "cidr": "10.1.0.0/24", "ip_version": 4}),
            "HTTPBadRequest",
            "'zip' is not a valid UUID",
        ),
        (
            "subnet",
            json!({"network_id": n, "cidr": "10.1.0.0/24", "ip_version": 4, "allocation_pools": [{"start": "10.1.0.2"}]}),
            "HTTPBadRequest",
            "'end' is missing",
        ),
        (
            "subnet",
            json!({"network_id": n, "cidr": "10.1.0.0/24", "ip_version": 4, "dns_nameservers": ["a"]}),
            "HTTPBadRequest",
            "'a' is not a valid nameserver",
        ),
        (
            "subnet",
            json!({"network_id": n, "cidr": "10.1.0.0/24", "ip_version": 4, "dns_nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5", "1.1.1.6"]}),
            "DNSNameServersExhausted",
            "limit 5",
        ),
        (
            "port",
            json!({"name": "x"}),
            "HTTPBadRequest",
            "Required attribute 'network_id' not specified",
        ),
        (
            "port",
            json!({"network_id": n, "mac_address": "zip"}),
            "HTTPBadRequest",
            "'zip' is not a valid MAC address",
        ),
        (
            "port",
            json!({"network_id": n, "mac_address": "ff:ff:ff:ff:ff:ff"}),
            "HTTPBadRequest",
            "not a valid MAC address",
        ),
        (
            "port",
            json!({"network_id": n, "fixed_ips": "10.0.0.5"}),
            "HTTPBadRequest",
            "Invalid data format for fixed IP",
        ),
        (
            "port",
            json!({"network_id": n, "fixed_ips": [{"ip_address": "10.0.0.256"}]}),
            "HTTPBadRequest",
            "'10.0.0.256' is not a valid IP address",
        ),
        (
            "port",
            json!({"network_id": n, "fixed_ips": [{}]}),
            "InvalidInput",
            "requires subnet_id or ip_address",
        ),
        (
            "port",
            json!({"network_id": n, "allowed_address_pairs": [{"mac_address": "02:00:00:00:00:01"}]}),
            "AllowedAddressPairsMissingIP",
            "must contain ip_address",
        ),
        (
            "port",
            json!({"network_id": n, "dns_name": "a b"}),
            "HTTPBadRequest",
            "not a valid PQDN",
        ),
        (
            "port",
            json!({"network_id": n, "binding:vnic_type": "sideways"}),
            "HTTPBadRequest",
            "'sideways' is not in",
        ),
        (
            "port",
            json!({"network_id": n, "binding:profile": []}),
            "HTTPBadRequest",
            "not a dictionary",
        ),
        (
            "port",
            json!({"network_id": n, "zip_groups": []}),
            "HTTPBadRequest",
            "Unrecognized attribute(s) 'zip_groups'",
        ),
    ];
    for (singular, attributes, kind, message) in cases {
        let answer = api
            .post(&format!("/v2.0/{singular}s"), json!({ singular: attributes }))
            .await;
        assert_refused(&answer, 400, kind, message);
    }
    for (path, body, message) in [
        (
            format!("networks/{n}"),
            json!({"network": {"id": n}}),
            "Cannot update read-only attribute id",
        ),
        (
            format!("networks/{n}"),
            json!({"network": {"project_id": "x"}}),
            "Cannot update read-only attribute project_id",
        ),
        (
            format!("networks/{n}"),
            json!({"network": {"zip": 1}}),
            "Unrecognized attribute(s) 'zip'",
        ),
        (
            format!("subnets/{subnet}"),
            json!({"subnet": {"cidr": "10.2.0.0/24"}}),
            "Cannot update read-only attribute cidr",
        ),
        (
            format!("subnets/{subnet}"),
            json!({}),
            "Unable to find 'subnet' in request body",
        ),
    ] {
        assert_refused(
            &api.put(&format!("/v2.0/{path}"), body).await,
            400,
            "HTTPBadRequest",
            message,
        );
    }
}

#[tokio::test]
async fn what_the_regions_state_forbids() {
    let api = Api::start().await;
    let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let n = network.as_str();
    let nowhere = "00000000-0000-0000-0000-000000000000";
    api.make("port", json!({"network_id": n, "mac_address": "02:00:00:00:00:01", "fixed_ips": [{"ip_address": "10.0.0.5"}]})).await;
    let vni = api.get(&format!("/v2.0/networks/{n}")).await.1["network"]["provider:segmentation_id"].clone();
    let subnet_of = |cidr: &str| json!({"network_id": n, "cidr": cidr, "ip_version": 4});
    let with = |mut base: Value, key: &str, value: Value| {
        base[key] = value;
        base
    };
    for (singular, attributes, status, kind) in [
        ("subnet", subnet_of("10.0.0.128/25"), 400, "InvalidInput"),
        (
            "subnet",
            with(subnet_of("10.1.0.0/24"), "network_id", json!(nowhere)),
            404,
            "NetworkNotFound",
        ),
        (
            "subnet",
            with(
                subnet_of("10.1.0.0/24"),
                "allocation_pools",
                json!([{"start": "10.2.0.2", "end": "10.2.0.9"}]),
            ),
            400,
            "OutOfBoundsAllocationPool",
        ),
        (
            "subnet",
            with(
                subnet_of("10.1.0.0/24"),
                "allocation_pools",
                json!([{"start": "10.1.0.9", "end": "10.1.0.2"}]),
            ),
            400,
            "InvalidAllocationPool",
        ),
        (
            "subnet",
            with(
                subnet_of("10.1.0.0/24"),
                "allocation_pools",
                json!([{"start": "10.1.0.2", "end": "10.1.0.9"}, {"start": "10.1.0.5", "end": "10.1.0.20"}]),
            ),
            409,
            "OverlappingAllocationPools",
        ),
        (
            "subnet",
            with(
                with(subnet_of("10.1.0.0/24"), "gateway_ip", json!("10.1.0.5")),
                "allocation_pools",
                json!([{"start": "10.1.0.2", "end": "10.1.0.9"}]),
            ),
            409,
            "GatewayConflictWithAllocationPools",
        ),
        (
            "subnet",
            with(subnet_of("10.1.0.0/24"), "ipv6_ra_mode", json!("slaac")),
            400,
            "InvalidInput",
        ),
        ("port", json!({"network_id": nowhere}), 404, "NetworkNotFound"),
        (
            "port",
            json!({"network_id": n, "fixed_ips": [{"ip_address": "10.0.0.5"}]}),
            409,
            "IpAddressAlreadyAllocated",
        ),
        (
            "port",
            json!({"network_id": n, "fixed_ips": [{"ip_address": "10.7.0.5"}]}),
            400,
            "InvalidIpForNetwork",
        ),
        (
            "port",
            json!({"network_id": n, "fixed_ips": [{"ip_address": "10.7.0.5", "subnet_id": subnet}]}),
            400,
            "InvalidIpForSubnet",
        ),
        (
            "port",
            json!({"network_id": n, "mac_address": "02:00:00:00:00:01"}),
            409,
            "MacAddressInUse",
        ),
        (
            "network",
            json!({"provider:segmentation_id": vni}),
            409,
            "TunnelIdInUse",
        ),
    ] {
        let answer = api
            .post(
                &format!("/v2.0/{singular}s"),
                json!({ singular: attributes.clone() }),
            )
            .await;
        let error = &answer.1["NeutronError"];
        assert_eq!(
            (answer.0, &error["type"]),
            (status, &json!(kind)),
            "{attributes} gave {}",
            answer.1
        );
    }
    for plural in ["networks", "subnets", "ports"] {
        for id in [nowhere, "zip", "%2e%2e%2f", "a%00b"] {
            let path = format!("/v2.0/{plural}/{id}");
            let singular = plural.trim_end_matches('s');
            assert_eq!(api.get(&path).await.0, 404, "{path}");
            assert_eq!(api.delete(&path).await.0, 404, "{path}");
            assert_eq!(
                api.put(&path, json!({ singular: {"name": "x"} })).await.0,
                404,
                "{path}"
            );
            assert_eq!(api.get(&format!("{path}/tags")).await.0, 404, "{path}");
        }
    }
    let ports = api.get("/v2.0/ports").await.1;
    assert_eq!(ports["ports"].as_array().unwrap().len(), 1, "nothing half done");
    assert_eq!(text(&ports["ports"][0]["fixed_ips"][0]["ip_address"]), "10.0.0.5");
}

#[tokio::test]
async fn bodies_of_100_mb_are_refused_while_they_come() {
    let api = Api::start().await;
    let chunk = vec![b' '; 1 << 20];
    let stream = futures::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    let answer = raw_body(
        &api,
        Method::POST,
        "/v2.0/networks",
        reqwest::Body::wrap_stream(stream),
    )
    .await;
    assert_refused(
        &answer,
        413,
        "HTTPRequestEntityTooLarge",
        "larger than the limit of 8388608 bytes",
    );

    // A client that asks first is told before it sends anything.
    let mut socket = tokio::net::TcpStream::connect(api.address).await.unwrap();
    let head = "POST /v2.0/networks HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\nExpect: 100-continue\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn bulk_has_a_limit() {
    let api = Api::start_with(|config| config.max_bulk = 2).await;
    let answer = api
        .post("/v2.0/networks", json!({"networks": [{}, {}, {}]}))
        .await;
    assert_refused(
        &answer,
        400,
        "HTTPBadRequest",
        "3 resources in one request are more than the limit of 2",
    );
}

#[tokio::test]
async fn a_body_in_delete_is_refused() {
    let api = Api::start().await;
    let id = text(&api.make("network", json!({})).await["id"]);
    let answer = api
        .call(Method::DELETE, &format!("/v2.0/networks/{id}"), Some(json!({})))
        .await;
    assert_refused(
        &answer,
        400,
        "HTTPBadRequest",
        "Request body is not supported in DELETE.",
    );
}

#[tokio::test]
async fn headers_that_name_a_project_prove_nothing() {
    let api = Api::start().await;
    let (status, body) = api
        .send(Method::POST, "/v2.0/networks", |request| {
            request
                .header("X-Project-Id", "stranger")
                .json(&json!({"network": {}}))
        })
        .await;
    assert_eq!(
        (status, &body["network"]["project_id"]),
        (201, &json!(common::PROJECT))
    );
}

#[tokio::test]
async fn the_server_ends_when_it_is_told() {
    let api = Api::start().await;
    // A connection that is idle does not hold the end up.
    let idle = tokio::net::TcpStream::connect(api.address).await.unwrap();
    api.get("/healthz").await;
    api.stop().await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn strangers_are_not_served_without_authentication() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = Api::serve_on(listener).await.unwrap_err();
    assert!(error.to_string().contains("only listens on loopback"), "{error}");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_reads_go_on() {
    let api = Api::start_on_a_small_disk(40).await;
    let mut acknowledged = 0;
    let refused = loop {
        let networks = vec![json!({"description": "x".repeat(200)}); 20];
        let answer = api.post("/v2.0/networks", json!({ "networks": networks })).await;
        if answer.0 != 201 {
            break answer;
        }
        acknowledged += 20;
        assert!(acknowledged < 2_000, "the disk never got full");
    };
    assert_refused(&refused, 503, "ServiceUnavailable", "the disk is full");
    let (status, body) = api.get("/v2.0/networks").await;
    assert_eq!(
        (status, body["networks"].as_array().unwrap().len()),
        (200, acknowledged)
    );
}
