//! What would become of a packet: the model data plane, given the rows that hosts have, asked with a probe.
//!
//! Pure. The packet goes through the same code as every packet of the model, so the answer cannot differ from it; which
//! rule decides is found by compiling each rule by itself and asking its table. Devices are taken for attached, and
//! nothing for established: it is the first packet of a connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
};

use alcor_dataplane_abi::connection::Direction;
use alcor_model::{
    Id, MacAddr, Network, Port,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};

use crate::{
    Dataplane, DropReason, Ingress, LabelRow, Model, NeighbourRow, NetworkRow, PolicyRow, PortRow,
    PuntReason, Row, RowChange, SubnetRow, Uplinks, Verdict,
    compiled::Compiled,
    packet::{ipv4_at, mac_at, put},
    probe::{Payload, packet, question},
    security::{Family, SecurityGroup},
};

/// Where an IPv4 header has the source.
const IPV4_SOURCE: usize = 12;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The port that sends.
    pub from: Id<Port>,
    /// To which address.
    pub to: IpAddr,
    /// What it carries.
    pub payload: Payload,
}

/// A rule that allows: its group, its direction and its place in the group's policy row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowing {
    /// The group.
    pub group: Id<SecurityGroup>,
    /// Which list of the row.
    pub direction: Direction,
    /// Place in the list.
    pub position: usize,
}

/// On whose host a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender's.
    Source,
    /// The receiver's, if it is another one.
    Destination,
}

/// One stage that the packet comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Where.
    pub side: Side,
    /// Its name.
    pub name: &'static str,
    /// The packet goes on.
    pub passes: bool,
    /// What happens, in words.
    pub detail: String,
    /// The rule that allows it, in a stage of rules.
    pub rule: Option<Allowing>,
}

/// The way of the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The address that it is sent from.
    pub source: Option<IpAddr>,
    /// In order.
    pub stages: Vec<Stage>,
    /// The port that it reaches.
    pub delivered_to: Option<Id<Port>>,
    /// Why it is dropped.
    pub dropped: Option<DropReason>,
}

/// The rows of one host as a model, with every port attached.
struct Host<'a> {
    rows: &'a [Row],
    model: Model,
}

/// The external networks of a host: those of the floating IPs that rows give it. Each has a device with its name.
fn uplinks(rows: &[Row]) -> Uplinks {
    let mut uplinks = Uplinks::default();
    for row in rows {
        if let Row::FloatingIp(row) = row
            && row.host.is_some()
        {
            uplinks.tunnel_ip = row.host;
            let network = row.external_network_id;
            uplinks.devices.insert(network, network.to_string());
        }
    }
    uplinks
}

impl<'a> Host<'a> {
    fn new(rows: &'a [Row]) -> Self {
        let mut model = Model::default().with_uplinks(uplinks(rows));
        let mut sorted: Vec<&Row> = rows.iter().collect();
        sorted.sort_by_key(|row| row.key());
        for row in sorted {
            // What does not fit is refused, as on the host; the stages show what follows from it.
            let _ = model.apply(&[RowChange::Put(row.clone())]);
            if let Row::Port(port) = row {
                let _ = model.attach(port.id, &port.id.to_string());
            }
        }
        Self { rows, model }
    }

    fn port(&self, test: impl Fn(&PortRow) -> bool) -> Option<&'a PortRow> {
        self.rows.iter().find_map(|row| match row {
            Row::Port(port) if test(port) => Some(port),
            _ => None,
        })
    }

    fn network(&self, test: impl Fn(&NetworkRow) -> bool) -> Option<&'a NetworkRow> {
        self.rows.iter().find_map(|row| match row {
            Row::Network(row) if test(row) => Some(row),
            _ => None,
        })
    }

    fn is_down(&self, id: Id<Network>) -> bool {
        self.network(|row| row.id == id)
            .is_none_or(|row| !row.admin_state_up)
    }

    fn subnet(&self, test: impl Fn(&SubnetRow) -> bool) -> Option<&'a SubnetRow> {
        self.rows.iter().find_map(|row| match row {
            Row::Subnet(row) if test(row) => Some(row),
            _ => None,
        })
    }

    /// Labels of a network that a decision can depend on.
    fn labels(&self, network: Id<Network>, wanted: [u16; 2]) -> BTreeMap<NonZeroU16, LabelRow> {
        let of_network = |row: &LabelRow| row.network_id == network && wanted.contains(&row.label.get());
        let labels = self.rows.iter().filter_map(|row| match row {
            Row::Label(row) if of_network(row) => Some((row.label, row.clone())),
            _ => None,
        });
        labels.collect()
    }

    fn policies(&self, network: Id<Network>, groups: &BTreeSet<Id<SecurityGroup>>) -> Vec<&'a PolicyRow> {
        let of_network = |row: &PolicyRow| row.network_id == network && groups.contains(&row.group_id);
        let policies = self.rows.iter().filter_map(|row| match row {
            Row::Policy(row) if of_network(row) => Some(row),
            _ => None,
        });
        policies.collect()
    }

    /// The first rule that allows a packet, and how many were asked.
    fn deciding(&self, port: &PortRow, asked: &Asked) -> (Option<Allowing>, usize) {
        let own = port.filter().unwrap_or_default();
        let labels = self.labels(port.network_id, [own, asked.label]);
        let set = NonZeroU16::new(own).and_then(|own| labels.get(&own));
        let groups = set
            .map(|row| row.groups.iter().copied().collect())
            .unwrap_or_default();
        let mut count = 0;
        for row in self.policies(port.network_id, &groups) {
            let rules = match asked.direction {
                Direction::Ingress => &row.ingress,
                Direction::Egress => &row.egress,
            };
            for (position, rule) in rules.iter().enumerate() {
                count += 1;
                let mut single = PolicyRow {
                    ingress: Vec::new(),
                    egress: Vec::new(),
                    ..row.clone()
                };
                match asked.direction {
                    Direction::Ingress => single.ingress.push(rule.clone()),
                    Direction::Egress => single.egress.push(rule.clone()),
                }
                let policies = BTreeMap::from([(row.group_id, single)]);
                let allows = Compiled::new(own, &labels, &policies).is_ok_and(|set| {
                    let table = set.table(asked.direction, Family::of(asked.other));
                    table.allows(
                        asked.other,
                        asked.label,
                        asked.payload.protocol,
                        asked.payload.point,
                    )
                });
                if allows {
                    let found = Allowing {
                        group: row.group_id,
                        direction: asked.direction,
                        position,
                    };
                    return (Some(found), count);
                }
            }
        }
        (None, count)
    }
}

/// What rules are asked about.
struct Asked {
    direction: Direction,
    /// The other side.
    other: IpAddr,
    label: u16,
    payload: Payload,
}

/// Sends a probe through the rows of the sender's host and of the receiver's, if it is another one.
pub fn trace(source: &[Row], destination: Option<&[Row]>, probe: &Probe) -> Way {
    let mut run = Run {
        source: Host::new(source),
        destination: destination.map(Host::new),
        probe: *probe,
        way: Way::default(),
        peer_mac: None,
    };
    // Ended early or not, the way is what was found.
    let _ = run.all();
    run.way
}

/// Where a gateway sends a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// To the host of whoever has the address.
    Between,
    /// Out.
    Out,
}

struct Run<'a> {
    source: Host<'a>,
    destination: Option<Host<'a>>,
    probe: Probe,
    way: Way,
    /// The MAC that the packet is sent to, unless that is the gateway: who has it gets the packet.
    peer_mac: Option<MacAddr>,
}

impl<'a> Run<'a> {
    fn stage(&mut self, side: Side, name: &'static str, passes: bool, detail: impl Into<String>) {
        self.way.stages.push(Stage {
            side,
            name,
            passes,
            detail: detail.into(),
            rule: None,
        });
    }

    /// The packet ends here.
    fn ends(&mut self, side: Side, name: &'static str, reason: DropReason) -> Option<()> {
        self.stage(
            side,
            name,
            false,
            format!("dropped and counted as {}", reason.as_str()),
        );
        self.way.dropped = Some(reason);
        None
    }

    fn all(&mut self) -> Option<()> {
        let from = self.probe.from;
        let Some(port) = self.source.port(|port| port.id == from) else {
            self.stage(Side::Source, "port", false, "the port is on no host");
            return None;
        };
        let family = Family::of(self.probe.to);
        let mut own = port.fixed_ips.iter().map(|fixed| fixed.ip_address);
        let Some(ip) = own.find(|ip| Family::of(*ip) == family) else {
            self.stage(
                Side::Source,
                "port",
                false,
                "the port has no address of this family",
            );
            return None;
        };
        self.way.source = Some(ip);
        let mac = self.next_hop(port, ip)?;
        let frame = packet((port.mac, mac), ip, self.probe.to, &self.probe.payload)?;
        let verdict = self.source.model.process(Ingress::Port(from), &frame);
        self.leave(port, ip, verdict)
    }

    /// Whom the station asks for the way, and what it hears.
    fn next_hop(&mut self, port: &PortRow, ip: IpAddr) -> Option<MacAddr> {
        let to = self.probe.to;
        let mine = |row: &SubnetRow| port.fixed_ips.iter().any(|fixed| fixed.subnet_id == row.id);
        let near = self.source.subnet(|row| mine(row) && row.cidr.contains(&to));
        let gateway = self
            .source
            .subnet(|row| mine(row) && row.cidr.contains(&ip))
            .and_then(|row| row.gateway_ip);
        let Some(target) = near.map(|_| to).or(gateway) else {
            self.stage(
                Side::Source,
                "next hop",
                false,
                "not in the port's subnet, which has no gateway",
            );
            return None;
        };
        let frame = question(port.mac, ip, target)?;
        let who = if near.is_some() { "the peer" } else { "the gateway" };
        match self.source.model.process(Ingress::Port(port.id), &frame) {
            Verdict::Reply { frame } => {
                let mac = mac_at(&frame, 6)?;
                self.peer_mac = near.map(|_| mac);
                self.stage(
                    Side::Source,
                    "next hop",
                    true,
                    format!("{who}, {target} is at {mac}"),
                );
                Some(mac)
            }
            Verdict::Drop(reason) => {
                self.ends(Side::Source, "next hop", reason);
                None
            }
            other => {
                self.stage(
                    Side::Source,
                    "next hop",
                    false,
                    format!("nobody answers for {target}: {other:?}"),
                );
                None
            }
        }
    }

    fn leave(&mut self, port: &'a PortRow, ip: IpAddr, verdict: Verdict) -> Option<()> {
        let dropped = match verdict {
            Verdict::Drop(reason) => Some(reason),
            _ => None,
        };
        let down = !port.admin_state_up || self.source.is_down(port.network_id);
        if let Some(reason) = dropped.filter(|_| down) {
            return self.ends(Side::Source, "port", reason);
        }
        if let Some(reason) = dropped.filter(|reason| ends_before_rules(*reason)) {
            return self.ends(Side::Source, "port security and forwarding", reason);
        }
        let checked = match port.port_security_enabled {
            true => "the sender's addresses are its own",
            false => "port security is off",
        };
        self.stage(Side::Source, "port security", true, checked);
        if let Verdict::Punt(reason) = verdict
            && reason != PuntReason::TooBig
        {
            return self.handed_up(reason);
        }
        let to = self.probe.to;
        let (network, hop) = self.route(port, dropped)?;
        let has = |row: &PortRow| row.fixed_ips.iter().any(|fixed| fixed.ip_address == hop);
        let local = self.source.port(|row| row.network_id == network && has(row));
        if let Verdict::Tunnel { host, frame, .. } = &verdict
            && let Some(by) = self.gateway(*host, frame)
        {
            self.rules(Side::Source, port, Direction::Egress, to, 0, dropped)?;
            return self.by_gateway(by, verdict, (port.network_id, ip));
        }
        let label = self.neighbour(port, network, hop, local);
        self.rules(Side::Source, port, Direction::Egress, to, label, dropped)?;
        let own = port.filter().unwrap_or_default();
        let own = self.source.model.translate(port.network_id, network, own);
        match verdict {
            Verdict::Tunnel {
                host,
                vni,
                label,
                frame,
                ..
            } => {
                let detail = format!("to host {host}, VNI {vni}, label {label}");
                self.stage(Side::Source, "tunnel", true, detail);
                self.arrive(vni.get(), label, (port.network_id, ip), None, &frame)
            }
            Verdict::Deliver { port: receiver, .. } => {
                let row = self.source.port(|row| row.id == receiver)?;
                self.rules(Side::Source, row, Direction::Ingress, ip, own, None)?;
                self.delivered(Side::Source, receiver)
            }
            Verdict::Drop(DropReason::IngressDenied) => {
                self.rules(Side::Source, local?, Direction::Ingress, ip, own, dropped)
            }
            Verdict::Drop(reason) => self.ends(Side::Source, "delivery", reason),
            Verdict::Reply { .. } => {
                self.stage(Side::Source, "gateway", false, "the gateway answers it");
                None
            }
            Verdict::External { nexthop, packet, .. } => {
                let address = ipv4_at(&packet, IPV4_SOURCE)?;
                let detail = format!("out of the host, from {address}, next hop {nexthop}");
                self.stage(Side::Source, "floating ip", true, detail);
                None
            }
            Verdict::Punt(reason) => self.handed_up(reason),
            Verdict::Pass => None,
        }
    }

    fn handed_up(&mut self, reason: PuntReason) -> Option<()> {
        let detail = format!("handed to the host's agent ({})", reason.as_str());
        self.stage(Side::Source, "agent", false, detail);
        None
    }

    /// The network that the packet is in when it leaves, and the address that it goes to there.
    fn route(&mut self, port: &PortRow, dropped: Option<DropReason>) -> Option<(Id<Network>, IpAddr)> {
        let (own, to) = (port.network_id, self.probe.to);
        let routed = self.source.model.route(own, to);
        let Some((network, hop)) = routed.filter(|_| self.peer_mac.is_none()) else {
            // To a station of the network, or to the gateway itself.
            return Some((own, to));
        };
        if let Some(reason) = dropped.filter(|_| self.source.is_down(network)) {
            self.ends(Side::Source, "router", reason)?;
        }
        if network != own || hop != to {
            let detail = format!("into network {network}, next hop {hop}");
            self.stage(Side::Source, "router", true, detail);
        }
        Some((network, hop))
    }

    /// Whether a packet in the tunnel goes by a gateway, which the MACs tell.
    fn gateway(&mut self, host: IpAddr, frame: &[u8]) -> Option<By> {
        let (by, detail) = match mac_at(frame, 0)? {
            ON_DEMAND_MAC => (
                By::Between,
                format!("no row of this host knows the address: by gateway {host}"),
            ),
            GATEWAY_MAC => (By::Out, format!("out, by gateway {host}, which owns the router")),
            _ => return None,
        };
        self.stage(Side::Source, "gateway", true, detail);
        Some(by)
    }

    /// The way by a gateway, as far as rows of hosts tell it.
    fn by_gateway(&mut self, by: By, verdict: Verdict, sender: (Id<Network>, IpAddr)) -> Option<()> {
        let Verdict::Tunnel {
            host,
            vni,
            label,
            frame,
            ..
        } = verdict
        else {
            return None;
        };
        let detail = format!("to gateway {host}, VNI {vni}, label {label}");
        self.stage(Side::Source, "tunnel", true, detail);
        if by == By::Out {
            return None;
        }
        // What gateways do between hosts: the MAC of whoever has the address.
        let to = self.probe.to;
        let has = |row: &PortRow| row.fixed_ips.iter().any(|fixed| fixed.ip_address == to);
        let receiver = self.destination.as_ref().and_then(|host| {
            let network = host.network(|row| row.vni == vni)?;
            host.port(|row| row.network_id == network.id && has(row))
        });
        let mut frame = frame.to_vec();
        put(&mut frame, 0, &receiver.map_or(ON_DEMAND_MAC, |row| row.mac).0);
        self.arrive(vni.get(), label, sender, Some(host), &frame)
    }

    /// Says where the peer is; gives its label in the sender's network.
    fn neighbour(
        &mut self,
        port: &PortRow,
        network: Id<Network>,
        hop: IpAddr,
        local: Option<&PortRow>,
    ) -> u16 {
        let mac = self.peer_mac;
        let wanted = |row: &NeighbourRow| mac.map_or(row.ip == hop, |mac| row.mac == mac);
        let neighbours = self.source.rows.iter().filter_map(|row| match row {
            Row::Neighbour(row) if row.network_id == network && wanted(row) => Some(*row),
            _ => None,
        });
        let row = neighbours.min_by_key(|row| row.ip);
        let (detail, label) = match (local, row) {
            (Some(port), _) => {
                let label = port.filter().unwrap_or_default();
                (format!("port {} of this host, label {label}", port.id), label)
            }
            (None, Some(row)) => (
                format!("{} on host {}, label {}", row.mac, row.host, row.label),
                row.label,
            ),
            (None, None) => ("the gateway".to_owned(), 0),
        };
        self.stage(Side::Source, "neighbour", true, detail);
        self.source.model.translate(network, port.network_id, label)
    }

    /// A stage of rules. `dropped`: what the model has said about the packet.
    fn rules(
        &mut self,
        side: Side,
        port: &PortRow,
        direction: Direction,
        other: IpAddr,
        label: u16,
        dropped: Option<DropReason>,
    ) -> Option<()> {
        let (name, denied) = match direction {
            Direction::Ingress => ("ingress rules", DropReason::IngressDenied),
            Direction::Egress => ("egress rules", DropReason::EgressDenied),
        };
        let Some(own) = port.filter() else {
            self.stage(side, name, true, format!("port {} is not filtered", port.id));
            return Some(());
        };
        let host = match side {
            Side::Source => &self.source,
            Side::Destination => self.destination.as_ref()?,
        };
        let asked = Asked {
            direction,
            other,
            label,
            payload: self.probe.payload,
        };
        let (rule, count) = host.deciding(port, &asked);
        if dropped == Some(denied) {
            let detail =
                format!("none of the {count} rules of label {own} allows it with {other}, label {label}");
            self.stage(side, name, false, detail);
            self.way.dropped = dropped;
            return None;
        }
        let detail = format!("allowed for label {own} with {other}, label {label}");
        self.way.stages.push(Stage {
            side,
            name,
            passes: true,
            detail,
            rule,
        });
        Some(())
    }

    fn arrive(
        &mut self,
        vni: u32,
        label: u16,
        (sender_network, ip): (Id<Network>, IpAddr),
        gateway: Option<IpAddr>,
        frame: &[u8],
    ) -> Option<()> {
        let Some(host) = &mut self.destination else {
            self.stage(
                Side::Destination,
                "arrival",
                false,
                "no port of the network has this address",
            );
            return None;
        };
        let network = host.network(|row| row.vni.get() == vni);
        let mac = mac_at(frame, 0)?;
        let in_network = |id| network.is_some_and(|network| network.id == id);
        let receiver = host.port(|row| row.mac == mac && in_network(row.network_id));
        // Which address the sender's host has is told by the neighbour row of the sender on the receiver's host.
        let source = host.rows.iter().find_map(|row| match row {
            Row::Neighbour(row) if row.ip == ip && row.network_id == sender_network => Some(row.host),
            _ => None,
        });
        let Some(source) = gateway.or(source) else {
            let detail = "the receiver's host does not know the sender yet";
            self.stage(Side::Destination, "arrival", false, detail);
            return None;
        };
        let ingress = Ingress::Tunnel {
            source,
            vni,
            label,
            forwarded: false,
        };
        let verdict = host.model.process(ingress, frame);
        let believed = network.and_then(|row| row.underlay.as_ref()).map(Vec::len);
        let arrived = match believed {
            Some(blocks) => format!("from {source}, one of {blocks} blocks of hosts that are believed"),
            None => format!("from {source}; every source is believed"),
        };
        match (verdict, receiver) {
            (Verdict::Deliver { port, .. }, Some(row)) => {
                self.stage(Side::Destination, "arrival", true, arrived);
                self.rules(Side::Destination, row, Direction::Ingress, ip, label, None)?;
                self.delivered(Side::Destination, port)
            }
            (Verdict::Drop(reason @ DropReason::IngressDenied), Some(row)) => {
                self.stage(Side::Destination, "arrival", true, arrived);
                self.rules(
                    Side::Destination,
                    row,
                    Direction::Ingress,
                    ip,
                    label,
                    Some(reason),
                )
            }
            (Verdict::Drop(reason), _) => self.ends(Side::Destination, "arrival", reason),
            _ => None,
        }
    }

    fn delivered(&mut self, side: Side, port: Id<Port>) -> Option<()> {
        self.stage(side, "delivery", true, format!("to the device of port {port}"));
        self.way.delivered_to = Some(port);
        Some(())
    }
}

/// Whether a packet that is dropped for this reason on its sender's host has not come to any rules.
const fn ends_before_rules(reason: DropReason) -> bool {
    !matches!(
        reason,
        DropReason::EgressDenied
            | DropReason::IngressDenied
            | DropReason::Oversize
            | DropReason::PortDown
            | DropReason::ConnectionLimit
    )
}
