//! "From the outside": ARP, and packets to external addresses that this gateway owns.

use std::net::{IpAddr, Ipv4Addr};

use alcor_dataplane_abi::{
    connection::{Direction, Segment, Tracking},
    csum_fold,
    flow::{Identity, PROTO_ICMP, identify},
    gateway::flow_key,
    gateway_layout::{GATEWAY_TTL, VXLAN_HAS_VNI, VXLAN_OVERHEAD, VXLAN_PORT, tunnel_port},
};
use alcor_model::{Id, MacAddr, Network, Router, net::GATEWAY_MAC};

use super::{
    External, GatewayModel, GatewayVerdict,
    nat::Fragment,
    north::key,
    translate::{End, Packet, Part},
    underlay::{DESTINATION, SOURCE, is_sound, set_checksum},
};
use crate::{
    DropReason, choice,
    packet::{
        ETH_LEN, ETHERTYPE_IPV4, Ethernet, IPV4_LEN, PROTO_UDP, array, put, replace_word, u16_at, word_sum,
    },
};

type Verdict = Result<GatewayVerdict, DropReason>;

const ARP_LEN: usize = 28;
/// Ethernet and IPv4, a request.
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
const ICMP_ECHO_REQUEST: u16 = 8;
/// ICMP: time exceeded in transit, as type and code.
pub(crate) const TIME_EXCEEDED: [u8; 2] = [11, 0];
/// ICMP: fragmentation needed, as type and code.
pub(crate) const TOO_LONG: [u8; 2] = [3, 4];
/// What an error of ours quotes: a header and 8 bytes.
const QUOTED_LEN: usize = 28;
const UDP_LEN: usize = 8;
/// Of a VLAN tag: which VLAN.
const VLAN_NUMBER: u16 = 0x0fff;
const DONT_FRAGMENT: u16 = 0x4000;

/// How a packet came to an external address.
#[derive(Clone, Copy)]
pub(super) enum Arrived<'a> {
    /// From the outside, in this frame: it may be answered.
    Outside(&'a [u8]),
    /// From a tenant.
    Inside,
}

/// Stage 1.
pub(super) fn arp(gateway: &GatewayModel, mac: MacAddr, frame: &[u8]) -> GatewayVerdict {
    match asked(frame).filter(|target| gateway.owned_external(*target).is_some()) {
        Some(target) => GatewayVerdict::Reply(arp_reply(frame, mac, target).into()),
        None => GatewayVerdict::Pass,
    }
}

/// The address that an ARP frame asks for, if it is a request.
pub(crate) fn asked(frame: &[u8]) -> Option<Ipv4Addr> {
    let request = frame.get(ETH_LEN..ETH_LEN + ARP_LEN)?;
    let target = array::<4>(request, 24)?;
    request.starts_with(&ARP_REQUEST).then(|| target.into())
}

/// The answer to such a request, of the same length: the address is at this MAC.
pub(crate) fn arp_reply(frame: &[u8], mac: MacAddr, target: Ipv4Addr) -> Vec<u8> {
    let asks = array::<10>(frame, ETH_LEN + 8).unwrap_or_default();
    let mut reply = frame.to_vec();
    put(&mut reply, 0, frame.get(6..12).unwrap_or_default());
    put(&mut reply, 6, &mac.0);
    let mut message = vec![0, 2];
    message.extend(mac.0);
    message.extend(target.octets());
    message.extend(asks);
    put(&mut reply, ETH_LEN + 6, &message);
    reply
}

/// Stage 2: a VLAN tag.
pub(super) fn tagged(frame: &[u8]) -> Verdict {
    match u16_at(frame, ETH_LEN) {
        Some(tag) if tag & VLAN_NUMBER == 0 => Err(DropReason::UnsupportedEtherType),
        _ => Ok(GatewayVerdict::Pass),
    }
}

/// Stage 2: a frame to an address that is not the gateway's to translate.
pub(super) fn foreign(gateway: &GatewayModel, frame: &[u8]) -> Verdict {
    match array::<4>(frame, ETH_LEN + SOURCE) {
        Some(source) if gateway.tunnel_ip.octets() == source => Err(DropReason::OutsideDenied),
        _ => Ok(GatewayVerdict::Pass),
    }
}

/// Stage 2: a frame to an address that is `external` and owned.
pub(super) fn from_outside(gateway: &mut GatewayModel, frame: &[u8], external: External) -> Verdict {
    let bytes = header_checked(frame)?;
    if frame.first().is_some_and(|first| first & 1 != 0) {
        return Err(DropReason::NoFlood);
    }
    south(gateway, Packet::read(bytes)?, Arrived::Outside(frame), external)
}

/// The packet of a frame from the outside, whose header is sound.
pub(crate) fn header_checked(frame: &[u8]) -> Result<&[u8], DropReason> {
    let malformed = DropReason::Malformed;
    let bytes = frame.get(ETH_LEN..).ok_or(malformed)?;
    let total_len = usize::from(u16_at(bytes, 2).ok_or(malformed)?);
    let has_options = bytes.first() != Some(&0x45);
    if has_options || !is_sound(bytes) || total_len < IPV4_LEN || total_len > bytes.len() {
        return Err(malformed);
    }
    Ok(bytes)
}

/// What is done to a packet before it is put into the tunnel.
struct Change {
    /// The tenant's address.
    address: Ipv4Addr,
    /// The tenant's port; `None`: ports stay.
    port: Option<u16>,
}

/// Stages 3 to 5.
pub(super) fn south(
    gateway: &mut GatewayModel,
    mut packet: Packet,
    arrived: Arrived<'_>,
    external: External,
) -> Verdict {
    if let External::Router(_) = external
        && packet.part == Part::Whole
        && packet.upper.protocol == PROTO_ICMP
        && packet.upper.point >> 8 == ICMP_ECHO_REQUEST
    {
        return echo(packet, arrived);
    }
    if packet.ttl() <= 1 {
        return tell(gateway, &packet, arrived, TIME_EXCEEDED, 0).unwrap_or(Err(DropReason::Loop));
    }
    let (vni, change) = match external {
        External::Router(router) if packet.part == Part::Later => later(gateway, &packet, router)?,
        External::Router(router) => connection(gateway, &packet, router)?,
        External::Floating(row) => {
            let network = gateway.rows.network(row.network_id);
            let network = network.ok_or(DropReason::NoTranslation)?;
            packet.may_float_in(&row)?;
            let change = Change {
                address: row.fixed_ip,
                port: None,
            };
            (network.vni.get(), change)
        }
    };
    let network = gateway.rows.network_of_vni(vni);
    let network = network.ok_or(DropReason::NoTranslation)?;
    if !network.admin_state_up {
        return Err(DropReason::PortDown);
    }
    let (network, mtu) = (network.id, network.mtu);
    if packet.total_len > usize::from(mtu) {
        let oversize = Err(DropReason::Oversize);
        if !packet.must_not_be_fragmented() {
            return oversize;
        }
        return tell(gateway, &packet, arrived, TOO_LONG, mtu).unwrap_or(oversize);
    }
    packet.float_in(change.address);
    match change.port {
        Some(port) if packet.is_error() => packet.set_quoted_port(End::Source, port),
        Some(port) => packet.set_port(End::Destination, port),
        None => {}
    }
    packet.age();
    encapsulate(gateway, network, &packet)
}

/// The connection of a packet to a router's own address: its network, and what is changed.
fn connection(
    gateway: &mut GatewayModel,
    packet: &Packet,
    router: Id<Router>,
) -> Result<(u32, Change), DropReason> {
    let no_translation = DropReason::NoTranslation;
    let now = gateway.now_ns();
    let back = match identify(&packet.upper, Direction::Ingress) {
        Identity::Tracked { sides, tracking, .. } if tracking != Tracking::Other => {
            let segment = Segment {
                direction: Direction::Ingress,
                tracking,
                tcp: packet.upper.tcp,
                label: 0,
            };
            let key = key(0, packet.destination(), packet.source(), &sides);
            gateway.nat.south(key, &segment, now)
        }
        Identity::Error => {
            let quote = packet.quote().ok_or(no_translation)?;
            let Identity::Tracked { sides, .. } = identify(&quote.upper, Direction::Egress) else {
                return Err(no_translation);
            };
            let key = key(0, packet.destination(), quote.destination, &sides);
            let live = gateway.nat.live(&key, now);
            live.map(|(back, _)| back)
                .filter(|_| quote.source == packet.destination())
        }
        _ => None,
    };
    let back = back.ok_or(no_translation)?;
    if packet.part == Part::First {
        let fragment = Fragment {
            router,
            address: back.own.into(),
            vni: back.vni,
        };
        gateway.nat.expect(packet.fragment_key(0), fragment, now);
    }
    let change = Change {
        address: back.own.into(),
        port: Some(back.local),
    };
    Ok((back.vni, change))
}

/// The way of the first fragment.
fn later(gateway: &GatewayModel, packet: &Packet, router: Id<Router>) -> Result<(u32, Change), DropReason> {
    let known = gateway.nat.expected(&packet.fragment_key(0), gateway.now_ns());
    let known = known.filter(|known| known.router == router);
    let known = known.ok_or(DropReason::UnknownFragment)?;
    let change = Change {
        address: known.address,
        port: None,
    };
    Ok((known.vni, change))
}

/// Stage 3.
fn echo(packet: Packet, arrived: Arrived<'_>) -> Verdict {
    let Arrived::Outside(frame) = arrived else {
        return Err(DropReason::NoTranslation);
    };
    let mut reply = packet.bytes;
    let (source, destination) = (array::<4>(&reply, SOURCE), array::<4>(&reply, DESTINATION));
    put(&mut reply, SOURCE, &destination.unwrap_or_default());
    put(&mut reply, DESTINATION, &source.unwrap_or_default());
    put(&mut reply, 8, &[GATEWAY_TTL]);
    set_checksum(&mut reply);
    let code = u16_at(&reply, IPV4_LEN).unwrap_or_default() & 0xff;
    replace_word(&mut reply, IPV4_LEN, IPV4_LEN + 2, code);
    Ok(GatewayVerdict::Reply(back(frame, &reply).into()))
}

/// A packet to whoever sent the frame.
fn back(frame: &[u8], packet: &[u8]) -> Vec<u8> {
    let (to, from) = (array::<6>(frame, 6), array::<6>(frame, 0));
    let mut reply = Ethernet {
        destination: MacAddr(to.unwrap_or_default()),
        source: MacAddr(from.unwrap_or_default()),
        ethertype: ETHERTYPE_IPV4,
    }
    .bytes()
    .to_vec();
    reply.extend(packet);
    reply
}

/// An ICMP error about a packet from outside, if it may be answered with one.
fn tell(
    gateway: &mut GatewayModel,
    packet: &Packet,
    arrived: Arrived<'_>,
    kind: [u8; 2],
    mtu: u16,
) -> Option<Verdict> {
    let Arrived::Outside(frame) = arrived else {
        return None;
    };
    let reply = told(frame, packet, kind, mtu)?;
    let admitted = gateway.admit_icmp();
    Some(admitted.map(|()| GatewayVerdict::Reply(reply.into())))
}

/// The reply to a frame from outside that is an ICMP error about the packet in it, if that may be answered with one.
pub(crate) fn told(frame: &[u8], packet: &Packet, kind: [u8; 2], mtu: u16) -> Option<Vec<u8>> {
    let error = error(packet, packet.destination(), kind, mtu)?;
    Some(back(frame, &error))
}

/// What becomes of a tenant's packet that the way to the outside does not take.
pub(super) fn too_long(gateway: &mut GatewayModel, network: Id<Network>, packet: &Packet) -> Verdict {
    let oversize = DropReason::Oversize;
    let from = gateway.rows.router_address(network, packet.source());
    let from = from.filter(|_| packet.must_not_be_fragmented());
    let error = error(packet, from.ok_or(oversize)?, TOO_LONG, gateway.way_mtu).ok_or(oversize)?;
    gateway.admit_icmp()?;
    encapsulate(gateway, network, &Packet::read(&error)?)
}

/// An ICMP error about a packet, if it may be answered with one.
fn error(packet: &Packet, from: Ipv4Addr, kind: [u8; 2], mtu: u16) -> Option<Vec<u8>> {
    let is_query = match identify(&packet.upper, Direction::Egress) {
        Identity::Tracked { .. } => true,
        Identity::Error | Identity::Single => packet.upper.protocol != PROTO_ICMP,
    };
    let quote = packet.bytes.get(..QUOTED_LEN)?;
    let is_first = packet.part != Part::Later && packet.total_len >= QUOTED_LEN;
    if !is_query || !is_first || !is_station(packet.source()) {
        return None;
    }
    let mut message = vec![0; 8];
    put(&mut message, 0, &kind);
    put(&mut message, 6, &mtu.to_be_bytes());
    message.extend(quote);
    let checksum = csum_fold(word_sum(&message));
    put(&mut message, 2, &checksum.to_be_bytes());
    let mut error = header((from, packet.source()), (PROTO_ICMP, 0), message.len());
    error.extend(message);
    Some(error)
}

/// True for an address that one station may have.
const fn is_station(ip: Ipv4Addr) -> bool {
    let first = ip.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// A header of ours, not to be fragmented: source and destination, protocol and TOS, bytes that follow.
fn header(ends: (Ipv4Addr, Ipv4Addr), (protocol, tos): (u8, u8), len: usize) -> Vec<u8> {
    let total_len = (IPV4_LEN + len) as u16;
    let mut header = vec![0; IPV4_LEN];
    put(&mut header, 0, &[0x45, tos]);
    put(&mut header, 2, &total_len.to_be_bytes());
    put(&mut header, 6, &DONT_FRAGMENT.to_be_bytes());
    put(&mut header, 8, &[GATEWAY_TTL, protocol]);
    put(&mut header, SOURCE, &ends.0.octets());
    put(&mut header, DESTINATION, &ends.1.octets());
    set_checksum(&mut header);
    header
}

/// Stage 5.
fn encapsulate(gateway: &GatewayModel, network: Id<Network>, packet: &Packet) -> Verdict {
    let network = gateway.rows.network(network).ok_or(DropReason::NoTranslation)?;
    let destination = IpAddr::V4(packet.destination());
    let peer = gateway.rows.peer(network.id, destination);
    let peer = peer.ok_or(DropReason::UnknownDestination)?;
    let IpAddr::V4(host) = peer.host else {
        return Err(DropReason::Internal);
    };
    if host == gateway.tunnel_ip {
        return Err(DropReason::Loop);
    }
    let flow = flow_key(
        &choice::bytes(packet.source().into()),
        &choice::bytes(destination),
    );
    let [_, a, b, c] = network.vni.get().to_be_bytes();
    let udp_len = VXLAN_OVERHEAD - IPV4_LEN + ETH_LEN + packet.total_len;
    let tos = packet.bytes.get(1).copied().unwrap_or_default();
    let mut outer = header((gateway.tunnel_ip, host), (PROTO_UDP, tos), udp_len);
    outer.extend(tunnel_port(flow).to_be_bytes());
    outer.extend(VXLAN_PORT.to_be_bytes());
    outer.extend((udp_len as u16).to_be_bytes());
    outer.extend([0, 0]);
    debug_assert_eq!(outer.len(), IPV4_LEN + UDP_LEN);
    outer.extend([VXLAN_HAS_VNI, 0, 0, 0, a, b, c, 0]);
    let ethernet = Ethernet {
        destination: peer.mac,
        source: GATEWAY_MAC,
        ethertype: ETHERTYPE_IPV4,
    };
    outer.extend(ethernet.bytes());
    outer.extend(&packet.bytes);
    Ok(GatewayVerdict::Underlay(outer.into()))
}
