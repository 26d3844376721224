//! Subnet pools and address scopes over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use common::{Api, PROJECT, assert_refused, text};
use reqwest::Method;
use serde_json::{Value, json};

async fn pool(api: &Api, attributes: Value) -> Value {
    let mut body = json!({"name": "pool", "prefixes": ["10.0.0.0/16"]});
    for (name, value) in attributes.as_object().unwrap() {
        body[name] = value.clone();
    }
    api.make("subnetpool", body).await
}

#[tokio::test]
async fn a_pool_is_made_listed_changed_tagged_and_deleted() {
    let api = Api::start().await;
    let made = pool(
        &api,
        json!({"default_prefixlen": 24, "default_quota": 1024, "prefixes": ["10.1.0.0/24", "10.1.1.0/24"]}),
    )
    .await;
    let expected = [
        ("name", json!("pool")),
        ("prefixes", json!(["10.1.0.0/23"])),
        ("ip_version", json!(4)),
        ("default_prefixlen", json!("24")),
        ("min_prefixlen", json!("8")),
        ("max_prefixlen", json!("32")),
        ("default_quota", json!(1024)),
        ("is_default", json!(false)),
        ("shared", json!(false)),
        ("address_scope_id", json!(null)),
        ("project_id", json!(PROJECT)),
        ("tenant_id", json!(PROJECT)),
        ("revision_number", json!(1)),
        ("tags", json!([])),
    ];
    for (name, value) in expected {
        assert_eq!(made[name], value, "{name}");
    }
    let id = text(&made["id"]);
    let path = format!("/v2.0/subnetpools/{id}");
    assert_eq!(api.get(&path).await.1["subnetpool"], made);
    for filter in [
        "name=pool",
        "ip_version=4",
        "is_default=false",
        "shared=False",
        "default_quota=1024",
    ] {
        let (_, list) = api.get(&format!("/v2.0/subnetpools?{filter}&fields=id")).await;
        assert_eq!(list, json!({"subnetpools": [{"id": id}]}), "{filter}");
    }
    let (_, list) = api.get("/v2.0/subnetpools?ip_version=6").await;
    assert_eq!(list, json!({"subnetpools": []}));
    let change = json!({"subnetpool": {"name": "other", "max_prefixlen": "28", "prefixes": ["10.1.0.0/22"]}});
    let (status, changed) = api.put(&path, change).await;
    assert_eq!(status, 200, "{changed}");
    let changed = &changed["subnetpool"];
    assert_eq!(
        (&changed["name"], &changed["max_prefixlen"], &changed["prefixes"]),
        (&json!("other"), &json!("28"), &json!(["10.1.0.0/22"]))
    );
    let tag = format!("{path}/tags/a");
    assert_eq!(api.call(Method::PUT, &tag, None).await.0, 201);
    assert_eq!(api.get(&tag).await.0, 204);
    assert_eq!(
        api.put(&format!("{path}/tags"), json!({"tags": ["b"]})).await.0,
        200
    );
    assert!(api.post(&format!("{path}/tags"), json!({"tags": ["c"]})).await.0 < 300);
    assert_eq!(
        api.get(&format!("{path}/tags")).await.1,
        json!({"tags": ["b", "c"]})
    );
    assert_eq!(api.delete(&format!("{path}/tags/b")).await.0, 204);
    assert_eq!(api.delete(&format!("{path}/tags")).await.0, 204);
    assert_eq!(api.call(Method::OPTIONS, "/v2.0/subnetpools", None).await.0, 200);
    assert_eq!(api.delete(&path).await.0, 204);
    assert_refused(&api.get(&path).await, 404, "SubnetpoolNotFound", &id);
}

#[tokio::test]
async fn subnets_come_from_pools() {
    let api = Api::start().await;
    let id = text(&pool(&api, json!({"default_prefixlen": 24, "is_default": true})).await["id"]);
    let network = text(&api.make("network", json!({})).await["id"]);
    let base = json!({"network_id": network, "ip_version": 4});
    let with = |more: Value| {
        let mut body = base.clone();
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let cases = [
        (json!({"subnetpool_id": id}), "10.0.0.0/24"),
        (json!({"subnetpool_id": id, "prefixlen": 26}), "10.0.1.0/26"),
        (json!({"subnetpool_id": id, "cidr": "10.0.9.0/24"}), "10.0.9.0/24"),
        (
            json!({"use_default_subnetpool": true, "prefixlen": 25}),
            "10.0.1.128/25",
        ),
    ];
    for (more, cidr) in cases {
        let subnet = api.make("subnet", with(more)).await;
        assert_eq!(
            (&subnet["cidr"], &subnet["subnetpool_id"]),
            (&json!(cidr), &json!(id))
        );
        assert!(subnet.get("prefixlen").is_none() && subnet.get("use_default_subnetpool").is_none());
    }
    let (_, list) = api.get(&format!("/v2.0/subnets?subnetpool_id={id}")).await;
    assert_eq!(list["subnets"].as_array().unwrap().len(), 4);
    let post = |body| api.post("/v2.0/subnets", json!({"subnet": body}));
    let both = with(json!({"subnetpool_id": id, "cidr": "10.0.10.0/24", "prefixlen": 24}));
    assert_refused(&post(both).await, 400, "BadRequest", "cidr and prefixlen");
    assert_refused(
        &post(base.clone()).await,
        400,
        "BadRequest",
        "a subnetpool must be specified",
    );
    let foreign = with(json!({"cidr": "10.77.0.0/24"}));
    assert_refused(
        &post(foreign).await,
        400,
        "NetworkSubnetPoolAffinityError",
        "same subnet pool",
    );
    let path = format!("/v2.0/subnetpools/{id}");
    assert_refused(
        &api.delete(&path).await,
        400,
        "SubnetPoolDeleteError",
        "existing allocations",
    );
}

#[tokio::test]
async fn actions_change_a_pools_prefixes() {
    let api = Api::start().await;
    let id = text(&pool(&api, json!({})).await["id"]);
    let action = |name: &str| format!("/v2.0/subnetpools/{id}/{name}");
    let added = api
        .put(
            &action("add_prefixes"),
            json!({"prefixes": ["10.1.0.0/16", "10.9.0.0/24"]}),
        )
        .await;
    assert_eq!(added, (200, json!({"prefixes": ["10.0.0.0/15", "10.9.0.0/24"]})));
    let removed = api
        .put(&action("remove_prefixes"), json!({"prefixes": ["10.0.0.0/15"]}))
        .await;
    assert_eq!(removed, (200, json!({"prefixes": ["10.9.0.0/24"]})));
    let (network, subnet) = api.network_with_subnet("10.5.0.0/24").await;
    let onboarded = api
        .put(&action("onboard_network_subnets"), json!({"network_id": network}))
        .await;
    assert_eq!(onboarded, (200, json!([{"id": subnet, "cidr": "10.5.0.0/24"}])));
    let used = api
        .put(&action("remove_prefixes"), json!({"prefixes": ["10.5.0.0/25"]}))
        .await;
    assert_refused(&used, 400, "IllegalSubnetPoolPrefixUpdate", "in use by a subnet");
    for name in ["add_prefixes", "remove_prefixes"] {
        for body in [
            json!({}),
            json!({"prefixes": []}),
            json!({"prefixes": "10.0.0.0/8"}),
        ] {
            assert_refused(
                &api.put(&action(name), body).await,
                400,
                "HTTPBadRequest",
                "invalid data",
            );
        }
        let body = json!({"prefixes": ["10.0.0.300/8"]});
        assert_refused(
            &api.put(&action(name), body).await,
            400,
            "InvalidInput",
            "10.0.0.300/8",
        );
    }
    let nothing = api.put(&action("onboard_network_subnets"), json!({})).await;
    assert_refused(&nothing, 400, "InvalidInput", "network_id must be specified");
    let unknown = json!({"network_id": PROJECT});
    let unknown = api.put(&action("onboard_network_subnets"), unknown).await;
    assert_refused(&unknown, 404, "NetworkNotFound", "");
}

#[tokio::test]
async fn pools_that_make_no_sense_are_refused() {
    let api = Api::start().await;
    let post = |body| api.post("/v2.0/subnetpools", json!({"subnetpool": body}));
    for (body, kind) in [
        (json!({"name": "p"}), "HTTPBadRequest"),
        (json!({"name": "", "prefixes": ["10.0.0.0/8"]}), "HTTPBadRequest"),
        (json!({"name": "p", "prefixes": ["10.0.0.0"]}), "HTTPBadRequest"),
        (
            json!({"name": "p", "prefixes": ["10.0.0.0/8", "10.0.0.0/8"]}),
            "HTTPBadRequest",
        ),
        (json!({"name": "p", "prefixes": []}), "EmptySubnetPoolPrefixList"),
        (
            json!({"name": "p", "prefixes": ["10.0.0.0/8", "fd00::/8"]}),
            "PrefixVersionMismatch",
        ),
        (
            json!({"name": "p", "prefixes": ["10.0.0.0/8"], "min_prefixlen": 40}),
            "IllegalSubnetPoolPrefixBounds",
        ),
        (
            json!({"name": "p", "prefixes": ["10.0.0.0/8"], "default_quota": -1}),
            "HTTPBadRequest",
        ),
    ] {
        assert_refused(&post(body).await, 400, kind, "");
    }
    let unknown = json!({"name": "p", "prefixes": ["10.0.0.0/8"], "address_scope_id": PROJECT});
    assert_refused(&post(unknown).await, 404, "AddressScopeNotFound", "");
}

#[tokio::test]
async fn a_scope_is_made_used_and_deleted() {
    let api = Api::start().await;
    let body = json!({"address_scope": {"name": "s", "ip_version": 4}});
    let (status, made) = api.post("/v2.0/address-scopes", body).await;
    assert_eq!(status, 201, "{made}");
    let scope = &made["address_scope"];
    let id = text(&scope["id"]);
    let expected = json!({
        "id": id, "name": "s", "ip_version": 4, "shared": false, "project_id": PROJECT, "tenant_id": PROJECT,
    });
    assert_eq!(scope, &expected);
    let path = format!("/v2.0/address-scopes/{id}");
    assert_eq!(api.get(&path).await.1["address_scope"], expected);
    let (_, list) = api.get("/v2.0/address-scopes?ip_version=4").await;
    assert_eq!(list, json!({"address_scopes": [expected]}));
    let pool = pool(&api, json!({"address_scope_id": id, "default_prefixlen": 24})).await;
    assert_eq!(pool["address_scope_id"], json!(id));
    let network = text(&api.make("network", json!({})).await["id"]);
    api.make(
        "subnet",
        json!({"network_id": network, "ip_version": 4, "subnetpool_id": pool["id"]}),
    )
    .await;
    let (_, shown) = api.get(&format!("/v2.0/networks/{network}")).await;
    assert_eq!(shown["network"]["ipv4_address_scope"], json!(id));
    assert_eq!(shown["network"]["ipv6_address_scope"], json!(null));
    assert_refused(&api.delete(&path).await, 409, "AddressScopeInUse", &id);
    let (status, changed) = api
        .put(&path, json!({"address_scope": {"name": "t", "shared": true}}))
        .await;
    assert_eq!((status, &changed["address_scope"]["shared"]), (200, &json!(true)));
    let back = api.put(&path, json!({"address_scope": {"shared": false}})).await;
    assert_refused(&back, 400, "AddressScopeUpdateError", "can't be unshared");
    let version = api.put(&path, json!({"address_scope": {"ip_version": 6}})).await;
    assert_refused(&version, 400, "HTTPBadRequest", "read-only");
    assert_eq!(
        api.call(Method::OPTIONS, "/v2.0/address-scopes", None).await.0,
        200
    );
    assert_eq!(api.delete(&format!("/v2.0/networks/{network}")).await.0, 204);
    assert_eq!(
        api.delete(&format!("/v2.0/subnetpools/{}", text(&pool["id"])))
            .await
            .0,
        204
    );
    assert_eq!(api.delete(&path).await.0, 204);
    assert_refused(&api.get(&path).await, 404, "AddressScopeNotFound", &id);
}

#[tokio::test]
async fn subnets_have_kinds_of_ports() {
    let api = Api::start().await;
    let network = text(&api.make("network", json!({})).await["id"]);
    let subnet = |types: Value| json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24", "service_types": types}});
    let post = |types| api.post("/v2.0/subnets", subnet(types));
    assert_refused(
        &post(json!(["planet"])).await,
        400,
        "InvalidSubnetServiceType",
        "planet",
    );
    assert_refused(&post(json!([7])).await, 400, "InvalidSubnetServiceType", "7");
    assert_refused(
        &post(json!("compute:nova")).await,
        400,
        "HTTPBadRequest",
        "must be a list",
    );
    assert_refused(
        &post(json!(vec!["compute:x"; 33])).await,
        400,
        "HTTPBadRequest",
        "32",
    );
    let (status, made) = post(json!(["compute:nova"])).await;
    assert_eq!(status, 201, "{made}");
    let made = &made["subnet"];
    assert_eq!(made["service_types"], json!(["compute:nova"]));
    assert_eq!(
        (&made["segment_id"], &made["router:external"]),
        (&json!(null), &json!(false))
    );
    assert_eq!(made["dns_publish_fixed_ip"], json!(false));
    let path = format!("/v2.0/subnets/{}", text(&made["id"]));
    let change = json!({"subnet": {"service_types": [], "dns_publish_fixed_ip": true}});
    let (_, changed) = api.put(&path, change).await;
    assert_eq!(changed["subnet"]["service_types"], json!([]));
    assert_eq!(changed["subnet"]["dns_publish_fixed_ip"], json!(true));
    let (_, list) = api.get("/v2.0/subnets?router:external=true").await;
    assert_eq!(list, json!({"subnets": []}));
}
