//! The whole agent in one process: an NCM of a few lines on loopback, the model as data plane, the local socket.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;
#[path = "common/world.rs"]
mod world;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use alcor_agent::{AgentConfig, AgentError, core::LEASE_MIN, run};
use alcor_dataplane::{
    ConnectionEntry, Dataplane, DataplaneError, Drops, Event, Ingress, PuntReason, Row, RowChange, Snapshot,
    Verdict, model::Model,
};
use alcor_model::{Id, Network, Port, Revision};
use alcor_proto::v1::{
    self, SnapshotPhase,
    agent_message::Body,
    ncm_message,
    southbound_server::{Southbound, SouthboundServer},
};
use alcor_southbound::convert::resolve::{
    Answer, Question, Verdict as Answered, decode_questions, encode_answers,
};
use common::{Key, port_id, row};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixStream},
    sync::{Notify, mpsc, oneshot},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// One agent's stream, as the test sees it.
struct Stream {
    hello: v1::Hello,
    from_agent: Streaming<v1::AgentMessage>,
    to_agent: mpsc::Sender<Result<v1::NcmMessage, Status>>,
    sequence: u64,
}

struct FakeNcm(mpsc::Sender<Stream>);

#[tonic::async_trait]
impl Southbound for FakeNcm {
    type SessionStream = ReceiverStream<Result<v1::NcmMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut from_agent = request.into_inner();
        let Some(Body::Hello(hello)) = from_agent.message().await?.and_then(|message| message.body) else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (to_agent, receiver) = mpsc::channel(64);
        let welcome = v1::Welcome {
            session_id: 1,
            heartbeat_interval_ms: 100,
        };
        let body = Some(ncm_message::Body::Welcome(welcome));
        to_agent.send(Ok(v1::NcmMessage { body })).await.unwrap();
        self.0
            .send(Stream {
                hello,
                from_agent,
                to_agent,
                sequence: 0,
            })
            .await
            .unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Stream {
    async fn delta(&mut self, snapshot: SnapshotPhase, revision: u64, rows: Vec<v1::Row>) {
        self.sequence += 1;
        let delta = v1::Delta {
            sequence: self.sequence,
            network_id: common::network_id(0).uuid().as_bytes().to_vec().into(),
            revision,
            snapshot: snapshot.into(),
            rows,
            committed_us: 1,
            sent_us: 2,
        };
        let body = Some(ncm_message::Body::Delta(delta));
        self.to_agent.send(Ok(v1::NcmMessage { body })).await.unwrap();
    }

    /// The next message that `wanted` knows.
    async fn next<T>(&mut self, wanted: impl Fn(Body) -> Option<T>) -> T {
        loop {
            let message = self.from_agent.message().await.unwrap().unwrap();
            if let Some(found) = wanted(message.body.unwrap()) {
                return found;
            }
        }
    }

    async fn receipt(&mut self) -> v1::Receipt {
        self.next(|body| {
            if let Body::Receipt(receipt) = body {
                Some(receipt)
            } else {
                None
            }
        })
        .await
    }

    async fn report(&mut self) -> v1::PortReport {
        self.next(|body| {
            if let Body::PortReport(report) = body {
                Some(report)
            } else {
                None
            }
        })
        .await
    }
}

/// A model that the test keeps a hand on; it tells when a packet that was held goes on.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Model>>, Arc<Notify>);

impl Dataplane for Shared {
    fn filters(&self) -> bool {
        true
    }
    fn name(&self) -> &'static str {
        "model"
    }
    fn apply(&mut self, changes: &[RowChange]) -> Vec<Result<(), DataplaneError>> {
        self.0.lock().unwrap().apply(changes)
    }
    fn attach(&mut self, port: Id<Port>, device: &str) -> Result<(), DataplaneError> {
        self.0.lock().unwrap().attach(port, device)
    }
    fn detach(&mut self, port: Id<Port>) -> Result<(), DataplaneError> {
        self.0.lock().unwrap().detach(port)
    }
    fn snapshot(&mut self) -> Result<Snapshot, DataplaneError> {
        self.0.lock().unwrap().snapshot()
    }
    fn inject(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        self.0.lock().unwrap().inject(port, frame)
    }
    fn release(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        let outcome = self.0.lock().unwrap().release(port, frame);
        self.1.notify_one();
        outcome
    }
    fn take_used(&mut self, keys: &[(Id<Network>, IpAddr)]) -> Result<Vec<bool>, DataplaneError> {
        self.0.lock().unwrap().take_used(keys)
    }
    fn events(&mut self) -> Option<mpsc::Receiver<Event>> {
        self.0.lock().unwrap().events()
    }
    fn connections(&mut self, port: Id<Port>) -> Result<Vec<ConnectionEntry>, DataplaneError> {
        self.0.lock().unwrap().connections(port)
    }
    fn drops(&mut self) -> Result<Drops, DataplaneError> {
        self.0.lock().unwrap().drops()
    }
}

struct World {
    model: Shared,
    streams: mpsc::Receiver<Stream>,
    address: SocketAddr,
    folder: tempfile::TempDir,
    watch_links: bool,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, streams) = mpsc::channel(4);
        let server = tonic::transport::Server::builder().add_service(SouthboundServer::new(FakeNcm(sender)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            model: Shared::default(),
            streams,
            address,
            folder: tempfile::tempdir().unwrap(),
            watch_links: false,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    fn config(&self) -> AgentConfig {
        AgentConfig {
            host: "host-1".to_owned(),
            ncm: format!("http://{}", self.address),
            socket: self.socket(),
            watch_links: self.watch_links,
            ..AgentConfig::default()
        }
    }

    fn start(&self) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let agent = run(self.config(), Box::new(self.model.clone()), async {
            _ = stopped.await
        });
        Running {
            stop,
            agent: tokio::spawn(agent),
        }
    }

    async fn ask(&self, line: &str) -> Value {
        let (reader, mut writer) = UnixStream::connect(self.socket()).await.unwrap().into_split();
        writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        BufReader::new(reader).read_line(&mut answer).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    agent: tokio::task::JoinHandle<Result<(), AgentError>>,
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.agent.await.unwrap().unwrap();
    }
}

fn wire(key: Key, revision: u64) -> v1::Row {
    alcor_southbound::convert::encode_row(Revision(revision), &row(key, revision))
}

const KEYS: [Key; 4] = [
    Key::Network(0),
    Key::Subnet(0),
    Key::Port(0, 1),
    Key::Neighbour(0, 1),
];

fn rows() -> Vec<Row> {
    let mut rows: Vec<_> = KEYS.iter().map(|key| row(*key, 5)).collect();
    rows.sort_by_key(Row::key);
    rows
}

#[tokio::test]
async fn a_packet_is_held_until_its_peer_is_known_and_a_lease_is_renewed_by_use() {
    let mut world = World::new().await;
    let agent = world.start();
    let mut stream = world.streams.recv().await.unwrap();
    let Row::Network(network) = row(Key::Network(0), 5) else {
        panic!("not a network");
    };
    let on_demand = Row::Network(alcor_dataplane::NetworkRow {
        on_demand: true,
        ..network
    });
    let on_demand = alcor_southbound::convert::encode_row(Revision(5), &on_demand);
    let rows = vec![on_demand, wire(Key::Subnet(0), 5), wire(Key::Port(0, 1), 5)];
    stream.delta(SnapshotPhase::Whole, 5, rows).await;
    assert_eq!(stream.receipt().await.refused, []);
    let attach = json!({"attach": {"port_id": port_id(0, 1), "device": "veth7"}}).to_string();
    assert_eq!(world.ask(&attach).await["condition"], "wired");

    let Row::Neighbour(peer) = row(Key::Neighbour(0, 1), 6) else {
        panic!("not a neighbour");
    };
    let ingress = || Ingress::Port(port_id(0, 1));
    let frame = world::arp(1, peer.ip);
    let verdict = world.model.0.lock().unwrap().process(ingress(), &frame);
    assert_eq!(verdict, Verdict::Punt(PuntReason::Unresolved));
    let asked = |body| match body {
        Body::Resolve(resolve) => Some(resolve),
        _ => None,
    };
    let message = stream.next(asked).await;
    let question = Question {
        network: common::network_id(0),
        ip: peer.ip,
        port: Some(port_id(0, 1)),
    };
    assert_eq!(decode_questions(&message), Ok(vec![question]));
    let answer = Answer {
        verdict: Answered::Route(Revision(6), peer),
        lease: LEASE_MIN,
    };
    let body = Some(ncm_message::Body::Resolved(encode_answers(message.id, &[answer])));
    stream.to_agent.send(Ok(v1::NcmMessage { body })).await.unwrap();
    world.model.1.notified().await;
    let released = world.model.0.lock().unwrap().take_released();
    assert!(
        matches!(released[..], [(port, Verdict::Reply { .. })] if port == port_id(0, 1)),
        "{released:?}"
    );

    // It was used, so it is asked for again before its lease is over.
    let message = stream.next(asked).await;
    let renewal = Question {
        port: None,
        ..question
    };
    assert_eq!(decode_questions(&message), Ok(vec![renewal]));
    let state = world.ask(r#"{"state": {}}"#).await;
    let learning = &state["learning"];
    assert_eq!(
        (&learning["learned"], &learning["released"]),
        (&json!(1), &json!(1)),
        "{state}"
    );
    agent.stop().await;
}

#[tokio::test]
async fn rows_arrive_receipts_return_and_a_restart_changes_nothing() {
    let mut world = World::new().await;
    let agent = world.start();
    let mut stream = world.streams.recv().await.unwrap();
    assert_eq!(
        (stream.hello.host.as_str(), stream.hello.held.len()),
        ("host-1", 0)
    );
    let mut sent: Vec<v1::Row> = KEYS.iter().map(|key| wire(*key, 5)).collect();
    sent.push(v1::Row {
        revision: 5,
        body: None,
    });
    stream.delta(SnapshotPhase::Whole, 5, sent).await;
    let receipt = stream.receipt().await;
    assert_eq!(receipt.sequence, 1);
    assert!(receipt.received_us > 0 && receipt.visible_us >= receipt.received_us);
    assert_eq!(
        receipt.refused.iter().map(|error| error.row).collect::<Vec<_>>(),
        [4]
    );
    // The receipt comes first: with it the NCM knows how long the rows took that reports are about.
    let report = stream.report().await;
    assert_eq!(
        (report.condition(), report.revision),
        (v1::PortCondition::NoDevice, 5)
    );
    assert_eq!(world.model.0.lock().unwrap().snapshot().unwrap().rows, rows());

    let attach = json!({"attach": {"port_id": port_id(0, 1), "device": "veth7"}}).to_string();
    let answer = world.ask(&attach).await;
    assert_eq!(
        (&answer["ok"], &answer["condition"]),
        (&json!(true), &json!("wired")),
        "{answer}"
    );
    assert_eq!(stream.report().await.condition(), v1::PortCondition::Wired);
    stream
        .next(|body| matches!(body, Body::Heartbeat(_)).then_some(()))
        .await;

    agent.stop().await;
    assert_eq!(
        world.model.0.lock().unwrap().snapshot().unwrap().rows,
        rows(),
        "the data plane stays"
    );
    let agent = world.start();
    let mut stream = world.streams.recv().await.unwrap();
    assert_eq!(
        stream
            .hello
            .held
            .iter()
            .map(|held| held.revision)
            .collect::<Vec<_>>(),
        [0]
    );
    stream
        .delta(
            SnapshotPhase::Whole,
            6,
            KEYS.iter().map(|key| wire(*key, 5)).collect(),
        )
        .await;
    assert_eq!(stream.receipt().await.refused, []);
    // The network was not complete before: a row could not be read. Now it is.
    drop(stream);
    let stream = world.streams.recv().await.unwrap();
    assert_eq!(
        stream
            .hello
            .held
            .iter()
            .map(|held| held.revision)
            .collect::<Vec<_>>(),
        [6]
    );
    let devices = world.model.0.lock().unwrap().snapshot().unwrap().devices;
    assert_eq!(
        devices.into_iter().collect::<Vec<_>>(),
        [(port_id(0, 1), "veth7".to_owned())]
    );
    agent.stop().await;
    assert!(!world.socket().exists());
}

#[tokio::test]
async fn what_a_port_asks_is_answered() {
    let mut world = World::new().await;
    let agent = world.start();
    let mut stream = world.streams.recv().await.unwrap();
    stream
        .delta(
            SnapshotPhase::Whole,
            5,
            KEYS.iter().map(|key| wire(*key, 5)).collect(),
        )
        .await;
    stream.receipt().await;
    let attach = json!({"attach": {"port_id": port_id(0, 1), "device": "veth7"}}).to_string();
    world.ask(&attach).await;
    let solicitation = {
        let mac = alcor_model::MacAddr([2, 0, 0, 1, 0, 1]);
        let packet = alcor_agent::responder::frame::icmpv6(
            mac.link_local(),
            "ff02::2".parse().unwrap(),
            255,
            vec![133, 0, 0, 0, 0, 0, 0, 0],
        );
        let group = alcor_model::MacAddr([0x33, 0x33, 0, 0, 0, 2]);
        alcor_agent::responder::frame::ethernet(group, mac, 0x86dd, &packet)
    };
    let ingress = alcor_dataplane::Ingress::Port(port_id(0, 1));
    world.model.0.lock().unwrap().process(ingress, &solicitation);
    // The advertisement of the wiring, and the answer, which is sent to the port's MAC.
    let mut injected = Vec::new();
    while !injected
        .iter()
        .any(|(_, frame): &(_, bytes::Bytes)| frame[..6] == [2, 0, 0, 1, 0, 1])
    {
        injected.extend(world.model.0.lock().unwrap().take_injected());
        tokio::task::yield_now().await;
    }
    let state = world.ask(r#"{"state": {}}"#).await;
    assert_eq!(state["punts_answered"], 1);
    let ingress = alcor_dataplane::Ingress::Port(port_id(0, 1));
    world.model.0.lock().unwrap().process(ingress, &[0; 10]);
    let drops = world.ask(r#"{"drops": {}}"#).await;
    let line = serde_json::json!({"port_id": port_id(0, 1), "reason": "malformed", "packets": 1});
    assert!(drops["drops"].as_array().unwrap().contains(&line), "{drops}");
    // A host is no gateway, and says so.
    let gateway = world.ask(r#"{"gateway": {}}"#).await;
    assert_eq!(gateway["error"], "this is not a gateway");
    // The port is not filtered, so nothing of it is tracked.
    let ask = json!({"connections": {"port_id": port_id(0, 1)}}).to_string();
    let connections = world.ask(&ask).await;
    assert_eq!(connections, json!({"ok": true, "connections": []}));
    agent.stop().await;
}

#[tokio::test]
async fn bad_lines_and_bad_settings_are_said() {
    let world = World::new().await;
    let agent = world.start();
    while !world.socket().exists() {
        tokio::task::yield_now().await;
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&world.socket().metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for line in [
        "",
        "{",
        r#"{"attach": {}}"#,
        r#"{"state": {"x": 1}}"#,
        r#"{"explode": {}}"#,
        &"x".repeat(9_000),
    ] {
        let answer = world.ask(line).await;
        assert!(answer["error"].is_string(), "{line}: {answer}");
    }
    let second = run(world.config(), Box::new(Model::default()), std::future::pending()).await;
    assert!(matches!(second, Err(AgentError::Socket { .. })), "{second:?}");
    agent.stop().await;
    for config in [
        AgentConfig {
            host: String::new(),
            ..world.config()
        },
        AgentConfig {
            ncm: "not a uri".to_owned(),
            ..world.config()
        },
        AgentConfig {
            tunnel_ip: "0.0.0.0".parse().unwrap(),
            ..world.config()
        },
        AgentConfig {
            dhcp_lease_s: 1,
            ..world.config()
        },
    ] {
        let refused = run(config, Box::new(Model::default()), std::future::pending()).await;
        assert!(matches!(refused, Err(AgentError::Config { .. })), "{refused:?}");
    }
}

fn ip(arguments: &str) {
    let status = std::process::Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// In a network namespace of its own, which ends with its thread.
#[test]
#[cfg_attr(
    not(feature = "root-tests"),
    ignore = "needs root: makes a network namespace and devices in it"
)]
fn devices_are_found_by_name_set_up_and_missed() {
    let namespace = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        // One thread, so that every socket is opened in the namespace.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(found_by_name());
    });
    namespace.join().unwrap();
}

async fn found_by_name() {
    let mut world = World {
        watch_links: true,
        ..World::new().await
    };
    let device = alcor_model::Port::device_name(port_id(0, 1));
    let agent = world.start();
    let mut stream = world.streams.recv().await.unwrap();
    stream
        .delta(
            SnapshotPhase::Whole,
            5,
            KEYS.iter().map(|key| wire(*key, 5)).collect(),
        )
        .await;
    stream.receipt().await;
    // Made down, under another name: renamed, then set up by the agent.
    ip("link add before type veth peer name vm");
    ip(&format!("link set before name {device}"));
    while stream.report().await.condition() != v1::PortCondition::Wired {}
    ip(&format!("link set {device} down"));
    // Said, and set up again.
    assert_eq!(stream.report().await.condition(), v1::PortCondition::NoDevice);
    assert_eq!(stream.report().await.condition(), v1::PortCondition::Wired);
    ip(&format!("link del {device}"));
    let report = stream.report().await;
    assert_eq!(report.condition(), v1::PortCondition::NoDevice);
    assert!(report.reason.contains(&device), "{}", report.reason);
    agent.stop().await;
}
