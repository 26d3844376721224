//! A network on demand over real sockets: agents with model data planes and the real NCM. A packet to a peer that the host
//! does not know is held, the peer is asked for, the packet goes on; the peer moves while it is talked to, and goes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

#[path = "common/region.rs"]
mod region;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use alcor_agent::{AgentConfig, AgentError, run};
use alcor_dataplane::{
    ConnectionEntry, Dataplane, DataplaneError, DropReason, Drops, Ingress, PuntReason, Row, RowChange,
    RowKey, Snapshot, Verdict, model::Model,
};
use alcor_model::{Change, Id, Network, Port, Resource, ResourceKey, Revision};
use alcor_ncm::{core::Options, service::NcmHandle};
use region::{Region, network, port, put, subnet};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixStream},
    sync::{Notify, mpsc, oneshot},
};

const VNI: u32 = 7;

/// A model that the test keeps a hand on, and that tells it of news.
#[derive(Clone, Default)]
struct Shared {
    model: Arc<Mutex<Model>>,
    news: Arc<Notify>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }
}

impl Dataplane for Shared {
    fn filters(&self) -> bool {
        true
    }
    fn name(&self) -> &'static str {
        "model"
    }
    fn apply(&mut self, changes: &[RowChange]) -> Vec<Result<(), DataplaneError>> {
        let outcomes = self.lock().apply(changes);
        self.news.notify_one();
        outcomes
    }
    fn attach(&mut self, port: Id<Port>, device: &str) -> Result<(), DataplaneError> {
        self.lock().attach(port, device)
    }
    fn detach(&mut self, port: Id<Port>) -> Result<(), DataplaneError> {
        self.lock().detach(port)
    }
    fn snapshot(&mut self) -> Result<Snapshot, DataplaneError> {
        self.lock().snapshot()
    }
    fn inject(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        self.lock().inject(port, frame)
    }
    fn release(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        let outcome = self.lock().release(port, frame);
        self.news.notify_one();
        outcome
    }
    fn take_used(&mut self, keys: &[(Id<Network>, IpAddr)]) -> Result<Vec<bool>, DataplaneError> {
        self.lock().take_used(keys)
    }
    fn events(&mut self) -> Option<mpsc::Receiver<alcor_dataplane::Event>> {
        self.lock().events()
    }
    fn connections(&mut self, port: Id<Port>) -> Result<Vec<ConnectionEntry>, DataplaneError> {
        self.lock().connections(port)
    }
    fn drops(&mut self) -> Result<Drops, DataplaneError> {
        self.lock().drops()
    }
}

/// A host: its agent runs.
struct Host {
    number: u8,
    dataplane: Shared,
    folder: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    agent: tokio::task::JoinHandle<Result<(), AgentError>>,
}

fn name(number: u8) -> String {
    format!("host-{number}")
}

fn tunnel_ip(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

impl Host {
    fn start(number: u8, ncm: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = AgentConfig {
            host: name(number),
            tunnel_ip: tunnel_ip(number),
            ncm: format!("http://{ncm}"),
            socket: folder.path().join("agent.sock"),
            watch_links: false,
            ..AgentConfig::default()
        };
        let dataplane = Shared::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let agent = tokio::spawn(run(config, Box::new(dataplane.clone()), async {
            _ = stopped.await
        }));
        Self {
            number,
            dataplane,
            folder,
            stop,
            agent,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    async fn ask(&self, line: Value) -> Value {
        let (reader, mut writer) = UnixStream::connect(self.socket()).await.unwrap().into_split();
        writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        BufReader::new(reader).read_line(&mut answer).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// Waits until the data plane is as wanted.
    async fn until<T>(&self, wanted: impl Fn(&mut Model) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&mut self.dataplane.lock()) {
                return found;
            }
            self.dataplane.news.notified().await;
        }
    }

    async fn until_row(&self, wanted: impl Fn(&Row) -> bool) {
        let has = |model: &mut Model| model.snapshot().unwrap().rows.iter().any(&wanted).then_some(());
        self.until(has).await;
    }

    async fn until_gone(&self, key: RowKey) {
        let rows = |model: &mut Model| model.snapshot().unwrap().rows;
        let gone = |model: &mut Model| rows(model).iter().all(|row| row.key() != key).then_some(());
        self.until(gone).await;
    }

    /// Waits for the port and gives it a device.
    async fn wire(&self, port: Id<Port>) {
        self.until_row(|row| matches!(row, Row::Port(row) if row.id == port))
            .await;
        let device = format!("tap{}", &port.to_string()[24..]);
        let attach = json!({"attach": {"port_id": port, "device": device}});
        assert_eq!(self.ask(attach).await["condition"], "wired");
    }

    fn send(&self, from: Id<Port>, frame: &[u8]) -> Verdict {
        self.dataplane.lock().process(Ingress::Port(from), frame)
    }

    /// A packet of a tunnel, as `sent` on another host.
    fn receive(&self, source: &Self, sent: &Verdict) -> Verdict {
        let Verdict::Tunnel {
            host,
            vni,
            label,
            forwarded,
            frame,
        } = sent
        else {
            panic!("not sent to another host: {sent:?}");
        };
        assert_eq!((*host, vni.get()), (tunnel_ip(self.number), VNI));
        let ingress = Ingress::Tunnel {
            source: tunnel_ip(source.number),
            vni: vni.get(),
            label: *label,
            forwarded: *forwarded,
        };
        self.dataplane.lock().process(ingress, frame)
    }
}

fn ip(last: u8) -> [u8; 4] {
    [10, 0, 0, last]
}

fn mac(last: u8) -> [u8; 6] {
    [0xfa, 0x16, 0x3e, 0, 0, last]
}

/// "Who has this address?"
fn arp(from: u8, to: u8) -> Vec<u8> {
    let kind = [0, 1, 8, 0, 6, 4, 0, 1];
    [
        &[0xff; 6][..],
        &mac(from),
        &[8, 6],
        &kind,
        &mac(from),
        &ip(from),
        &[0; 6],
        &ip(to),
    ]
    .concat()
}

/// A packet of 20 bytes, of a protocol for experiments.
fn packet(from: u8, to: u8) -> Vec<u8> {
    let ethernet = [&mac(to)[..], &mac(from), &[8, 0]].concat();
    let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0];
    [&ethernet[..], &header, &ip(from), &ip(to)].concat()
}

fn assert_delivered(verdict: &Verdict, to: Id<Port>) {
    assert!(
        matches!(verdict, Verdict::Deliver { port, .. } if *port == to),
        "{verdict:?}"
    );
}

async fn ncm() -> (NcmHandle, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = Options {
        eager_rows_max: 0,
        ..Options::default()
    };
    let (reports, _) = mpsc::unbounded_channel();
    let ncm = NcmHandle::start(options, Arc::new(Region(reports)));
    tokio::spawn(alcor_southbound::server::serve(
        alcor_tls::Incoming::new(listener, None),
        ncm.clone(),
        std::future::pending(),
    ));
    (ncm, address)
}

#[tokio::test]
async fn a_peer_is_learned_followed_when_it_moves_and_missed_when_it_is_gone() {
    let (ncm, address) = ncm().await;
    let (network_id, subnet_id) = (Id::generate(), Id::generate());
    let mine = port(network_id, subnet_id, 9, "host-1", 4);
    let mut peer = port(network_id, subnet_id, 10, "host-2", 5);
    let third = port(network_id, subnet_id, 11, "host-3", 6);
    let hosts = [1, 2, 3].map(|number| region::host(&name(number), &tunnel_ip(number).to_string()));
    let mut all = hosts.to_vec();
    all.extend([network(network_id), subnet(subnet_id, network_id)]);
    all.extend([&mine, &peer, &third].map(|port| Resource::Port(Arc::new(port.clone()))));
    ncm.snapshot(Revision(6), all).await;
    let [one, two, three] = [1, 2, 3].map(|number| Host::start(number, address));
    one.wire(mine.id).await;
    two.wire(peer.id).await;
    three.wire(third.id).await;
    let neighbour = RowKey::Neighbour(network_id, ip(10).into());
    one.until_gone(neighbour).await;

    // The first packet waits for the answer.
    let verdict = one.send(mine.id, &arp(9, 10));
    assert_eq!(verdict, Verdict::Punt(PuntReason::Unresolved));
    let released = one.until(|model| model.take_released().pop()).await;
    assert!(
        matches!(&released, (port, Verdict::Reply { frame }) if *port == mine.id && frame[6..12] == mac(10)),
        "{released:?}"
    );
    let sent = one.send(mine.id, &packet(9, 10));
    assert_delivered(&two.receive(&one, &sent), peer.id);

    // It moves to the third host.
    peer.revision = Revision(7);
    peer.binding.host_id = name(3);
    ncm.changes(vec![put(&peer)], 1).await;
    let on_third = |row: &Row| matches!(row, Row::Neighbour(row) if row.ip == IpAddr::from(ip(10)) && row.host == tunnel_ip(3));
    three.until_gone(neighbour).await;
    three.wire(peer.id).await;
    two.until_gone(RowKey::Port(network_id, peer.id)).await;
    two.until_row(on_third).await;
    let late = two.receive(&one, &sent);
    assert!(
        matches!(late, Verdict::Tunnel { forwarded: true, .. }),
        "{late:?}"
    );
    assert_delivered(&three.receive(&two, &late), peer.id);
    one.until_row(on_third).await;
    let next = one.send(mine.id, &packet(9, 10));
    assert_delivered(&three.receive(&one, &next), peer.id);

    // It is gone.
    let gone = Change::Delete {
        key: ResourceKey::Port(peer.id),
        revision: Revision(8),
    };
    ncm.changes(vec![gone], 2).await;
    one.until_gone(neighbour).await;
    let verdict = one.send(mine.id, &packet(9, 10));
    assert_eq!(verdict, Verdict::Punt(PuntReason::Unresolved));
    // The answer to a question that came after it says that the first one is answered too.
    let other = one.send(mine.id, &arp(9, 11));
    assert_eq!(other, Verdict::Punt(PuntReason::Unresolved));
    one.until(|model| model.take_released().pop()).await;
    let state = one.ask(json!({"state": {}})).await;
    let learning = &state["learning"];
    assert_eq!(learning["dropped"], json!({"unknown": 1}), "{state}");
    assert_eq!(learning["answers"], json!({"route": 2, "unknown": 1}), "{state}");
    assert_eq!(learning["learned"], 1, "{state}");
    let dropped = one
        .dataplane
        .lock()
        .drop_count(Some(mine.id), DropReason::UnknownDestination);
    assert_eq!(dropped, 0, "what nobody has was not sent");
    for host in [one, two, three] {
        host.stop.send(()).unwrap();
        host.agent.await.unwrap().unwrap();
    }
}
