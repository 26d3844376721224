//! Memory of an agent: starts `alcor agent` as a process of its own, plays its NCM, gives it ports and learned neighbours in
//! one network on demand, and reads from the kernel how much of it is in RAM. Not an NCM: it answers nothing.
//!
//! `cargo run --example bench_memory -p alcor-agent -- --agent target/release/alcor --dataplane ebpf --devices`, as root and in
//! a network namespace of its own (`unshare -n`), measures the real thing; without these flags the model data plane, which keeps
//! rows in the agent's own memory that others keep in the kernel's. The last line is one JSON object.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run says so and ends"
)]

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command},
    sync::Mutex,
};

use alcor_dataplane::{NeighbourRow, NetworkRow, PortRow, Row, SubnetRow};
use alcor_model::{
    Id, MacAddr, Network, Port, Revision, Subnet, Vni,
    net::GATEWAY_MAC,
    resource::{FixedIp, Port as PortResource},
};
use alcor_proto::v1::{self, SnapshotPhase};
use alcor_southbound::{
    frame::{Delta, FromNcm, SharedRow},
    server::{Accepted, Acceptor, FromAgent, serve},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixStream},
    sync::mpsc,
};
use tonic::Status;

/// Rows in one message.
const MESSAGE_ROWS: usize = 1_024;
const HOST: &str = "bench-memory";

struct Flags {
    agent: PathBuf,
    dataplane: String,
    peers: u32,
    ports: u32,
    devices: bool,
}

fn flags() -> Flags {
    let mut flags = Flags {
        agent: PathBuf::from("target/release/alcor"),
        dataplane: "model".to_owned(),
        peers: 10_000,
        ports: 200,
        devices: false,
    };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().expect("a value behind the flag");
        match flag.as_str() {
            "--agent" => flags.agent = value().into(),
            "--dataplane" => flags.dataplane = value(),
            "--peers" => flags.peers = value().parse().expect("--peers is a number"),
            "--ports" => flags.ports = value().parse().expect("--ports is a number"),
            "--devices" => flags.devices = true,
            other => panic!("{other}? There are --agent, --dataplane, --peers, --ports and --devices"),
        }
    }
    flags
}

/// The NCM's side of the agent's session.
struct Session {
    from_agent: mpsc::Receiver<FromAgent>,
    to_agent: mpsc::Sender<Result<FromNcm, Status>>,
}

/// Hands on sessions.
struct Ncm(Mutex<mpsc::Sender<Session>>);

impl Acceptor for Ncm {
    fn accept(&self, _: v1::Hello) -> Pin<Box<dyn Future<Output = Result<Accepted, Status>> + Send + '_>> {
        let (from_sender, from_agent) = mpsc::channel(1_024);
        let (to_agent, to_receiver) = mpsc::channel(1_024);
        let session = Session { from_agent, to_agent };
        let handed = self.0.lock().unwrap().try_send(session);
        Box::pin(async move {
            handed.map_err(|_| Status::unavailable("one session is enough"))?;
            Ok(Accepted {
                from_agent: from_sender,
                to_agent: to_receiver,
            })
        })
    }
}

fn rows(network_id: Id<Network>, ports: &[Id<Port>]) -> Vec<Row> {
    let subnet_id: Id<Subnet> = Id::generate();
    let mut rows = vec![
        Row::Network(NetworkRow {
            id: network_id,
            vni: Vni::try_from(77).unwrap(),
            mtu: 1450,
            admin_state_up: true,
            underlay: None,
            on_demand: true,
            gateways: Vec::new(),
        }),
        Row::Subnet(SubnetRow {
            id: subnet_id,
            network_id,
            cidr: "10.0.0.0/8".parse().unwrap(),
            gateway_ip: Some(IpAddr::from([10, 0, 0, 1])),
            gateway_mac: GATEWAY_MAC,
            enable_dhcp: true,
            slaac: false,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
        }),
    ];
    rows.extend((2u32..).zip(ports).map(|(number, id)| {
        Row::Port(PortRow {
            id: *id,
            network_id,
            mac: mac(number),
            fixed_ips: vec![FixedIp {
                subnet_id,
                ip_address: address(number),
            }],
            allowed_address_pairs: Vec::new(),
            admin_state_up: true,
            port_security_enabled: true,
            dns_name: String::new(),
            label: None,
        })
    }));
    rows
}

fn address(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + number).to_be_bytes())
}

fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

fn peer(network_id: Id<Network>, number: u32) -> Row {
    let [.., c, d] = number.to_be_bytes();
    Row::Neighbour(NeighbourRow {
        network_id,
        ip: address(0x0010_0000 + number),
        mac: mac(0x0010_0000 + number),
        host: IpAddr::from([192, 0, c, d]),
        label: 0,
        forward: false,
    })
}

impl Session {
    async fn send(&self, message: FromNcm) {
        self.to_agent
            .send(Ok(message))
            .await
            .expect("the agent's session lasts");
    }

    /// Sends rows and waits until they are in force.
    async fn tell(&mut self, sequence: u64, network: Id<Network>, phase: SnapshotPhase, rows: &[Row]) {
        let rows = rows.iter().cloned();
        let delta = Delta {
            sequence,
            network,
            revision: Revision(sequence),
            phase,
            rows: rows.map(|row| SharedRow::put(Revision(sequence), row)).collect(),
            committed_us: 0,
            sent_us: 0,
        };
        self.send(FromNcm::Delta(delta)).await;
        loop {
            let message = self.from_agent.recv().await.expect("the agent's session lasts");
            if let FromAgent::Receipt(receipt) = message {
                assert_eq!(receipt.sequence, sequence);
                assert!(receipt.refused.is_empty(), "{:?}", receipt.refused);
                return;
            }
        }
    }
}

async fn ask(socket: &Path, request: Value) -> Value {
    let (reader, mut writer) = UnixStream::connect(socket).await.unwrap().into_split();
    writer.write_all(format!("{request}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    BufReader::new(reader).read_line(&mut answer).await.unwrap();
    serde_json::from_str(&answer).unwrap()
}

/// A line of `/proc/PID/status`, in MiB.
fn memory_mib(process: u32, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let kib: f64 = line
        .trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib / 1024.0
}

/// Makes a device of each port and gives it to the agent.
async fn attach(socket: &Path, ports: &[Id<Port>]) {
    for port in ports {
        let device = PortResource::device_name(*port);
        let made = Command::new("ip")
            .args(["link", "add", "dev", &device, "type", "veth"])
            .status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "{device} cannot be made; are you root?"
        );
        let answer = ask(socket, json!({"attach": {"port_id": port, "device": device}})).await;
        assert_eq!(answer["condition"], "wired", "{answer}");
    }
}

/// The agent, and what it leaves behind.
struct Running {
    process: Child,
    devices: Vec<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for device in &self.devices {
            let _ = Command::new("ip")
                .args(["link", "delete", "dev", device])
                .status();
        }
        let _ = std::fs::remove_dir_all(Path::new("/sys/fs/bpf/alcor").join(HOST));
    }
}

fn start(flags: &Flags, folder: &Path, ncm: SocketAddr) -> Child {
    let socket = folder.join("agent.sock");
    let config = format!(
        "[agent]\nhost = \"{HOST}\"\ntunnel_ip = \"127.0.0.1\"\nncm = \"http://{ncm}\"\ndataplane = \"{}\"\nsocket = \"{}\"\n",
        flags.dataplane,
        socket.display()
    );
    let file = folder.join("alcor.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(&flags.agent);
    command.args(["agent", "--config"]).arg(file);
    command.stdout(std::process::Stdio::null());
    command
        .spawn()
        .expect("the agent starts; --agent names the alcor program")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let flags = flags();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (session_sender, mut sessions) = mpsc::channel(1);
    tokio::spawn(serve(
        alcor_tls::Incoming::new(listener, None),
        Ncm(Mutex::new(session_sender)),
        std::future::pending(),
    ));
    let folder = tempfile::tempdir().unwrap();
    let network: Id<Network> = Id::generate();
    // Ids whose devices have names of their own.
    let port = |number: u32| Id::from_uuid(uuid::Uuid::from_u128(u128::from(number + 1) << 96));
    let ports: Vec<Id<Port>> = (0..flags.ports).map(port).collect();
    let process = start(&flags, folder.path(), address);
    let number = process.id();
    let devices = ports.iter().filter(|_| flags.devices);
    let running = Running {
        process,
        devices: devices.map(|port| PortResource::device_name(*port)).collect(),
    };
    let mut session = sessions.recv().await.unwrap();
    session
        .send(FromNcm::Welcome(v1::Welcome {
            session_id: 1,
            heartbeat_interval_ms: 5_000,
        }))
        .await;
    let empty = memory_mib(number, "VmRSS");
    session
        .tell(1, network, SnapshotPhase::Whole, &rows(network, &ports))
        .await;
    let socket = folder.path().join("agent.sock");
    if flags.devices {
        attach(&socket, &ports).await;
    }
    let peers: Vec<Row> = (0..flags.peers).map(|number| peer(network, number)).collect();
    for (sequence, rows) in (2u64..).zip(peers.chunks(MESSAGE_ROWS)) {
        session.tell(sequence, network, SnapshotPhase::Delta, rows).await;
    }
    let state = ask(&socket, json!({"state": {}})).await;
    assert_eq!(
        state["learning"]["learned"], flags.peers,
        "every neighbour has a lease"
    );
    assert_eq!(
        state["ports"].as_array().map(Vec::len),
        Some(flags.ports as usize)
    );
    let (now, most) = (memory_mib(number, "VmRSS"), memory_mib(number, "VmHWM"));
    drop(running);
    eprintln!(
        "{} data plane, {} ports, {} learned neighbours: {now:.1} MiB resident ({most:.1} at most, {empty:.1} when empty)",
        flags.dataplane, flags.ports, flags.peers
    );
    let figures = json!({
        "dataplane": flags.dataplane,
        "ports": flags.ports,
        "learned": flags.peers,
        "agent_empty_rss_mb": empty,
        "agent_rss_mb": now,
        "agent_peak_rss_mb": most,
    });
    println!("{figures}");
}
