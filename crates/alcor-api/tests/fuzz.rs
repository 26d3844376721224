//! Whatever a client sends, the answer is never a 5xx and the server goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use common::Api;
use proptest::{prelude::*, test_runner::TestRunner};
use reqwest::Method;
use serde_json::{Map, Value, json};

const NAMES: &[&str] = &[
    "id",
    "name",
    "network_id",
    "subnet_id",
    "ip_address",
    "fixed_ips",
    "cidr",
    "ip_version",
    "gateway_ip",
    "allocation_pools",
    "start",
    "end",
    "dns_nameservers",
    "host_routes",
    "destination",
    "nexthop",
    "mac_address",
    "allowed_address_pairs",
    "binding:host_id",
    "binding:profile",
    "admin_state_up",
    "mtu",
    "shared",
    "tags",
    "provider:segmentation_id",
    "ipv6_ra_mode",
    "ipv6_address_mode",
    "enable_dhcp",
    "project_id",
    "tenant_id",
    "port_security_enabled",
    "dns_name",
    "device_id",
    "limit",
    "marker",
    "sort_key",
    "sort_dir",
    "fields",
    "page_reverse",
    "not-tags",
    "status",
    "created_at",
    "revision_number",
    "zip",
];

const VALUES: &[&str] = &[
    "",
    "true",
    "0",
    "-1",
    "18446744073709551616",
    "10.0.0.0/24",
    "10.0.0.5",
    "10.0.0.0",
    "10.0.0.255",
    "::",
    "::/0",
    "0.0.0.0/0",
    "255.255.255.255/32",
    "fd00::/64",
    "fd00::1",
    "fa:16:3e:00:00:01",
    "slaac",
    "dhcpv6-stateful",
    "asc",
    "ip_address=10.0.0.5",
    "subnet_id=",
    "\u{0}",
    "é",
    "00000000-0000-0000-0000-000000000000",
    "NETWORK",
    "SUBNET",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => prop::sample::select(VALUES).prop_map(str::to_owned), 1 => ".{0,20}"]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..8_u8).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            object(inner)
        ]
    })
}

fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::hash_map(prop::sample::select(NAMES).prop_map(str::to_owned), inner, 0..5)
        .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>()))
}

/// Replaces the placeholders by ids that exist, so that requests get far.
fn with_ids(value: Value, network: &str, subnet: &str) -> Value {
    let text = value
        .to_string()
        .replace("NETWORK", network)
        .replace("SUBNET", subnet);
    serde_json::from_str(&text).unwrap()
}

#[derive(Clone, Debug)]
enum Call {
    Create(&'static str, Value),
    Change(&'static str, Value),
    Query(&'static str, Vec<(String, String)>),
    Raw(&'static str, Vec<u8>),
}

fn calls() -> impl Strategy<Value = Call> {
    let singular = || prop::sample::select(&["network", "subnet", "port"][..]);
    let attributes = || prop_oneof![object(any_json()), any_json()];
    let key = prop_oneof![5 => prop::sample::select(NAMES).prop_map(str::to_owned), 1 => ".{0,9}"];
    prop_oneof![
        (singular(), attributes(), any::<bool>()).prop_map(|(singular, mut attributes, likely)| {
            if likely && let Some(map) = attributes.as_object_mut() {
                map.insert("network_id".to_owned(), json!("NETWORK"));
                map.remove("zip");
                map.remove("id");
                if singular == "subnet" {
                    map.insert("ip_version".to_owned(), json!(4));
                }
            }
            Call::Create(singular, attributes)
        }),
        (singular(), attributes()).prop_map(|(singular, attributes)| Call::Change(singular, attributes)),
        (singular(), prop::collection::vec((key, text()), 0..6))
            .prop_map(|(singular, query)| Call::Query(singular, query)),
        (singular(), prop::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(singular, bytes)| Call::Raw(singular, bytes)),
    ]
}

async fn status_of(api: &Api, network: &str, subnet: &str, port: &str, call: Call) -> u16 {
    let id = |singular: &str| match singular {
        "network" => network.to_owned(),
        "subnet" => subnet.to_owned(),
        _ => port.to_owned(),
    };
    match call {
        Call::Create(singular, attributes) => {
            let body = with_ids(json!({ singular: attributes }), network, subnet);
            api.post(&format!("/v2.0/{singular}s"), body).await.0
        }
        Call::Change(singular, attributes) => {
            let body = with_ids(json!({ singular: attributes }), network, subnet);
            api.put(&format!("/v2.0/{singular}s/{}", id(singular)), body)
                .await
                .0
        }
        Call::Query(singular, query) => {
            api.send(Method::GET, &format!("/v2.0/{singular}s"), |request| {
                request.query(&query)
            })
            .await
            .0
        }
        Call::Raw(singular, bytes) => {
            api.send(Method::POST, &format!("/v2.0/{singular}s"), |request| {
                request.body(bytes)
            })
            .await
            .0
        }
    }
}

#[test]
fn nothing_that_a_client_sends_is_a_fault_of_the_server() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (api, network, subnet, port) = runtime.block_on(async {
        let api = Api::start().await;
        let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
        let port = common::text(&api.make("port", json!({"network_id": network})).await["id"]);
        (api, network, subnet, port)
    });
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..Default::default()
    });
    runner
        .run(&calls(), |call| {
            let status = runtime.block_on(status_of(&api, &network, &subnet, &port, call));
            prop_assert!((200..500).contains(&status), "status {}", status);
            Ok(())
        })
        .unwrap();
    assert_eq!(runtime.block_on(api.get("/healthz")).0, 200);
}
