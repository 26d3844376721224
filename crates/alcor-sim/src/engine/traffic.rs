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
    net::GATEWAY_MAC,
    resource::{Direction, Ethertype, Protocol, Remote},
};
use alcor_proto::v1::agent_message::Body;
use alcor_region::RegionState;
use alcor_southbound::convert::resolve::Question;
use etherparse::PacketBuilder;

use super::{Event, Kind, Sim, churn::SERVICES, routers::router_between, wires::Up};
use crate::{
    clock::Us,
    host::{self, Carried, light::Route},
    outcome::Progress,
};

/// Packets that are remembered, to see whether one is delivered twice.
const REMEMBERED: usize = 4_096;
/// Bytes of what is told of a packet.
const FATE_BYTES: usize = 4_096;
/// How long a probe may take.
const PROBE_US: Us = 5_000_000;
/// First source port: each packet is of a connection of its own, for so many packets.
const SOURCE_PORTS: (u16, u16) = (10_000, 60_000);

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) from: Id<Port>,
    pub(super) to: Id<Port>,
    /// Not to the port itself, but to an address that routers lead to by it.
    pub(super) behind: Option<IpAddr>,
}

/// A packet on its way.
#[derive(Debug)]
struct Sent {
    pair: Pair,
    /// Between two projects: whoever has the address in the sender's own may get it, and the addressee never.
    is_foreign: bool,
    is_routed: bool,
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
    carried: Carried,
}

impl InTunnel {
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn is_forwarded(&self) -> bool {
        self.carried.forwarded
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
    pair: Pair,
    is_foreign: bool,
    host: u32,
    label: u16,
    vni: u32,
    frame: Vec<u8>,
    /// How it gets into the addressee's network.
    by: By,
    network: Id<Network>,
    /// The address that is looked for there, and whose it is.
    to_ip: IpAddr,
    to_mac: [u8; 6],
}

/// How a packet gets into the addressee's network.
#[derive(Clone, Copy, Debug)]
enum By {
    /// It begins there.
    Itself,
    /// A router's row, in the sender's network, says so.
    Router(RowKey),
    /// Not at all.
    Nothing,
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
        if let Some(pair) = self.some_pair() {
            self.send(pair, false);
        }
    }

    /// Two ports of one network, or of two.
    pub(super) fn some_pair(&mut self) -> Option<Pair> {
        let routed = self.scenario.routers.traffic_share;
        if routed > 0.0 && self.rng.chance(routed) {
            return self.some_routed_pair();
        }
        let network = self.rng.place(self.people.networks.len());
        let ports = &self.people.networks.get(network)?.ports;
        let from = self.rng.pick(ports)?;
        let to = ports[self.rng.zipf(ports.len(), self.scenario.traffic.exponent)];
        (from != to).then_some(Pair {
            from,
            to,
            behind: None,
        })
    }

    /// Sends packets between pairs that can reach each other, and others that must not, and waits for them.
    pub(super) fn probe(&mut self, when: &str, tell: &mut dyn FnMut(Progress)) {
        let pairs: Vec<_> = (0..self.scenario.traffic.probes)
            .filter_map(|_| self.some_pair())
            .collect();
        self.probe_pairs(when, &pairs, tell);
    }

    /// Sends packets between these pairs, and waits for them.
    pub(super) fn probe_pairs(&mut self, when: &str, pairs: &[Pair], tell: &mut dyn FnMut(Progress)) {
        self.wayfarers.sent.clear();
        for pair in pairs {
            self.send(*pair, true);
        }
        self.advance(self.now + PROBE_US, tell);
        for (number, sent) in std::mem::take(&mut self.wayfarers.sent) {
            let arrived = sent.delivered > 0;
            self.figures.add("probes", 1);
            self.figures.add("probes_delivered", u64::from(arrived));
            if sent.is_routed {
                self.figures.add("probes_routed", 1);
                self.figures.add("probes_routed_delivered", u64::from(arrived));
            }
            if sent.must.is_some_and(|must| must != arrived) {
                self.violate(format!("{when}: packet {number}: {}", sent.fate));
            }
        }
    }

    fn way(&self, number: u64, pair: Pair) -> Option<Way> {
        let service = SERVICES.0 + u16::try_from(number % u64::from(SERVICES.1 - SERVICES.0 + 1)).ok()?;
        let state = self.cloud.state();
        let (from, to) = (state.ports().get(&pair.from)?, state.ports().get(&pair.to)?);
        let (ip, to_ip) = (
            from.fixed_ips.first()?.ip_address,
            to.fixed_ips.first()?.ip_address,
        );
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (ip, pair.behind.unwrap_or(to_ip)) else {
            return None;
        };
        let (first, count) = (SOURCE_PORTS.0, u64::from(SOURCE_PORTS.1 - SOURCE_PORTS.0));
        let source_port = first + u16::try_from(number % count).unwrap_or_default();
        let by = match (from.network_id == to.network_id, pair.behind) {
            (true, None) => By::Itself,
            _ => router_between(state, from.network_id, to.network_id, destination.into())
                .map_or(By::Nothing, |id| By::Router(RowKey::Router(from.network_id, id))),
        };
        let mac = match by {
            By::Itself => to.mac_address,
            _ => GATEWAY_MAC,
        };
        Some(Way {
            number,
            service,
            pair,
            is_foreign: from.standard.project_id != to.standard.project_id,
            host: from.binding.host().and_then(host::number)?,
            label: label_in(state, from, to.network_id),
            vni: state.networks().get(&to.network_id)?.segmentation_id.get(),
            frame: frame(
                (from.mac_address.0, source, source_port),
                (mac.0, destination, service),
                number,
            ),
            by,
            network: to.network_id,
            to_ip,
            to_mac: to.mac_address.0,
        })
    }

    pub(super) fn send(&mut self, pair: Pair, is_probe: bool) {
        self.wayfarers.last += 1;
        let Some(way) = self.way(self.wayfarers.last, pair) else {
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
            "from {} on {} to {}, service {}, by {:?}: sent",
            pair.from,
            host::name(way.host),
            pair.to,
            way.service,
            way.by
        );
        self.wayfarers.sent.insert(
            way.number,
            Sent {
                pair,
                is_foreign: way.is_foreign,
                is_routed: !matches!(way.by, By::Itself),
                to_ip: way.to_ip,
                network: way.network,
                must,
                delivered: 0,
                fate,
            },
        );
        let now = self.now;
        match &mut self.actor(way.host).kind {
            Kind::Full(full) if full.has_device(way.pair.from) => {
                let verdict = full.process(now, Ingress::Port(way.pair.from), &way.frame);
                self.verdict(way.host, way.number, verdict);
                self.pass_on(way.host);
            }
            Kind::Light(_) => self.send_light(way),
            Kind::Full(_) | Kind::Liar(_) => {}
        }
    }

    /// A host without a data plane sends where its row says, and asks when it must.
    fn send_light(&mut self, mut way: Way) {
        let now = self.now;
        let Kind::Light(light) = &mut self.actor(way.host).kind else {
            return;
        };
        match way.by {
            By::Itself => {}
            By::Router(key) if light.has(&key) => {}
            _ => return self.note(way.number, "the sender's host knows no way into the network"),
        }
        if light.has(&RowKey::Port(way.network, way.pair.to)) {
            return self.delivered(way.number, way.pair.to);
        }
        let to = match light.route(way.network, way.to_ip, now) {
            Route::To(to) => to,
            Route::Unknown => return self.note(way.number, "the sender's host does not know the address"),
            Route::Ask => {
                let question = Question {
                    network: way.network,
                    ip: way.to_ip,
                    port: Some(way.pair.from),
                };
                let asks = light.ask(question, way.number);
                self.note(way.number, "asks");
                if let Some(message) = asks {
                    self.send_up(way.host, Up::Body(Body::Resolve(message)));
                }
                return;
            }
        };
        // A router puts the next hop's address before the packet.
        if let Some(mac) = way.frame.first_chunk_mut() {
            *mac = way.to_mac;
        }
        let packet = InTunnel {
            number: way.number,
            source: host::tunnel_ip(way.host),
            carried: Carried {
                vni: way.vni,
                label: way.label,
                forwarded: false,
                frame: way.frame.into(),
            },
        };
        self.tunnel(way.host, to, packet);
    }

    /// Packets of a host without a data plane go on, after an answer.
    pub(super) fn send_again(&mut self, packets: Vec<u64>) {
        for number in packets {
            let sent = self.wayfarers.sent.get(&number);
            let Some(pair) = sent.map(|sent| sent.pair) else {
                continue;
            };
            if let Some(way) = self.way(number, pair) {
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
        let there = |to: &u32| *to < self.scenario.hosts.count || self.is_gateway(*to);
        let Some(to) = host::of_tunnel_ip(to).filter(there) else {
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
        (!sent.is_foreign).then_some((sent.pair.to, sent.network))
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
                    carried: Carried {
                        vni: vni.get(),
                        label,
                        forwarded,
                        frame,
                    },
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
        let carried = &packet.carried;
        let ingress = Ingress::Tunnel {
            source: packet.source,
            vni: carried.vni,
            label: carried.label,
            forwarded: carried.forwarded,
        };
        match &mut actor.kind {
            Kind::Full(full) if full.is_gateway() => self.packet_at_gateway(host, packet),
            Kind::Full(full) => {
                let verdict = full.process(now, ingress, &carried.frame);
                self.check_passing(host, packet, &verdict);
                self.verdict(host, packet.number, verdict);
                self.pass_on(host);
            }
            Kind::Light(_) => self.packet_at_light(host, packet),
            Kind::Liar(_) => {}
        }
    }

    /// It goes on to the host that has the address, or nowhere.
    fn packet_at_gateway(&mut self, at: u32, packet: &InTunnel) {
        if self.gateways.is_dark(at, self.now) {
            return self.note(packet.number, "nobody hears the gateway");
        }
        let Kind::Full(full) = &mut self.actor(at).kind else {
            return;
        };
        match full.forward(packet.source, &packet.carried) {
            Ok((to, carried)) => {
                self.figures.add("packets_by_gateway", 1);
                let packet = InTunnel {
                    number: packet.number,
                    source: host::tunnel_ip(at),
                    carried,
                };
                self.tunnel(at, to, packet);
            }
            Err(reason) => {
                self.figures.add("drops_by_gateway", 1);
                self.note(packet.number, &format!("gateway {at} drops it: {reason}"));
            }
        }
    }

    /// It has the port, or passes on what comes for it.
    fn packet_at_light(&mut self, host: u32, packet: &InTunnel) {
        let sent = self.wayfarers.sent.get(&packet.number);
        let Some((to, ip, network)) = sent.map(|sent| (sent.pair.to, sent.to_ip, sent.network)) else {
            return;
        };
        let vni = self.cloud.state().networks().get(&network);
        if vni.is_none_or(|network| network.segmentation_id.get() != packet.carried.vni) {
            return self.note(packet.number, "is of another network than the addressee");
        }
        let Kind::Light(light) = &self.actor(host).kind else {
            return;
        };
        if light.has(&RowKey::Port(network, to)) {
            return self.delivered(packet.number, to);
        }
        match light.forwards(network, ip).filter(|_| !packet.carried.forwarded) {
            Some(next) => {
                self.figures.add("packets_forwarded", 1);
                let packet = InTunnel {
                    number: packet.number,
                    source: host::tunnel_ip(host),
                    carried: Carried {
                        forwarded: true,
                        ..packet.carried.clone()
                    },
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
        let ports = self.cloud.state().ports();
        let there = ports.get(&port).cloned();
        let Some(sent) = self.wayfarers.sent.get_mut(&number) else {
            return;
        };
        sent.delivered += 1;
        let (expected, times) = (sent.network, sent.delivered);
        // A route may have led elsewhere before.
        let may_be_elsewhere = sent.is_foreign || sent.pair.behind.is_some();
        let project = ports.get(&sent.pair.from).map(|from| &from.standard.project_id);
        let of_other = |there: &Port| project.is_some_and(|project| *project != there.standard.project_id);
        if there.as_deref().is_some_and(of_other) {
            self.violate(format!(
                "packet {number} of project {project:?} reached port {port} of another one"
            ));
        } else if !may_be_elsewhere && there.is_some_and(|there| there.network_id != expected) {
            self.violate(format!(
                "packet {number} for network {expected} reached port {port} of another one"
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
            (
                ports.get(&way.pair.to)?.clone(),
                ports.get(&way.pair.from)?.clone(),
            )
        };
        if way.is_foreign {
            // Its own project may have the address, too.
            return None;
        }
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
        Some(up && goes && comes && !matches!(way.by, By::Nothing))
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

/// The label of a port's groups in a network: that of its own, or of another that packets of it are routed into; 0 when there is none.
fn label_in(state: &RegionState, port: &Port, network: Id<Network>) -> u16 {
    if port.network_id == network {
        return port.label.unwrap_or_default();
    }
    let mut labels = state.labels_of(network).filter(|label| !label.retired);
    let own = labels.find(|label| label.security_groups == port.security_groups);
    own.map_or(0, |label| label.number.get())
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
