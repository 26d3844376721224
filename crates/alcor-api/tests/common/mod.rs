//! A running API on loopback with a region on a temporary SQLite file, and a client for it.
#![allow(dead_code, reason = "every test target uses another part of it")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

pub mod contract;

use std::{future::ready, net::SocketAddr, sync::Arc};

use alcor_api::{ApiConfig, ApiState, BoxFuture, HostDirectory, NoHosts, serve};
use alcor_model::{
    Id, Port, Revision,
    effective::{
        DeviceLoad, DropLoad, GatewayLine, GatewayLoad, GatewayUse, HostState, HostSummary, LoadLine,
        NatLoad, NeighbourState, PortState, RouterLoad, WayLoad,
    },
    resource::PortStatus,
    trace::{Trace, TraceError, TraceQuestion},
};
use alcor_region::{Region, RegionConfig};
use alcor_store::SqliteEngine;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

/// The project of everything that tests make.
pub const PROJECT: &str = "5f3c1e0d8d3b4b6c9f0e0a1b2c3d4e5f";

/// A status code and a body.
pub type Answer = (u16, Value);

/// The API, until dropped.
pub struct Api {
    pub address: SocketAddr,
    pub client: reqwest::Client,
    /// What is behind it: for what no client does.
    pub region: Region,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    _files: tempfile::TempDir,
}

/// One host that reported one port, and one gateway that forwards for one network.
struct OneHost;

/// The gateway that lives, once it is registered.
pub const GATEWAY: &str = "gw-1";

fn summary() -> HostSummary {
    HostSummary {
        name: "host-1".to_owned(),
        tunnel_ip: Some("192.0.2.1".parse().unwrap()),
        alive: true,
        last_seen_at: None,
        started_at: None,
        dataplane: Some("model".to_owned()),
        ports: 1,
        pending: 0,
        errors: 0,
        stale: false,
    }
}

/// What the gateway has said of its load.
fn load() -> GatewayLoad {
    GatewayLoad {
        said_at: "2026-11-21T22:00:01Z".parse().unwrap(),
        heard_since: "2026-11-21T21:00:00Z".parse().unwrap(),
        interval_ms: Some(1_000),
        passed: vec![WayLoad {
            way: "east_west".to_owned(),
            packets: 100,
            bytes: 9_800,
            packets_per_s: Some(40),
            bytes_per_s: None,
        }],
        drops: vec![DropLoad {
            reason: "no_gateway".to_owned(),
            packets: 2,
            packets_per_s: Some(0),
        }],
        replies: 1,
        probes: 5,
        nat: NatLoad {
            routers: 1,
            connections: 3,
            refused: 0,
            busiest: vec![RouterLoad {
                router_id: Id::from_uuid(uuid::Uuid::from_u128(9)),
                connections: 3,
                limit: 64,
                refused: 0,
            }],
        },
        neighbours: 2,
        neighbours_room: Some(1_000),
        devices: vec![DeviceLoad {
            device: "eth0".to_owned(),
            mode: "native".to_owned(),
        }],
        layout: None,
    }
}

impl HostDirectory for OneHost {
    fn hosts(&self) -> BoxFuture<'_, Vec<HostSummary>> {
        Box::pin(ready(vec![summary()]))
    }
    fn host<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<HostState>> {
        let neighbour = || NeighbourState {
            network_id: Id::from_uuid(uuid::Uuid::from_u128(1)),
            intended: 2,
            intended_revision: Revision(3),
            applied_revision: Some(Revision(3)),
            timing: None,
        };
        let state = [summary().name.as_str(), GATEWAY]
            .contains(&name)
            .then(|| HostState {
                summary: HostSummary {
                    name: name.to_owned(),
                    ..summary()
                },
                incarnation: Some(7),
                queued: 0,
                resyncs: 1,
                resources: Vec::new(),
                neighbours: (name == GATEWAY).then(neighbour).into_iter().collect(),
                gateway: (name == GATEWAY).then(|| GatewayUse {
                    in_use: true,
                    complete: 1,
                    load: Some(load()),
                    ..GatewayUse::default()
                }),
            });
        Box::pin(ready(state))
    }
    fn gateways(&self) -> BoxFuture<'_, Option<Vec<GatewayLine>>> {
        let line = GatewayLine {
            name: GATEWAY.to_owned(),
            alive: true,
            in_use: true,
            last_seen_at: None,
            networks: 1,
            load: Some(LoadLine {
                packets_per_s: Some(40),
                bytes_per_s: None,
                dropped: 2,
                drops_per_s: Some(0),
                nat_refused: 0,
            }),
        };
        Box::pin(ready(Some(vec![line])))
    }
    fn port(&self, port_id: Id<Port>) -> BoxFuture<'_, Option<PortState>> {
        let state = (port_id.uuid().as_u128() == 1).then(|| PortState {
            port_id,
            host: Some("host-1".to_owned()),
            status: PortStatus::Active,
            reason: None,
            host_alive: true,
            intended_revision: Revision(3),
            applied_revision: Some(Revision(3)),
            timing: None,
            stale: false,
        });
        Box::pin(ready(state))
    }
    fn trace(&self, question: TraceQuestion) -> BoxFuture<'_, Result<Trace, TraceError>> {
        Box::pin(ready(match question.from.uuid().as_u128() {
            1 => Ok(Trace {
                question,
                source: Some("10.0.0.3".parse().unwrap()),
                network_id: Id::from_uuid(question.from.uuid()),
                stages: Vec::new(),
                delivered_to: None,
                dropped: Some("egress_denied".to_owned()),
                hosts: Vec::new(),
            }),
            2 => Err(TraceError::NotBound(question.from)),
            _ => Err(TraceError::UnknownPort(question.from)),
        }))
    }
}

impl Api {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With a database that may have so many pages of 4 KiB.
    pub async fn start_on_a_small_disk(pages: u32) -> Self {
        let files = tempfile::tempdir().unwrap();
        let region = open_region(&files, Some(pages));
        Self::start_on(files, region, ApiConfig::noauth(PROJECT)).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let files = tempfile::tempdir().unwrap();
        let region = open_region(&files, None);
        let mut config = ApiConfig::noauth(PROJECT);
        change(&mut config);
        Self::start_on(files, region, config).await
    }

    /// With other bounds of the region.
    pub async fn start_with_region(config: RegionConfig) -> Self {
        let files = tempfile::tempdir().unwrap();
        let region = open_region_with(&files, None, config);
        Self::start_on(files, region, ApiConfig::noauth(PROJECT)).await
    }

    /// With nobody who knows what hosts and gateways really have.
    pub async fn start_without_ncm() -> Self {
        let files = tempfile::tempdir().unwrap();
        let region = open_region(&files, None);
        Self::start_with_directory(files, region, Arc::new(NoHosts), ApiConfig::noauth(PROJECT)).await
    }

    async fn start_on(files: tempfile::TempDir, region: Region, config: ApiConfig) -> Self {
        Self::start_with_directory(files, region, Arc::new(OneHost), config).await
    }

    async fn start_with_directory(
        files: tempfile::TempDir,
        region: Region,
        directory: Arc<dyn HostDirectory>,
        config: ApiConfig,
    ) -> Self {
        let state = ApiState::new(region.clone(), directory, config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, state, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            client: reqwest::Client::new(),
            region,
            stop: Some(stop),
            served: Some(served),
            _files: files,
        }
    }

    /// Serves on a listener that somebody else made, until it ends by itself.
    pub async fn serve_on(listener: TcpListener) -> std::io::Result<()> {
        let files = tempfile::tempdir().unwrap();
        let state = ApiState::new(
            open_region(&files, None),
            Arc::new(OneHost),
            ApiConfig::noauth(PROJECT),
        );
        serve(listener, state, std::future::pending()).await
    }

    /// Stops the server and waits for its end.
    pub async fn stop(mut self) -> std::io::Result<()> {
        drop(self.stop.take());
        match self.served.take() {
            Some(served) => served.await.unwrap(),
            None => Ok(()),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(method, path, |request| match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Answer {
        let response = change(self.client.request(method.clone(), self.url(path)))
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let bytes = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        contract::check(method.as_str(), path, status, &body);
        (status, body)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// Makes one resource and gives its view.
    pub async fn make(&self, singular: &str, attributes: Value) -> Value {
        let (status, body) = self
            .post(&format!("/v2.0/{singular}s"), json!({ singular: attributes }))
            .await;
        assert_eq!(status, 201, "{body}");
        body[singular].clone()
    }

    /// A network with a subnet; their ids.
    pub async fn network_with_subnet(&self, cidr: &str) -> (String, String) {
        let network = text(&self.make("network", json!({"name": "n"})).await["id"]);
        let version = if cidr.contains(':') { 6 } else { 4 };
        let subnet = json!({"network_id": network, "cidr": cidr, "ip_version": version});
        let subnet = text(&self.make("subnet", subnet).await["id"]);
        (network, subnet)
    }
}

/// A text in a body.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Asserts a refusal: status, Neutron's type, a part of its message.
pub fn assert_refused(answer: &Answer, status: u16, kind: &str, message: &str) {
    let error = &answer.1["NeutronError"];
    assert_eq!(answer.0, status, "{}", answer.1);
    assert_eq!(error["type"], kind, "{error}");
    assert_eq!(error["detail"], "", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains(message),
        "{error} lacks '{message}'"
    );
}

fn open_region(files: &tempfile::TempDir, pages: Option<u32>) -> Region {
    open_region_with(files, pages, RegionConfig::default())
}

fn open_region_with(files: &tempfile::TempDir, pages: Option<u32>, config: RegionConfig) -> Region {
    let mut engine = SqliteEngine::open(&files.path().join("alcor.db")).unwrap();
    if let Some(pages) = pages {
        engine.limit_pages(pages).unwrap();
    }
    Region::open(Box::new(engine), config).unwrap()
}
