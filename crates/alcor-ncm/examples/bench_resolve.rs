//! The `resolve` benchmark: how many questions of hosts an NCM answers on one core in networks of several sizes, what a
//! neighbour takes of memory, and what a change of a port costs there. A table for people on stderr; the last line of stdout is one
//! JSON object.
//!
//! Everything is in this process: questions are protobuf messages of 1,024 questions about addresses by chance, decoded,
//! answered from the directory of a core that has the network, and encoded. No sockets and no other process. Each host
//! sends one message in turn, and each becomes a learner of what it asks for. Memory is what the allocator gave out.
//!
//! `cargo run --release -p alcor-ncm --example bench_resolve [-- --quick]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run says so by a panic"
)]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    num::NonZero,
    sync::Arc,
    time::{Duration, Instant},
};

use alcor_model::{
    Change, Host, Id, MacAddr, Network, Port, Resource, Revision, Vni,
    resource::{Binding, BindingState, FixedIp, Standard},
};
use alcor_ncm::{
    core::{Event, Ncm, Now, Options, Work},
    directory::{Asker, Directory, Entry, Limits},
};
use alcor_proto::v1;
use alcor_southbound::convert::{
    encode_ip,
    resolve::{Question, decode_questions, encode_answers, encode_questions},
};
use peak_alloc::PeakAlloc;
use prost::Message as _;
use serde_json::{Map, Value};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Sizes of networks.
const SIZES: [u32; 3] = [100, 10_000, 1_000_000];
/// Hosts that have ports and ask. A host in a network of a million ports has a hundred of them.
const HOSTS: u32 = 10_000;
/// Hosts that ask.
const ASKING: u32 = 1_000;
/// Questions in one message.
const BATCH: usize = 1_024;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let time = Duration::from_millis(if quick { 200 } else { 3_000 });
    let mut figures = Map::new();
    figures.insert("process".into(), "bench_resolve".into());
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    figures.insert("cores".into(), cores.into());
    figures.insert("threads".into(), 1.into());
    figures.insert("neighbour_bytes".into(), rounded(neighbour_bytes()));
    figures.insert("learned_bytes".into(), rounded(learned_bytes()));
    eprintln!(
        "{:>9} {:>16} {:>14} {:>12} {:>10}",
        "ports", "questions/s", "directory/s", "bytes/answer", "core MB"
    );
    for size in SIZES {
        one_size(size, time, &mut figures);
    }
    println!("{}", Value::Object(figures));
}

fn rounded(value: f64) -> Value {
    Value::from((value * 10.0).round() / 10.0)
}

fn id<T>(number: u128) -> Id<T> {
    Id::from_uuid(uuid::Uuid::from_u128(number))
}

fn address(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + number).to_be_bytes())
}

/// What a neighbour takes in the directory, of 1,000,000 on 10,000 hosts: its row, and that its port is on that host.
fn neighbour_bytes() -> f64 {
    const NEIGHBOURS: u32 = 1_000_000;
    let before = ALLOCATOR.current_usage();
    let (directory, mut writer) = Directory::new(Limits::default());
    let network = writer.network(id(1));
    for number in 0..NEIGHBOURS {
        let host = writer.host(&format!("h{}", number % HOSTS));
        writer.enter(host, (id(1), network), id(u128::from(number) + 5000));
        let entry = Entry {
            mac: MacAddr([2, 0, 0, 0, 0, 0]),
            host,
            label: 0,
            revision: Revision(u64::from(number)),
        };
        writer.put(network, address(number), entry);
    }
    assert_eq!(directory.rows(), NEIGHBOURS as usize);
    let bytes = (ALLOCATOR.current_usage() - before) as f64 / f64::from(NEIGHBOURS);
    assert!(bytes <= 128.0, "{bytes} bytes a neighbour");
    bytes
}

/// What it takes that a host has learned an address: of 1,000 hosts that have learned 1,000 of 100,000 addresses each.
fn learned_bytes() -> f64 {
    const EACH: u32 = 1_000;
    let (directory, mut writer) = Directory::new(Limits {
        host_burst: u32::MAX,
        ..Limits::default()
    });
    let network = writer.network(id(1));
    let far = writer.host("far");
    writer.set_tunnel(far, Some((address(0), Revision(1))));
    for number in 0..100 * EACH {
        let entry = Entry {
            mac: MacAddr([2, 0, 0, 0, 0, 0]),
            host: far,
            label: 0,
            revision: Revision(1),
        };
        writer.put(network, address(number), entry);
    }
    let askers: Vec<Asker> = (0..ASKING)
        .map(|number| {
            let name = format!("h{number}");
            let host = writer.host(&name);
            writer.enter(host, (id(1), network), id(u128::from(number)));
            writer.open(host, number.into());
            directory.asker(&name, number.into()).unwrap()
        })
        .collect();
    let before = ALLOCATOR.current_usage();
    for (number, asker) in (0..).zip(&askers) {
        for address_number in 0..EACH {
            let question = Question {
                network: id(1),
                ip: address((number * 37 + address_number * 91) % (100 * EACH)),
                port: None,
            };
            let (_, asked) = directory.resolve(Duration::ZERO, asker, &[question]);
            assert_eq!(asked.routes, 1);
        }
    }
    (ALLOCATOR.current_usage() - before) as f64 / f64::from(ASKING * EACH)
}

/// A core with a network of so many ports, and the sessions of hosts that ask.
struct Place {
    ncm: Ncm,
    revision: Revision,
    hosts: u32,
    ports: u32,
}

fn one_size(ports: u32, time: Duration, figures: &mut Map<String, Value>) {
    let before = ALLOCATOR.current_usage();
    let start = Instant::now();
    let mut place = Place::new(ports);
    let bytes = ALLOCATOR.current_usage() - before;
    figures.insert(format!("load_s_{ports}"), rounded(start.elapsed().as_secs_f64()));
    figures.insert(
        format!("core_bytes_per_port_{ports}"),
        rounded(bytes as f64 / f64::from(ports)),
    );
    place.change(figures);
    let askers = place.connect();
    let messages = place.messages();
    let (answers, answer_bytes) = answer(&place, &askers, &messages, time);
    let directory = directory_only(&place, &askers, &messages, time);
    figures.insert(format!("resolve_per_s_{ports}"), answers.round().into());
    figures.insert(format!("directory_per_s_{ports}"), directory.round().into());
    eprintln!(
        "{ports:>9} {answers:>16.0} {directory:>14.0} {answer_bytes:>12.1} {:>10.1}",
        bytes as f64 / 1e6
    );
}

impl Place {
    fn new(ports: u32) -> Self {
        let options = Options {
            limits: Limits {
                host_questions: u32::MAX,
                host_burst: u32::MAX,
                ..Limits::default()
            },
            // Small networks are asked for too, to compare.
            eager_rows_max: 0,
            ..Options::default()
        };
        let mut place = Self {
            ncm: Ncm::new(options),
            revision: Revision::ZERO,
            hosts: HOSTS.min(ports),
            ports,
        };
        let network = place.network();
        place.tell(vec![network]);
        for host in 0..place.hosts {
            let host = place.host(host);
            place.tell(vec![host]);
        }
        for port in 0..ports {
            let port = place.port(port, port % place.hosts);
            place.tell(vec![port]);
        }
        place
    }

    fn tell(&mut self, changes: Vec<Change>) -> Work {
        let committed_us = 1;
        let changes = Event::Changes {
            changes,
            committed_us,
        };
        self.ncm.step(Now::default(), changes).1
    }

    fn next(&mut self) -> Revision {
        self.revision = self.revision.next();
        self.revision
    }

    fn network(&mut self) -> Change {
        Change::Put(Resource::Network(Arc::new(Network {
            id: id(1),
            revision: self.next(),
            standard: standard(),
            admin_state_up: true,
            mtu: 1450,
            external: false,
            is_default: false,
            availability_zone_hints: Vec::new(),
            port_security_enabled: true,
            segmentation_id: Vni::try_from(1).unwrap(),
        })))
    }

    fn host(&mut self, number: u32) -> Change {
        Change::Put(Resource::Host(Arc::new(Host {
            name: format!("h{number}"),
            revision: self.next(),
            tunnel_ip: IpAddr::from((0xc612_0000 + number).to_be_bytes()),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            admin_state_up: true,
            description: String::new(),
            availability_zone: "nova".into(),
            external_networks: BTreeSet::new(),
        })))
    }

    fn port(&mut self, number: u32, host: u32) -> Change {
        let [_, high, middle, low] = number.to_be_bytes();
        Change::Put(Resource::Port(Arc::new(Port {
            id: id(u128::from(number) + 5000),
            revision: self.next(),
            standard: standard(),
            network_id: id(1),
            mac_address: MacAddr([2, 0, 0, high, middle, low]),
            fixed_ips: vec![FixedIp {
                subnet_id: id(2),
                ip_address: address(number),
            }],
            allowed_address_pairs: Vec::new(),
            admin_state_up: true,
            device_id: String::new(),
            device_owner: String::new(),
            port_security_enabled: true,
            security_groups: Vec::new(),
            label: Some(0),
            dns_name: String::new(),
            binding: Binding {
                host_id: format!("h{host}"),
                vnic_type: Binding::VNIC_NORMAL.into(),
                profile: serde_json::Map::new(),
                since: Revision::ZERO,
                state: BindingState::Bound,
            },
            standby: Vec::new(),
            unaddressed: false,
            dns_domain: String::new(),
            extra_dhcp_opts: Vec::new(),
            data_plane_status: None,
        })))
    }

    /// Hosts say hello and take what they are told.
    fn connect(&mut self) -> Vec<Asker> {
        let connect = |host: u32| {
            let name = format!("h{host}");
            let hello = v1::Hello {
                host: name.clone(),
                incarnation: 1,
                tunnel_ip: encode_ip(IpAddr::from((0xc612_0000 + host).to_be_bytes())),
                filters: true,
                ..v1::Hello::default()
            };
            let session = u64::from(host);
            self.ncm.step(Now::default(), Event::Hello { session, hello });
            self.ncm.directory().asker(&name, session).unwrap()
        };
        (0..ASKING.min(self.hosts)).map(connect).collect()
    }

    /// Messages about addresses by chance; the seed is fixed.
    fn messages(&self) -> Vec<Vec<u8>> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut by_chance = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Question {
                network: id(1),
                ip: address((state % u64::from(self.ports)) as u32),
                port: None,
            }
        };
        let mut message = |number| {
            let questions: Vec<_> = (0..BATCH).map(|_| by_chance()).collect();
            encode_questions(number, &questions).encode_to_vec()
        };
        (0..u64::from(ASKING)).map(&mut message).collect()
    }

    /// What it costs when a port is created and when it moves, with a host there that is connected.
    fn change(&mut self, figures: &mut Map<String, Value>) {
        let hello = v1::Hello {
            host: "h1".into(),
            incarnation: 1,
            tunnel_ip: encode_ip(IpAddr::from(0xc612_0001_u32.to_be_bytes())),
            filters: true,
            ..v1::Hello::default()
        };
        let session = u64::MAX;
        let now = Now::default();
        self.ncm.step(now, Event::Hello { session, hello });
        let body = v1::agent_message::Body::Receipt(v1::Receipt {
            sequence: 1,
            ..v1::Receipt::default()
        });
        self.ncm.step(now, Event::Message { session, body });
        let created = self.port(self.ports, 1);
        let work = self.tell(vec![created]);
        assert_eq!(work.hosts_touched, 1);
        assert!(work.rows_sent <= 10 && work.rows_looked_at <= 10, "{work:?}");
        for (name, count) in [
            ("hosts", work.hosts_touched),
            ("rows", work.rows_sent),
            ("rows_looked_at", work.rows_looked_at),
            ("bytes", work.bytes),
        ] {
            figures.insert(format!("create_{name}_{}", self.ports), count.into());
        }
    }
}

fn standard() -> Standard {
    Standard {
        project_id: "p".into(),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        updated_at: jiff::Timestamp::UNIX_EPOCH,
        revision_number: 1,
    }
}

/// Questions a second from message to message, and the bytes of an answer. All askers have asked once before.
fn answer(place: &Place, askers: &[Asker], messages: &[Vec<u8>], time: Duration) -> (f64, f64) {
    let directory = place.ncm.directory();
    let (mut questions, mut bytes) = (0_u64, 0);
    let mut round = |number: usize| {
        let message = v1::Resolve::decode(&messages[number % messages.len()][..]).unwrap();
        let asked = decode_questions(&message).unwrap();
        let asker = &askers[number % askers.len()];
        let (answers, asked) = directory.resolve(Duration::ZERO, asker, &asked);
        // What a host has itself is no neighbour of it; everything else is there.
        assert_eq!(asked.routes + asked.unknown, asked.questions);
        assert!(asked.rows_looked_at <= asked.questions);
        bytes += encode_answers(message.id, &answers).encode_to_vec().len();
        questions += asked.questions;
    };
    let start = Instant::now();
    let mut number = 0;
    while start.elapsed() < time {
        round(number);
        number += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    (questions as f64 / seconds, bytes as f64 / questions as f64)
}

/// The same without protobuf.
fn directory_only(place: &Place, askers: &[Asker], messages: &[Vec<u8>], time: Duration) -> f64 {
    let directory = place.ncm.directory();
    let decoded = |message: &Vec<u8>| decode_questions(&v1::Resolve::decode(&message[..]).unwrap()).unwrap();
    let decoded: Vec<_> = messages.iter().map(decoded).collect();
    let start = Instant::now();
    let (mut number, mut questions) = (0, 0);
    while start.elapsed() < time {
        let asked = &decoded[number % decoded.len()];
        let (answers, _) = directory.resolve(Duration::ZERO, &askers[number % askers.len()], asked);
        questions += answers.len();
        number += 1;
    }
    questions as f64 / start.elapsed().as_secs_f64()
}
