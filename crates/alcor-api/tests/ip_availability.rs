//! How many addresses of a network are given out, over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use common::{Api, PROJECT, assert_refused, text};
use serde_json::json;

#[tokio::test]
async fn addresses_are_counted() {
    let api = Api::start().await;
    let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let v6 = json!({"network_id": network, "cidr": "fd00::/64", "ip_version": 6});
    api.make("subnet", v6).await;
    let empty = text(&api.make("network", json!({"name": "empty"})).await["id"]);
    let port =
        json!({"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.2"}]});
    api.make("port", port).await;
    let path = format!("/v2.0/network-ip-availabilities/{network}");
    let (status, body) = api.get(&path).await;
    assert_eq!(status, 200, "{body}");
    let shown = &body["network_ip_availability"];
    assert_eq!(
        (&shown["network_name"], &shown["project_id"], &shown["used_ips"]),
        (&json!("n"), &json!(PROJECT), &json!(2))
    );
    // 2^64 - 1 addresses of the IPv6 range, and 253 of the other: more than 64 bits.
    assert!(shown["total_ips"].as_f64().unwrap() > 1.8e19);
    let v4 = json!({
        "subnet_id": subnet, "subnet_name": "", "ip_version": 4, "cidr": "10.0.0.0/24",
        "used_ips": 2, "total_ips": 253,
        "ip_availability_details": {
            "total_ips_in_subnet": 254, "total_ips_in_allocation_pool": 253,
            "used_ips_in_subnet": 2, "used_ips_in_allocation_pool": 2,
        },
    });
    assert!(shown["subnet_ip_availability"].as_array().unwrap().contains(&v4));
    for (query, networks) in [
        (format!("network_id={network}"), 1),
        (format!("network_id={network}&network_id={empty}"), 2),
        ("network_name=empty".to_owned(), 1),
        ("ip_version=4".to_owned(), 1),
        ("ip_version=5".to_owned(), 0),
        (format!("project_id={PROJECT}"), 2),
        ("tenant_id=nobody".to_owned(), 0),
        ("network_id=zip".to_owned(), 0),
        (String::new(), 2),
    ] {
        let (_, body) = api.get(&format!("/v2.0/network-ip-availabilities?{query}")).await;
        assert_eq!(
            body["network_ip_availabilities"].as_array().unwrap().len(),
            networks,
            "{query}"
        );
    }
    let (_, body) = api.get(&format!("/v2.0/network-ip-availabilities?network_id={network}&ip_version=4&fields=total_ips&fields=network_id")).await;
    assert_eq!(
        body,
        json!({"network_ip_availabilities": [{"network_id": network, "total_ips": 253}]})
    );
    for id in ["zip", PROJECT] {
        let answer = api.get(&format!("/v2.0/network-ip-availabilities/{id}")).await;
        assert_refused(&answer, 404, "NetworkNotFound", id);
    }
}
