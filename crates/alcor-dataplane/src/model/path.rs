//! The two ways into the path: stages 1-3 for frames of a port, and all stages for frames of the tunnel. And
//! the filters at its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use alcor_dataplane_abi::{connection::Direction, gateway_layout::IcmpMeter};
use alcor_model::{Id, MacAddr, Network, Port};
use bytes::Bytes;

use super::{
    arp, flow, ipv4, ipv6, route,
    tables::{NetworkTables, Peer, Tables, is_allowed_mac, translate},
    track::{Label, Passing, Tracker},
};
use crate::{
    DropReason, Event, FloatingIpRow, PortRow, PuntReason, Verdict,
    packet::{ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet},
};

/// What every stage may look at: one frame of a port that is up.
pub(super) struct Context<'a> {
    pub(super) tables: &'a Tables,
    pub(super) port: &'a PortRow,
    pub(super) network: &'a NetworkTables,
    pub(super) frame: &'a [u8],
    pub(super) ethernet: Ethernet,
    /// The frame was held, and is released now.
    pub(super) was_held: bool,
}

impl Context<'_> {
    /// The gateways that take what goes to addresses of a network that no row knows; none where such frames are held.
    pub(super) fn gateways<'n>(&self, network: &'n NetworkTables) -> &'n [IpAddr] {
        if self.was_held || !network.row.on_demand {
            return &[];
        }
        &network.row.gateways
    }

    /// Whether gateways speak for an address that no row knows, to this one that asks for it. Who asks from nowhere, or for the
    /// address that it has itself, asks whether anybody else has it.
    pub(super) fn is_answered(&self, asker: IpAddr, ip: IpAddr) -> bool {
        let is_probe = asker.is_unspecified() || asker == ip;
        !is_probe && !self.gateways(self.network).is_empty() && self.network.has_subnet_of(ip)
    }
}

/// Where stages 8 and 9 want the frame to go.
pub(super) enum Exit<'a> {
    /// To the gateway of a subnet; this is its answer.
    Answer(Vec<u8>),
    /// Away.
    Away(Leaving<'a>),
}

/// A frame on its way.
pub(super) struct Leaving<'a> {
    /// The network that it is in now: the sender's, or one that a router has brought it to.
    pub(super) network: &'a NetworkTables,
    pub(super) to: To<'a>,
    /// A router has brought it here, and it must not be fragmented: when it does not fit, its sender is told.
    pub(super) is_told: bool,
    /// As it leaves.
    pub(super) frame: Vec<u8>,
}

/// An address that is to be asked for.
type Asked = (Id<Network>, IpAddr);

/// Whom a frame goes to.
pub(super) enum To<'a> {
    /// A station of the network that the frame is in now.
    Peer(Peer<'a>, Used),
    /// A gateway, which knows who has the address.
    Gateway { host: IpAddr, address: IpAddr },
    /// The owner of the way out.
    Outside { host: IpAddr },
    /// Out of a device of this host, from a floating IP.
    External { row: &'a FloatingIpRow, device: &'a str },
}

/// How a peer was found: which neighbour rows that uses, if it is a remote one.
#[derive(Clone, Copy)]
pub(super) enum Used {
    ByIp(IpAddr),
    ByMac(MacAddr),
}

/// Why a stage does not hand the frame to the next one.
pub(super) enum End {
    /// Dropped, and counted for the sender.
    Drop(DropReason),
    /// Dropped, and counted for this port.
    DropAt(Id<Port>, DropReason),
    /// No row tells this address of this network.
    Unknown(Id<Network>, IpAddr),
    Punt(PuntReason),
    /// More than so many bytes are not taken, and its sender is to be told.
    TooBig(u16),
    /// Answered, for a peer or for the gateway.
    Reply(Vec<u8>, Option<Used>),
    /// Answered for an address of the port's network that no row tells.
    OnDemand(Vec<u8>, IpAddr),
}

impl From<DropReason> for End {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// What later stages need of an IP packet.
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// TTL or hop limit.
    pub(super) ttl: u8,
    /// IPv6, or IPv4 that says so.
    pub(super) must_not_be_fragmented: bool,
    /// An echo request that a gateway may answer.
    pub(super) echo_request: bool,
}

/// The end of a frame's way, with what to count and to tell.
pub(super) struct Ended {
    pub(super) verdict: Verdict,
    /// The port that a drop is counted for.
    pub(super) drop_port: Option<Id<Port>>,
    pub(super) event: Option<Event>,
}

impl Ended {
    pub(super) fn quiet(verdict: Verdict, drop_port: Option<Id<Port>>) -> Self {
        Self {
            verdict,
            drop_port,
            event: None,
        }
    }
}

/// A data plane while it works on one frame.
pub(super) struct Path<'a> {
    pub(super) tables: &'a Tables,
    pub(super) devices: &'a BTreeMap<Id<Port>, String>,
    pub(super) trackers: &'a mut BTreeMap<Id<Port>, Tracker>,
    pub(super) used: &'a mut BTreeSet<(Id<Network>, IpAddr)>,
    /// Of errors to the outside.
    pub(super) icmp: &'a mut IcmpMeter,
    /// MTUs of devices to the outside.
    pub(super) mtus: &'a BTreeMap<String, u16>,
    /// The frame was held, and is released now.
    pub(super) was_held: bool,
    pub(super) now: u64,
}

impl<'a> Path<'a> {
    /// The path "from a port".
    pub(super) fn of_port(&mut self, port: Id<Port>, frame: &'a [u8]) -> Ended {
        let known = self
            .tables
            .port(port)
            .filter(|_| self.devices.contains_key(&port));
        let Some((row, network)) = known else {
            return Ended::quiet(Verdict::Drop(DropReason::UnknownPort), None);
        };
        let ended = self
            .stages(row, network, frame)
            .and_then(|exit| self.leave(row, network, exit, frame));
        let mut event = None;
        let unresolved = |network, address, frame| Event::Unresolved {
            port,
            network,
            address,
            frame,
        };
        let verdict = match ended {
            Ok((verdict, unknown)) => {
                event = unknown.map(|(network, address)| unresolved(network, address, Bytes::new()));
                verdict
            }
            Err(End::OnDemand(frame, address)) => {
                event = Some(unresolved(network.row.id, address, Bytes::new()));
                Verdict::Reply { frame: frame.into() }
            }
            Err(End::Drop(reason)) => Verdict::Drop(reason),
            Err(End::DropAt(receiver, reason)) => {
                return Ended::quiet(Verdict::Drop(reason), Some(receiver));
            }
            Err(End::Reply(frame, used)) => {
                self.use_rows(network, used);
                Verdict::Reply { frame: frame.into() }
            }
            Err(End::Unknown(network, _)) if self.was_held || !self.is_on_demand(network) => {
                Verdict::Drop(DropReason::UnknownDestination)
            }
            Err(End::Unknown(network, address)) => {
                event = Some(unresolved(network, address, Bytes::copy_from_slice(frame)));
                Verdict::Punt(PuntReason::Unresolved)
            }
            Err(End::Punt(reason)) => {
                event = Some(Event::Punt {
                    port,
                    reason,
                    frame: Bytes::copy_from_slice(frame),
                });
                Verdict::Punt(reason)
            }
            Err(End::TooBig(mtu)) => {
                event = Some(Event::TooBig {
                    port,
                    mtu,
                    frame: Bytes::copy_from_slice(frame),
                });
                Verdict::Punt(PuntReason::TooBig)
            }
        };
        Ended {
            verdict,
            drop_port: Some(port),
            event,
        }
    }

    /// Stages 1 to 9.
    fn stages(
        &self,
        port: &'a PortRow,
        network: &'a NetworkTables,
        frame: &'a [u8],
    ) -> Result<Exit<'a>, End> {
        if !port.admin_state_up || !network.row.admin_state_up {
            return Err(DropReason::PortDown.into());
        }
        let ethernet = Ethernet::read(frame).ok_or(DropReason::Malformed)?;
        let spoofed = port.port_security_enabled && !is_allowed_mac(port, ethernet.source);
        if spoofed || ethernet.source.is_multicast() {
            return Err(DropReason::SpoofedMac.into());
        }
        let context = Context {
            tables: self.tables,
            port,
            network,
            frame,
            ethernet,
            was_held: self.was_held,
        };
        let packet = match ethernet.ethertype {
            ETHERTYPE_ARP => return Err(arp::answer(&context)),
            ETHERTYPE_IPV4 => ipv4::check(&context)?,
            ETHERTYPE_IPV6 => ipv6::check(&context)?,
            _ => return Err(DropReason::UnsupportedEtherType.into()),
        };
        if is_group(&ethernet, packet.destination) {
            return Err(DropReason::NoFlood.into());
        }
        if ethernet.destination == alcor_model::net::GATEWAY_MAC {
            route::route(&context, &packet)
        } else {
            route::switch(&context, &packet)
        }
    }

    fn is_on_demand(&self, network: Id<Network>) -> bool {
        let network = self.tables.network(network);
        network.is_some_and(|network| network.row.on_demand)
    }

    /// Stages 10 to 12; with the verdict the address that is to be asked for, if the frame went to a gateway instead.
    fn leave(
        &mut self,
        port: &PortRow,
        network: &NetworkTables,
        exit: Exit<'_>,
        frame: &[u8],
    ) -> Result<(Verdict, Option<Asked>), End> {
        let leaving = match exit {
            Exit::Answer(reply) => {
                self.filter(Direction::Egress, port, network, Label::Known(0), frame)?;
                return Err(End::Reply(reply, None));
            }
            Exit::Away(leaving) => leaving,
        };
        self.filter_out(port, network, &leaving, frame)?;
        let own = translate(network, leaving.network, port.filter().unwrap_or_default());
        let Leaving {
            network,
            to,
            is_told,
            frame,
        } = leaving;
        if frame.len() - ETH_LEN.min(frame.len()) > usize::from(network.row.mtu) {
            return Err(match is_told {
                true => End::TooBig(network.row.mtu),
                false => DropReason::Oversize.into(),
            });
        }
        let (host, label, unknown) = match to {
            To::Peer(Peer::Local(receiver), _) => {
                let delivered = self.deliver(receiver, network, own, frame)?;
                return Ok((delivered, None));
            }
            To::Peer(Peer::Remote(neighbour), _) => (neighbour.host, own, None),
            To::Gateway { host, address } => (host, own, Some((network.row.id, address))),
            To::Outside { host } => (host, 0, None),
            To::External { row, device } => {
                let led_out = self.float_out(port.id, row, device, &frame);
                return led_out.map(|verdict| (verdict, None));
            }
        };
        let verdict = Verdict::Tunnel {
            host,
            vni: network.row.vni,
            label,
            forwarded: false,
            frame: frame.into(),
        };
        Ok((verdict, unknown))
    }

    /// Stage 10 of what goes away.
    fn filter_out(
        &mut self,
        port: &PortRow,
        network: &NetworkTables,
        leaving: &Leaving<'_>,
        frame: &[u8],
    ) -> Result<(), End> {
        let label = match &leaving.to {
            To::Peer(peer, used) => {
                self.use_rows(leaving.network, Some(*used));
                Label::Known(translate(leaving.network, network, peer.label()))
            }
            To::Gateway { .. } => Label::Unknown,
            To::Outside { .. } | To::External { .. } => Label::Known(0),
        };
        let judged = self.filter(Direction::Egress, port, network, label, frame);
        judged.map_err(|reason| match (&leaving.to, reason) {
            (To::Gateway { address, .. }, DropReason::EgressDenied) => {
                End::Unknown(leaving.network.row.id, *address)
            }
            _ => End::Drop(reason),
        })
    }

    /// Stage 12.
    fn deliver(
        &mut self,
        receiver: &PortRow,
        network: &NetworkTables,
        label: u16,
        frame: Vec<u8>,
    ) -> Result<Verdict, End> {
        if !self.is_up(receiver) {
            return Err(DropReason::PortDown.into());
        }
        let label = Label::Known(label);
        self.filter(Direction::Ingress, receiver, network, label, &frame)
            .map_err(|reason| End::DropAt(receiver.id, reason))?;
        Ok(Verdict::Deliver {
            port: receiver.id,
            frame: frame.into(),
        })
    }

    fn use_rows(&mut self, network: &NetworkTables, used: Option<Used>) {
        let id = network.row.id;
        match used {
            Some(Used::ByIp(ip)) if matches!(network.neigh(ip), Some(Peer::Remote(_))) => {
                self.used.insert((id, ip));
            }
            Some(Used::ByMac(mac)) if network.local(mac).is_none() => {
                self.used.extend(network.remote(mac).map(|row| (id, row.ip)));
            }
            _ => {}
        }
    }

    fn is_up(&self, receiver: &PortRow) -> bool {
        receiver.admin_state_up && self.devices.contains_key(&receiver.id)
    }

    /// The filter of one port; everything passes when it has none.
    fn filter(
        &mut self,
        direction: Direction,
        port: &PortRow,
        network: &NetworkTables,
        label: Label,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let Some(rules) = network.rules(port) else {
            return Ok(());
        };
        let passing = Passing {
            direction,
            label,
            flow: flow::read(frame)?,
            rules,
            now: self.now,
            limits: self.tables.limits(),
        };
        self.trackers.entry(port.id).or_default().judge(&passing)
    }

    /// The path "from the tunnel".
    pub(super) fn of_tunnel(
        &mut self,
        source: IpAddr,
        vni: u32,
        (label, forwarded): (u16, bool),
        frame: &[u8],
    ) -> Ended {
        let drop = |reason| Ended::quiet(Verdict::Drop(reason), None);
        let Some(network) = self.tables.by_vni(vni) else {
            return drop(DropReason::UnknownVni);
        };
        if !network.believes(source) {
            return drop(DropReason::UnknownUnderlay);
        }
        if !network.row.admin_state_up {
            return drop(DropReason::PortDown);
        }
        let Some(ethernet) = Ethernet::read(frame) else {
            return drop(DropReason::Malformed);
        };
        if ethernet.destination.is_multicast() {
            return drop(DropReason::NoFlood);
        }
        let Some(receiver) = network.local(ethernet.destination) else {
            let mut left = network.remote(ethernet.destination).filter(|row| row.forward);
            return match left.next().filter(|_| !forwarded) {
                Some(row) => Ended::quiet(
                    Verdict::Tunnel {
                        host: row.host,
                        vni: network.row.vni,
                        label,
                        forwarded: true,
                        frame: Bytes::copy_from_slice(frame),
                    },
                    None,
                ),
                None => drop(DropReason::NoLocalPort),
            };
        };
        let handed = self.hand_in(receiver, network, label, Bytes::copy_from_slice(frame));
        let verdict = handed.unwrap_or_else(|(_, reason)| Verdict::Drop(reason));
        Ended::quiet(verdict, Some(receiver.id))
    }

    /// Stage 12 of what did not come from a port: the receiver's state and its filter.
    pub(super) fn hand_in(
        &mut self,
        receiver: &PortRow,
        network: &NetworkTables,
        label: u16,
        frame: Bytes,
    ) -> Result<Verdict, (Option<Id<Port>>, DropReason)> {
        let refuse = |reason| (Some(receiver.id), reason);
        if !self.is_up(receiver) {
            return Err(refuse(DropReason::PortDown));
        }
        let label = Label::Known(label);
        let passed = self.filter(Direction::Ingress, receiver, network, label, &frame);
        passed.map_err(refuse)?;
        Ok(Verdict::Deliver {
            port: receiver.id,
            frame,
        })
    }
}

/// Stage 7: for more than one station.
pub(super) fn is_group(ethernet: &Ethernet, destination: IpAddr) -> bool {
    let broadcast = matches!(destination, IpAddr::V4(ip) if ip.is_broadcast());
    ethernet.destination.is_multicast() || destination.is_multicast() || broadcast
}
