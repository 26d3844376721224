//! "From the underlay": probes and tunnel packets.

use std::net::{IpAddr, Ipv4Addr};

use alcor_dataplane_abi::{
    csum_fold,
    gateway_layout::{GATEWAY_TTL, PROBE_PORT, VXLAN_HAS_VNI, VXLAN_OVERHEAD, VXLAN_PORT},
};
use alcor_model::{Id, Network, net::GATEWAY_MAC};

use super::{GatewayModel, GatewayVerdict, north::north};
use crate::{
    DropReason,
    packet::{
        ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, IPV6_LEN, PROTO_UDP, array, ipv4_at,
        ipv6_at, put, u8_at, u16_at, word_sum,
    },
};

type Verdict = Result<GatewayVerdict, DropReason>;

/// IPv4: "more to come", and the offset.
pub(super) const FRAGMENT: u16 = 0x3fff;
pub(super) const FRAGMENT_OFFSET: u16 = 0x1fff;
const UDP_LEN: usize = 8;
const VXLAN_LEN: usize = 8;
/// Where the addresses of an IPv4 header are.
pub(super) const SOURCE: usize = 12;
pub(super) const DESTINATION: usize = 16;

/// A tunnel packet of a network that may be carried.
pub(super) struct Tunnelled<'a> {
    pub(super) network: Id<Network>,
    /// Who sent it.
    pub(super) source: Ipv4Addr,
    /// The outer packet.
    pub(super) packet: &'a [u8],
    /// The inner packet, to the end of the datagram.
    pub(super) inner: &'a [u8],
}

/// Puts the right checksum into an IPv4 header without options.
pub(super) fn set_checksum(packet: &mut [u8]) {
    put(packet, 10, &[0, 0]);
    let sum = packet.get(..IPV4_LEN).map_or(0, word_sum);
    put(packet, 10, &csum_fold(sum).to_be_bytes());
}

/// True when the checksum of an IPv4 header without options is right.
pub(super) fn is_sound(packet: &[u8]) -> bool {
    packet
        .get(..IPV4_LEN)
        .is_some_and(|header| csum_fold(word_sum(header)) == 0)
}

/// True for an IPv4 or IPv6 address of more than one station.
pub(super) fn is_group(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    }
}

/// Stage 1. The frame is IPv4 to the tunnel address.
pub(super) fn from_underlay(gateway: &mut GatewayModel, frame: &[u8]) -> Verdict {
    let malformed = DropReason::Malformed;
    let packet = frame.get(ETH_LEN..).ok_or(malformed)?;
    let (first, protocol) = (u8_at(packet, 0), u8_at(packet, 9));
    let fragment = u16_at(packet, 6).unwrap_or_default();
    let is_udp = protocol == Some(PROTO_UDP) && first.is_some_and(|first| first >> 4 == 4);
    if !is_udp || fragment & FRAGMENT_OFFSET != 0 {
        return Ok(GatewayVerdict::Pass);
    }
    let udp = packet.get(IPV4_LEN..).filter(|udp| udp.len() >= UDP_LEN);
    let udp = udp.filter(|_| first == Some(0x45)).ok_or(malformed)?;
    let port = u16_at(udp, 2).ok_or(malformed)?;
    if port != VXLAN_PORT && !(port == PROBE_PORT && gateway.probes) {
        return Ok(GatewayVerdict::Pass);
    }
    if fragment & FRAGMENT != 0 {
        return Err(DropReason::UnknownFragment);
    }
    let total_len = usize::from(u16_at(packet, 2).ok_or(malformed)?);
    let udp_len = usize::from(u16_at(udp, 4).ok_or(malformed)?);
    let is_whole = udp_len >= UDP_LEN && IPV4_LEN + udp_len <= total_len && total_len <= packet.len();
    if !is_whole || !is_sound(packet) {
        return Err(malformed);
    }
    let payload = udp.get(UDP_LEN..udp_len).ok_or(malformed)?;
    if port == PROBE_PORT {
        return probe(frame, u16_at(udp, 0).ok_or(malformed)?);
    }
    vxlan(gateway, packet, payload)
}

/// Stage 2.
fn probe(frame: &[u8], source_port: u16) -> Verdict {
    if source_port == PROBE_PORT || source_port == VXLAN_PORT {
        return Err(DropReason::Loop);
    }
    let mut reply = frame.to_vec();
    // MACs, addresses, ports.
    for (one, other, len) in [
        (0, 6, 6),
        (ETH_LEN + SOURCE, ETH_LEN + DESTINATION, 4),
        (34, 36, 2),
    ] {
        let part = |at: usize| frame.get(at..at + len).unwrap_or_default();
        put(&mut reply, one, part(other));
        put(&mut reply, other, part(one));
    }
    if let Some(packet) = reply.get_mut(ETH_LEN..) {
        put(packet, 8, &[GATEWAY_TTL]);
        set_checksum(packet);
    }
    Ok(GatewayVerdict::Reply(reply.into()))
}

/// Stage 3.
fn vxlan(gateway: &mut GatewayModel, packet: &[u8], payload: &[u8]) -> Verdict {
    let malformed = DropReason::Malformed;
    let header = array::<VXLAN_LEN>(payload, 0).ok_or(malformed)?;
    let [flags, _, _, _, a, b, c, _] = header;
    if flags & VXLAN_HAS_VNI == 0 {
        return Err(malformed);
    }
    let vni = u32::from_be_bytes([0, a, b, c]);
    let network = gateway.rows.network_of_vni(vni).ok_or(DropReason::UnknownVni)?;
    let source = Ipv4Addr::from(array::<4>(packet, SOURCE).ok_or(malformed)?);
    if let Some(blocks) = &network.underlay
        && !blocks.iter().any(|block| block.contains(&IpAddr::V4(source)))
    {
        return Err(DropReason::UnknownUnderlay);
    }
    if !network.admin_state_up {
        return Err(DropReason::PortDown);
    }
    let frame = payload.get(VXLAN_LEN..).ok_or(malformed)?;
    let ethernet = Ethernet::read(frame).ok_or(malformed)?;
    if ethernet.destination.is_multicast() {
        return Err(DropReason::NoFlood);
    }
    let tunnelled = Tunnelled {
        network: network.id,
        source,
        packet,
        inner: frame.get(ETH_LEN..).ok_or(malformed)?,
    };
    let destination = match ethernet.ethertype {
        ETHERTYPE_IPV4 => ipv4_destination(tunnelled.inner),
        ETHERTYPE_IPV6 => ipv6_destination(tunnelled.inner),
        _ => return Err(DropReason::UnsupportedEtherType),
    };
    let destination = destination.ok_or(malformed)?;
    if is_group(destination) {
        return Err(DropReason::NoFlood);
    }
    if ethernet.destination == GATEWAY_MAC {
        return match destination {
            IpAddr::V4(_) => north(gateway, &tunnelled),
            IpAddr::V6(_) => Err(DropReason::NoRoute),
        };
    }
    east_west(gateway, &tunnelled, destination)
}

/// The destination of an IPv4 packet whose header and lengths make sense.
fn ipv4_destination(packet: &[u8]) -> Option<IpAddr> {
    let first = u8_at(packet, 0)?;
    let header_len = usize::from(first & 0x0f) * 4;
    let total_len = usize::from(u16_at(packet, 2)?);
    let is_whole =
        first >> 4 == 4 && header_len >= IPV4_LEN && header_len <= total_len && total_len <= packet.len();
    ipv4_at(packet, DESTINATION).filter(|_| is_whole)
}

/// The destination of an IPv6 packet whose header and lengths make sense.
fn ipv6_destination(packet: &[u8]) -> Option<IpAddr> {
    let payload_len = usize::from(u16_at(packet, 4)?);
    let is_whole = u8_at(packet, 0)? >> 4 == 6 && IPV6_LEN + payload_len <= packet.len();
    ipv6_at(packet, 24).filter(|_| is_whole)
}

/// Stage 4.
fn east_west(gateway: &GatewayModel, tunnelled: &Tunnelled<'_>, destination: IpAddr) -> Verdict {
    let peer = gateway.rows.peer(tunnelled.network, destination);
    let peer = peer.ok_or(DropReason::UnknownDestination)?;
    if peer.host == IpAddr::V4(tunnelled.source) || peer.host == IpAddr::V4(gateway.tunnel_ip) {
        return Err(DropReason::Loop);
    }
    let IpAddr::V4(host) = peer.host else {
        return Err(DropReason::Internal);
    };
    let mut packet = tunnelled.packet.to_vec();
    put(&mut packet, 8, &[GATEWAY_TTL]);
    put(&mut packet, SOURCE, &gateway.tunnel_ip.octets());
    put(&mut packet, DESTINATION, &host.octets());
    set_checksum(&mut packet);
    put(&mut packet, IPV4_LEN + 6, &[0, 0]);
    put(&mut packet, VXLAN_OVERHEAD, &peer.mac.0);
    Ok(GatewayVerdict::Underlay(packet.into()))
}
