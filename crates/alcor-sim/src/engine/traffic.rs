//! Packets between virtual machines: real frames through the model data planes of both hosts. A host without a data plane
//! sends where its rows say, and delivers what it has the port of.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use alcor_dataplane::{Ingress, RowKey, Verdict};
use alcor_model::{
    Id, Network, Port, SecurityGroup,
    resource::{Direction, Ethertype, Protocol, Remote},
};
use alcor_proto::v1::agent_message::Body;
use alcor_southbound::convert::resolve::Question;
use bytes::Bytes;
use etherparse::PacketBuilder;

use super::{Event, Kind, Progress, Sim, churn::SERVICES, wires::Up};
use crate::{
    clock::Us,
    host::{self, light::Route},
};

/// Packets that are remembered, to see whether one is delivered twice.
const REMEMBERED: usize = 4_096;
/// Bytes of what is told of a packet.
const FATE_BYTES: usize = 4_096;
/// How long a probe may take.
const PROBE_US: Us = 5_000_000;
/// First source port: each packet is of a connection of its own, for so many packets.
const SOURCE_PORTS: (u16, u16) = (10_000, 60_000);

/// A packet on its way.
#[derive(Debug)]
struct Sent {
    from: Id<Port>,
    to: Id<Port>,
    to_ip: IpAddr,
    network: Id<Network>,
    /// It must arrive; else, it must not.
    must: Option<bool>,
    delivered: u32,
    /// What became of it, for people.
    fate: String,
}

/// All packets.
#[derive(Debug, Default)]
pub(super) struct Wayfarers {
    last: u64,
    sent: BTreeMap<u64, Sent>,
}

/// A packet between two hosts.
#[derive(Clone)]
pub(super) struct InTunnel {
    number: u64,
    source: IpAddr,
    vni: u32,
    label: u16,
    /// It was passed on by a host that the port has left.
    forwarded: bool,
    frame: Bytes,
}

impl InTunnel {
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn is_forwarded(&self) -> bool {
        self.forwarded
    }
}

impl fmt::Debug for InTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.number, self.source)
    }
}

/// What a packet is: who sends what to whom.
struct Way {
    number: u64,
    service: u16,
    from: Id<Port>,
    host: u32,
    label: u16,
    vni: u32,
    frame: Vec<u8>,
    to: Id<Port>,
    network: Id<Network>,
    to_ip: IpAddr,
}

impl Sim {
    pub(super) fn arrange_traffic(&mut self) {
        let per_s = self.scenario.traffic.pairs_per_s;
        if let Some(wait) = self.rng.wait_us(per_s)
            && self.now + wait < self.busy_until
        {
            self.after(wait, Event::Pair);
        }
    }

    pub(super) fn pair(&mut self) {
        self.arrange_traffic();
        if let Some((from, to)) = self.some_pair() {
            self.send(from, to, false);
        }
    }

    /// Two ports of one network.
    pub(super) fn some_pair(&mut self) -> Option<(Id<Port>, Id<Port>)> {
        let network = self.rng.place(self.people.networks.len());
        let ports = &self.people.networks.get(network)?.ports;
        let from = self.rng.pick(ports)?;
        let to = ports[self.rng.zipf(ports.len(), self.scenario.traffic.exponent)];
        (from != to).then_some((from, to))
    }

    /// Sends packets between pairs that can reach each other, and others that must not, and waits for them.
    pub(super) fn probe(&mut self, when: &str, tell: &mut dyn FnMut(Progress)) {
        let pairs: Vec<_> = (0..self.scenario.traffic.probes)
            .filter_map(|_| self.some_pair())
            .collect();
        self.probe_pairs(when, &pairs, tell);
    }

    /// Sends packets between these pairs, and waits for them.
    pub(super) fn probe_pairs(
        &mut self,
        when: &str,
        pairs: &[(Id<Port>, Id<Port>)],
        tell: &mut dyn FnMut(Progress),
    ) {
        self.wayfarers.sent.clear();
        for (from, to) in pairs {
            self.send(*from, *to, true);
        }
        self.advance(self.now + PROBE_US, tell);
        for (number, sent) in std::mem::take(&mut self.wayfarers.sent) {
            let arrived = sent.delivered > 0;
            self.figures.add("probes", 1);
            self.figures.add("probes_delivered", u64::from(arrived));
            if sent.must.is_some_and(|must| must != arrived) {
                self.violate(format!("{when}: packet {number}: {}", sent.fate));
            }
        }
    }

    fn way(&self, number: u64, from: Id<Port>, to: Id<Port>) -> Option<Way> {
        let service = SERVICES.0 + u16::try_from(number % u64::from(SERVICES.1 - SERVICES.0 + 1)).ok()?;
        let state = self.cloud.state();
        let (from, to) = (state.ports().get(&from)?, state.ports().get(&to)?);
        let (ip, to_ip) = (
            from.fixed_ips.first()?.ip_address,
            to.fixed_ips.first()?.ip_address,
        );
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (ip, to_ip) else {
            return None;
        };
        let (first, count) = (SOURCE_PORTS.0, u64::from(SOURCE_PORTS.1 - SOURCE_PORTS.0));
        let source_port = first + u16::try_from(number % count).unwrap_or_default();
        Some(Way {
            number,
            service,
            from: from.id,
            host: from.binding.host().and_then(host::number)?,
            label: from.label.unwrap_or_default(),
            vni: state.networks().get(&from.network_id)?.segmentation_id.get(),
            frame: frame(
                (from.mac_address.0, source, source_port),
                (to.mac_address.0, destination, service),
                number,
            ),
            to: to.id,
            network: from.network_id,
            to_ip,
        })
    }

    pub(super) fn send(&mut self, from: Id<Port>, to: Id<Port>, is_probe: bool) {
        self.wayfarers.last += 1;
        let Some(way) = self.way(self.wayfarers.last, from, to) else {
            return;
        };
        if !self.actor(way.host).is_on {
            return;
        }
        let must = is_probe.then(|| self.must_arrive(&way)).flatten();
        self.figures.add("packets", 1);
        if self.wayfarers.sent.len() >= REMEMBERED {
            self.wayfarers.sent.pop_first();
        }
        let fate = format!(
            "from {from} on {} to {to}, service {}: sent",
            host::name(way.host),
            way.service
        );
        self.wayfarers.sent.insert(
            way.number,
            Sent {
                from,
                to,
                to_ip: way.to_ip,
                network: way.network,
                must,
                delivered: 0,
                fate,
            },
        );
        let now = self.now;
        match &mut self.actor(way.host).kind {
            Kind::Full(full) if full.has_device(way.from) => {
                let verdict = full.process(now, Ingress::Port(way.from), &way.frame);
                self.verdict(way.host, way.number, verdict);
                self.pass_on(way.host);
            }
            Kind::Light(_) => self.send_light(way),
            Kind::Full(_) | Kind::Liar(_) => {}
        }
    }

    /// A host without a data plane sends where its row says, and asks when it must.
    fn send_light(&mut self, way: Way) {
        let now = self.now;
        let Kind::Light(light) = &mut self.actor(way.host).kind else {
            return;
        };
        if light.has(&RowKey::Port(way.network, way.to)) {
            return self.delivered(way.number, way.to);
        }
        let to = match light.route(way.network, way.to_ip, now) {
            Route::To(to) => to,
            Route::Unknown => return self.note(way.number, "the sender's host does not know the address"),
            Route::Ask => {
                let question = Question {
                    network: way.network,
                    ip: way.to_ip,
                    port: Some(way.from),
                };
                let asks = light.ask(question, way.number);
                self.note(way.number, "asks");
                if let Some(message) = asks {
                    self.send_up(way.host, Up::Body(Body::Resolve(message)));
                }
                return;
            }
        };
        let packet = InTunnel {
            number: way.number,
            source: host::tunnel_ip(way.host),
            vni: way.vni,
            label: way.label,
            forwarded: false,
            frame: way.frame.into(),
        };
        self.tunnel(way.host, to, packet);
    }

    /// Packets of a host without a data plane go on, after an answer.
    pub(super) fn send_again(&mut self, packets: Vec<u64>) {
        for number in packets {
            let sent = self.wayfarers.sent.get(&number);
            let Some((from, to)) = sent.map(|sent| (sent.from, sent.to)) else {
                continue;
            };
            if let Some(way) = self.way(number, from, to) {
                self.send_light(way);
            }
        }
    }

    /// A frame that was held has gone on.
    pub(super) fn released(&mut self, at: u32, verdict: Verdict) {
        let frame = match &verdict {
            Verdict::Deliver { frame, .. } | Verdict::Tunnel { frame, .. } => frame,
            _ => return,
        };
        self.figures.add("packets_released", 1);
        if let Some(number) = number_of(frame) {
            self.verdict(at, number, verdict);
        }
    }

    fn tunnel(&mut self, at: u32, to: IpAddr, packet: InTunnel) {
        let Some(to) = host::of_tunnel_ip(to).filter(|to| *to < self.scenario.hosts.count) else {
            return self.note(packet.number, &format!("into a tunnel to nobody: {to}"));
        };
        self.note(
            packet.number,
            &format!("into the tunnel from {} to {}", host::name(at), host::name(to)),
        );
        let packet = Box::new(packet);
        let delay = self.message_delay();
        self.after(delay, Event::Packet { host: to, packet });
    }

    /// Whom a packet is for.
    pub(super) fn addressee(&self, number: u64) -> Option<(Id<Port>, Id<Network>)> {
        let sent = self.wayfarers.sent.get(&number)?;
        Some((sent.to, sent.network))
    }

    fn note(&mut self, number: u64, fate: &str) {
        let sent = self.wayfarers.sent.get_mut(&number);
        if let Some(sent) = sent.filter(|sent| sent.fate.len() < FATE_BYTES) {
            sent.fate.push_str("; ");
            sent.fate.push_str(fate);
        }
    }

    fn verdict(&mut self, at: u32, number: u64, verdict: Verdict) {
        match verdict {
            Verdict::Deliver { port, .. } => self.delivered(number, port),
            Verdict::Tunnel {
                host: to,
                vni,
                label,
                frame,
                forwarded,
            } => {
                let packet = InTunnel {
                    number,
                    source: host::tunnel_ip(at),
                    vni: vni.get(),
                    label,
                    forwarded,
                    frame,
                };
                self.tunnel(at, to, packet);
            }
            Verdict::Reply { .. } => self.note(number, "answered by the data plane"),
            Verdict::External { nexthop, .. } => self.note(number, &format!("out, to {nexthop}")),
            Verdict::Pass => self.note(number, "left to the host's own stack"),
            Verdict::Punt(reason) => self.note(number, reason.as_str()),
            Verdict::Drop(reason) => {
                self.figures.add(&format!("drops_{}", reason.as_str()), 1);
                self.note(
                    number,
                    &format!("{} drops it: {}", host::name(at), reason.as_str()),
                );
            }
        }
    }

    pub(super) fn packet(&mut self, host: u32, packet: &InTunnel) {
        let now = self.now;
        let actor = self.actor(host);
        if !actor.is_on {
            return;
        }
        let ingress = Ingress::Tunnel {
            source: packet.source,
            vni: packet.vni,
            label: packet.label,
            forwarded: packet.forwarded,
        };
        match &mut actor.kind {
            Kind::Full(full) => {
                let verdict = full.process(now, ingress, &packet.frame);
                self.check_passing(host, packet, &verdict);
                self.verdict(host, packet.number, verdict);
                self.pass_on(host);
            }
            Kind::Light(_) => self.packet_at_light(host, packet),
            Kind::Liar(_) => {}
        }
    }

    /// It has the port, or passes on what comes for it.
    fn packet_at_light(&mut self, host: u32, packet: &InTunnel) {
        let sent = self.wayfarers.sent.get(&packet.number);
        let Some((to, ip, network)) = sent.map(|sent| (sent.to, sent.to_ip, sent.network)) else {
            return;
        };
        let Kind::Light(light) = &self.actor(host).kind else {
            return;
        };
        if light.has(&RowKey::Port(network, to)) {
            return self.delivered(packet.number, to);
        }
        match light.forwards(network, ip).filter(|_| !packet.forwarded) {
            Some(next) => {
                self.figures.add("packets_forwarded", 1);
                let packet = InTunnel {
                    number: packet.number,
                    source: host::tunnel_ip(host),
                    vni: packet.vni,
                    label: packet.label,
                    forwarded: true,
                    frame: packet.frame.clone(),
                };
                self.tunnel(host, next, packet);
            }
            None => self.note(
                packet.number,
                &format!("{} does not have the port", host::name(host)),
            ),
        }
    }

    /// A packet reaches a virtual machine.
    fn delivered(&mut self, number: u64, port: Id<Port>) {
        self.figures.add("packets_delivered", 1);
        let network = self.cloud.state().ports().get(&port).map(|port| port.network_id);
        let Some(sent) = self.wayfarers.sent.get_mut(&number) else {
            return;
        };
        sent.delivered += 1;
        let (expected, times) = (sent.network, sent.delivered);
        if network.is_some_and(|network| network != expected) {
            self.violate(format!(
                "packet {number} of network {expected} reached port {port} of another one"
            ));
        }
        if times > 1 {
            self.violate(format!("packet {number} was delivered {times} times"));
        }
    }

    /// Whether a packet must arrive when all is at rest; none when it is not said.
    fn must_arrive(&mut self, way: &Way) -> Option<bool> {
        let (to, from) = {
            let ports = self.cloud.state().ports();
            (ports.get(&way.to)?.clone(), ports.get(&way.from)?.clone())
        };
        let to_host = to.binding.host().and_then(host::number)?;
        let mut filtered = |host: u32, port: Id<Port>| match &self.actor(host).kind {
            Kind::Full(full) => full.has_device(port).then_some(true),
            Kind::Light(_) => Some(false),
            Kind::Liar(_) => None,
        };
        let (out, into) = (filtered(way.host, from.id)?, filtered(to_host, to.id)?);
        let up = (from.admin_state_up || !out) && (to.admin_state_up || !into);
        let goes = !out || self.allows(&from.security_groups, Direction::Egress, &to, way.service);
        let comes = !into || self.allows(&to.security_groups, Direction::Ingress, &from, way.service);
        Some(up && goes && comes)
    }

    /// Whether rules of groups allow UDP to a service, with this other side.
    fn allows(&self, groups: &[Id<SecurityGroup>], direction: Direction, other: &Port, service: u16) -> bool {
        let state = self.cloud.state();
        let mut rules = groups.iter().flat_map(|group| state.rules_of(*group));
        rules.any(|rule| {
            let rule = &rule.matches;
            let udp = |protocol: &Protocol| protocol.number == 0 || protocol.number == Protocol::UDP;
            let with = match rule.remote {
                Remote::Any => true,
                Remote::Group(group) => other.security_groups.contains(&group),
                Remote::Prefix(prefix) => other.fixed_ips.iter().any(|ip| prefix.contains(&ip.ip_address)),
                Remote::AddressGroup(_) => false,
            };
            rule.direction == direction
                && rule.ethertype == Ethertype::Ipv4
                && rule.protocol.as_ref().is_none_or(udp)
                && rule.port_range_min.is_none_or(|first| first <= service)
                && rule.port_range_max.is_none_or(|last| service <= last)
                && with
        })
    }
}

/// A UDP packet that carries its number: source and destination with MAC, address and port.
fn frame(from: ([u8; 6], Ipv4Addr, u16), to: ([u8; 6], Ipv4Addr, u16), number: u64) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(from.0, to.0)
        .ipv4(from.1.octets(), to.1.octets(), 64)
        .udp(from.2, to.2);
    let payload = number.to_be_bytes();
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    // Writing into memory does not fail; an empty frame would be dropped and seen.
    if builder.write(&mut frame, &payload).is_err() {
        frame.clear();
    }
    frame
}

/// The number that a frame of [`frame`] carries.
fn number_of(frame: &[u8]) -> Option<u64> {
    frame.last_chunk().map(|number| u64::from_be_bytes(*number))
}
