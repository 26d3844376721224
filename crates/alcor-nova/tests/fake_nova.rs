//! The notifier against a Nova of the test's own: what a region's ports do becomes requests, in order, over failures
//! of Nova, and nothing is repeated after a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alcor_identity::{Secret, http::HttpClient};
use alcor_model::{Network, Port, resource::PortStatus};
use alcor_nova::{Access, BoxFuture, NovaAccess, NovaClient, Pace, core::Counters};
use alcor_region::{
    Region, RegionConfig,
    command::{Caller, NetworkCreate, PortCreate, PortReport, PortUpdate},
    port::{binding, command::BindingCreate},
};
use alcor_store::SqliteEngine;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const SERVER: &str = "6f70656e-7374-4163-ab61-6c636f720001";

/// A Nova that gives its first answers from a list and then takes everything.
struct FakeNova {
    requests: mpsc::UnboundedReceiver<(Option<String>, Value)>,
    endpoint: String,
}

#[derive(Clone)]
struct Shared {
    first: Arc<parking::Answers>,
    requests: mpsc::UnboundedSender<(Option<String>, Value)>,
}

mod parking {
    use std::{collections::VecDeque, sync::Mutex};
    /// Status codes to answer with before everything works.
    pub struct Answers(pub Mutex<VecDeque<u16>>);
}

async fn take(
    State(nova): State<Shared>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let token = headers
        .get("x-auth-token")
        .map(|token| token.to_str().unwrap().to_owned());
    let planned = nova.first.0.lock().unwrap().pop_front();
    nova.requests.send((token, body.clone())).unwrap();
    match planned {
        Some(code) => (StatusCode::from_u16(code).unwrap(), Json(json!({}))),
        None => (StatusCode::OK, Json(body)),
    }
}

impl FakeNova {
    async fn start(first: &[u16]) -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let shared = Shared {
            first: Arc::new(parking::Answers(std::sync::Mutex::new(
                first.iter().copied().collect(),
            ))),
            requests: sender,
        };
        let router = Router::new()
            .route("/v2.1/os-server-external-events", post(take))
            .with_state(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/v2.1/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { requests, endpoint }
    }

    /// The next request's token and its events as `name/status`.
    async fn next(&mut self) -> (Option<String>, Vec<String>) {
        let (token, body) = self.requests.recv().await.unwrap();
        let events = body["events"].as_array().unwrap();
        for event in events {
            assert_eq!(event["server_uuid"], SERVER);
        }
        let text = |event: &Value| {
            format!(
                "{}/{}",
                event["name"].as_str().unwrap(),
                event["status"].as_str().unwrap()
            )
        };
        (token, events.iter().map(text).collect())
    }
}

/// Tokens `token-0`, `token-1`, ...: a new one after each refusal.
struct Tokens {
    endpoint: String,
    refusals: Arc<AtomicUsize>,
}

impl NovaAccess for Tokens {
    fn access(&self) -> BoxFuture<'_, Result<Access, String>> {
        let access = Access {
            endpoint: self.endpoint.clone(),
            token: Some(Secret::new(format!(
                "token-{}",
                self.refusals.load(Ordering::SeqCst)
            ))),
        };
        Box::pin(std::future::ready(Ok(access)))
    }
    fn refused(&self, _: Access) -> BoxFuture<'_, ()> {
        self.refusals.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(()))
    }
}

struct Running {
    counted: watch::Receiver<Counters>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn run(region: &Region, nova: &FakeNova) -> Running {
    let access = Tokens {
        endpoint: nova.endpoint.clone(),
        refusals: Arc::default(),
    };
    let (counter, counted) = watch::channel(Counters::default());
    let stop = CancellationToken::new();
    let http = HttpClient::new(None, Duration::from_secs(10)).unwrap();
    let client = NovaClient::new(http, Arc::new(access));
    let pace = Pace::default();
    let task = tokio::spawn(alcor_nova::run(
        region.clone(),
        client,
        pace,
        counter,
        stop.clone(),
    ));
    Running { counted, stop, task }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn admin() -> Caller {
    Caller {
        project_id: "p".into(),
        is_admin: true,
    }
}

fn open(dir: &tempfile::TempDir) -> Region {
    let engine = SqliteEngine::open(&dir.path().join("region.sqlite")).unwrap();
    Region::open(Box::new(engine), RegionConfig::default()).unwrap()
}

async fn port(region: &Region) -> Arc<Port> {
    let network = region
        .create::<Network>(&admin(), vec![NetworkCreate::default()])
        .await
        .unwrap()
        .remove(0);
    let create = PortCreate {
        device_id: SERVER.into(),
        device_owner: "compute:nova".into(),
        binding_host_id: "host-1".into(),
        ..PortCreate::new(network.id)
    };
    region
        .create::<Port>(&admin(), vec![create])
        .await
        .unwrap()
        .remove(0)
}

async fn report(region: &Region, port: &Port, status: PortStatus) {
    let report = PortReport {
        port_id: port.id,
        host_id: "host-1".into(),
        applied_revision: port.revision,
        status,
        reason: None,
    };
    assert_eq!(region.report_ports(vec![report]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_ports_life_is_told_in_order_and_not_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let region = open(&dir);
    let port = port(&region).await;
    let mut nova = FakeNova::start(&[]).await;
    let running = run(&region, &nova);

    report(&region, &port, PortStatus::Active).await;
    assert_eq!(
        nova.next().await,
        (
            Some("token-0".into()),
            vec!["network-vif-plugged/completed".into()]
        )
    );
    report(&region, &port, PortStatus::Down).await;
    assert_eq!(nova.next().await.1, ["network-vif-unplugged/completed"]);
    report(&region, &port, PortStatus::Error).await;
    assert_eq!(nova.next().await.1, ["network-vif-plugged/failed"]);
    report(&region, &port, PortStatus::Active).await;
    assert_eq!(nova.next().await.1, ["network-vif-plugged/completed"]);
    running.stop().await;

    // What was so before the start is not told; the next change is.
    let running = run(&region, &nova);
    let update = PortUpdate {
        binding_profile: json!({"numa": 1}).as_object().cloned(),
        ..PortUpdate::default()
    };
    region
        .update::<Port>(&admin(), port.id, update, None)
        .await
        .unwrap();
    assert_eq!(nova.next().await.1, ["network-changed/completed"]);
    region.delete::<Port>(&admin(), port.id, None).await.unwrap();
    assert_eq!(nova.next().await.1, ["network-vif-deleted/completed"]);
    running.stop().await;
    assert!(nova.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_live_migration_is_told_when_the_new_host_has_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let region = open(&dir);
    let port = port(&region).await;
    let mut nova = FakeNova::start(&[]).await;
    let running = run(&region, &nova);
    report(&region, &port, PortStatus::Active).await;
    assert_eq!(nova.next().await.1, ["network-vif-plugged/completed"]);

    let id = port.id;
    let command = BindingCreate {
        host: "host-2".into(),
        vnic_type: None,
        profile: None,
    };
    let prepared = region
        .write(move |tx, env| binding::create(tx, env, &admin(), id, command))
        .await
        .unwrap();
    // Still active where it was: that is no news.
    let snapshot = region.snapshot();
    assert_eq!(snapshot.state.port_status(&prepared).0, PortStatus::Active);

    let moved = region
        .write(move |tx, env| binding::activate(tx, env, &admin(), id, "host-2"))
        .await
        .unwrap();
    assert_eq!(nova.next().await.1, ["network-vif-unplugged/completed"]);
    // The host that it left has no say any more.
    let late = PortReport {
        port_id: id,
        host_id: "host-1".into(),
        applied_revision: moved.revision,
        status: PortStatus::Active,
        reason: None,
    };
    region.report_ports(vec![late.clone()]).await.unwrap();
    let there = PortReport {
        host_id: "host-2".into(),
        ..late
    };
    assert_eq!(region.report_ports(vec![there]).await.unwrap(), 1);
    assert_eq!(nova.next().await.1, ["network-vif-plugged/completed"]);
    region
        .write(move |tx, env| binding::delete(tx, env, &admin(), id, "host-1"))
        .await
        .unwrap();
    region.delete::<Port>(&admin(), id, None).await.unwrap();
    assert_eq!(
        nova.next().await.1,
        ["network-vif-deleted/completed"],
        "and nothing of the old binding"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_a_failing_nova_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let region = open(&dir);
    let port = port(&region).await;
    let mut nova = FakeNova::start(&[401, 503]).await;
    let mut running = run(&region, &nova);
    report(&region, &port, PortStatus::Active).await;
    let plugged = vec!["network-vif-plugged/completed".to_owned()];
    assert_eq!(nova.next().await, (Some("token-0".into()), plugged.clone()));
    assert_eq!(nova.next().await, (Some("token-1".into()), plugged.clone()));
    assert_eq!(nova.next().await, (Some("token-1".into()), plugged));
    let counters = *running
        .counted
        .wait_for(|counters| counters.delivered == 1)
        .await
        .unwrap();
    assert_eq!((counters.retries, counters.given_up), (2, 0));
    running.stop().await;
}

#[tokio::test]
async fn what_nova_finds_wrong_is_given_up_and_ports_of_others_are_not_its_business() {
    let dir = tempfile::tempdir().unwrap();
    let region = open(&dir);
    let port = port(&region).await;
    let mut nova = FakeNova::start(&[400]).await;
    let mut running = run(&region, &nova);
    let router_port = PortCreate {
        device_id: SERVER.into(),
        device_owner: "network:router_interface".into(),
        ..PortCreate::new(port.network_id)
    };
    region.create::<Port>(&admin(), vec![router_port]).await.unwrap();
    report(&region, &port, PortStatus::Active).await;
    assert_eq!(nova.next().await.1, ["network-vif-plugged/completed"]);
    running
        .counted
        .wait_for(|counters| counters.given_up == 1)
        .await
        .unwrap();
    report(&region, &port, PortStatus::Down).await;
    assert_eq!(nova.next().await.1, ["network-vif-unplugged/completed"]);
    running.stop().await;
}
