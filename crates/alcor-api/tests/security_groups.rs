//! Security groups, their rules, templates and address groups over HTTP: views, refusals, filters, and every route.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::collections::BTreeSet;

use alcor_region::command::Caller;
use common::{Answer, Api, PROJECT, assert_refused, text};
use reqwest::Method;
use serde_json::{Value, json};

const GROUPS: &str = "/v2.0/security-groups";
const RULES: &str = "/v2.0/security-group-rules";
const TEMPLATES: &str = "/v2.0/default-security-group-rules";
const ADDRESS_GROUPS: &str = "/v2.0/address-groups";

/// No row has it.
const NOBODY: &str = "4a0e5b5e-0000-4000-8000-000000000000";

async fn make(api: &Api, path: &str, singular: &str, attributes: Value) -> Value {
    let (status, body) = api.post(path, json!({ singular: attributes })).await;
    assert_eq!(status, 201, "{body}");
    body[singular].clone()
}

async fn group(api: &Api, name: &str) -> String {
    text(&make(api, GROUPS, "security_group", json!({"name": name})).await["id"])
}

/// A rule of TCP into a group, with other attributes.
fn rule(group: &str, other: Value) -> Value {
    let mut rule = json!({"security_group_id": group, "direction": "ingress"});
    for (key, value) in other.as_object().unwrap() {
        rule[key] = value.clone();
    }
    json!({"security_group_rule": rule})
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn ids(answer: &Answer, plural: &str) -> Vec<String> {
    assert_eq!(answer.0, 200, "{}", answer.1);
    answer.1[plural]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| text(&row["id"]))
        .collect()
}

#[tokio::test]
async fn who_looks_first_finds_the_default_group() {
    for path in [GROUPS, RULES] {
        let api = Api::start().await;
        assert_eq!(api.get(path).await.0, 200);
        let (_, body) = api.get(&format!("{GROUPS}?name=default")).await;
        let groups = body["security_groups"].as_array().unwrap();
        assert_eq!(groups.len(), 1);
        assert_eq!(
            (&groups[0]["description"], &groups[0]["project_id"]),
            (&json!("Default security group"), &json!(PROJECT))
        );
        let rules = groups[0]["security_group_rules"].as_array().unwrap();
        assert_eq!(rules.len(), 4);
        let own = rules
            .iter()
            .filter(|rule| rule["remote_group_id"] == groups[0]["id"])
            .count();
        assert_eq!(own, 2);
    }
    let api = Api::start().await;
    let (_, body) = api.get(&format!("{GROUPS}?project_id=somebody-else")).await;
    let groups = body["security_groups"].as_array().unwrap();
    assert_eq!(
        (groups.len(), &groups[0]["project_id"]),
        (1, &json!("somebody-else")),
        "an administrator looks for the project"
    );
}

#[tokio::test]
async fn views_have_neutrons_attributes() {
    let api = Api::start().await;
    let view = make(&api, GROUPS, "security_group", json!({"name": "web"})).await;
    let expected = "created_at description id name project_id revision_number security_group_rules shared stateful tags \
                    tenant_id updated_at";
    assert_eq!(keys(&view), expected.split_whitespace().collect());
    assert_eq!(
        (&view["stateful"], &view["shared"]),
        (&json!(true), &json!(false))
    );
    let rules = view["security_group_rules"].as_array().unwrap();
    assert_eq!(rules.len(), 2);
    let expected = "belongs_to_default_sg created_at description direction ethertype id normalized_cidr port_range_max \
                    port_range_min project_id protocol remote_address_group_id remote_group_id remote_ip_prefix \
                    revision_number security_group_id tags tenant_id updated_at";
    assert_eq!(keys(&rules[0]), expected.split_whitespace().collect());
    let (_, body) = api.get(&format!("{RULES}/{}", text(&rules[0]["id"]))).await;
    assert_eq!(body["security_group_rule"], rules[0]);
    assert_eq!(rules[0]["belongs_to_default_sg"], json!(false));

    let (_, body) = api.get(&format!("{TEMPLATES}?used_in_non_default_sg=true")).await;
    let templates = body["default_security_group_rules"].as_array().unwrap();
    assert_eq!(templates.len(), 2);
    let expected = "description direction ethertype id port_range_max port_range_min protocol \
                    remote_address_group_id remote_group_id remote_ip_prefix used_in_default_sg \
                    used_in_non_default_sg";
    assert_eq!(keys(&templates[0]), expected.split_whitespace().collect());

    let attributes = json!({"name": "office", "addresses": ["192.168.0.10/24", "2001:db8::f00/64"]});
    let view = make(&api, ADDRESS_GROUPS, "address_group", attributes).await;
    let expected = "addresses created_at description id name project_id revision_number tenant_id updated_at";
    assert_eq!(keys(&view), expected.split_whitespace().collect());
    assert_eq!(view["addresses"], json!(["192.168.0.0/24", "2001:db8::/64"]));
}

#[tokio::test]
async fn rules_show_what_the_client_wrote() {
    let api = Api::start().await;
    let web = group(&api, "web").await;
    let shown = |other: Value, expected: Value| {
        let (api, web) = (&api, &web);
        async move {
            let (status, body) = api.post(RULES, rule(web, other)).await;
            assert_eq!(status, 201, "{body}");
            for (key, value) in expected.as_object().unwrap() {
                assert_eq!(body["security_group_rule"][key], *value, "{key} of {body}");
            }
        }
    };
    shown(
        json!({"protocol": "TCP", "port_range_min": "80", "port_range_max": 81}),
        json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 81, "ethertype": "IPv4"}),
    )
    .await;
    shown(
        json!({"protocol": 6, "port_range_min": 90, "port_range_max": 90}),
        json!({"protocol": "6"}),
    )
    .await;
    shown(
        json!({"protocol": "icmp", "ethertype": "ipv6", "port_range_min": 128, "port_range_max": 0}),
        json!({"protocol": "ipv6-icmp", "ethertype": "IPv6", "port_range_min": 128, "port_range_max": 0}),
    )
    .await;
    shown(
        json!({"remote_ip_prefix": "10.1.2.3/16"}),
        json!({"remote_ip_prefix": "10.1.2.3/16", "normalized_cidr": "10.1.0.0/16", "protocol": null}),
    )
    .await;
    shown(
        json!({"remote_ip_prefix": "10.1.2.3", "protocol": "any"}),
        json!({"remote_ip_prefix": "10.1.2.3/32", "normalized_cidr": "10.1.2.3/32"}),
    )
    .await;
    shown(
        json!({"remote_ip_prefix": "", "protocol": null, "description": "all"}),
        json!({"remote_ip_prefix": null, "normalized_cidr": null, "description": "all"}),
    )
    .await;
    shown(
        json!({"remote_group_id": web, "protocol": "udp", "port_range_min": 1, "port_range_max": 65535}),
        json!({"remote_group_id": web, "port_range_min": null, "port_range_max": null}),
    )
    .await;
}

#[tokio::test]
async fn rules_that_mean_nothing_are_refused() {
    let api = Api::start().await;
    let web = group(&api, "web").await;
    let before = ids(&api.get(RULES).await, "security_group_rules");
    for (other, status, kind, message) in [
        (
            json!({"protocol": "zip"}),
            400,
            "SecurityGroupRuleInvalidProtocol",
            "protocol zip not supported",
        ),
        (
            json!({"protocol": 256}),
            400,
            "SecurityGroupRuleInvalidProtocol",
            "256",
        ),
        (
            json!({"protocol": {"a": 1}}),
            400,
            "SecurityGroupRuleInvalidProtocol",
            "not supported",
        ),
        (
            json!({"ethertype": "IPv5"}),
            400,
            "SecurityGroupRuleInvalidEtherType",
            "'IPv5' not supported",
        ),
        (
            json!({"ethertype": 4}),
            400,
            "SecurityGroupRuleInvalidEtherType",
            "'4'",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": -16, "port_range_max": 80}),
            400,
            "SecurityGroupInvalidPortValue",
            "Invalid value for port -16",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 65536}),
            400,
            "SecurityGroupInvalidPortValue",
            "65536",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 81, "port_range_max": 80}),
            400,
            "SecurityGroupInvalidPortRange",
            "port_range_min must be <= port_range_max",
        ),
        (
            json!({"port_range_min": 80, "port_range_max": 80}),
            400,
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol",
        ),
        (
            json!({"remote_ip_prefix": "192.168.1.1/33"}),
            400,
            "InvalidCIDR",
            "Invalid CIDR 192.168.1.1/33 given as IP prefix",
        ),
        (
            json!({"remote_ip_prefix": "fd00::/8"}),
            400,
            "SecurityGroupRuleParameterConflict",
            "Conflicting value ethertype IPv4 for CIDR fd00::/8",
        ),
        (
            json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": web}),
            400,
            "SecurityGroupMultipleRemoteEntites",
            "Only one of",
        ),
        (
            json!({"direction": "sideways"}),
            400,
            "HTTPBadRequest",
            "'sideways' is not in",
        ),
        (json!({"direction": null}), 400, "HTTPBadRequest", "direction"),
        (
            json!({"security_group_id": NOBODY}),
            404,
            "SecurityGroupNotFound",
            NOBODY,
        ),
        (
            json!({"security_group_id": "zip"}),
            404,
            "SecurityGroupNotFound",
            "Security group zip does not exist",
        ),
        (
            json!({"remote_group_id": "zip"}),
            404,
            "SecurityGroupNotFound",
            "zip",
        ),
        (
            json!({"remote_group_id": NOBODY}),
            404,
            "SecurityGroupNotFound",
            NOBODY,
        ),
        (
            json!({"remote_address_group_id": "zip"}),
            404,
            "AddressGroupNotFound",
            "zip",
        ),
        (
            json!({"normalized_cidr": "10.0.0.0/8"}),
            400,
            "HTTPBadRequest",
            "not allowed in POST",
        ),
    ] {
        let answer = api.post(RULES, rule(&web, other)).await;
        assert_refused(&answer, status, kind, message);
    }
    assert_eq!(ids(&api.get(RULES).await, "security_group_rules"), before);

    let ssh = rule(
        &web,
        json!({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}),
    );
    let (_, made) = api.post(RULES, ssh.clone()).await;
    let made = text(&made["security_group_rule"]["id"]);
    assert_refused(
        &api.post(RULES, ssh.clone()).await,
        409,
        "SecurityGroupRuleExists",
        &format!("Rule id is {made}."),
    );
    let http = rule(
        &web,
        json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 80}),
    );
    let both = |a: &Value, b: &Value| json!({"security_group_rules": [a["security_group_rule"], b["security_group_rule"]]});
    assert_refused(
        &api.post(RULES, both(&http, &http)).await,
        409,
        "DuplicateSecurityGroupRuleInPost",
        "Duplicate",
    );
    assert_refused(
        &api.post(RULES, both(&http, &ssh)).await,
        409,
        "SecurityGroupRuleExists",
        &made,
    );
    let wrapped = json!({"security_groups": [{"security_group": {"name": "w"}}, {"name": "v"}]});
    let (status, body) = api.post(GROUPS, wrapped).await;
    assert_eq!((status, &body["security_groups"][0]["name"]), (201, &json!("w")));
    let db = group(&api, "db").await;
    let elsewhere = rule(&db, json!({"protocol": "tcp"}));
    assert_refused(
        &api.post(RULES, both(&http, &elsewhere)).await,
        400,
        "SecurityGroupNotSingleGroupRules",
        "one security profile",
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let api = Api::start().await;
    let web = group(&api, "web").await;
    let db = group(&api, "db").await;
    let attributes = json!({"name": "office", "addresses": ["10.0.0.0/8"]});
    let office = text(&make(&api, ADDRESS_GROUPS, "address_group", attributes).await["id"]);
    let make_rule = |group: &str, other| {
        let (api, body) = (&api, rule(group, other));
        async move { text(&api.post(RULES, body).await.1["security_group_rule"]["id"]) }
    };
    let ssh = make_rule(
        &web,
        json!({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}),
    )
    .await;
    let from_web = make_rule(&db, json!({"remote_group_id": web})).await;
    let from_office = make_rule(&db, json!({"remote_address_group_id": office})).await;
    let from_prefix = make_rule(&db, json!({"remote_ip_prefix": "10.1.2.3/16"})).await;
    for (query, expected) in [
        ("protocol=tcp".to_owned(), vec![&ssh]),
        ("port_range_min=22".to_owned(), vec![&ssh]),
        (format!("remote_group_id={web}"), vec![&from_web]),
        (format!("remote_address_group_id={office}"), vec![&from_office]),
        ("normalized_cidr=10.1.0.0/16".to_owned(), vec![&from_prefix]),
        ("remote_ip_prefix=10.1.2.3/16".to_owned(), vec![&from_prefix]),
        (
            format!("security_group_id={db}&direction=ingress"),
            vec![&from_web, &from_office, &from_prefix],
        ),
        (
            format!("security_group_id={db}&belongs_to_default_sg=true"),
            vec![],
        ),
        ("security_group_id=zip".to_owned(), vec![]),
    ] {
        let found = ids(
            &api.get(&format!("{RULES}?{query}")).await,
            "security_group_rules",
        );
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let (_, body) = api
        .get(&format!("{RULES}?belongs_to_default_sg=true&ethertype=IPv6"))
        .await;
    assert_eq!(body["security_group_rules"].as_array().unwrap().len(), 2);
    let found = ids(
        &api.get(&format!("{GROUPS}?shared=true")).await,
        "security_groups",
    );
    assert_eq!(found, Vec::<String>::new());
    let found = ids(
        &api.get(&format!("{GROUPS}?stateful=true&name=web&fields=id"))
            .await,
        "security_groups",
    );
    assert_eq!(found, [web]);
}

#[tokio::test]
async fn ports_have_groups() {
    let api = Api::start().await;
    let (network, _) = api.network_with_subnet("10.0.0.0/24").await;
    let plain = api.make("port", json!({"network_id": network})).await;
    let default = &ids(
        &api.get(&format!("{GROUPS}?name=default")).await,
        "security_groups",
    )[0];
    assert_eq!(plain["security_groups"], json!([default]));
    let web = group(&api, "web").await;
    let port = api
        .make("port", json!({"network_id": network, "security_groups": [web]}))
        .await;
    let path = format!("/v2.0/ports/{}", text(&port["id"]));
    let found = ids(
        &api.get(&format!("/v2.0/ports?security_groups={web}")).await,
        "ports",
    );
    assert_eq!(found, [text(&port["id"])]);
    let both = format!("/v2.0/ports?security_groups={web}&security_groups={default}");
    assert_eq!(ids(&api.get(&both).await, "ports").len(), 2);
    assert_refused(
        &api.delete(&format!("{GROUPS}/{web}")).await,
        409,
        "SecurityGroupInUse",
        &format!("Security Group {web} in use."),
    );
    for (groups, status, kind) in [
        (json!([web, web]), 400, "HTTPBadRequest"),
        (json!(["zip"]), 400, "HTTPBadRequest"),
        (json!("zip"), 400, "HTTPBadRequest"),
        (json!(vec![NOBODY; 101]), 400, "HTTPBadRequest"),
        (json!([NOBODY]), 404, "SecurityGroupNotFound"),
    ] {
        let answer = api.put(&path, json!({"port": {"security_groups": groups}})).await;
        assert_refused(&answer, status, kind, "");
        assert_eq!(api.get(&path).await.1["port"]["security_groups"], json!([web]));
    }
    assert_refused(
        &api.put(&path, json!({"port": {"port_security_enabled": false}}))
            .await,
        409,
        "PortSecurityPortHasSecurityGroup",
        "Cannot disable port security",
    );
    let (_, body) = api.put(&path, json!({"port": {"security_groups": null}})).await;
    assert_eq!(body["port"]["security_groups"], json!([]));
    assert_eq!(api.delete(&format!("{GROUPS}/{web}")).await.0, 204);
}

#[tokio::test]
async fn the_default_group_is_protected() {
    let member = |config: &mut alcor_api::ApiConfig| {
        config.authentication = alcor_api::Authentication::NoAuth(Caller {
            project_id: PROJECT.to_owned(),
            is_admin: false,
        });
    };
    let api = Api::start_with(member).await;
    let default = &ids(&api.get(GROUPS).await, "security_groups")[0];
    let path = format!("{GROUPS}/{default}");
    assert_refused(
        &api.put(&path, json!({"security_group": {"name": "x"}})).await,
        409,
        "SecurityGroupCannotUpdateDefault",
        "not allowed",
    );
    assert_refused(
        &api.delete(&path).await,
        409,
        "SecurityGroupCannotRemoveDefault",
        "Insufficient rights",
    );
    assert_refused(
        &api.post(GROUPS, json!({"security_group": {"name": "default"}}))
            .await,
        409,
        "SecurityGroupDefaultAlreadyExists",
        "already exists",
    );
    assert_refused(
        &api.post(GROUPS, json!({"security_group": {"name": "x".repeat(256)}}))
            .await,
        400,
        "HTTPBadRequest",
        "exceeds maximum length",
    );
    let (status, body) = api
        .put(&path, json!({"security_group": {"description": "ours"}}))
        .await;
    assert_eq!(
        (status, &body["security_group"]["description"]),
        (200, &json!("ours"))
    );
}

#[tokio::test]
async fn address_groups_change_by_actions() {
    let api = Api::start().await;
    for addresses in [
        json!(["10.20.30.40"]),
        json!(["zip"]),
        json!("10.0.0.0/8"),
        json!([7]),
    ] {
        let body = json!({"address_group": {"addresses": addresses}});
        assert_refused(
            &api.post(ADDRESS_GROUPS, body).await,
            400,
            "HTTPBadRequest",
            "addresses",
        );
    }
    let attributes = json!({"addresses": ["10.10.10.3/32", "192.168.0.10/24"]});
    let office = text(&make(&api, ADDRESS_GROUPS, "address_group", attributes).await["id"]);
    let path = format!("{ADDRESS_GROUPS}/{office}");
    let act = |action: &str, addresses: Value| {
        let (api, path) = (&api, format!("{path}/{action}"));
        async move { api.put(&path, json!({"addresses": addresses})).await }
    };
    let (status, body) = act("add_addresses", json!(["10.20.30.40"])).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        body["address_group"]["addresses"],
        json!(["10.10.10.3/32", "10.20.30.40/32", "192.168.0.0/24"])
    );
    let (_, body) = act("remove_addresses", json!(["10.10.10.3"])).await;
    assert_eq!(
        body["address_group"]["addresses"],
        json!(["10.20.30.40/32", "192.168.0.0/24"])
    );
    for (action, addresses, status, kind) in [
        (
            "add_addresses",
            json!(["192.168.0.7/24"]),
            400,
            "AddressesAlreadyExist",
        ),
        ("add_addresses", json!(["zip"]), 400, "HTTPBadRequest"),
        ("add_addresses", json!("zip"), 400, "HTTPBadRequest"),
        (
            "remove_addresses",
            json!(["10.200.200.200"]),
            404,
            "AddressesNotFound",
        ),
        ("remove_addresses", json!(["zip"]), 400, "HTTPBadRequest"),
    ] {
        assert_refused(&act(action, addresses).await, status, kind, "");
    }
    assert_refused(
        &api.put(
            &format!("{ADDRESS_GROUPS}/{NOBODY}/add_addresses"),
            json!({"addresses": []}),
        )
        .await,
        404,
        "AddressGroupNotFound",
        NOBODY,
    );
    let web = group(&api, "web").await;
    let about = rule(&web, json!({"remote_address_group_id": office}));
    assert_eq!(api.post(RULES, about).await.0, 201);
    assert_refused(&api.delete(&path).await, 409, "AddressGroupInUse", &office);
}

#[tokio::test]
async fn templates_say_what_new_groups_begin_with() {
    let api = Api::start().await;
    let template = |other: Value| {
        let mut template = json!({
            "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22,
            "used_in_default_sg": false, "used_in_non_default_sg": true,
        });
        for (key, value) in other.as_object().unwrap() {
            template[key] = value.clone();
        }
        json!({"default_security_group_rule": template})
    };
    let (status, body) = api
        .post(TEMPLATES, template(json!({"remote_group_id": "PARENT"})))
        .await;
    assert_eq!(status, 201, "{body}");
    let made = &body["default_security_group_rule"];
    assert_eq!(made["remote_group_id"], "PARENT");
    assert_refused(
        &api.post(TEMPLATES, template(json!({"remote_group_id": "PARENT"})))
            .await,
        409,
        "DefaultSecurityGroupRuleExists",
        &text(&made["id"]),
    );
    assert_refused(
        &api.post(TEMPLATES, template(json!({"remote_group_id": "zip"})))
            .await,
        404,
        "SecurityGroupNotFound",
        "zip",
    );
    let missing = json!({"default_security_group_rule": {"direction": "ingress"}});
    assert_refused(
        &api.post(TEMPLATES, missing).await,
        400,
        "HTTPBadRequest",
        "Required attribute",
    );
    let view = make(&api, GROUPS, "security_group", json!({"name": "web"})).await;
    let own = view["security_group_rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["remote_group_id"] == view["id"] && rule["port_range_min"] == 22)
        .count();
    assert_eq!(own, 1);
    for id in ids(&api.get(TEMPLATES).await, "default_security_group_rules") {
        assert_eq!(api.delete(&format!("{TEMPLATES}/{id}")).await.0, 204);
        assert_eq!(api.get(&format!("{TEMPLATES}/{id}")).await.0, 404);
    }
    assert_eq!(
        api.get(TEMPLATES).await.1["default_security_group_rules"],
        json!([])
    );
    let view = make(&api, GROUPS, "security_group", json!({"name": "db"})).await;
    assert_eq!(view["security_group_rules"], json!([]));
}

#[tokio::test]
async fn groups_are_shared_by_policies() {
    let api = Api::start().await;
    let web = group(&api, "web").await;
    let attributes = json!({"addresses": ["10.0.0.0/8"]});
    let office = text(&make(&api, ADDRESS_GROUPS, "address_group", attributes).await["id"]);
    for (object_type, id, path) in [
        ("security_group", &web, GROUPS),
        ("address_group", &office, ADDRESS_GROUPS),
    ] {
        let policy = json!({
            "object_type": object_type, "object_id": id, "action": "access_as_shared", "target_tenant": PROJECT,
        });
        let policy = make(&api, "/v2.0/rbac-policies", "rbac_policy", policy).await;
        assert_eq!(policy["object_id"], json!(id));
        assert_eq!(api.delete(&format!("{path}/{id}")).await.0, 204);
        let policy = format!("/v2.0/rbac-policies/{}", text(&policy["id"]));
        assert_eq!(api.get(&policy).await.0, 404, "it goes with what it shared");
    }
}

/// Tags, descriptions and declarations: what these resources have in common with all others.
#[tokio::test]
async fn what_every_resource_has_is_there_too() {
    let api = Api::start().await;
    let web = group(&api, "web").await;
    let (_, body) = api.post(RULES, rule(&web, json!({"protocol": "tcp"}))).await;
    let rule = format!("{RULES}/{}", text(&body["security_group_rule"]["id"]));
    let template = json!({
        "direction": "egress", "protocol": "tcp", "used_in_default_sg": true, "used_in_non_default_sg": false,
    });
    let template = make(&api, TEMPLATES, "default_security_group_rule", template).await;
    let template = format!("{TEMPLATES}/{}", text(&template["id"]));
    let office = make(&api, ADDRESS_GROUPS, "address_group", json!({})).await;
    let office = format!("{ADDRESS_GROUPS}/{}", text(&office["id"]));
    let web = format!("{GROUPS}/{web}");

    let tags = format!("{web}/tags");
    assert_eq!(api.put(&tags, json!({"tags": ["a", "b"]})).await.0, 200);
    assert_eq!(api.post(&tags, json!({"tags": ["c"]})).await.0, 200);
    assert_eq!(api.get(&tags).await.1["tags"], json!(["a", "b", "c"]));
    assert_eq!(api.put(&format!("{tags}/d"), Value::Null).await.0, 201);
    assert_eq!(api.get(&format!("{tags}/d")).await.0, 204);
    assert_eq!(api.delete(&format!("{tags}/d")).await.0, 204);
    assert_eq!(
        ids(&api.get(&format!("{GROUPS}?tags=a,b")).await, "security_groups").len(),
        1
    );
    assert_eq!(api.delete(&tags).await.0, 204);

    for (member, collection, singular) in [
        (&rule, RULES, "security_group_rule"),
        (&template, TEMPLATES, "default_security_group_rule"),
        (&office, ADDRESS_GROUPS, "address_group"),
        (&web, GROUPS, "security_group"),
    ] {
        let (status, body) = api.put(member, json!({ singular: {"description": "d"} })).await;
        assert_eq!(
            (status, &body[singular]["description"]),
            (200, &json!("d")),
            "{body}"
        );
        assert_eq!(api.get(member).await.1, body);
        let (status, body) = api.call(Method::OPTIONS, collection, None).await;
        assert_eq!((status, &body["name"]), (200, &json!(singular)));
        assert_eq!(api.delete(member).await.0, 204);
        let gone = api.get(member).await;
        assert_eq!(gone.0, 404, "{}", gone.1);
    }
}
