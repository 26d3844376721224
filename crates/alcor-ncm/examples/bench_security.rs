//! The `security` benchmark: what it costs, and how long it takes until it is enforced, when a member joins a group of so
//! many, leaves it, and when the group gets a rule. A table for people on stderr; the last line of stdout is one JSON object.
//!
//! The region (SQLite, an fsync a commit), its feed and the NCM's core are the real ones. Hosts have no sockets: what the
//! core sends is decoded and answered in this process, by two hosts with a model data plane that are measured, and by
//! others that only take rows and answer. So there is no network in the times, and no other process.
//!
//! `cargo run --release -p alcor-ncm --example bench_security [-- --quick]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run says so by a panic"
)]

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alcor_dataplane::{
    Dataplane, Ingress, Model, Verdict,
    probe::{Payload, packet},
};
use alcor_model::{
    Id, Network, Port, SecurityGroup, SecurityGroupRule, Subnet,
    resource::{Direction, Ethertype, HostWord, Protocol},
};
use alcor_ncm::core::{Action, Event, Ncm, Now, Options, Work};
use alcor_proto::v1;
use alcor_region::{
    Region, RegionConfig,
    command::{Caller, NetworkCreate, PortCreate, PortUpdate, StandardCreate, SubnetCreate},
    security_group::{RuleCreate, RuleRequest, SecurityGroupCreate},
};
use alcor_southbound::convert::{decode_row, encode_ip};
use alcor_store::{FeedReader, SqliteEngine};
use serde_json::{Map, Value};

/// Hosts with ports in the network.
const HOSTS: usize = 100;
/// The host whose port joins and leaves.
const JOINING: usize = 0;
/// A host with a member.
const RECEIVING: usize = 1;
/// Ports of one bulk request.
const BULK: usize = 1_000;
/// What the group's rule allows among members.
const ALLOWED: u16 = 22;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let samples = if quick { 5 } else { 50 };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut figures = Map::new();
    eprintln!(
        "{:>9} {:>6} {:>6} {:>6} {:>9} {:>10} {:>10}",
        "members", "", "hosts", "rows", "messages", "p50 ms", "max ms"
    );
    for members in [10, 1_000, 10_000, 100_000] {
        runtime.block_on(size(members, samples, &mut figures));
    }
    figures.insert("hosts".into(), HOSTS.into());
    figures.insert("samples".into(), samples.into());
    println!("{}", Value::Object(figures));
}

/// One size of the group.
async fn size(members: usize, samples: usize, figures: &mut Map<String, Value>) {
    let mut place = Place::new().await;
    let start = Instant::now();
    place.fill(members).await;
    figures.insert(
        format!("members_made_s_{members}"),
        rounded(start.elapsed().as_secs_f64()),
    );
    let start = Instant::now();
    place.connect();
    figures.insert(
        format!("hosts_told_s_{members}"),
        rounded(start.elapsed().as_secs_f64()),
    );
    let (mut join, mut leave, mut rule) = (Costs::default(), Costs::default(), Costs::default());
    for sample in 0..samples {
        place.expect(false);
        join.add(place.put_under(place.group).await);
        place.expect(true);
        leave.add(place.put_under(place.others).await);
        place.expect(false);
        let number = u16::try_from(1_000 + sample).unwrap();
        rule.add(place.rule(number).await);
    }
    for (name, costs) in [("join", &mut join), ("leave", &mut leave), ("rule", &mut rule)] {
        costs.print(name, members, figures);
    }
}

#[derive(Default)]
struct Costs {
    times: Vec<f64>,
    work: Work,
}

impl Costs {
    fn add(&mut self, (time, work): (Duration, Work)) {
        assert!(
            self.times.is_empty() || self.work == work,
            "the same work every time"
        );
        self.times.push(time.as_secs_f64() * 1e3);
        self.work = work;
    }

    fn print(&mut self, name: &str, members: usize, figures: &mut Map<String, Value>) {
        self.times.sort_by(f64::total_cmp);
        let p50 = self.times[self.times.len() / 2];
        let max = self.times.last().copied().unwrap();
        let Work {
            hosts_touched,
            rows_sent,
            deltas,
            ..
        } = self.work;
        eprintln!(
            "{members:>9} {name:>6} {hosts_touched:>6} {rows_sent:>6} {deltas:>9} {p50:>10.2} {max:>10.2}"
        );
        for (key, value) in [
            ("hosts", hosts_touched),
            ("rows", rows_sent),
            ("messages", deltas),
        ] {
            figures.insert(format!("{name}_{key}_{members}"), value.into());
        }
        figures.insert(format!("{name}_ms_p50_{members}"), rounded(p50));
        figures.insert(format!("{name}_ms_max_{members}"), rounded(max));
    }
}

fn rounded(value: f64) -> Value {
    Value::from((value * 1e3).round() / 1e3)
}

fn caller() -> Caller {
    Caller {
        project_id: "5f0c3d7a8b9e4f6aa1b2c3d4e5f60718".into(),
        is_admin: true,
    }
}

/// A region, its NCM and its hosts.
struct Place {
    _dir: tempfile::TempDir,
    region: Region,
    feed: FeedReader,
    ncm: Ncm,
    started: Instant,
    hosts: Vec<Host>,
    network: Id<Network>,
    group: Id<SecurityGroup>,
    others: Id<SecurityGroup>,
    /// The port that joins and leaves, and a member on another host.
    joining: Arc<Port>,
    member: Option<Arc<Port>>,
}

#[derive(Default)]
struct Host {
    /// Only the measured hosts program packets.
    model: Option<Model>,
}

fn name(host: usize) -> String {
    format!("host-{host}")
}

fn tunnel_ip(host: usize) -> IpAddr {
    let last = u32::try_from(host).unwrap();
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 0, 1)) + last).into()
}

impl Place {
    /// A network in which every host has a port that is not in the group.
    async fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let engine = SqliteEngine::open(&dir.path().join("region.db")).unwrap();
        let region = Region::open(Box::new(engine), RegionConfig::default()).unwrap();
        let feed = region.subscribe(region.snapshot().revision);
        for host in 0..HOSTS {
            region
                .register_host(&name(host), HostWord::new(tunnel_ip(host), "nova"))
                .await
                .unwrap();
        }
        let network = region
            .create::<Network>(&caller(), vec![NetworkCreate::default()])
            .await
            .unwrap()[0]
            .id;
        region
            .create::<Subnet>(&caller(), vec![subnet(network)])
            .await
            .unwrap();
        let (group, others) = (security_group(&region).await, security_group(&region).await);
        let ports = (0..HOSTS).map(|host| port(network, host, others)).collect();
        let ports = region.create::<Port>(&caller(), ports).await.unwrap();
        let mut place = Self {
            _dir: dir,
            feed,
            // Told of all neighbours: the two hosts with a data plane have no agent that would ask.
            ncm: Ncm::new(Options {
                eager_rows_max: usize::MAX,
                ..Options::default()
            }),
            started: Instant::now(),
            hosts: (0..HOSTS).map(|_| Host::default()).collect(),
            network,
            group,
            others,
            joining: Arc::clone(&ports[JOINING]),
            member: None,
            region,
        };
        for host in [JOINING, RECEIVING] {
            place.hosts[host].model = Some(Model::default());
        }
        place.create_rule(ALLOWED).await;
        place.follow().await;
        place
    }

    /// Makes the members, in bulk; the core reads along.
    async fn fill(&mut self, members: usize) {
        let mut made = 0;
        while made < members {
            let count = BULK.min(members - made);
            let ports = (made..made + count).map(|number| port(self.network, number % HOSTS, self.group));
            let ports = self
                .region
                .create::<Port>(&caller(), ports.collect())
                .await
                .unwrap();
            if self.member.is_none() {
                self.member = Some(Arc::clone(&ports[RECEIVING]));
            }
            made += count;
            self.follow().await;
        }
    }

    /// Every host says hello and takes what there is.
    fn connect(&mut self) {
        for host in 0..HOSTS {
            let hello = v1::Hello {
                host: name(host),
                incarnation: 1,
                tunnel_ip: encode_ip(tunnel_ip(host)),
                dataplane: "model".into(),
                filters: true,
                ..v1::Hello::default()
            };
            let session = host as u64;
            self.step(Event::Hello { session, hello });
        }
        for (host, port) in [
            (JOINING, &self.joining),
            (RECEIVING, self.member.as_ref().unwrap()),
        ] {
            self.hosts[host]
                .model
                .as_mut()
                .unwrap()
                .attach(port.id, "tap")
                .unwrap();
        }
    }

    /// Takes an event into the core; does what it says until nothing is left to do.
    fn step(&mut self, event: Event) -> Work {
        let mut total = Work::default();
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let now = Now {
                since_start: self.started.elapsed(),
                unix_us: u64::try_from(unix.as_micros()).unwrap(),
            };
            let (actions, work) = self.ncm.step(now, event);
            total.hosts_touched += work.hosts_touched;
            total.deltas += work.deltas;
            total.rows_sent += work.rows_sent;
            for action in actions {
                if let Action::Send { session, message } = action
                    && let Some(v1::ncm_message::Body::Delta(delta)) = message.read().unwrap().body
                {
                    let body = v1::agent_message::Body::Receipt(self.take(session, delta));
                    events.push_back(Event::Message { session, body });
                }
            }
        }
        total
    }

    /// A host takes a delta.
    fn take(&mut self, session: u64, delta: v1::Delta) -> v1::Receipt {
        let host = &mut self.hosts[usize::try_from(session).unwrap()];
        let changes: Vec<_> = delta
            .rows
            .iter()
            .map(|row| decode_row(self.network, row).unwrap().1)
            .collect();
        if let Some(model) = &mut host.model {
            for outcome in model.apply(&changes) {
                outcome.unwrap();
            }
        }
        v1::Receipt {
            sequence: delta.sequence,
            ..v1::Receipt::default()
        }
    }

    /// Everything that the region has committed reaches the hosts, and their receipts the core.
    async fn follow(&mut self) -> Work {
        let newest = self.region.snapshot().revision;
        let mut total = Work::default();
        while self.ncm.revision() < newest {
            let batch = self
                .feed
                .next()
                .await
                .unwrap()
                .expect("the feed holds a bulk request");
            let (changes, committed_us) = (batch.changes, batch.committed_us);
            let work = self.step(Event::Changes {
                changes,
                committed_us,
            });
            total.hosts_touched += work.hosts_touched;
            total.deltas += work.deltas;
            total.rows_sent += work.rows_sent;
        }
        total
    }

    /// From the call that puts the port under a group until its host has it in force and the core knows.
    async fn put_under(&mut self, group: Id<SecurityGroup>) -> (Duration, Work) {
        let update = PortUpdate {
            security_groups: Some(vec![group]),
            ..PortUpdate::default()
        };
        let start = Instant::now();
        self.region
            .update::<Port>(&caller(), self.joining.id, update, None)
            .await
            .unwrap();
        let work = self.follow().await;
        (start.elapsed(), work)
    }

    /// From the call that adds a rule until every host with a member has it and the core knows.
    async fn rule(&mut self, number: u16) -> (Duration, Work) {
        let start = Instant::now();
        self.create_rule(number).await;
        let work = self.follow().await;
        (start.elapsed(), work)
    }

    async fn create_rule(&self, number: u16) {
        let rule = RuleCreate {
            standard: StandardCreate::default(),
            security_group_id: self.group,
            request: RuleRequest {
                direction: Direction::Ingress,
                ethertype: Ethertype::Ipv4,
                protocol: Protocol::parse("tcp"),
                port_range_min: Some(number),
                port_range_max: Some(number),
                remote_ip_prefix: None,
                remote_group_id: Some(self.group),
                remote_address_group_id: None,
            },
        };
        self.region
            .create::<SecurityGroupRule>(&caller(), vec![rule])
            .await
            .unwrap();
    }

    /// Whether a packet of the joining port reaches the member: through both data planes, over a tunnel between them.
    fn expect(&mut self, passes: bool) {
        let member = self.member.as_ref().unwrap();
        let addresses = |port: &Port| (port.mac_address, port.fixed_ips[0].ip_address);
        let ((mac, source), (to_mac, destination)) = (addresses(&self.joining), addresses(member));
        let payload = Payload {
            protocol: 6,
            source_port: 40_000,
            point: ALLOWED,
        };
        let frame = packet((mac, to_mac), source, destination, &payload).unwrap();
        let sender = self.hosts[JOINING].model.as_mut().unwrap();
        let Verdict::Tunnel {
            host,
            vni,
            label,
            frame,
            ..
        } = sender.process(Ingress::Port(self.joining.id), &frame)
        else {
            panic!("the packet does not leave its host");
        };
        assert_eq!(host, tunnel_ip(RECEIVING));
        let arrives = Ingress::Tunnel {
            source: tunnel_ip(JOINING),
            vni: vni.get(),
            label,
            forwarded: false,
        };
        let receiver = self.hosts[RECEIVING].model.as_mut().unwrap();
        let verdict = receiver.process(arrives, &frame);
        assert_eq!(matches!(verdict, Verdict::Deliver { .. }), passes, "{verdict:?}");
        // Not a connection that goes on: the next one is the first packet again.
        for host in [JOINING, RECEIVING] {
            self.hosts[host]
                .model
                .as_mut()
                .unwrap()
                .advance(Duration::from_secs(3_600));
        }
    }
}

async fn security_group(region: &Region) -> Id<SecurityGroup> {
    let create = SecurityGroupCreate {
        standard: StandardCreate::default(),
        stateful: None,
    };
    region
        .create::<SecurityGroup>(&caller(), vec![create])
        .await
        .unwrap()[0]
        .id
}

fn port(network: Id<Network>, host: usize, group: Id<SecurityGroup>) -> PortCreate {
    PortCreate {
        security_groups: Some(vec![group]),
        binding_host_id: name(host),
        device_owner: "compute:nova".into(),
        ..PortCreate::new(network)
    }
}

fn subnet(network_id: Id<Network>) -> SubnetCreate {
    SubnetCreate {
        standard: StandardCreate::default(),
        network_id,
        ip_version: 4,
        cidr: Some("10.0.0.0/8".parse().unwrap()),
        prefixlen: None,
        subnetpool_id: None,
        use_default_subnetpool: false,
        service_types: Vec::new(),
        dns_publish_fixed_ip: None,
        gateway_ip: None,
        allocation_pools: None,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        enable_dhcp: None,
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
    }
}
