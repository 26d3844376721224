//! Two models back to back: what one tunnels comes in at the other. Stations resolve addresses, ping and
//! send datagrams as real ones do.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, net::IpAddr};

use alcor_dataplane::{
    Dataplane, DropReason, Event, Ingress, Model, NetworkRow, PuntReason, Row, RowChange, Verdict,
    testing::{Scenario, wire},
};
use alcor_model::{MacAddr, net::ON_DEMAND_MAC};
use common::*;
use etherparse::{NetSlice, SlicedPacket};
use tokio::sync::mpsc::Receiver;

/// Two hosts, two networks with the same addresses. On host 1 Alice (red) and Mallory (blue), on host 2
/// Bob and Carol (red) and Frank (blue, with Bob's MAC and address).
struct Hosts {
    models: BTreeMap<&'static str, Model>,
}

const HOST_1: &str = "192.0.2.1";
const HOST_2: &str = "192.0.2.2";

impl Hosts {
    fn new() -> Self {
        let mut hosts = Self {
            models: BTreeMap::new(),
        };
        for name in [HOST_1, HOST_2] {
            let mut model = Model::default();
            let changes: Vec<RowChange> = rows_of(name).into_iter().map(RowChange::Put).collect();
            assert!(model.apply(&changes).iter().all(Result::is_ok));
            for port in ports_of(name) {
                model.attach(id(port), &format!("tap{port}")).unwrap();
            }
            hosts.models.insert(name, model);
        }
        hosts
    }

    /// Sends a frame on its whole way; the port that gets it, or `None` for what comes back as a reply.
    fn send(
        &mut self,
        host: &'static str,
        port: u128,
        frame: &[u8],
    ) -> Result<(Option<u128>, Vec<u8>), DropReason> {
        let verdict = self
            .models
            .get_mut(host)
            .unwrap()
            .process(Ingress::Port(id(port)), frame);
        let Verdict::Tunnel {
            host: to,
            vni,
            label,
            forwarded,
            frame,
        } = verdict
        else {
            return arrived(verdict);
        };
        let ingress = Ingress::Tunnel {
            source: ip(host),
            vni: vni.get(),
            label,
            forwarded,
        };
        let peer = self.models.get_mut(to.to_string().as_str()).unwrap();
        arrived(peer.process(ingress, &frame))
    }
}

fn arrived(verdict: Verdict) -> Result<(Option<u128>, Vec<u8>), DropReason> {
    match verdict {
        Verdict::Deliver { port, frame } => Ok((Some(port.uuid().as_u128()), frame.to_vec())),
        Verdict::Reply { frame } => Ok((None, frame.to_vec())),
        Verdict::Drop(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn ports_of(host: &str) -> Vec<u128> {
    if host == HOST_1 {
        vec![ALICE, MALLORY]
    } else {
        vec![BOB, CAROL, FRANK]
    }
}

/// What a region would send: local ports as ports, those of the other host as neighbours.
fn rows_of(host: &str) -> Vec<Row> {
    let mut blue_twin = port(FRANK, BLUE, &[(6, "10.0.0.12")]);
    blue_twin.mac = mac(BOB);
    let ports = [
        (HOST_1, port(ALICE, RED, &[(1, "10.0.0.11"), (4, "fd00:a::11")])),
        (HOST_1, port(MALLORY, BLUE, &[(6, "10.0.0.11")])),
        (HOST_2, port(BOB, RED, &[(1, "10.0.0.12"), (4, "fd00:a::12")])),
        (HOST_2, port(CAROL, RED, &[(2, "10.0.1.13"), (5, "fd00:b::13")])),
        (HOST_2, blue_twin),
    ];
    let is_shared =
        |row: &Row| matches!(row, Row::Subnet(_)) || matches!(row, Row::Network(row) if row.id != id(GREY));
    let mut rows: Vec<Row> = rows().into_iter().filter(is_shared).collect();
    rows.retain(|row| row.key().network_id() != id(GREY));
    for (home, port) in ports {
        if home == host {
            rows.push(Row::Port(port));
            continue;
        }
        let network = port.network_id.uuid().as_u128();
        rows.extend(port.fixed_ips.iter().map(|fixed| {
            Row::Neighbour(neighbour(
                network,
                &fixed.ip_address.to_string(),
                port.mac,
                home,
                0,
            ))
        }));
    }
    rows.sort_by_key(Row::key);
    rows
}

/// Asks with ARP or a neighbour solicitation; the MAC in the answer.
fn resolve(hosts: &mut Hosts, host: &'static str, port: u128, from: &str, target: &str) -> MacAddr {
    let me = mac(port);
    let request = if target.contains(':') {
        let rest = [&[0; 4], &v6(target).octets()[..], &[1, 1], &me.0[..]].concat();
        icmp6(
            (me, MacAddr([0x33, 0x33, 0xff, 0, 0, 1]), from, "ff02::1:ff00:1"),
            135,
            &rest,
        )
    } else {
        wire::arp(
            (me, BROADCAST),
            1,
            (me, v4(from)),
            (MacAddr::default(), v4(target)),
        )
    };
    let (receiver, reply) = hosts.send(host, port, &request).unwrap();
    assert_eq!(receiver, None);
    assert_eq!(reply[..6], me.0);
    let at = if target.contains(':') { 80 } else { 22 };
    MacAddr(reply[at..at + 6].try_into().unwrap())
}

fn ttl(frame: &[u8]) -> u8 {
    match SlicedPacket::from_ethernet(frame).unwrap().net.unwrap() {
        NetSlice::Ipv4(ip) => ip.header().ttl(),
        NetSlice::Ipv6(ip) => ip.header().hop_limit(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ping_and_pong_across_hosts() {
    let mut hosts = Hosts::new();
    for (from, to) in [("10.0.0.11", "10.0.0.12"), ("fd00:a::11", "fd00:a::12")] {
        let bob = resolve(&mut hosts, HOST_1, ALICE, from, to);
        assert_eq!(bob, mac(BOB));
        let ping = echo((mac(ALICE), bob, from, to), 64, true);
        assert_eq!(hosts.send(HOST_1, ALICE, &ping), Ok((Some(BOB), ping)));

        let alice = resolve(&mut hosts, HOST_2, BOB, to, from);
        let pong = echo((mac(BOB), alice, to, from), 64, false);
        assert_eq!(hosts.send(HOST_2, BOB, &pong), Ok((Some(ALICE), pong)));
    }
}

#[test]
fn routed_there_and_back_across_hosts() {
    let mut hosts = Hosts::new();
    for (from, gateway_there, gateway_back, to) in [
        ("10.0.0.11", "10.0.0.1", "10.0.1.1", "10.0.1.13"),
        ("fd00:a::11", "fd00:a::1", "fd00:b::1", "fd00:b::13"),
    ] {
        let gateway = resolve(&mut hosts, HOST_1, ALICE, from, gateway_there);
        let ping = echo((mac(ALICE), gateway, from, to), 64, true);
        let (receiver, arrived) = hosts.send(HOST_1, ALICE, &ping).unwrap();
        // One hop, not two: the source's host routes, the destination's delivers.
        let wanted = echo((GATEWAY, mac(CAROL), from, to), 63, true);
        assert_eq!((receiver, ttl(&arrived)), (Some(CAROL), 63));
        assert_eq!(arrived, wanted);

        let gateway = resolve(&mut hosts, HOST_2, CAROL, to, gateway_back);
        let pong = echo((mac(CAROL), gateway, to, from), 64, false);
        let wanted = echo((GATEWAY, mac(ALICE), to, from), 63, false);
        assert_eq!(hosts.send(HOST_2, CAROL, &pong), Ok((Some(ALICE), wanted)));
    }
}

#[test]
fn the_same_frame_stays_in_its_network() {
    let mut hosts = Hosts::new();
    let frame = udp(
        (mac(ALICE), mac(BOB), "10.0.0.11", "10.0.0.12"),
        (5000, 53),
        b"which one?",
    );
    assert_eq!(hosts.send(HOST_1, ALICE, &frame), Ok((Some(BOB), frame.clone())));
    assert_eq!(
        hosts.send(HOST_1, MALLORY, &frame),
        Ok((Some(FRANK), frame.clone()))
    );
    // Carol's address is in red only.
    let frame = udp((mac(MALLORY), GATEWAY, "10.0.0.11", "10.0.1.13"), (5000, 53), b"");
    assert_eq!(hosts.send(HOST_1, MALLORY, &frame), Err(DropReason::NoRoute));
}

#[test]
fn what_random_scenarios_tunnel_is_never_tunnelled_on() {
    for seed in 0..200 {
        let scenario = Scenario::from_seed(seed);
        let (mut from, mut to) = (scenario.model(), scenario.model());
        for (ingress, frame) in &scenario.frames {
            let Verdict::Tunnel {
                vni, label, frame, ..
            } = from.process(ingress.clone(), frame)
            else {
                continue;
            };
            let ingress = Ingress::Tunnel {
                source: ip(HOST_1),
                vni: vni.get(),
                label,
                forwarded: false,
            };
            let verdict = to.process(ingress, &frame);
            let ended = matches!(verdict, Verdict::Deliver { .. } | Verdict::Drop(_));
            assert!(ended, "seed {seed}: {verdict:?}");
        }
    }
}

const GATEWAY_HOSTS: [&str; 2] = ["192.0.2.101", "192.0.2.102"];

/// The two hosts, where the first one knows nobody but its own ports; gateways that know all, and an agent that asks.
struct ByGateways {
    hosts: Hosts,
    /// Who has which address of red, and where.
    known: BTreeMap<IpAddr, (MacAddr, &'static str)>,
    events: Receiver<Event>,
    /// Packets that each gateway has sent on.
    sent_on: BTreeMap<IpAddr, u32>,
}

impl ByGateways {
    fn new() -> Self {
        let mut hosts = Hosts::new();
        let near = hosts.models.get_mut(HOST_1).unwrap();
        let learned = |row: &Row| matches!(row, Row::Neighbour(row) if row.network_id == id(RED));
        let known = rows_of(HOST_1).into_iter().filter(learned);
        let forget: Vec<RowChange> = known.map(|row| RowChange::Remove(row.key())).collect();
        assert!(near.apply(&forget).iter().all(Result::is_ok));
        let events = near.events().unwrap();
        let mut by_gateways = Self {
            hosts,
            known: BTreeMap::from([
                (ip("10.0.0.12"), (mac(BOB), HOST_2)),
                (ip("10.0.1.13"), (mac(CAROL), HOST_2)),
            ]),
            events,
            sent_on: BTreeMap::new(),
        };
        by_gateways.use_gateways(&GATEWAY_HOSTS);
        by_gateways
    }

    fn use_gateways(&mut self, gateways: &[&str]) {
        let row = NetworkRow {
            on_demand: true,
            gateways: gateways.iter().map(|text| ip(text)).collect(),
            ..network(RED, RED_VNI)
        };
        let change = RowChange::Put(Row::Network(row));
        let outcome = self.hosts.models.get_mut(HOST_1).unwrap().apply(&[change]);
        assert!(outcome[0].is_ok());
    }

    /// Sends a frame of Alice; who gets it, and the gateway that it went by.
    fn send(&mut self, frame: &[u8], to: &str) -> (Verdict, Option<IpAddr>) {
        let near = self.hosts.models.get_mut(HOST_1).unwrap();
        let verdict = near.process(Ingress::Port(id(ALICE)), frame);
        let Verdict::Tunnel {
            host,
            vni,
            label,
            frame,
            ..
        } = verdict
        else {
            return (verdict, None);
        };
        let arriving = |source, frame: &[u8], hosts: &mut Hosts| {
            let ingress = Ingress::Tunnel {
                source,
                vni: vni.get(),
                label,
                forwarded: false,
            };
            hosts.models.get_mut(HOST_2).unwrap().process(ingress, frame)
        };
        if !GATEWAY_HOSTS.iter().any(|text| ip(text) == host) {
            assert_eq!(host, ip(HOST_2));
            return (arriving(ip(HOST_1), &frame, &mut self.hosts), None);
        }
        // What a gateway does: the MAC and the host of whoever has the address; nothing else.
        let Some((mac, _)) = self.known.get(&ip(to)) else {
            return (Verdict::Drop(DropReason::UnknownDestination), Some(host));
        };
        *self.sent_on.entry(host).or_default() += 1;
        let frame = edit(frame.to_vec(), 0, &mac.0);
        (arriving(host, &frame, &mut self.hosts), Some(host))
    }

    /// The agent asks for what it was told of, and puts what it hears.
    fn learn(&mut self) -> usize {
        let mut asked = 0;
        while let Ok(event) = self.events.try_recv() {
            let Event::Unresolved { address, frame, .. } = event else {
                panic!("{event:?}");
            };
            assert!(frame.is_empty(), "nothing is held");
            asked += 1;
            if let Some((mac, host)) = self.known.get(&address) {
                let row = neighbour(RED, &address.to_string(), *mac, host, 0);
                let change = RowChange::Put(Row::Neighbour(row));
                let outcome = self.hosts.models.get_mut(HOST_1).unwrap().apply(&[change]);
                assert!(outcome[0].is_ok());
            }
        }
        asked
    }
}

#[test]
fn first_packets_go_by_a_gateway_and_the_next_ones_directly() {
    let mut world = ByGateways::new();
    let near = |port| {
        udp(
            (mac(ALICE), ON_DEMAND_MAC, "10.0.0.11", "10.0.0.12"),
            (port, 53),
            b"hello",
        )
    };
    let far = |port| {
        udp(
            (mac(ALICE), GATEWAY, "10.0.0.11", "10.0.1.13"),
            (port, 53),
            b"hello",
        )
    };
    assert_eq!(
        resolve(&mut world.hosts, HOST_1, ALICE, "10.0.0.11", "10.0.0.12"),
        ON_DEMAND_MAC
    );
    for (frame, to, receiver) in [(near(1), "10.0.0.12", BOB), (far(1), "10.0.1.13", CAROL)] {
        let (verdict, by) = world.send(&frame, to);
        let arrived = match &verdict {
            Verdict::Deliver { port, frame } if *port == id(receiver) => frame.clone(),
            other => panic!("{other:?}"),
        };
        assert!(by.is_some(), "nobody is known yet");
        assert!(world.learn() > 0);
        let (verdict, by) = world.send(&frame, to);
        assert_eq!(by, None, "the direct way");
        assert!(
            matches!(verdict, Verdict::Deliver { frame, .. } if frame == arrived),
            "and the same frame"
        );
        assert_eq!(world.learn(), 0, "nothing is asked again");
    }
    assert_eq!(world.sent_on.values().sum::<u32>(), 2);
    // Nobody has it: gone at the gateway, asked for, and gone again; nothing waits anywhere.
    let nobody = udp(
        (mac(ALICE), ON_DEMAND_MAC, "10.0.0.11", "10.0.0.99"),
        (1, 53),
        b"",
    );
    let (verdict, by) = world.send(&nobody, "10.0.0.99");
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownDestination));
    assert!(by.is_some() && world.learn() == 1);
}

#[test]
fn a_gateway_that_goes_is_not_used_and_all_still_arrives() {
    let mut world = ByGateways::new();
    let frame = udp(
        (mac(ALICE), ON_DEMAND_MAC, "10.0.0.11", "10.0.0.12"),
        (1, 53),
        b"hello",
    );
    let (_, by) = world.send(&frame, "10.0.0.12");
    let by = by.unwrap();
    let other = GATEWAY_HOSTS.into_iter().find(|text| ip(text) != by).unwrap();
    world.use_gateways(&[other]);
    let (verdict, by) = world.send(&frame, "10.0.0.12");
    assert_eq!(by, Some(ip(other)));
    assert!(matches!(verdict, Verdict::Deliver { .. }), "{verdict:?}");
    // The last one: held, as before there were any.
    world.use_gateways(&[]);
    let (verdict, by) = world.send(&frame, "10.0.0.12");
    assert_eq!((verdict, by), (Verdict::Punt(PuntReason::Unresolved), None));
}
