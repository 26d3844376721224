//! What the filter looks at in a frame: addresses, the upper layer's numbers, its place among fragments.

use std::net::IpAddr;

use alcor_dataplane_abi::flow::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, Upper, has_ports};

use super::{ipv4, ipv6};
use crate::{
    DropReason,
    packet::{
        ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, IPV6_LEN, ipv4_at, ipv6_at, u8_at,
        u16_at,
    },
    security::Family,
};

/// The least of an upper layer that has ports: enough for an ICMP error to quote.
const QUOTED_LEN: usize = 8;
/// A TCP header without options; a fragment may not begin inside it.
const TCP_LEN: usize = 20;
/// The least of ICMP and ICMPv6.
const ICMP_LEN: usize = 8;
const TCP_FLAGS: usize = 13;
const ND_TYPES: std::ops::RangeInclusive<u16> = 133..=137;

/// Which packet a fragment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FragmentKey {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) id: u32,
    /// IPv4: the protocol. IPv6 fragments of one packet share the id only.
    pub(super) protocol: u8,
}

/// What follows the IP headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A whole packet.
    Whole(Upper),
    /// The first fragment of a packet.
    First(FragmentKey, Upper),
    /// A later fragment, and where in the packet it begins.
    Later(FragmentKey, u16),
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) part: Part,
    /// The upper layer, as far as it is there.
    pub(super) bytes: &'a [u8],
}

impl Flow<'_> {
    pub(super) const fn family(&self) -> Family {
        Family::of(self.source)
    }
}

/// Reads a frame.
pub(super) fn read(frame: &[u8]) -> Result<Flow<'_>, DropReason> {
    let malformed = DropReason::Malformed;
    let ethernet = Ethernet::read(frame).ok_or(malformed)?;
    let packet = frame.get(ETH_LEN..).ok_or(malformed)?;
    let flow = match ethernet.ethertype {
        ETHERTYPE_IPV4 => read_v4(packet),
        ETHERTYPE_IPV6 => read_v6(packet),
        _ => return Err(DropReason::UnsupportedEtherType),
    };
    flow.ok_or(malformed)
}

fn read_v4(packet: &[u8]) -> Option<Flow<'_>> {
    let header = ipv4::read(packet)?;
    let key = FragmentKey {
        source: header.packet.source,
        destination: header.packet.destination,
        id: u32::from(header.fragment_id),
        protocol: header.protocol,
    };
    let offset = (header.fragment & ipv4::FRAGMENT_OFFSET) * 8;
    let part = match (header.fragment, offset) {
        (0, _) => Part::Whole(upper(header.protocol, header.upper)?),
        (_, 0) => Part::First(key, upper(header.protocol, header.upper)?),
        (_, offset) => Part::Later(key, offset),
    };
    Some(Flow {
        source: key.source,
        destination: key.destination,
        part,
        bytes: header.upper,
    })
}

fn read_v6(packet: &[u8]) -> Option<Flow<'_>> {
    let (packet, layer) = ipv6::read(packet)?;
    let key = |id| FragmentKey {
        source: packet.source,
        destination: packet.destination,
        id,
        protocol: 0,
    };
    let part = match (layer.protocol, layer.fragment) {
        (Some(protocol), None) => Part::Whole(upper(protocol, layer.bytes)?),
        (Some(protocol), Some(fragment)) => Part::First(key(fragment.id), upper(protocol, layer.bytes)?),
        (None, fragment) => fragment.map(|fragment| Part::Later(key(fragment.id), fragment.offset))?,
    };
    Some(Flow {
        source: packet.source,
        destination: packet.destination,
        part,
        bytes: layer.bytes,
    })
}

/// The numbers of an upper layer that must be there as far as the filter relies on it.
fn upper(protocol: u8, bytes: &[u8]) -> Option<Upper> {
    let least = match protocol {
        PROTO_TCP => TCP_LEN,
        PROTO_ICMP | PROTO_ICMPV6 => ICMP_LEN,
        _ if has_ports(protocol) => QUOTED_LEN,
        _ => 0,
    };
    bytes.get(..least)?;
    let mut upper = quoted(protocol, bytes)?;
    if protocol == PROTO_TCP {
        upper.tcp = u8_at(bytes, TCP_FLAGS)?;
    }
    Some(upper)
}

/// What an ICMP error shows of a packet: ports or query, no flags.
fn quoted(protocol: u8, bytes: &[u8]) -> Option<Upper> {
    let (source, point) = match protocol {
        PROTO_ICMP | PROTO_ICMPV6 => (u16_at(bytes, 4)?, u16_at(bytes, 0)?),
        _ if has_ports(protocol) => (u16_at(bytes, 0)?, u16_at(bytes, 2)?),
        _ => (0, 0),
    };
    Some(Upper {
        source,
        point,
        protocol,
        tcp: 0,
    })
}

/// The packet that an ICMP error of this family quotes, unless it is a later fragment or cut too short.
pub(super) fn quoted_packet(family: Family, error: &[u8]) -> Option<(IpAddr, IpAddr, Upper)> {
    let packet = error.get(ICMP_LEN..)?;
    let version = u8_at(packet, 0)? >> 4;
    match (family, version) {
        (Family::Ipv4, 4) => {
            let header_len = usize::from(u8_at(packet, 0)? & 0x0f) * 4;
            let is_first = u16_at(packet, 6)? & ipv4::FRAGMENT_OFFSET == 0;
            let rest = packet.get(header_len.max(IPV4_LEN)..)?;
            let upper = quoted(u8_at(packet, 9)?, rest).filter(|_| is_first && header_len >= IPV4_LEN)?;
            Some((ipv4_at(packet, 12)?, ipv4_at(packet, 16)?, upper))
        }
        (Family::Ipv6, 6) => {
            let layer = ipv6::upper(u8_at(packet, 6)?, packet.get(IPV6_LEN..)?)?;
            let upper = quoted(layer.protocol?, layer.bytes)?;
            Some((ipv6_at(packet, 8)?, ipv6_at(packet, 24)?, upper))
        }
        _ => None,
    }
}

/// True for neighbour discovery, which never crosses the network: this host answers it.
pub(super) fn is_discovery(upper: &Upper) -> bool {
    upper.protocol == PROTO_ICMPV6 && ND_TYPES.contains(&(upper.point >> 8))
}

/// True for a later fragment that would lie over the header of this upper layer.
pub(super) fn overlaps_header(upper: &Upper, offset: u16) -> bool {
    upper.protocol == PROTO_TCP && usize::from(offset) < TCP_LEN
}
