//! The two ways into the path: stages 1-3 for frames of a port, and all stages for frames of the tunnel.

use std::{collections::BTreeMap, net::IpAddr};

use alcor_model::{Id, Port};
use bytes::Bytes;

use super::{
    arp, ipv4, ipv6, route, send,
    tables::{NetworkTables, Tables, is_allowed_mac},
};
use crate::{
    DropReason, Event, PortRow, PuntReason, Verdict,
    packet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet},
};

/// What every stage may look at: one frame of a port that is up.
pub(super) struct Context<'a> {
    pub(super) port: &'a PortRow,
    pub(super) network: &'a NetworkTables,
    pub(super) devices: &'a BTreeMap<Id<Port>, String>,
    pub(super) frame: &'a [u8],
    pub(super) ethernet: Ethernet,
}

/// Why a stage does not hand the frame to the next one.
pub(super) enum End {
    Drop(DropReason),
    /// Dropped as `UnknownDestination`; the agent is told the address.
    Unknown(IpAddr),
    Punt(PuntReason),
    Reply(Vec<u8>),
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
    fn quiet(verdict: Verdict, drop_port: Option<Id<Port>>) -> Self {
        Self {
            verdict,
            drop_port,
            event: None,
        }
    }
}

/// The path "from a port".
pub(super) fn from_port(
    tables: &Tables,
    devices: &BTreeMap<Id<Port>, String>,
    port: Id<Port>,
    frame: &[u8],
) -> Ended {
    let known = tables.port(port).filter(|_| devices.contains_key(&port));
    let Some((row, network)) = known else {
        return Ended::quiet(Verdict::Drop(DropReason::UnknownPort), None);
    };
    let mut event = None;
    let verdict = match stages(row, network, devices, frame) {
        Ok(verdict) => verdict,
        Err(End::Drop(reason)) => Verdict::Drop(reason),
        Err(End::Reply(frame)) => Verdict::Reply { frame: frame.into() },
        Err(End::Unknown(address)) => {
            event = Some(Event::UnknownDestination {
                port,
                network: network.row.id,
                address,
            });
            Verdict::Drop(DropReason::UnknownDestination)
        }
        Err(End::Punt(reason)) => {
            event = Some(Event::Punt {
                port,
                reason,
                frame: Bytes::copy_from_slice(frame),
            });
            Verdict::Punt(reason)
        }
    };
    Ended {
        verdict,
        drop_port: Some(port),
        event,
    }
}

/// Stages 1 to 10.
fn stages(
    port: &PortRow,
    network: &NetworkTables,
    devices: &BTreeMap<Id<Port>, String>,
    frame: &[u8],
) -> Result<Verdict, End> {
    if !port.admin_state_up || !network.row.admin_state_up {
        return Err(DropReason::PortDown.into());
    }
    let ethernet = Ethernet::read(frame).ok_or(DropReason::Malformed)?;
    let spoofed = port.port_security_enabled && !is_allowed_mac(port, ethernet.source);
    if spoofed || ethernet.source.is_multicast() {
        return Err(DropReason::SpoofedMac.into());
    }
    let context = Context {
        port,
        network,
        devices,
        frame,
        ethernet,
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
        send::switch(&context, &packet)
    }
}

/// Stage 7: for more than one station.
pub(super) fn is_group(ethernet: &Ethernet, destination: IpAddr) -> bool {
    let broadcast = matches!(destination, IpAddr::V4(ip) if ip.is_broadcast());
    ethernet.destination.is_multicast() || destination.is_multicast() || broadcast
}

/// The path "from the tunnel".
pub(super) fn from_tunnel(
    tables: &Tables,
    devices: &BTreeMap<Id<Port>, String>,
    vni: u32,
    frame: &[u8],
) -> Ended {
    let drop = |reason| Ended::quiet(Verdict::Drop(reason), None);
    let Some(network) = tables.by_vni(vni) else {
        return drop(DropReason::UnknownVni);
    };
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
        return drop(DropReason::NoLocalPort);
    };
    let verdict = send::deliver(receiver, devices, Bytes::copy_from_slice(frame));
    Ended::quiet(verdict.unwrap_or_else(Verdict::Drop), Some(receiver.id))
}
