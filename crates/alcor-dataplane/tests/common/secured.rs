//! Ports under security groups, on two hosts of one network.
#![allow(dead_code)]

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use alcor_dataplane::{
    Dataplane, DropReason, Ingress, LabelRow, Model, PolicyRow, Row, RowChange, Verdict,
    model::Limits,
    security::{Family, Remote, Rule, SecurityGroup, Service},
    testing::wire::Ip,
};
use alcor_model::{Id, MacAddr};

use crate::common::{RED, RED_VNI, id, ip, mac, neighbour, network, port, subnet};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const HOSTS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// A port: its number makes MAC and addresses (10.0.0.n, fd00:a::n).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station(pub u128);

impl Station {
    /// Even numbers live on the second host.
    pub fn host(self) -> usize {
        self.0.is_multiple_of(2).into()
    }

    pub fn address(self, family: Family) -> String {
        match family {
            Family::Ipv4 => format!("10.0.0.{}", self.0),
            Family::Ipv6 => format!("fd00:a::{:x}", self.0),
        }
    }

    pub fn mac(self) -> MacAddr {
        mac(self.0)
    }
}

pub fn group(number: u128) -> Id<SecurityGroup> {
    id(number)
}

pub fn rule(family: Family, service: Option<Service>, remote: Remote) -> Rule {
    Rule {
        family,
        service,
        remote,
    }
}

pub fn policy(number: u128, ingress: Vec<Rule>, egress: Vec<Rule>) -> PolicyRow {
    PolicyRow {
        network_id: id(RED),
        group_id: group(number),
        stateful: true,
        ingress,
        egress,
    }
}

/// Rules for everything, in both families.
pub fn anything() -> Vec<Rule> {
    [Family::Ipv4, Family::Ipv6]
        .map(|family| rule(family, None, Remote::Any))
        .into()
}

pub fn label(number: u16, groups: &[u128]) -> LabelRow {
    LabelRow {
        network_id: id(RED),
        label: NonZeroU16::new(number).unwrap(),
        groups: groups.iter().copied().map(group).collect(),
    }
}

/// Two models, and what the wire between them does.
pub struct Rig {
    pub models: [Model; 2],
    labels: BTreeMap<Station, Option<u16>>,
}

impl Rig {
    pub fn new(stations: &[u128]) -> Self {
        Self::with(stations, Limits::default())
    }

    /// Ports without a label, all known to both hosts.
    pub fn with(stations: &[u128], limits: Limits) -> Self {
        let mut rig = Self {
            models: [Model::new(limits), Model::new(limits)],
            labels: BTreeMap::new(),
        };
        let underlay = Some(vec!["192.0.2.0/24".parse().unwrap()]);
        rig.put(Row::Network(alcor_dataplane::NetworkRow {
            underlay,
            on_demand: false,
            ..network(RED, RED_VNI)
        }));
        rig.put(Row::Subnet(subnet(1, RED, "10.0.0.0/24", Some("10.0.0.1"), true)));
        rig.put(Row::Subnet(subnet(
            4,
            RED,
            "fd00:a::/64",
            Some("fd00:a::1"),
            true,
        )));
        for number in stations {
            rig.set_label(*number, None);
            let host = Station(*number).host();
            rig.models[host]
                .attach(id(*number), &format!("tap{number}"))
                .unwrap();
        }
        rig
    }

    /// Puts a row on both hosts.
    pub fn put(&mut self, row: Row) {
        for model in &mut self.models {
            let outcome = model.apply(&[RowChange::Put(row.clone())]).remove(0);
            assert!(outcome.is_ok(), "{row:?}: {outcome:?}");
        }
    }

    /// Puts a row on one host.
    pub fn put_on(&mut self, host: usize, row: Row) {
        let outcome = self.models[host].apply(&[RowChange::Put(row)]).remove(0);
        assert!(outcome.is_ok(), "{outcome:?}");
    }

    pub fn policy(&mut self, row: PolicyRow) {
        self.put(Row::Policy(row));
    }

    pub fn label(&mut self, number: u16, groups: &[u128]) {
        self.put(Row::Label(label(number, groups)));
    }

    /// Gives a port its label: the port row on its host, neighbour rows on the other one.
    pub fn set_label(&mut self, number: u128, label: Option<u16>) {
        let station = Station(number);
        self.labels.insert(station, label);
        let (v4, v6) = (station.address(Family::Ipv4), station.address(Family::Ipv6));
        let mut row = port(number, RED, &[(1, &v4), (4, &v6)]);
        row.port_security_enabled = true;
        row.admin_state_up = true;
        row.label = label;
        let host = station.host();
        let mut there = vec![RowChange::Put(Row::Port(row))];
        let mut elsewhere: Vec<_> = [v4, v6]
            .iter()
            .map(|ip| neighbour(RED, ip, station.mac(), HOSTS[host], label.unwrap_or_default()))
            .map(|row| RowChange::Put(Row::Neighbour(row)))
            .collect();
        for model in 0..2 {
            let changes = if model == host { &mut there } else { &mut elsewhere };
            assert!(self.models[model].apply(changes).iter().all(Result::is_ok));
        }
    }

    pub fn advance(&mut self, by: Duration) {
        for model in &mut self.models {
            model.advance(by);
        }
    }

    /// Sends a frame on its whole way.
    pub fn send(&mut self, from: u128, frame: &[u8]) -> Result<u128, DropReason> {
        let host = Station(from).host();
        let mut verdict = self.models[host].process(Ingress::Port(id(from)), frame);
        if let Verdict::Tunnel {
            vni, label, frame, ..
        } = verdict
        {
            let ingress = Ingress::Tunnel {
                source: ip(HOSTS[host]),
                vni: vni.get(),
                label,
                forwarded: false,
            };
            verdict = self.models[1 - host].process(ingress, &frame);
        }
        match verdict {
            Verdict::Deliver { port, .. } => Ok(port.uuid().as_u128()),
            Verdict::Drop(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    /// How many connections of a port are tracked.
    pub fn connections(&mut self, number: u128) -> usize {
        let host = Station(number).host();
        self.models[host].connections(id(number)).unwrap().len()
    }
}

/// What goes from one station to another.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    pub from: Station,
    pub to: Station,
    pub family: Family,
}

impl Talk {
    pub fn v4(from: u128, to: u128) -> Self {
        Self {
            from: Station(from),
            to: Station(to),
            family: Family::Ipv4,
        }
    }

    pub fn v6(from: u128, to: u128) -> Self {
        Self {
            family: Family::Ipv6,
            ..Self::v4(from, to)
        }
    }

    pub fn back(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            ..self
        }
    }

    pub fn header(self) -> Ip {
        Ip::new(
            ip(&self.from.address(self.family)),
            ip(&self.to.address(self.family)),
            64,
        )
    }

    /// A frame from station to station.
    pub fn frame(self, header: &Ip, protocol: u8, upper: &[u8]) -> Vec<u8> {
        header.frame(self.from.mac(), self.to.mac(), protocol, upper)
    }

    /// A TCP segment with these flags.
    pub fn tcp(self, ports: (u16, u16), flags: u8) -> Vec<u8> {
        let header = self.header();
        let mut segment = header.tcp(ports, b"");
        segment[13] = flags;
        self.frame(&header, TCP, &segment)
    }

    pub fn udp(self, ports: (u16, u16)) -> Vec<u8> {
        let header = self.header();
        let datagram = header.udp(ports, b"data");
        self.frame(&header, UDP, &datagram)
    }

    /// An ICMP or ICMPv6 message; `rest` follows the checksum.
    pub fn icmp(self, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        let header = self.header();
        let (protocol, message) = header.icmp(kind, code, rest);
        self.frame(&header, protocol, &message)
    }

    /// A ping (or its answer) with this identifier.
    pub fn echo(self, request: bool, identifier: u16) -> Vec<u8> {
        let kind = match (self.family, request) {
            (Family::Ipv4, true) => 8,
            (Family::Ipv4, false) => 0,
            (Family::Ipv6, true) => 128,
            (Family::Ipv6, false) => 129,
        };
        let identifier = identifier.to_be_bytes();
        self.icmp(kind, 0, &[identifier[0], identifier[1], 0, 1, 9, 9])
    }

    /// Any other protocol.
    pub fn other(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.frame(&self.header(), protocol, payload)
    }
}
