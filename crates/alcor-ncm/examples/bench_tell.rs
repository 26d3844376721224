//! The `tell` benchmark: what it costs an NCM to tell many hosts the same. A port that moves in a network of 250 hosts, each of
//! which has all neighbours; and a gateway that goes out of use, or comes back, in a network of 10,000 hosts. A table for people on
//! stderr; the last line of stdout is one JSON object.
//!
//! Everything is in this thread: the core takes a change, what it sends is written in the form of the stream, and hosts say that
//! they have it. Times are of this thread's CPU, for the change and what is sent because of it, without the receipts.
//!
//! `cargo run --release -p alcor-ncm --example bench_tell [-- --quick]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run says so by a panic"
)]

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use alcor_model::{
    Change, GatewayNode, Host, Id, MacAddr, Network, Port, Resource, Revision, Vni,
    resource::{Binding, BindingState, FixedIp, Standard},
};
use alcor_ncm::core::{Action, Event, Ncm, Now, Options, Work};
use alcor_proto::v1;
use alcor_southbound::{convert::encode_ip, frame::FromNcm};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value};

/// Hosts of the network in which everybody has all neighbours, with so many ports each.
const EAGER: (u32, u32) = (250, 1);
/// Hosts of the network that has gateways.
const LEARNED: (u32, u32) = (10_000, 1);
/// Where the sessions of gateways begin.
const GATEWAYS: u64 = 1_000_000;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let mut figures = Map::new();
    figures.insert("process".into(), "bench_tell".into());
    figures.insert("threads".into(), 1.into());
    eprintln!(
        "{:>12} {:>7} {:>7} {:>10} {:>10} {:>12} {:>12}",
        "", "hosts", "rows", "bytes", "encoded", "us/host", "ms/change"
    );
    let samples = if quick { 4 } else { 400 };
    let mut place = Place::new(EAGER, false);
    place.measure("port_moves", samples, &mut figures, |place, sample| {
        place.port(0, 1 + sample % (EAGER.0 - 1))
    });
    let samples = if quick { 2 } else { 40 };
    let mut place = Place::new(LEARNED, true);
    place.measure("gateway_turns", samples, &mut figures, |place, sample| {
        place.gateway(0, sample % 2 == 0)
    });
    println!("{}", Value::Object(figures));
}

fn id<T>(number: u128) -> Id<T> {
    Id::from_uuid(uuid::Uuid::from_u128(number))
}

/// CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// An NCM, and who has sessions with it.
struct Place {
    ncm: Ncm,
    revision: Revision,
    hosts: u32,
}

/// What a change came to.
#[derive(Default)]
struct Told {
    work: Work,
    bytes: usize,
    time: Duration,
}

impl Place {
    fn new((hosts, ports): (u32, u32), gateways: bool) -> Self {
        let mut place = Self {
            ncm: Ncm::new(Options::default()),
            revision: Revision::ZERO,
            hosts,
        };
        let mut rows = vec![place.network()];
        rows.extend((0..hosts).map(|number| place.host(number)));
        rows.extend((0..hosts * ports).map(|number| place.port(number, number % hosts)));
        if gateways {
            rows.extend((0..2).map(|number| place.gateway(number, false)));
        }
        place.tell(rows);
        let members: Vec<u64> = if gateways { vec![0, 1] } else { Vec::new() };
        for number in members {
            place.hello(GATEWAYS + number, |hello| {
                hello.host = format!("g{number}");
                hello.tunnel_ip = encode_ip(gateway_ip(number));
                (hello.gateway, hello.gateway_set) = (true, "edge".into());
            });
        }
        for number in 0..hosts {
            place.hello(number.into(), |hello| {
                hello.host = format!("h{number}");
                hello.tunnel_ip = encode_ip(tunnel_ip(number));
                hello.filters = true;
            });
        }
        place
    }

    fn hello(&mut self, session: u64, with: impl FnOnce(&mut v1::Hello)) {
        let mut hello = v1::Hello {
            incarnation: 1,
            ..v1::Hello::default()
        };
        with(&mut hello);
        self.run(Event::Hello { session, hello });
    }

    fn measure(
        &mut self,
        name: &str,
        samples: u32,
        figures: &mut Map<String, Value>,
        change: impl Fn(&mut Self, u32) -> Change,
    ) {
        let mut times = Vec::new();
        let mut told = Told::default();
        for sample in 0..samples {
            let change = change(self, sample);
            told = self.tell(vec![change]);
            assert!(
                told.work.hosts_touched >= u64::from(self.hosts),
                "{:?}",
                told.work
            );
            times.push(told.time.as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let (work, hosts) = (told.work, told.work.hosts_touched);
        let each = median * 1e6 / hosts as f64;
        let encoded = work.rows_encoded;
        eprintln!(
            "{name:>12} {hosts:>7} {:>7} {:>10} {encoded:>10} {each:>12.3} {:>12.3}",
            work.rows_sent,
            told.bytes,
            median * 1e3
        );
        for (figure, value) in [
            ("hosts", hosts.into()),
            ("rows", work.rows_sent.into()),
            ("rows_encoded", encoded.into()),
            ("us_per_host", rounded(each)),
            ("ms", rounded(median * 1e3)),
        ] {
            figures.insert(format!("{name}_{figure}"), value);
        }
    }

    fn tell(&mut self, changes: Vec<Change>) -> Told {
        let committed_us = 1;
        self.run(Event::Changes {
            changes,
            committed_us,
        })
    }

    /// Takes an event; then everybody says that he has what he was told, until nothing is left to tell.
    fn run(&mut self, event: Event) -> Told {
        let begun = cpu();
        let mut wire = Vec::with_capacity(1 << 16);
        let (mut events, mut told) = (VecDeque::new(), Told::default());
        let (actions, work) = self.ncm.step(Now::default(), event);
        told.work = work;
        for action in actions {
            if let Action::Send { session, message } = action {
                let receipt = receipt(session, &message);
                wire.clear();
                message.encode(&mut wire).unwrap();
                told.bytes += wire.len();
                events.extend(receipt);
            }
        }
        told.time = cpu() - begun;
        // Receipts are taken in the order of what was sent.
        while let Some(event) = events.pop_front() {
            let (actions, _) = self.ncm.step(Now::default(), event);
            for action in actions {
                if let Action::Send { session, message } = action {
                    events.extend(receipt(session, &message));
                }
            }
        }
        told
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
            tunnel_ip: tunnel_ip(number),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            admin_state_up: true,
            description: String::new(),
            availability_zone: "nova".into(),
            external_networks: BTreeSet::new(),
        })))
    }

    fn gateway(&mut self, number: u64, draining: bool) -> Change {
        Change::Put(Resource::GatewayNode(Arc::new(GatewayNode {
            id: id(u128::from(number) + 2_000_000),
            revision: self.next(),
            name: format!("g{number}"),
            set: "edge".into(),
            tunnel_ip: gateway_ip(number),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            draining,
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
                ip_address: IpAddr::from((0x0a00_0000 + number).to_be_bytes()),
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
                profile: Map::new(),
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
}

fn tunnel_ip(host: u32) -> IpAddr {
    IpAddr::from((0xc612_0000 + host).to_be_bytes())
}

fn gateway_ip(number: u64) -> IpAddr {
    IpAddr::from([192, 0, 2, 1 + u8::try_from(number).unwrap()])
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

fn rounded(value: f64) -> Value {
    Value::from((value * 1e3).round() / 1e3)
}

/// What a host says when it has a delta.
fn receipt(session: u64, message: &FromNcm) -> Option<Event> {
    let FromNcm::Delta(delta) = message else {
        return None;
    };
    let body = v1::agent_message::Body::Receipt(v1::Receipt {
        sequence: delta.sequence,
        ..v1::Receipt::default()
    });
    Some(Event::Message { session, body })
}
