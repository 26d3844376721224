//! Stage 5: the IPv4 header, DHCP, source addresses.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    path::{Context, End, Packet, is_group},
    tables::is_allowed,
};
use crate::{
    DropReason, PuntReason,
    packet::{ETH_LEN, IPV4_LEN, PROTO_ICMP, PROTO_UDP, ipv4_at, u8_at, u16_at},
};

const PORT_DHCP_SERVER: u16 = 67;
const PORT_DHCP_CLIENT: u16 = 68;
pub(super) const FRAGMENT_OFFSET: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;
const ICMP_ECHO_REQUEST: u8 = 8;
/// UDP header; ICMP echo header.
const UPPER_LEN: usize = 8;

pub(super) struct Header<'a> {
    pub(super) packet: Packet,
    pub(super) protocol: u8,
    /// Offset and "more to come"; 0 in a whole packet.
    pub(super) fragment: u16,
    pub(super) fragment_id: u16,
    /// What follows the header, up to the total length.
    pub(super) upper: &'a [u8],
}

/// `None` when the header is not whole or its lengths contradict each other.
pub(super) fn read(bytes: &[u8]) -> Option<Header<'_>> {
    let first = u8_at(bytes, 0)?;
    let header_len = usize::from(first & 0x0f) * 4;
    let total_len = usize::from(u16_at(bytes, 2)?);
    if first >> 4 != 4 || header_len < IPV4_LEN {
        return None;
    }
    // The range is there only if header_len <= total_len <= bytes present.
    let upper = bytes.get(header_len..total_len)?;
    let fragment = u16_at(bytes, 6)? & (FRAGMENT_OFFSET | MORE_FRAGMENTS);
    let protocol = u8_at(bytes, 9)?;
    let plain = fragment == 0 && header_len == IPV4_LEN && upper.len() >= UPPER_LEN;
    let packet = Packet {
        source: ipv4_at(bytes, 12)?,
        destination: ipv4_at(bytes, 16)?,
        ttl: u8_at(bytes, 8)?,
        must_not_be_fragmented: u16_at(bytes, 6)? & DONT_FRAGMENT != 0,
        echo_request: plain && protocol == PROTO_ICMP && upper.first() == Some(&ICMP_ECHO_REQUEST),
    };
    Some(Header {
        packet,
        protocol,
        fragment,
        fragment_id: u16_at(bytes, 4)?,
        upper,
    })
}

pub(super) fn check(context: &Context<'_>) -> Result<Packet, End> {
    let Context {
        port,
        network,
        frame,
        ethernet,
        ..
    } = context;
    let header = frame.get(ETH_LEN..).and_then(read).ok_or(DropReason::Malformed)?;
    let packet = header.packet;

    let mut is_dhcp = false;
    if header.protocol == PROTO_UDP && header.fragment & FRAGMENT_OFFSET == 0 {
        if header.upper.len() < UPPER_LEN {
            return Err(DropReason::Malformed.into());
        }
        let ports = (u16_at(header.upper, 0), u16_at(header.upper, 2));
        is_dhcp = ports == (Some(PORT_DHCP_CLIENT), Some(PORT_DHCP_SERVER));
        let is_server = ports == (Some(PORT_DHCP_SERVER), Some(PORT_DHCP_CLIENT));
        if is_dhcp && network.serves(port, true) {
            return Err(End::Punt(PuntReason::Dhcp4));
        }
        if is_dhcp && is_group(ethernet, packet.destination) {
            return Err(DropReason::NoFlood.into());
        }
        if is_server && port.port_security_enabled {
            return Err(DropReason::DhcpServer.into());
        }
    }

    let unconfigured = is_dhcp && packet.source == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if port.port_security_enabled && !unconfigured && !is_allowed(port, ethernet.source, packet.source) {
        return Err(DropReason::SpoofedIp.into());
    }
    Ok(packet)
}
