//! What filters remember in the kernel: across restarts, in floods, of broken and overlapping fragments; each frame compared
//! with the model. Needs root and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/traced.rs"]
mod traced;

use std::{net::IpAddr, num::NonZeroU16, time::Duration};

use alcor_dataplane::{
    ConnectionEntry, ConnectionState, Dataplane, DropReason, Ingress, LabelRow, Model, NeighbourRow,
    NetworkRow, PolicyRow, PortRow, Row, RowChange, RowKey, SubnetRow, Verdict,
    security::{Family, Remote, Rule, Service},
    testing::wire::Ip,
};
use alcor_dataplane_abi::layout::{ANSWERED_PER_PORT, PENDING_PER_PORT};
use alcor_dataplane_ebpf::{EbpfConfig, EbpfDataplane};
use alcor_model::{Id, MacAddr, Network, Port, SecurityGroup, Vni, net::GATEWAY_MAC, resource::FixedIp};
use traced::{in_namespace, ip as run_ip};
use uuid::Uuid;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const VNI: u32 = 9;
const FRAGMENT_HEADER: u8 = 44;

/// Two ports of this host, and one of another host.
const NEAR: [u8; 2] = [1, 2];
const FAR: u8 = 3;

fn id<T>(number: u128) -> Id<T> {
    Id::from_uuid(Uuid::from_u128(number))
}

fn network_id() -> Id<Network> {
    id(1)
}

fn port_id(station: u8) -> Id<Port> {
    id(u128::from(station) << 100)
}

fn group() -> Id<SecurityGroup> {
    id(50)
}

fn mac(station: u8) -> MacAddr {
    MacAddr([0xfa, 0x16, 0x3e, 0, 0, station])
}

fn address(station: u8, family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => [10, 0, 0, station + 10].into(),
        Family::Ipv6 => [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(station) + 10].into(),
    }
}

fn far_host() -> IpAddr {
    [192, 0, 2, 2].into()
}

fn device(station: u8) -> String {
    format!("tap-{station}")
}

fn rule(family: Family, service: Option<Service>) -> Rule {
    Rule {
        family,
        service,
        remote: Remote::Any,
    }
}

/// Rules that allow this in both directions and families.
fn policy(service: Option<Service>) -> Row {
    let rules = [Family::Ipv4, Family::Ipv6].map(|family| rule(family, service));
    Row::Policy(PolicyRow {
        network_id: network_id(),
        group_id: group(),
        stateful: true,
        ingress: rules.to_vec(),
        egress: rules.to_vec(),
    })
}

fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::Network(NetworkRow {
            id: network_id(),
            vni: Vni::try_from(VNI).unwrap(),
            mtu: 1450,
            admin_state_up: true,
            underlay: Some(vec!["192.0.2.0/24".parse().unwrap()]),
            on_demand: false,
            gateways: Vec::new(),
        }),
        policy(None),
        Row::Label(LabelRow {
            network_id: network_id(),
            label: NonZeroU16::MIN,
            groups: vec![group()],
        }),
    ];
    for (number, cidr, gateway) in [(5, "10.0.0.0/24", "10.0.0.1"), (6, "fd00::/64", "fd00::1")] {
        rows.push(Row::Subnet(SubnetRow {
            id: id(number),
            network_id: network_id(),
            cidr: cidr.parse().unwrap(),
            gateway_ip: Some(gateway.parse().unwrap()),
            gateway_mac: GATEWAY_MAC,
            enable_dhcp: false,
            slaac: false,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
        }));
    }
    for station in NEAR {
        let fixed = |number, family| FixedIp {
            subnet_id: id(number),
            ip_address: address(station, family),
        };
        rows.push(Row::Port(PortRow {
            id: port_id(station),
            network_id: network_id(),
            mac: mac(station),
            fixed_ips: vec![fixed(5, Family::Ipv4), fixed(6, Family::Ipv6)],
            allowed_address_pairs: Vec::new(),
            admin_state_up: true,
            port_security_enabled: true,
            dns_name: String::new(),
            label: Some(1),
        }));
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        rows.push(Row::Neighbour(NeighbourRow {
            network_id: network_id(),
            ip: address(FAR, family),
            mac: mac(FAR),
            host: far_host(),
            label: 1,
            forward: false,
        }));
    }
    rows
}

/// The kernel data plane and the model, with the same rows.
struct Rig {
    ebpf: Option<EbpfDataplane>,
    model: Model,
    config: EbpfConfig,
    /// How far the clocks are.
    clock: Duration,
}

impl Rig {
    fn new(config: &EbpfConfig) -> Self {
        let mut rig = Self {
            ebpf: Some(EbpfDataplane::open(config).unwrap()),
            model: Model::default(),
            config: config.clone(),
            clock: Duration::ZERO,
        };
        for row in rows() {
            rig.put(row);
        }
        for station in NEAR {
            run_ip(&["link", "add", "dev", &device(station), "type", "veth"]);
            rig.ebpf().attach(port_id(station), &device(station)).unwrap();
            rig.model.attach(port_id(station), &device(station)).unwrap();
        }
        rig
    }

    fn ebpf(&mut self) -> &mut EbpfDataplane {
        self.ebpf.as_mut().unwrap()
    }

    fn put(&mut self, row: Row) {
        let change = [RowChange::Put(row)];
        self.ebpf().apply(&change).remove(0).unwrap();
        self.model.apply(&change).remove(0).unwrap();
    }

    fn advance(&mut self, by: Duration) {
        self.ebpf().advance(by);
        self.model.advance(by);
        self.clock += by;
    }

    /// Opens the data plane again, as the next process of the agent does.
    fn open_again(&mut self) {
        self.ebpf = None;
        self.ebpf = Some(EbpfDataplane::open(&self.config).unwrap());
        let clock = self.clock;
        self.ebpf().advance(clock);
    }

    /// Sends a frame through both; they agree.
    fn send(&mut self, from: u8, frame: &[u8]) -> Result<(), DropReason> {
        let ingress = if from == FAR {
            Ingress::Tunnel {
                source: far_host(),
                vni: VNI,
                label: 1,
                forwarded: false,
            }
        } else {
            Ingress::Port(port_id(from))
        };
        let got = self.ebpf().trace(&ingress, frame).unwrap();
        assert_eq!(got, self.model.process(ingress, frame));
        match got {
            Verdict::Deliver { .. } | Verdict::Tunnel { .. } => Ok(()),
            Verdict::Drop(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    /// The connections of a port, of which the kernel and the model know the same.
    fn connections(&mut self, station: u8) -> Vec<ConnectionEntry> {
        let got = self.ebpf().connections(port_id(station)).unwrap();
        let expected = self.model.connections(port_id(station)).unwrap();
        // Numbers of sets are each data plane's own.
        let unnumbered = |entries: &[ConnectionEntry]| -> Vec<ConnectionEntry> {
            let entries = entries.iter().cloned();
            entries
                .map(|entry| ConnectionEntry { epoch: 0, ..entry })
                .collect()
        };
        assert_eq!(unnumbered(&got), unnumbered(&expected));
        got
    }
}

/// What goes from one station to another.
#[derive(Clone, Copy)]
struct Talk {
    from: u8,
    to: u8,
    family: Family,
}

impl Talk {
    const fn new(from: u8, to: u8, family: Family) -> Self {
        Self { from, to, family }
    }

    const fn back(self) -> Self {
        Self::new(self.to, self.from, self.family)
    }

    fn header(self) -> Ip {
        Ip::new(address(self.from, self.family), address(self.to, self.family), 64)
    }

    fn frame(self, header: &Ip, protocol: u8, upper: &[u8]) -> Vec<u8> {
        header.frame(mac(self.from), mac(self.to), protocol, upper)
    }

    fn tcp(self, ports: (u16, u16), flags: u8) -> Vec<u8> {
        let header = self.header();
        let mut segment = header.tcp(ports, b"");
        segment[13] = flags;
        self.frame(&header, TCP, &segment)
    }

    /// A fragment: where it begins (in bytes), whether more follow, its id.
    fn fragment(self, protocol: u8, offset: u16, more: bool, id: u8, bytes: &[u8]) -> Vec<u8> {
        let mut header = self.header();
        match self.family {
            Family::Ipv4 => {
                header.fragment = (offset / 8) | if more { 0x2000 } else { 0 };
                let mut frame = self.frame(&header, protocol, bytes);
                // The id, and its part of the checksum.
                frame[19] = id;
                let check = u16::from_be_bytes([frame[24], frame[25]]);
                let check = alcor_dataplane_abi::csum_replace(check, 0, u16::from(id));
                frame[24..26].copy_from_slice(&check.to_be_bytes());
                frame
            }
            Family::Ipv6 => {
                let field = (offset | u16::from(more)).to_be_bytes();
                let body = vec![0, 0, field[0], field[1], 0, 0, 0, id];
                header.extensions = vec![(FRAGMENT_HEADER, body)];
                self.frame(&header, protocol, bytes)
            }
        }
    }
}

/// All ways that a packet can go here.
fn ways() -> Vec<Talk> {
    let pairs = [(1, 2), (1, FAR), (FAR, 2)];
    let both = |(from, to)| [Family::Ipv4, Family::Ipv6].map(|family| Talk::new(from, to, family));
    pairs.into_iter().flat_map(both).collect()
}

fn establish(rig: &mut Rig, talk: Talk, ports: (u16, u16)) {
    let back = (ports.1, ports.0);
    assert_eq!(rig.send(talk.from, &talk.tcp(ports, SYN)), Ok(()));
    assert_eq!(rig.send(talk.to, &talk.back().tcp(back, SYN_ACK)), Ok(()));
    assert_eq!(rig.send(talk.from, &talk.tcp(ports, ACK)), Ok(()));
}

#[test]
fn connections_survive_a_restart_and_are_judged_anew_when_rules_changed_meanwhile() {
    in_namespace("test-sg-restart", |config| {
        let mut rig = Rig::new(config);
        // Who answers may not begin.
        let only_web = |rig: &mut Rig| {
            let web =
                [Family::Ipv4, Family::Ipv6].map(|family| rule(family, Some(Service::ports(TCP, 80, 80))));
            rig.put(Row::Policy(PolicyRow {
                network_id: network_id(),
                group_id: group(),
                stateful: true,
                ingress: web.to_vec(),
                egress: web.to_vec(),
            }));
        };
        only_web(&mut rig);
        for talk in ways() {
            establish(&mut rig, talk, (5000, 80));
        }
        let before = NEAR.map(|station| rig.connections(station));
        rig.open_again();
        assert_eq!(NEAR.map(|station| rig.connections(station)), before);
        for talk in ways() {
            assert_eq!(rig.send(talk.to, &talk.back().tcp((80, 5000), ACK)), Ok(()));
        }
        // The same rows again change nothing, epochs neither.
        only_web(&mut rig);
        rig.open_again();
        assert_eq!(NEAR.map(|station| rig.connections(station)), before);

        rig.put(policy(Some(Service::ports(TCP, 81, 81))));
        rig.open_again();
        for talk in ways() {
            let sent = rig.send(talk.to, &talk.back().tcp((80, 5000), ACK));
            assert!(sent.is_err() || talk.to == FAR, "{sent:?}");
            assert!(rig.send(talk.from, &talk.tcp((5000, 80), ACK)).is_err());
        }
        let revoked = |entry: &ConnectionEntry| entry.state == ConnectionState::Revoked;
        assert!(rig.connections(2).iter().all(revoked));
    });
}

#[test]
fn a_flood_forgets_the_flood_and_nobody_elses_connections() {
    in_namespace("test-sg-flood", |config| {
        let mut rig = Rig::new(config);
        let talk = Talk::new(1, FAR, Family::Ipv4);
        establish(&mut rig, talk, (5000, 80));
        establish(&mut rig, Talk::new(2, FAR, Family::Ipv6), (5000, 80));
        let others = rig.connections(2);
        let header = talk.header();
        for number in 0..PENDING_PER_PORT * 3 {
            let ports = (6000 + (number >> 12) as u16, (number & 0xfff) as u16);
            let frame = talk.frame(&header, TCP, &header.tcp(ports, b""));
            let ingress = Ingress::Port(port_id(1));
            let verdict = rig.ebpf().trace(&ingress, &frame).unwrap();
            assert!(matches!(verdict, Verdict::Tunnel { .. }), "{verdict:?}");
        }
        let now = rig.ebpf().connections(port_id(1)).unwrap();
        let answered = |entry: &&ConnectionEntry| entry.state == ConnectionState::Established;
        assert_eq!(
            now.iter().filter(answered).count(),
            1,
            "what was answered is still there"
        );
        let opening = now.len() - 1;
        assert!(
            opening > PENDING_PER_PORT as usize / 2 && opening <= PENDING_PER_PORT as usize,
            "{opening}"
        );
        assert_eq!(rig.connections(2), others);
    });
}

#[test]
fn answered_connections_are_bounded_too() {
    in_namespace("test-sg-full", |config| {
        let mut rig = Rig::new(config);
        let talk = Talk::new(1, FAR, Family::Ipv4);
        let (there, back) = (talk.header(), talk.back().header());
        let from = [
            Ingress::Port(port_id(1)),
            Ingress::Tunnel {
                source: far_host(),
                vni: VNI,
                label: 1,
                forwarded: false,
            },
        ];
        for number in 0..ANSWERED_PER_PORT + 2000 {
            let port = number as u16;
            let asked = talk.frame(&there, UDP, &there.udp((port, 53), b""));
            let answer = talk.back().frame(&back, UDP, &back.udp((53, port), b""));
            for (ingress, frame) in from.iter().zip([asked, answer]) {
                let verdict = rig.ebpf().trace(ingress, &frame).unwrap();
                assert!(!matches!(verdict, Verdict::Drop(_)), "{number}: {verdict:?}");
            }
        }
        let kept = rig.ebpf().connections(port_id(1)).unwrap().len();
        let most = ANSWERED_PER_PORT as usize;
        assert!(kept > most / 2 && kept <= most, "{kept}");
    });
}

#[test]
fn broken_and_overlapping_fragments_do_not_get_around_rules() {
    in_namespace("test-sg-fragments", |config| {
        let mut rig = Rig::new(config);
        rig.put(policy(Some(Service::ports(TCP, 80, 80))));
        for talk in ways() {
            let (denied_in, unknown) = (Err(DropReason::IngressDenied), Err(DropReason::UnknownFragment));
            let denied = if talk.from == FAR {
                denied_in
            } else {
                Err(DropReason::EgressDenied)
            };
            let segment = talk.header().tcp((5000, 80), &[7; 32]);
            let other = talk.header().tcp((5000, 22), &[7; 32]);
            let from = talk.from;
            // A later one without a first; a first that may not pass lets nothing follow.
            assert_eq!(
                rig.send(from, &talk.fragment(TCP, 24, false, 1, &[1; 8])),
                unknown
            );
            assert_eq!(
                rig.send(from, &talk.fragment(TCP, 0, true, 1, &other[..24])),
                denied
            );
            assert_eq!(
                rig.send(from, &talk.fragment(TCP, 24, false, 1, &[1; 8])),
                unknown
            );
            // A first that hides its flags, or its ports.
            for len in [0, 2, 8, 16] {
                let cut = talk.fragment(TCP, 0, true, 2, &segment[..len]);
                assert_eq!(rig.send(from, &cut), Err(DropReason::Malformed), "{len}");
            }
            assert_eq!(
                rig.send(from, &talk.fragment(TCP, 24, false, 2, &[1; 8])),
                unknown
            );
            // What follows a good one, unless it lies over the header.
            assert_eq!(
                rig.send(from, &talk.fragment(TCP, 0, true, 3, &segment[..24])),
                Ok(())
            );
            assert_eq!(
                rig.send(from, &talk.fragment(TCP, 8, true, 3, &other[8..16])),
                unknown
            );
            assert_eq!(rig.send(from, &talk.fragment(TCP, 24, false, 3, &[1; 8])), Ok(()));
            assert_eq!(rig.send(from, &talk.fragment(TCP, 24, true, 3, &[1; 16])), Ok(()));
            assert_eq!(
                rig.send(from, &talk.fragment(TCP, 32, false, 4, &[1; 8])),
                unknown
            );
            // The rules go, and with them what follows.
            rig.put(policy(Some(Service::ports(TCP, 81, 81))));
            assert_eq!(rig.send(from, &talk.fragment(TCP, 24, false, 3, &[1; 8])), denied);
            rig.put(policy(Some(Service::ports(TCP, 80, 80))));
            assert_eq!(rig.send(from, &talk.fragment(TCP, 24, false, 3, &[1; 8])), Ok(()));
            rig.advance(Duration::from_secs(30));
            assert_eq!(
                rig.send(from, &talk.fragment(TCP, 24, false, 3, &[1; 8])),
                unknown
            );
        }
    });
}

#[test]
fn a_set_that_does_not_fit_leaves_the_old_one_in_force() {
    in_namespace("test-sg-limits", |config| {
        let mut rig = Rig::new(config);
        rig.put(policy(Some(Service::ports(TCP, 80, 80))));
        let talk = Talk::new(1, 2, Family::Ipv4);
        establish(&mut rig, talk, (5000, 80));
        let before = rig.ebpf().snapshot().unwrap();
        // Every port by itself, more than classes can tell apart from each other.
        let single = |port| Rule {
            remote: Remote::Prefixes(vec![
                format!("10.{}.{}.0/24", port >> 8, port & 0xff).parse().unwrap(),
            ]),
            ..rule(Family::Ipv4, Some(Service::ports(TCP, port, port)))
        };
        let too_many = PolicyRow {
            network_id: network_id(),
            group_id: group(),
            stateful: true,
            ingress: (1..3000).map(single).collect(),
            egress: Vec::new(),
        };
        let change = RowChange::Put(Row::Policy(too_many));
        assert!(rig.ebpf().apply(&[change])[0].is_err());
        assert_eq!(rig.ebpf().snapshot().unwrap(), before);
        assert_eq!(rig.send(1, &talk.tcp((5000, 80), ACK)), Ok(()));
        // As many as fit are in force, each with its own address.
        rig.put(Row::Policy(PolicyRow {
            network_id: network_id(),
            group_id: group(),
            stateful: false,
            ingress: (1..2000).map(single).collect(),
            egress: vec![rule(Family::Ipv4, None)],
        }));
        assert_eq!(
            rig.send(1, &talk.tcp((5000, 80), ACK)),
            Err(DropReason::IngressDenied)
        );
        rig.open_again();
        let expected = rig.model.snapshot().unwrap();
        assert_eq!(rig.ebpf().snapshot().unwrap(), expected);
        // Rows go as they came.
        let gone = RowChange::Remove(RowKey::Network(network_id()));
        assert!(rig.ebpf().apply(&[gone])[0].is_ok());
        assert!(rig.ebpf().snapshot().unwrap().rows.is_empty());
    });
}
