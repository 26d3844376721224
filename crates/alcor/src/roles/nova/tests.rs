//! A controller's notifier against a Keystone and a Nova of the test's own.

use alcor_model::{Network, Port, resource::PortStatus};
use alcor_region::{
    RegionConfig,
    command::{Caller, NetworkCreate, PortCreate, PortReport},
};
use alcor_store::SqliteEngine;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};

use super::*;
use crate::config::AuthMode;

const SERVER: &str = "6f70656e-7374-4163-ab61-6c636f720001";

/// What a Nova got: the token and the events.
type Requests = mpsc::UnboundedReceiver<(String, Vec<String>)>;

#[derive(Clone)]
struct Cloud {
    address: String,
    requests: mpsc::UnboundedSender<(String, Vec<String>)>,
    logins: mpsc::UnboundedSender<Value>,
}

async fn login(State(cloud): State<Cloud>, Json(body): Json<Value>) -> Response {
    let user = body["auth"]["identity"]["password"]["user"].clone();
    let token = format!("token-of-{}", user["name"].as_str().unwrap());
    cloud.logins.send(user).unwrap();
    let endpoint = |interface: &str, region: &str, path: &str| json!({"interface": interface, "region_id": region, "url": format!("{}{path}", cloud.address)});
    let endpoints = [
        endpoint("public", "west", "/public"),
        endpoint("internal", "east", "/east"),
        endpoint("internal", "west", "/v2.1"),
    ];
    let body = json!({"token": {
        "expires_at": "2999-01-01T00:00:00Z",
        "user": {"id": "u"},
        "catalog": [{"type": "compute", "endpoints": endpoints}],
    }});
    (StatusCode::CREATED, [("x-subject-token", token)], Json(body)).into_response()
}

async fn take(State(cloud): State<Cloud>, headers: HeaderMap, Json(body): Json<Value>) -> Json<Value> {
    let token = headers.get("x-auth-token");
    let token = token.map_or_else(String::new, |token| token.to_str().unwrap().to_owned());
    let events = body["events"].as_array().unwrap();
    let names = events.iter().map(|event| {
        assert_eq!(event["server_uuid"], SERVER);
        event["name"].as_str().unwrap().to_owned()
    });
    cloud.requests.send((token, names.collect())).unwrap();
    Json(body)
}

struct Lab {
    address: String,
    requests: Requests,
    logins: mpsc::UnboundedReceiver<Value>,
    region: Region,
    stop: CancellationToken,
    parts: JoinSet<anyhow::Result<()>>,
    _files: tempfile::TempDir,
}

fn admin() -> Caller {
    Caller {
        project_id: "p".into(),
        is_admin: true,
    }
}

impl Lab {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (request, requests) = mpsc::unbounded_channel();
        let (logged_in, logins) = mpsc::unbounded_channel();
        let app = Router::new()
            .route("/v3/auth/tokens", post(login))
            .route("/v2.1/os-server-external-events", post(take))
            .with_state(Cloud {
                address: address.clone(),
                requests: request,
                logins: logged_in,
            });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let files = tempfile::tempdir().unwrap();
        let engine = SqliteEngine::open(&files.path().join("region.sqlite")).unwrap();
        Self {
            address,
            requests,
            logins,
            region: Region::open(Box::new(engine), RegionConfig::default()).unwrap(),
            stop: CancellationToken::new(),
            parts: JoinSet::new(),
            _files: files,
        }
    }

    fn start(&mut self, config: &NovaConfig) {
        let auth = AuthConfig {
            mode: AuthMode::NoAuth,
            ..AuthConfig::default()
        };
        start(config, &auth, self.region.clone(), &self.stop, &mut self.parts).unwrap();
    }

    /// Makes a server's port, and says for its host that it is there.
    async fn plug(&self) -> Arc<Port> {
        let network = NetworkCreate::default();
        let network = self
            .region
            .create::<Network>(&admin(), vec![network])
            .await
            .unwrap();
        let port = PortCreate {
            device_id: SERVER.into(),
            device_owner: "compute:nova".into(),
            binding_host_id: "host-1".into(),
            ..PortCreate::new(network[0].id)
        };
        let port = self
            .region
            .create::<Port>(&admin(), vec![port])
            .await
            .unwrap()
            .remove(0);
        let report = PortReport {
            port_id: port.id,
            host_id: "host-1".into(),
            applied_revision: port.revision,
            status: PortStatus::Active,
            reason: None,
        };
        assert_eq!(self.region.report_ports(vec![report]).await.unwrap(), 1);
        port
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.parts.join_next().await {
            ended.unwrap().unwrap();
        }
        assert!(self.requests.try_recv().is_err());
    }
}

#[tokio::test]
async fn nova_is_found_in_the_catalogue_and_told_with_a_token() {
    let mut lab = Lab::new().await;
    lab.start(&NovaConfig {
        enabled: true,
        keystone_url: lab.address.clone(),
        username: "alcor".into(),
        password: "rosebud".to_owned().into(),
        region_name: "west".into(),
        interval_ms: 0,
        ..NovaConfig::default()
    });
    let port = lab.plug().await;
    let told = |name: &str| Some(("token-of-alcor".to_owned(), vec![name.to_owned()]));
    assert_eq!(lab.requests.recv().await, told("network-vif-plugged"));
    let user = json!({"name": "alcor", "password": "rosebud", "domain": {"name": "Default"}});
    assert_eq!(lab.logins.recv().await, Some(user));
    lab.region.delete::<Port>(&admin(), port.id, None).await.unwrap();
    assert_eq!(lab.requests.recv().await, told("network-vif-deleted"));
    assert!(lab.logins.try_recv().is_err(), "one login is enough");
    lab.stop().await;
}

#[tokio::test]
async fn nova_at_an_address_is_told_without_keystone() {
    let mut lab = Lab::new().await;
    lab.start(&NovaConfig {
        enabled: true,
        url: format!("{}/v2.1", lab.address),
        ..NovaConfig::default()
    });
    lab.plug().await;
    let told = (String::new(), vec!["network-vif-plugged".to_owned()]);
    assert_eq!(lab.requests.recv().await, Some(told));
    lab.stop().await;
}

#[tokio::test]
async fn nova_is_not_told_where_nobody_wants_it() {
    let mut lab = Lab::new().await;
    lab.start(&NovaConfig::default());
    assert!(lab.parts.is_empty());
    lab.plug().await;
    lab.stop().await;
}
