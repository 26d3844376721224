//! The agent with the real NCM over loopback: what the region has ends in the data plane, what the data plane did ends
//! in the region.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

#[path = "common/region.rs"]
mod region;

use std::{net::IpAddr, path::Path, sync::Arc};

use alcor_agent::{AgentConfig, run};
use alcor_dataplane::{
    ConnectionEntry, Dataplane, DataplaneError, Drops, Row, RowChange, RowKey, Snapshot, model::Model,
};
use alcor_model::{Change, Id, Network, Port, Resource, ResourceKey, Revision, resource::PortStatus};
use alcor_ncm::{core::Options, service::NcmHandle};
use region::{Region, host, network, port, put, subnet};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixStream},
    sync::{mpsc, oneshot},
};

/// A data plane that tells the test after each change.
struct Told {
    model: Model,
    rows: mpsc::UnboundedSender<Vec<RowKey>>,
}

impl Dataplane for Told {
    fn filters(&self) -> bool {
        true
    }
    fn name(&self) -> &'static str {
        "model"
    }
    fn apply(&mut self, changes: &[RowChange]) -> Vec<Result<(), DataplaneError>> {
        let outcomes = self.model.apply(changes);
        let rows = self.model.snapshot().unwrap().rows;
        let _ = self.rows.send(rows.iter().map(Row::key).collect());
        outcomes
    }
    fn attach(&mut self, port: Id<Port>, device: &str) -> Result<(), DataplaneError> {
        self.model.attach(port, device)
    }
    fn detach(&mut self, port: Id<Port>) -> Result<(), DataplaneError> {
        self.model.detach(port)
    }
    fn snapshot(&mut self) -> Result<Snapshot, DataplaneError> {
        self.model.snapshot()
    }
    fn inject(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        self.model.inject(port, frame)
    }
    fn release(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        self.model.release(port, frame)
    }
    fn take_used(&mut self, keys: &[(Id<Network>, IpAddr)]) -> Result<Vec<bool>, DataplaneError> {
        self.model.take_used(keys)
    }
    fn events(&mut self) -> Option<mpsc::Receiver<alcor_dataplane::Event>> {
        self.model.events()
    }
    fn connections(&mut self, port: Id<Port>) -> Result<Vec<ConnectionEntry>, DataplaneError> {
        self.model.connections(port)
    }
    fn drops(&mut self) -> Result<Drops, DataplaneError> {
        self.model.drops()
    }
}

async fn ask(socket: &Path, line: String) -> serde_json::Value {
    let (reader, mut writer) = UnixStream::connect(socket).await.unwrap().into_split();
    writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    BufReader::new(reader).read_line(&mut answer).await.unwrap();
    serde_json::from_str(&answer).unwrap()
}

async fn until<T>(receiver: &mut mpsc::UnboundedReceiver<T>, wanted: impl Fn(&T) -> bool) {
    while !wanted(&receiver.recv().await.unwrap()) {}
}

#[tokio::test]
async fn a_port_goes_from_the_region_to_the_data_plane_and_its_status_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (report_sender, mut reports) = mpsc::unbounded_channel();
    let ncm = NcmHandle::start(Options::default(), Arc::new(Region(report_sender)));
    tokio::spawn(alcor_southbound::server::serve(
        alcor_tls::Incoming::new(listener, None),
        ncm.clone(),
        std::future::pending(),
    ));

    let (network_id, subnet_id) = (Id::generate(), Id::generate());
    let mut mine = port(network_id, subnet_id, 9, "host-1", 4);
    let other = port(network_id, subnet_id, 10, "host-2", 5);
    let mut all = vec![host("host-1", "192.0.2.1"), host("host-2", "192.0.2.2")];
    all.extend([network(network_id), subnet(subnet_id, network_id)]);
    all.extend([&mine, &other].map(|port| Resource::Port(Arc::new(port.clone()))));
    ncm.snapshot(Revision(5), all).await;

    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let config = AgentConfig {
        host: "host-1".to_owned(),
        tunnel_ip: "192.0.2.1".parse().unwrap(),
        ncm: format!("http://{address}"),
        socket: socket.clone(),
        watch_links: false,
        ..AgentConfig::default()
    };
    let (row_sender, mut rows) = mpsc::unbounded_channel();
    let dataplane = Told {
        model: Model::default(),
        rows: row_sender,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let agent = tokio::spawn(run(config, Box::new(dataplane), async { _ = stopped.await }));

    let expected = |neighbour: Option<u8>| {
        let mut keys = vec![
            RowKey::Network(network_id),
            RowKey::Subnet(network_id, subnet_id),
            RowKey::Port(network_id, mine.id),
        ];
        keys.extend(neighbour.map(|last| RowKey::Neighbour(network_id, [10, 0, 0, last].into())));
        keys.sort();
        keys
    };
    let (with, without) = (expected(Some(10)), expected(None));
    until(&mut rows, |keys| *keys == with).await;
    until(&mut reports, |report| report.status == PortStatus::Down).await;
    let attach = serde_json::json!({"attach": {"port_id": mine.id, "device": "veth9"}});
    assert_eq!(ask(&socket, attach.to_string()).await["condition"], "wired");
    until(&mut reports, |report| {
        report.port_id == mine.id
            && report.status == PortStatus::Active
            && report.applied_revision == Revision(4)
    })
    .await;

    // A change of the port is reported with its revision; a neighbour that goes leaves the data plane.
    mine.revision = Revision(6);
    mine.dns_name = "web".to_owned();
    ncm.changes(vec![put(&mine)], 1).await;
    until(&mut reports, |report| report.applied_revision == Revision(6)).await;
    let gone = Change::Delete {
        key: ResourceKey::Port(other.id),
        revision: Revision(7),
    };
    ncm.changes(vec![gone], 2).await;
    until(&mut rows, |keys| *keys == without).await;

    // Unbound: the host has no business with the network any more.
    mine.revision = Revision(8);
    mine.binding.host_id.clear();
    ncm.changes(vec![put(&mine)], 3).await;
    until(&mut rows, Vec::is_empty).await;
    // The agent hears of what its data plane has done a moment after this test does.
    let mut state = ask(&socket, r#"{"state": {}}"#.to_owned()).await;
    for _ in 0..1_000 {
        if state["networks"] == serde_json::json!([]) {
            break;
        }
        state = ask(&socket, r#"{"state": {}}"#.to_owned()).await;
    }
    assert_eq!(state["networks"], serde_json::json!([]));
    assert_eq!(state["ports"], serde_json::json!([]));
    stop.send(()).unwrap();
    agent.await.unwrap().unwrap();
}
