//! Tokens, roles and projects through real HTTP, with a small Keystone on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alcor_api::Authentication;
use alcor_identity::{KeystoneConfig, Secret, Verifier, VerifierConfig, cache::Bounds};
use alcor_model::resource::HostWord;
use alcor_policy::Policy;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use common::{Answer, Api, assert_refused, text};
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};

const EXPIRES: &str = "2999-01-01T00:00:00Z";

/// A token is `user@project:role,role`, and proves what it says; `forged` is none.
async fn check(State(out): State<Arc<AtomicBool>>, headers: HeaderMap) -> Response {
    if out.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let token = headers["x-subject-token"].to_str().unwrap();
    let Some((user, rest)) = token.split_once('@') else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (project, roles) = rest.split_once(':').unwrap();
    let roles: Vec<Value> = roles.split(',').map(|role| json!({"name": role})).collect();
    let mut token = json!({"expires_at": EXPIRES, "user": {"id": user}, "roles": roles});
    if project == "all" {
        token["system"] = json!({"all": true});
    } else {
        token["project"] = json!({"id": project, "name": project});
    }
    Json(json!({ "token": token })).into_response()
}

async fn login() -> Response {
    let body = json!({"token": {"expires_at": EXPIRES, "user": {"id": "alcor"}}});
    (StatusCode::CREATED, [("x-subject-token", "own")], Json(body)).into_response()
}

struct Lab {
    api: Api,
    keystone_out: Arc<AtomicBool>,
}

impl Lab {
    async fn new() -> Self {
        Self::with_rules("").await
    }

    async fn with_rules(rules: &str) -> Self {
        let keystone_out = Arc::new(AtomicBool::new(false));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/v3/auth/tokens", get(check).post(login))
            .with_state(Arc::clone(&keystone_out));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let verifier = Verifier::new(VerifierConfig {
            keystone: KeystoneConfig {
                url: url.clone(),
                username: "alcor".to_owned(),
                password: Secret::new("secret"),
                user_domain_name: "Default".to_owned(),
                project_name: "service".to_owned(),
                project_domain_name: "Default".to_owned(),
                ca_file: None,
                timeout: Duration::from_secs(10),
                retries: 1,
                backoff: Duration::from_millis(1),
            },
            bounds: Bounds {
                capacity: 100,
                max_in_flight: 10,
                revocation: SignedDuration::from_secs(600),
                refusal: SignedDuration::from_secs(5),
            },
        })
        .unwrap();
        let policy = Arc::new(Policy::load(Some(rules)).unwrap());
        let api = Api::start_with(move |config| {
            config.authentication = Authentication::Keystone { verifier, uri: url };
            config.policy = policy;
        })
        .await;
        Self { api, keystone_out }
    }

    async fn call(&self, token: &str, method: Method, path: &str, body: Value) -> Answer {
        self.api
            .send(method, path, |request| {
                let request = request.header("X-Auth-Token", token);
                if body.is_null() {
                    request
                } else {
                    request.json(&body)
                }
            })
            .await
    }

    async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, Method::GET, path, Value::Null).await
    }

    async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(token, Method::POST, path, body).await
    }

    async fn put(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(token, Method::PUT, path, body).await
    }

    async fn delete(&self, token: &str, path: &str) -> Answer {
        self.call(token, Method::DELETE, path, Value::Null).await
    }

    /// Makes one resource and gives its id.
    async fn make(&self, token: &str, singular: &str, attributes: Value) -> String {
        let path = format!("/v2.0/{singular}s");
        let (status, body) = self.post(token, &path, json!({ singular: attributes })).await;
        assert_eq!(status, 201, "{body}");
        text(&body[singular]["id"])
    }
}

const ADMIN: &str = "root@ops:admin,manager,member,reader";
const MEMBER: &str = "mia@one:member,reader";
const READER: &str = "rob@one:reader";
const OTHER: &str = "eve@two:member,reader";
const SERVICE: &str = "nova@services:service";

#[tokio::test]
async fn without_a_good_token_there_is_nothing_but_401() {
    let lab = Lab::new().await;
    for path in ["/v2.0/networks", "/v2.0/", "/alcor/v1/hosts", "/v2.0/nothing"] {
        let response = lab.api.client.get(lab.api.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        let challenge = response.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(challenge.starts_with("Keystone uri=\"http://"), "{challenge}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], 401);
    }
    let (status, _) = lab.get("forged", "/v2.0/networks").await;
    assert_eq!(status, 401);
    for path in ["/", "/healthz", "/openapi.json"] {
        assert_ne!(lab.api.get(path).await.0, 401, "{path}");
    }
    // What an authenticating proxy in front would have set proves nothing here.
    let forged = lab
        .api
        .send(Method::GET, "/v2.0/networks", |request| {
            request.header("X-Roles", "admin").header("X-Project-Id", "one")
        })
        .await;
    assert_eq!(forged.0, 401);
}

#[tokio::test]
async fn an_outage_of_keystone_is_503_and_no_pass() {
    let lab = Lab::new().await;
    lab.keystone_out.store(true, Ordering::SeqCst);
    assert_refused(
        &lab.get(ADMIN, "/v2.0/networks").await,
        503,
        "ServiceUnavailable",
        "identity service",
    );
    lab.keystone_out.store(false, Ordering::SeqCst);
    assert_eq!(lab.get(ADMIN, "/v2.0/networks").await.0, 200);
}

#[tokio::test]
async fn projects_do_not_see_each_other_and_readers_change_nothing() {
    let lab = Lab::new().await;
    let network = lab.make(MEMBER, "network", json!({"name": "n"})).await;
    let subnet = json!({"network_id": network, "cidr": "10.0.0.0/24", "ip_version": 4});
    let subnet = lab.make(MEMBER, "subnet", subnet).await;
    let port = lab.make(MEMBER, "port", json!({"network_id": network})).await;
    for (plural, id) in [("networks", &network), ("subnets", &subnet), ("ports", &port)] {
        let path = format!("/v2.0/{plural}/{id}");
        let singular = plural.trim_end_matches('s');
        let rename = json!({singular: {"name": "x"}});
        assert_eq!(lab.get(READER, &path).await.0, 200);
        assert_refused(
            &lab.put(READER, &path, rename.clone()).await,
            403,
            "PolicyNotAuthorized",
            &format!("rule:update_{singular} is disallowed by policy"),
        );
        assert_eq!(lab.delete(READER, &path).await.0, 403);
        assert_eq!(lab.get(OTHER, &path).await.0, 404);
        assert_eq!(lab.put(OTHER, &path, rename).await.0, 404);
        assert_eq!(lab.delete(OTHER, &path).await.0, 404);
        let tags = format!("{path}/tags/blue");
        assert_eq!(lab.call(READER, Method::PUT, &tags, Value::Null).await.0, 403);
        assert_eq!(lab.call(OTHER, Method::PUT, &tags, Value::Null).await.0, 404);
        assert_eq!(lab.call(MEMBER, Method::PUT, &tags, Value::Null).await.0, 201);
        assert_eq!(
            lab.get(OTHER, &format!("/v2.0/{plural}")).await.1[plural],
            json!([])
        );
        assert_eq!(
            lab.get(READER, &format!("/v2.0/{plural}?id={id}")).await.1[plural][0]["id"],
            **id
        );
    }
    assert_eq!(
        lab.post(READER, "/v2.0/networks", json!({"network": {}})).await.0,
        403
    );
    let foreign = json!({"port": {"network_id": network}});
    assert_refused(
        &lab.post(OTHER, "/v2.0/ports", foreign).await,
        404,
        "NetworkNotFound",
        &network,
    );
    let foreign = json!({"subnet": {"network_id": network, "cidr": "10.0.1.0/24", "ip_version": 4}});
    assert_refused(
        &lab.post(OTHER, "/v2.0/subnets", foreign).await,
        404,
        "NetworkNotFound",
        &network,
    );
}

#[tokio::test]
async fn attributes_have_rules_of_their_own() {
    let lab = Lab::new().await;
    let create = |attributes: Value| json!({ "network": attributes });
    for (attributes, rule) in [
        (json!({"shared": true}), "create_network:shared"),
        (json!({"router:external": true}), "create_network:router:external"),
        (
            json!({"provider:segmentation_id": 77}),
            "create_network:provider:segmentation_id",
        ),
    ] {
        let refused = lab.post(MEMBER, "/v2.0/networks", create(attributes)).await;
        assert_refused(&refused, 403, "PolicyNotAuthorized", rule);
    }
    // What only says the default is as good as nothing.
    let plain = json!({"shared": false, "router:external": false, "port_security_enabled": true});
    let network = lab.make(MEMBER, "network", plain).await;
    let path = format!("/v2.0/networks/{network}");
    let shared = json!({"network": {"shared": true}});
    assert_refused(
        &lab.put(MEMBER, &path, shared.clone()).await,
        403,
        "PolicyNotAuthorized",
        "update_network:shared",
    );
    let mine = lab.get(MEMBER, &path).await.1["network"].clone();
    assert!(mine.get("provider:segmentation_id").is_none() && mine.get("provider:network_type").is_none());
    let all = lab.get(ADMIN, &path).await.1["network"].clone();
    assert!(all["provider:segmentation_id"].is_u64());
    let number = all["provider:segmentation_id"].to_string();
    let guess = format!("/v2.0/networks?provider:segmentation_id={number}");
    assert_eq!(
        lab.get(ADMIN, &guess).await.1["networks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(lab.get(MEMBER, &guess).await.1["networks"], json!([]));

    let subnet = json!({"network_id": network, "cidr": "10.0.0.0/24", "ip_version": 4});
    lab.make(MEMBER, "subnet", subnet).await;
    let host = json!({"port": {"network_id": network, "binding:host_id": "h"}});
    assert_refused(
        &lab.post(MEMBER, "/v2.0/ports", host.clone()).await,
        403,
        "PolicyNotAuthorized",
        "binding:host_id",
    );
    let (status, body) = lab
        .post(SERVICE, "/v2.0/ports", {
            let mut own = host;
            own["port"]["project_id"] = json!("one");
            own
        })
        .await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(body["port"]["binding:host_id"], "h");
    let path = format!("/v2.0/ports/{}", text(&body["port"]["id"]));
    assert!(
        lab.get(MEMBER, &path).await.1["port"]
            .get("binding:host_id")
            .is_none()
    );

    // Guests of a shared network take an address and choose none.
    assert_eq!(
        lab.put(ADMIN, &format!("/v2.0/networks/{network}"), shared)
            .await
            .0,
        200
    );
    let guest = |more: Value| {
        let mut port = json!({"network_id": network});
        port.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "port": port })
    };
    let refused = lab
        .post(
            OTHER,
            "/v2.0/ports",
            guest(json!({"fixed_ips": [{"ip_address": "10.0.0.9"}]})),
        )
        .await;
    assert_refused(
        &refused,
        403,
        "PolicyNotAuthorized",
        "create_port:fixed_ips:ip_address",
    );
    let refused = lab
        .post(
            OTHER,
            "/v2.0/ports",
            guest(json!({"mac_address": "fa:16:3e:00:00:01"})),
        )
        .await;
    assert_refused(&refused, 403, "PolicyNotAuthorized", "create_port:mac_address");
    assert_eq!(lab.post(OTHER, "/v2.0/ports", guest(json!({}))).await.0, 201);
}

#[tokio::test]
async fn only_admins_and_services_make_things_for_others() {
    let lab = Lab::new().await;
    let body = json!({"network": {"project_id": "one"}});
    let refused = lab.post(OTHER, "/v2.0/networks", body.clone()).await;
    assert_refused(&refused, 400, "HTTPBadRequest", "requires admin privileges");
    let (status, made) = lab.post(ADMIN, "/v2.0/networks", body).await;
    assert_eq!((status, &made["network"]["project_id"]), (201, &json!("one")));
}

#[tokio::test]
async fn a_token_for_the_system_does_what_rules_let_it() {
    let system = "root@all:admin,member,reader";
    let lab = Lab::new().await;
    assert_eq!(lab.get(system, "/v2.0/networks").await.1["networks"], json!([]));
    let make = json!({"network": {"project_id": "one"}});
    assert_eq!(lab.post(system, "/v2.0/networks", make.clone()).await.0, 403);
    let lab = Lab::with_rules("create_network: role:admin and system_scope:all\n").await;
    assert_eq!(lab.post(system, "/v2.0/networks", make).await.0, 201);
    let refused = lab.post(system, "/v2.0/networks", json!({"network": {}})).await;
    assert_refused(&refused, 400, "HTTPBadRequest", "project_id");
}

#[tokio::test]
async fn rules_of_the_file_hold_down_to_the_region() {
    let rules = r#"
"create_network:shared": "rule:regular_user"
"get_network:provider:segmentation_id": "role:reader"
"update_network": "role:reader"
"create_router": "rule:admin_only"
"#;
    let lab = Lab::with_rules(rules).await;
    let network = lab.make(MEMBER, "network", json!({"shared": true})).await;
    let path = format!("/v2.0/networks/{network}");
    let shown = lab.get(OTHER, &path).await.1["network"].clone();
    assert!(shown["provider:segmentation_id"].is_u64() && shown.get("provider:network_type").is_none());
    assert_eq!(
        lab.put(OTHER, &path, json!({"network": {"name": "x"}})).await.0,
        200
    );
    assert_eq!(
        lab.post(MEMBER, "/v2.0/routers", json!({"router": {}})).await.0,
        403
    );
}

#[tokio::test]
async fn hosts_and_quotas_are_the_admins() {
    let lab = Lab::new().await;
    for path in [
        "/alcor/v1/hosts",
        "/alcor/v1/hosts/host-1",
        "/alcor/v1/gateways",
        "/v2.0/quotas",
        "/v2.0/quotas/one",
    ] {
        assert_eq!(lab.get(ADMIN, path).await.0, 200, "{path}");
        assert_eq!(lab.get(OTHER, path).await.0, 403, "{path}");
        assert_eq!(lab.get(SERVICE, path).await.0, 403, "{path}");
    }
    assert_eq!(lab.get(MEMBER, "/v2.0/quotas/one").await.0, 200);
    let more = json!({"quota": {"port": 1}});
    assert_eq!(lab.put(MEMBER, "/v2.0/quotas/one", more.clone()).await.0, 403);
    assert_eq!(lab.put(ADMIN, "/v2.0/quotas/one", more).await.0, 200);
}

#[tokio::test]
async fn a_service_forwards_what_a_member_may() {
    let lab = Lab::new().await;
    let network = lab.make(MEMBER, "network", json!({})).await;
    let port = json!({"network_id": network, "device_owner": "compute:nova"});
    let path = format!("/v2.0/ports/{}", lab.make(MEMBER, "port", port).await);
    assert_eq!(lab.delete(MEMBER, &path).await.0, 403);
    let forwarded = lab
        .api
        .send(Method::DELETE, &path, |request| {
            request
                .header("X-Auth-Token", MEMBER)
                .header("X-Service-Token", "forged")
        })
        .await;
    assert_eq!(forwarded.0, 401);
    let forwarded = lab
        .api
        .send(Method::DELETE, &path, |request| {
            request
                .header("X-Auth-Token", MEMBER)
                .header("X-Service-Token", SERVICE)
        })
        .await;
    assert_eq!(forwarded.0, 204);
}

/// Whatever is declared has rules: nothing is refused to admins because somebody forgot one.
#[test]
fn every_collection_has_rules() {
    let policy = Policy::load(None).unwrap();
    for collection in alcor_api::collections() {
        for verb in ["create", "get", "update", "delete"] {
            let rule = match collection.singular {
                "port_forwarding" => format!("{verb}_floatingip_port_forwarding"),
                singular => format!("{verb}_{singular}"),
            };
            assert!(policy.rule(&rule).is_some(), "{rule}");
        }
    }
}

#[tokio::test]
async fn agents_are_for_admins_and_zones_for_everybody() {
    let lab = Lab::new().await;
    let tunnel_ip = "192.0.2.1".parse().unwrap();
    let region = &lab.api.region;
    region
        .register_host("host-1", HostWord::new(tunnel_ip, "nova"))
        .await
        .unwrap();
    let agent = format!("/v2.0/agents/{}", alcor_model::Host::agent_id("host-1"));
    let count = |answer: &Answer, plural: &str| answer.1[plural].as_array().unwrap().len();
    for token in [MEMBER, READER] {
        assert_eq!(count(&lab.get(token, "/v2.0/agents").await, "agents"), 0);
        assert_refused(&lab.get(token, &agent).await, 404, "AgentNotFound", "Agent");
        assert_refused(&lab.delete(token, &agent).await, 404, "AgentNotFound", "Agent");
        let change = json!({"agent": {"description": "mine"}});
        assert_refused(
            &lab.put(token, &agent, change).await,
            404,
            "AgentNotFound",
            "Agent",
        );
        let zones = lab.get(token, "/v2.0/availability_zones").await;
        assert_eq!(count(&zones, "availability_zones"), 2);
        let providers = lab.get(token, "/v2.0/service-providers").await;
        assert_eq!(count(&providers, "service_providers"), 1);
    }
    assert_eq!(count(&lab.get(ADMIN, "/v2.0/agents").await, "agents"), 1);
    assert_eq!(lab.get(ADMIN, &agent).await.0, 200);
}

#[tokio::test]
async fn ranges_of_identifiers_are_for_admins() {
    let lab = Lab::new().await;
    let create = json!({"network_segment_range": {
        "network_type": "vxlan", "minimum": 100, "maximum": 101, "shared": false, "project_id": "one",
    }});
    let path = "/v2.0/network_segment_ranges";
    let refused = lab.post(MEMBER, path, create.clone()).await;
    assert_refused(
        &refused,
        403,
        "PolicyNotAuthorized",
        "create_network_segment_range",
    );
    let (status, made) = lab.post(ADMIN, path, create).await;
    assert_eq!(status, 201, "{made}");
    let member = format!("{path}/{}", text(&made["network_segment_range"]["id"]));
    for token in [MEMBER, READER, OTHER] {
        let (status, body) = lab.get(token, path).await;
        assert_eq!((status, body), (200, json!({"network_segment_ranges": []})));
        assert_refused(
            &lab.get(token, &member).await,
            404,
            "NetworkSegmentRangeNotFound",
            "",
        );
        assert_refused(
            &lab.delete(token, &member).await,
            404,
            "NetworkSegmentRangeNotFound",
            "",
        );
    }
    // Whose networks are made says which range is used, not who makes them.
    for (token, project) in [(MEMBER, "one"), (ADMIN, "one")] {
        let id = lab.make(token, "network", json!({"project_id": project})).await;
        let (_, shown) = lab.get(ADMIN, &format!("/v2.0/networks/{id}")).await;
        let vni = shown["network"]["provider:segmentation_id"].as_u64().unwrap();
        assert!((100..=101).contains(&vni), "{vni}");
    }
    let id = lab.make(OTHER, "network", json!({})).await;
    let (_, shown) = lab.get(ADMIN, &format!("/v2.0/networks/{id}")).await;
    assert!(!(100..=101).contains(&shown["network"]["provider:segmentation_id"].as_u64().unwrap()));
}

#[tokio::test]
async fn a_network_is_given_to_ones_own_project() {
    let lab = Lab::new().await;
    let external = json!({"router:external": true, "is_default": true});
    lab.make(ADMIN, "network", external).await;
    let pool = json!({"name": "p", "prefixes": ["10.9.0.0/16"], "default_prefixlen": 24, "is_default": true, "shared": true});
    lab.make(ADMIN, "subnetpool", pool).await;
    let (status, given) = lab.get(MEMBER, "/v2.0/auto-allocated-topology/None").await;
    assert_eq!(status, 200, "{given}");
    assert_eq!(given["auto_allocated_topology"]["project_id"], "one");
    let one = "/v2.0/auto-allocated-topology/one";
    assert_eq!(lab.get(READER, one).await, (200, given.clone()));
    assert_eq!(lab.get(ADMIN, one).await, (200, given));
    for refused in [
        lab.get(OTHER, one).await,
        lab.delete(OTHER, one).await,
        lab.delete(READER, one).await,
    ] {
        assert_refused(&refused, 403, "PolicyNotAuthorized", "auto_allocated_topology");
    }
    assert_eq!(lab.delete(MEMBER, one).await.0, 204);
}
