//! Every endpoint through real HTTP, as a client sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::collections::BTreeSet;

use common::{Api, PROJECT, assert_refused, text};
use reqwest::Method;
use serde_json::{Value, json};

fn names(body: &Value, plural: &str) -> Vec<String> {
    body[plural]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| text(&row["name"]))
        .collect()
}

/// Ids and times as they are, for snapshots: there, but not compared.
fn steady(mut view: Value) -> Value {
    for key in ["id", "network_id", "created_at", "updated_at"] {
        if let Some(value) = view.get_mut(key) {
            assert!(value.is_string(), "{key}: {value}");
            *value = json!(format!("<{key}>"));
        }
    }
    if let Some(groups) = view.get_mut("security_groups").and_then(Value::as_array_mut) {
        groups
            .iter_mut()
            .for_each(|group| *group = json!("<security_group_id>"));
    }
    if let Some(ips) = view.get_mut("fixed_ips").and_then(Value::as_array_mut) {
        ips.iter_mut()
            .for_each(|ip| ip["subnet_id"] = json!("<subnet_id>"));
    }
    view
}

#[tokio::test]
async fn views_have_neutrons_attributes_and_defaults() {
    let api = Api::start().await;
    let network = api.make("network", json!({"name": "blue"})).await;
    let id = text(&network["id"]);
    assert!(text(&network["created_at"]).ends_with('Z') && text(&network["created_at"]).len() == 20);
    insta::assert_json_snapshot!("network", steady(network));
    let subnet = json!({"network_id": id, "cidr": "10.0.0.7/24", "ip_version": 4, "name": "s"});
    insta::assert_json_snapshot!("subnet", steady(api.make("subnet", subnet).await));
    let port = json!({
        "network_id": id, "name": "p", "mac_address": "02:00:00:00:00:01",
        "fixed_ips": [{"ip_address": "10.0.0.9"}],
        "allowed_address_pairs": [{"ip_address": "10.9.0.0/16"}],
    });
    insta::assert_json_snapshot!("port", steady(api.make("port", port).await));
    let bound = json!({
        "network_id": id, "mac_address": "02:00:00:00:00:02", "fixed_ips": [], "binding:host_id": "host-1",
        "binding:profile": {"a": 1}, "device_id": "vm", "device_owner": "compute:nova", "dns_name": "vm1",
    });
    insta::assert_json_snapshot!("port_bound", steady(api.make("port", bound).await));
}

#[tokio::test]
async fn a_network_lives_and_dies() {
    let api = Api::start().await;
    let id = text(
        &api.make("network", json!({"name": "a", "admin_state_up": "yes"}))
            .await["id"],
    );
    let path = format!("/v2.0/networks/{id}");
    let (status, body) = api.get(&path).await;
    assert_eq!(
        (status, &body["network"]["name"], &body["network"]["project_id"]),
        (200, &json!("a"), &json!(PROJECT))
    );
    assert_eq!(body["network"]["tenant_id"], json!(PROJECT));
    let (status, body) = api
        .put(&path, json!({"network": {"name": "b", "admin_state_up": false}}))
        .await;
    assert_eq!(
        (status, &body["network"]["name"], &body["network"]["status"]),
        (200, &json!("b"), &json!("DOWN"))
    );
    let subnet = text(
        &api.make(
            "subnet",
            json!({"network_id": id, "cidr": "10.0.0.0/24", "ip_version": 4}),
        )
        .await["id"],
    );
    assert_eq!(api.get(&path).await.1["network"]["subnets"], json!([subnet]));
    let (_, body) = api
        .get(&format!("{path}?fields=id&fields=name&fields=nonsense"))
        .await;
    assert_eq!(body, json!({"network": {"id": id, "name": "b"}}));
    assert_eq!(api.delete(&path).await.0, 204);
    assert_refused(
        &api.get(&path).await,
        404,
        "NetworkNotFound",
        &format!("Network {id} could not be found."),
    );
    assert_refused(&api.delete(&path).await, 404, "NetworkNotFound", &id);
    assert_eq!(
        api.get(&format!("/v2.0/subnets/{subnet}")).await.0,
        404,
        "subnets go with their network"
    );
}

#[tokio::test]
async fn subnets_and_ports_change() {
    let api = Api::start().await;
    let (network, subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let path = format!("/v2.0/subnets/{subnet}");
    let change = json!({"subnet": {
        "gateway_ip": null, "dns_nameservers": ["192.0.2.53"], "enable_dhcp": 0,
        "host_routes": [{"destination": "10.1.0.0/16", "nexthop": "10.0.0.2"}],
    }});
    let (status, body) = api.put(&path, change).await;
    assert_eq!(status, 200, "{body}");
    let view = &body["subnet"];
    assert_eq!(
        (&view["gateway_ip"], &view["enable_dhcp"]),
        (&Value::Null, &json!(false))
    );
    assert_eq!(view["dns_nameservers"], json!(["192.0.2.53"]));
    assert_eq!(
        view["host_routes"],
        json!([{"destination": "10.1.0.0/16", "nexthop": "10.0.0.2"}])
    );

    let port = api.make("port", json!({"network_id": network})).await;
    assert_eq!(port["status"], json!("DOWN"));
    let path = format!("/v2.0/ports/{}", text(&port["id"]));
    let change = json!({"port": {"binding:host_id": "host-1", "device_id": "vm", "fixed_ips": [{"ip_address": "10.0.0.99"}]}});
    let (status, body) = api.put(&path, change).await;
    assert_eq!(status, 200, "{body}");
    let view = &body["port"];
    assert_eq!(
        (&view["binding:vif_type"], &view["fixed_ips"][0]["ip_address"]),
        (&json!("tap"), &json!("10.0.0.99"))
    );
    assert_ne!(view["status"], json!("ACTIVE"), "no host said so");
    let (_, body) = api.put(&path, json!({"port": {"binding:host_id": null}})).await;
    assert_eq!(body["port"]["binding:vif_type"], json!("unbound"));
    let in_use = api.delete(&format!("/v2.0/networks/{network}")).await;
    assert_refused(
        &in_use,
        409,
        "NetworkInUse",
        "There are one or more ports still in use",
    );
    assert_refused(
        &api.delete(&format!("/v2.0/subnets/{subnet}")).await,
        409,
        "SubnetInUse",
        &subnet,
    );
    assert_eq!(api.delete(&path).await.0, 204);
}

#[tokio::test]
async fn bulk_makes_all_or_nothing() {
    let api = Api::start().await;
    let (network, _) = api.network_with_subnet("10.0.0.0/24").await;
    let ports: Vec<Value> = (0..3)
        .map(|n| json!({"network_id": network, "name": format!("p{n}")}))
        .collect();
    let (status, body) = api.post("/v2.0/ports", json!({"ports": ports})).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(names(&body, "ports"), ["p0", "p1", "p2"]);
    let half = json!({"ports": [
        {"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.50"}]},
        {"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.50"}]},
    ]});
    assert_refused(
        &api.post("/v2.0/ports", half).await,
        409,
        "IpAddressAlreadyAllocated",
        "10.0.0.50",
    );
    let half = json!({"ports": [{"network_id": network}, {"network_id": network, "zip": 1}]});
    assert_refused(
        &api.post("/v2.0/ports", half).await,
        400,
        "HTTPBadRequest",
        "Unrecognized attribute(s) 'zip'",
    );
    let (_, body) = api.get("/v2.0/ports").await;
    assert_eq!(body["ports"].as_array().unwrap().len(), 3);
    let (status, body) = api
        .post(
            "/v2.0/networks",
            json!({"networks": [{"name": "x"}, {"name": "y"}]}),
        )
        .await;
    assert_eq!(
        (status, names(&body, "networks")),
        (201, vec!["x".to_owned(), "y".to_owned()])
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let api = Api::start().await;
    let (blue, blue_subnet) = api.network_with_subnet("10.0.0.0/24").await;
    let (red, _) = api.network_with_subnet("10.1.0.0/24").await;
    for (name, network, ip, device) in [
        ("a", &blue, "10.0.0.10", "vm1"),
        ("b", &blue, "10.0.0.11", "vm2"),
        ("c", &red, "10.1.0.10", "vm2"),
    ] {
        let port = json!({
            "name": name, "network_id": network, "device_id": device, "fixed_ips": [{"ip_address": ip}],
            "admin_state_up": name != "b", "binding:host_id": if name == "c" { "h1" } else { "" },
        });
        api.make("port", port).await;
    }
    let mac = text(&api.get("/v2.0/ports?name=a").await.1["ports"][0]["mac_address"]);
    for (query, expected) in [
        (format!("network_id={blue}"), "ab"),
        (format!("network_id={blue}&network_id={red}"), "abc"),
        (format!("network_id={blue}&device_id=vm2"), "b"),
        ("device_id=vm2".to_owned(), "bc"),
        ("name=a&name=c".to_owned(), "ac"),
        ("name=A".to_owned(), ""),
        ("admin_state_up=False".to_owned(), "b"),
        ("admin_state_up=1".to_owned(), "ac"),
        (format!("mac_address={}", mac.to_uppercase()), "a"),
        ("fixed_ips=ip_address%3D10.0.0.11".to_owned(), "b"),
        (
            "fixed_ips=ip_address%3D10.0.0.11&fixed_ips=ip_address%3D10.1.0.10".to_owned(),
            "bc",
        ),
        (format!("fixed_ips=subnet_id%3D{blue_subnet}"), "ab"),
        (
            format!("fixed_ips=subnet_id%3D{blue_subnet}&fixed_ips=ip_address=10.1.0.10"),
            "",
        ),
        ("binding:host_id=h1".to_owned(), "c"),
        ("binding:host_id=".to_owned(), "ab"),
        ("binding:vif_type=tap".to_owned(), "c"),
        (format!("project_id={PROJECT}"), "abc"),
        (format!("tenant_id={PROJECT}x"), ""),
        ("id=nonsense".to_owned(), ""),
        ("device_owner=".to_owned(), "abc"),
        ("revision_number=99".to_owned(), ""),
    ] {
        let (status, body) = api
            .get(&format!("/v2.0/ports?{query}&sort_key=name&sort_dir=asc"))
            .await;
        assert_eq!(
            (status, names(&body, "ports").concat().as_str()),
            (200, expected),
            "{query}: {body}"
        );
    }
    for (query, expected) in [
        ("ip_version=4", 2),
        ("ip_version=6", 0),
        ("cidr=10.0.0.0/24", 1),
        ("gateway_ip=10.1.0.1", 1),
        ("enable_dhcp=true", 2),
    ] {
        let (_, body) = api.get(&format!("/v2.0/subnets?{query}")).await;
        assert_eq!(
            body["subnets"].as_array().unwrap().len(),
            expected,
            "{query}: {body}"
        );
    }
    let vni =
        api.get(&format!("/v2.0/networks/{blue}")).await.1["network"]["provider:segmentation_id"].clone();
    for (query, expected) in [
        (format!("provider:segmentation_id={vni}"), 1),
        ("provider:network_type=vxlan".to_owned(), 2),
        ("router:external=true".to_owned(), 0),
        ("shared=off".to_owned(), 2),
    ] {
        let (_, body) = api.get(&format!("/v2.0/networks?{query}")).await;
        assert_eq!(
            body["networks"].as_array().unwrap().len(),
            expected,
            "{query}: {body}"
        );
    }
    assert_refused(
        &api.get("/v2.0/ports?zip=1").await,
        400,
        "HTTPBadRequest",
        "['zip'] is invalid attribute for filtering",
    );
    assert_refused(
        &api.get("/v2.0/ports?admin_state_up=maybe").await,
        400,
        "InvalidInput",
        "cannot be converted to boolean",
    );
    assert_refused(
        &api.get("/v2.0/ports?fixed_ips=x").await,
        400,
        "InvalidInput",
        "<key>=[value]",
    );
}

#[tokio::test]
async fn pages_are_walked_by_links() {
    let api = Api::start().await;
    for name in ["c", "a", "e", "b", "d"] {
        api.make("network", json!({"name": name})).await;
    }
    let mut path = "/v2.0/networks?limit=2&sort_key=name&sort_dir=desc&fields=name".to_owned();
    let mut pages = Vec::new();
    let link = |body: &Value, rel: &str| {
        let links = body["networks_links"].as_array()?;
        let link = links.iter().find(|link| link["rel"] == rel)?;
        Some(text(&link["href"]).replace(&api.url(""), ""))
    };
    let back = loop {
        let (status, body) = api.get(&path).await;
        assert_eq!(status, 200, "{body}");
        pages.push(names(&body, "networks").concat());
        match link(&body, "next") {
            Some(next) => path = next,
            None => break link(&body, "previous").unwrap(),
        }
    };
    assert_eq!(pages, ["ed", "cb", "a"]);
    let (_, body) = api.get(&back).await;
    assert_eq!(names(&body, "networks").concat(), "cb");
    let missing = api
        .get("/v2.0/networks?limit=1&marker=00000000-0000-0000-0000-000000000000")
        .await;
    assert_refused(&missing, 404, "NetworkNotFound", "could not be found");
    assert_refused(
        &api.get("/v2.0/networks?limit=-1").await,
        400,
        "BadRequest",
        "Limit must be an integer 0 or greater",
    );
    let two = api
        .get("/v2.0/networks?sort_key=admin_state_up&sort_dir=asc&sort_key=name&sort_dir=asc")
        .await;
    assert_eq!(names(&two.1, "networks").concat(), "abcde");
}

#[tokio::test]
async fn a_page_never_has_more_than_the_limit_of_the_server() {
    let api = Api::start_with(|config| config.max_page = 2).await;
    for name in ["a", "b", "c"] {
        api.make("network", json!({"name": name})).await;
    }
    let (_, body) = api.get("/v2.0/networks").await;
    assert_eq!(names(&body, "networks").len(), 2);
    let next = text(&body["networks_links"][0]["href"]);
    assert!(next.contains("marker="), "{next}");
    let (_, body) = api.get(&next.replace(&api.url(""), "")).await;
    assert_eq!(names(&body, "networks").len(), 1, "{body}");
}

#[tokio::test]
async fn tags_have_their_own_routes_and_filters() {
    let api = Api::start().await;
    for (plural, id) in [
        ("networks", api.network_with_subnet("10.0.0.0/24").await.0),
        ("subnets", api.network_with_subnet("10.1.0.0/24").await.1),
        ("ports", {
            let network = api.network_with_subnet("10.2.0.0/24").await.0;
            text(&api.make("port", json!({"network_id": network})).await["id"])
        }),
        ("routers", text(&api.make("router", json!({})).await["id"])),
        ("floatingips", {
            let network = api.network_with_subnet("203.0.113.0/24").await.0;
            let external = json!({"network": {"router:external": true}});
            assert_eq!(
                api.put(&format!("/v2.0/networks/{network}"), external).await.0,
                200
            );
            text(
                &api.make("floatingip", json!({"floating_network_id": network}))
                    .await["id"],
            )
        }),
        ("network_segment_ranges", {
            let range = json!({"network_type": "vxlan", "minimum": 1_000_000, "maximum": 1_000_001});
            text(&api.make("network_segment_range", range).await["id"])
        }),
    ] {
        let path = format!("/v2.0/{plural}/{id}/tags");
        assert_eq!(api.get(&path).await, (200, json!({"tags": []})));
        assert_eq!(
            api.put(&path, json!({"tags": ["red", "blue"]})).await,
            (200, json!({"tags": ["red", "blue"]}))
        );
        assert_eq!(api.get(&path).await, (200, json!({"tags": ["blue", "red"]})));
        assert_eq!(
            api.post(&path, json!({"tags": ["red", "green"]})).await,
            (200, json!({"tags": ["red", "green"]}))
        );
        assert_eq!(api.get(&path).await.1, json!({"tags": ["blue", "green", "red"]}));
        assert_eq!(api.delete(&format!("{path}/green")).await.0, 204);
        assert_eq!(api.call(Method::PUT, &format!("{path}/a%20b"), None).await.0, 201);
        assert_eq!(api.get(&format!("{path}/a%20b")).await.0, 204);
        assert_eq!(api.delete(&format!("{path}/a%20b")).await.0, 204);
        assert_refused(
            &api.get(&format!("{path}/a%20b")).await,
            404,
            "TagNotFound",
            "Tag a b could not be found.",
        );
        for (query, there) in [
            ("tags=red,blue", true),
            ("tags=red,green", false),
            ("tags-any=red,green", true),
            ("not-tags=red,green", true),
            ("not-tags=red", false),
            ("not-tags-any=green", true),
            ("not-tags-any=red,green", false),
        ] {
            let (_, body) = api.get(&format!("/v2.0/{plural}?{query}&id={id}")).await;
            assert_eq!(
                body[plural].as_array().unwrap().len() == 1,
                there,
                "{query}: {body}"
            );
        }
        assert_refused(
            &api.put(&path, json!({"tags": ["x", "x"]})).await,
            400,
            "InvalidInput",
            "Duplicate items",
        );
        assert_refused(
            &api.put(&path, json!({"tags": [1]})).await,
            400,
            "InvalidInput",
            "not a valid string",
        );
        assert_refused(
            &api.put(&path, json!({})).await,
            400,
            "InvalidInput",
            "Invalid tags body",
        );
        let many: Vec<String> = (0..51).map(|n| format!("t{n}")).collect();
        assert_refused(
            &api.put(&path, json!({"tags": many})).await,
            400,
            "BadRequest",
            "limit of 50",
        );
        assert_eq!(api.delete(&path).await.0, 204);
        assert_eq!(api.get(&path).await, (200, json!({"tags": []})));
    }
}

#[tokio::test]
async fn tags_added_at_the_same_time_are_all_there() {
    let api = Api::start().await;
    let id = text(&api.make("network", json!({})).await["id"]);
    let paths: Vec<String> = (0..6).map(|n| format!("/v2.0/networks/{id}/tags/t{n}")).collect();
    let answers = futures::future::join_all(paths.iter().map(|path| api.call(Method::PUT, path, None))).await;
    assert!(answers.iter().all(|answer| answer.0 == 201), "{answers:?}");
    let (_, body) = api.get(&format!("/v2.0/networks/{id}/tags")).await;
    assert_eq!(body["tags"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn a_stale_revision_changes_nothing() {
    let api = Api::start().await;
    let network = api.make("network", json!({"name": "a"})).await;
    let path = format!("/v2.0/networks/{}", text(&network["id"]));
    let change = json!({"network": {"name": "b"}});
    let guarded = |method: Method, revision: String, body: Option<Value>| {
        let (api, path) = (&api, &path);
        async move {
            api.send(method, path, |request| {
                let request = request.header("If-Match", format!("revision_number={revision}"));
                match body {
                    Some(body) => request.json(&body),
                    None => request,
                }
            })
            .await
        }
    };
    let stale = guarded(Method::PUT, "999".to_owned(), Some(change.clone())).await;
    assert_refused(
        &stale,
        412,
        "RevisionNumberConstraintFailed",
        "Constrained to 999, but current revision is",
    );
    assert_refused(
        &guarded(Method::DELETE, "999".to_owned(), None).await,
        412,
        "RevisionNumberConstraintFailed",
        "999",
    );
    assert_refused(
        &guarded(Method::PUT, "x".to_owned(), Some(change.clone())).await,
        400,
        "BadRequest",
        "revision_number=<int>",
    );
    assert_eq!(api.get(&path).await.1["network"]["name"], json!("a"));
    let current = network["revision_number"].to_string();
    let (status, body) = guarded(Method::PUT, current, Some(change)).await;
    assert_eq!((status, &body["network"]["name"]), (200, &json!("b")));
    assert!(body["network"]["revision_number"].as_u64() > network["revision_number"].as_u64());
}

#[tokio::test]
async fn discovery_says_what_is_there() {
    let api = Api::start().await;
    let (_, body) = api.get("/").await;
    assert_eq!(body["versions"][0]["id"], "v2.0");
    assert_eq!(body["versions"][0]["links"][0]["href"], json!(api.url("/v2.0/")));
    let (_, body) = api.get("/v2.0").await;
    let listed = body["resources"].as_array().unwrap();
    assert_eq!(listed.len(), alcor_api::collections().len());
    for resource in listed {
        let path = text(&resource["links"][0]["href"]).replace(&api.url(""), "");
        assert_eq!(api.get(&path).await.0, 200, "{path}");
    }
    let (_, body) = api.get("/v2.0/extensions").await;
    let aliases: BTreeSet<String> = body["extensions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|extension| text(&extension["alias"]))
        .collect();
    assert!(aliases.contains("standard-attr-tag"), "{aliases:?}");
    assert!(!aliases.contains("vpnaas"), "what is not there is not listed");
    assert_eq!(
        api.get("/v2.0/extensions/sorting").await.1["extension"]["alias"],
        "sorting"
    );
    assert_refused(
        &api.get("/v2.0/extensions/zip").await,
        404,
        "ExtensionNotFound",
        "zip",
    );
    assert_refused(
        &api.get("/v2.0/zip").await,
        404,
        "HTTPNotFound",
        "could not be found",
    );
    assert_refused(
        &api.call(Method::PATCH, "/v2.0/ports", None).await,
        405,
        "HTTPMethodNotAllowed",
        "PATCH",
    );
    let (_, body) = api.call(Method::OPTIONS, "/v2.0/ports", None).await;
    let attributes = body["attributes"].as_array().unwrap();
    assert!(
        attributes
            .iter()
            .any(|attribute| attribute["name"] == "network_id" && attribute["required"] == true)
    );
}

#[tokio::test]
async fn hosts_are_shown_as_the_directory_knows_them() {
    let api = Api::start().await;
    let (_, body) = api.get("/alcor/v1/hosts").await;
    assert_eq!(body["hosts"][0]["name"], "host-1");
    let (_, body) = api.get("/alcor/v1/hosts/host-1").await;
    assert_eq!(
        (&body["name"], &body["dataplane"]),
        (&json!("host-1"), &json!("model"))
    );
    assert_refused(
        &api.get("/alcor/v1/hosts/zip").await,
        404,
        "HostNotFound",
        "Host zip could not be found.",
    );
    let (_, body) = api
        .get("/alcor/v1/ports/00000000-0000-0000-0000-000000000001/status")
        .await;
    assert_eq!(body["status"], "ACTIVE");
    assert_refused(
        &api.get("/alcor/v1/ports/zip/status").await,
        404,
        "PortNotFound",
        "zip",
    );
}

#[tokio::test]
async fn a_packet_is_traced_by_what_its_headers_say() {
    let api = Api::start().await;
    let ask = |number: u8, rest: &str| {
        format!("/alcor/v1/trace?from=00000000-0000-0000-0000-00000000000{number}&{rest}")
    };
    let (status, body) = api
        .get(&ask(1, "to=10.0.0.9&protocol=tcp&destination_port=22"))
        .await;
    assert_eq!(status, 200, "{body}");
    let question = &body["question"];
    assert_eq!(
        (&question["protocol"], &question["point"]),
        (&json!(6), &json!(22))
    );
    assert_eq!(body["dropped"], "egress_denied");
    let (_, body) = api.get(&ask(1, "to=fd00::9&protocol=icmp&icmp_code=1")).await;
    let question = &body["question"];
    assert_eq!(
        (&question["protocol"], &question["point"]),
        (&json!(58), &json!(128 * 256 + 1))
    );
    for (rest, what) in [
        ("to=10.0.0.9", "destination_port"),
        ("destination_port=22", "to"),
        ("to=10.0.0.9&destination_port=65536", "destination_port"),
        ("to=10.0.0.9&protocol=tpc&destination_port=22", "protocol"),
        (
            "to=10.0.0.9&protocol=icmp&destination_port=22",
            "destination_port",
        ),
        ("to=10.0.0.9&destination_port=22&dport=22", "dport"),
    ] {
        let (status, body) = api.get(&ask(1, rest)).await;
        let message = body["NeutronError"]["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(what), "{rest}: {body}");
    }
    let good = "to=10.0.0.9&destination_port=22";
    assert_refused(&api.get(&ask(2, good)).await, 409, "PortNotBound", "no host");
    assert_refused(
        &api.get(&ask(3, good)).await,
        404,
        "PortNotFound",
        "could not be found",
    );
}
