//! What the filter looks at in a frame: addresses, the upper layer's numbers, its place among fragments.

use alcor_dataplane_abi::{
    DropReason,
    flow::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, Upper, has_ports},
    layout::{IPV4, IPV6},
};

use crate::{
    ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PACKET_BYTES,
    ipv6::{Walked, walk},
    maps::PACKETS,
    skb::{Skb, be16, part, put},
};

const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// A TCP header without options; a fragment may not begin inside it.
pub const TCP_LEN: u32 = 20;
const ICMP_LEN: u32 = 8;
const TCP_FLAGS: usize = 13;

/// [`Flow::part`]: a whole packet.
pub const WHOLE: u32 = 0;
/// [`Flow::part`]: the first fragment of a packet.
pub const FIRST: u32 = 1;
/// [`Flow::part`]: a later fragment.
pub const LATER: u32 = 2;

/// One packet.
pub struct Flow {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub family: u32,
    pub part: u32,
    /// Of a fragment: the packet's id, where the fragment begins, and (IPv4) the protocol.
    pub id: u32,
    pub offset: u32,
    pub protocol: u8,
    /// Nothing in a later fragment.
    pub upper: Upper,
    /// Where the upper layer starts and ends in the frame.
    pub at: u32,
    pub end: u32,
}

/// Reads a frame into `flow`; a `DropReason`, or 0.
#[inline(always)]
pub fn read(skb: Skb, ethertype: u16, has_header: bool, flow: &mut Flow) -> u32 {
    if skb.has_vlan_tag() {
        return DropReason::UnsupportedEtherType as u32;
    }
    let Some(packet) = PACKETS.get_ptr_mut(0) else {
        return DropReason::Internal as u32;
    };
    // SAFETY: the entry is this CPU's own; nothing else looks at it until this function has returned.
    let header = unsafe { &mut (*packet).bytes };
    let known = match ethertype {
        ETHERTYPE_IPV4 => read_v4(skb, has_header, header, flow),
        ETHERTYPE_IPV6 => read_v6(skb, has_header, header, flow),
        _ => return DropReason::UnsupportedEtherType as u32,
    };
    if known.is_none() || (flow.part != LATER && upper(skb, flow).is_none()) {
        return DropReason::Malformed as u32;
    }
    0
}

#[inline(always)]
fn read_v4(skb: Skb, has_header: bool, header: &mut [u8; PACKET_BYTES], flow: &mut Flow) -> Option<()> {
    if !has_header {
        skb.load::<20>(ETH_LEN, header)?;
    }
    let header_len = (header[0] & 0x0f) as u32 * 4;
    let total_len = be16(header, 2) as u32;
    if header[0] >> 4 != 4
        || header_len < 20
        || total_len < header_len
        || total_len > skb.len().wrapping_sub(ETH_LEN)
    {
        return None;
    }
    let fragment = be16(header, 6) & FRAGMENT;
    flow.family = IPV4;
    flow.source = [0; 16];
    put(&mut flow.source, 0, &part::<4>(header, 12));
    flow.destination = [0; 16];
    put(&mut flow.destination, 0, &part::<4>(header, 16));
    flow.id = be16(header, 4) as u32;
    flow.offset = (fragment & FRAGMENT_OFFSET) as u32 * 8;
    flow.part = place(fragment != 0, flow.offset);
    flow.protocol = header[9];
    flow.upper.protocol = header[9];
    flow.at = ETH_LEN + header_len;
    flow.end = ETH_LEN + total_len;
    Some(())
}

#[inline(always)]
fn read_v6(skb: Skb, has_header: bool, header: &mut [u8; PACKET_BYTES], flow: &mut Flow) -> Option<()> {
    if !has_header {
        skb.load::<40>(ETH_LEN, header)?;
    }
    let at = ETH_LEN + 40;
    let end = at + be16(header, 4) as u32;
    if header[0] >> 4 != 6 || end > skb.len() {
        return None;
    }
    let mut walked = Walked::default();
    if !walk(skb, header[6] as u32, at, end, &mut walked) {
        return None;
    }
    flow.family = IPV6;
    flow.source = part(header, 8);
    flow.destination = part(header, 24);
    flow.id = walked.id;
    flow.offset = walked.offset as u32;
    flow.part = place(walked.is_fragment, flow.offset);
    flow.protocol = 0;
    flow.upper.protocol = walked.protocol;
    flow.at = walked.at;
    flow.end = end;
    Some(())
}

#[inline(always)]
const fn place(is_fragment: bool, offset: u32) -> u32 {
    if !is_fragment {
        WHOLE
    } else if offset == 0 {
        FIRST
    } else {
        LATER
    }
}

/// The numbers of an upper layer that must be there as far as the filter relies on it.
#[inline(always)]
fn upper(skb: Skb, flow: &mut Flow) -> Option<()> {
    let protocol = flow.upper.protocol;
    let least = match protocol {
        PROTO_TCP => TCP_LEN,
        PROTO_ICMP | PROTO_ICMPV6 => ICMP_LEN,
        _ if has_ports(protocol) => ICMP_LEN,
        _ => 0,
    };
    if flow.at + least > flow.end {
        return None;
    }
    if protocol == PROTO_TCP {
        // Ports and flags in one piece: this is what most packets are.
        let header: [u8; TCP_FLAGS + 1] = skb.bytes(flow.at)?;
        flow.upper.source = be16(&header, 0);
        flow.upper.point = be16(&header, 2);
        flow.upper.tcp = header[TCP_FLAGS];
    } else {
        flow.upper = quoted(skb, protocol, flow.at, flow.end)?;
    }
    Some(())
}

/// What an ICMP error shows of a packet: ports or query, no flags.
#[inline(always)]
pub fn quoted(skb: Skb, protocol: u8, at: u32, end: u32) -> Option<Upper> {
    let mut upper = Upper {
        source: 0,
        point: 0,
        protocol,
        tcp: 0,
    };
    if protocol == PROTO_ICMP || protocol == PROTO_ICMPV6 {
        if at + 6 > end {
            return None;
        }
        let bytes: [u8; 6] = skb.bytes(at)?;
        upper.source = be16(&bytes, 4);
        upper.point = be16(&bytes, 0);
    } else if has_ports(protocol) {
        if at + 4 > end {
            return None;
        }
        let bytes: [u8; 4] = skb.bytes(at)?;
        upper.source = be16(&bytes, 0);
        upper.point = be16(&bytes, 2);
    }
    Some(upper)
}

/// The packet that an ICMP error quotes.
pub struct Quoted {
    header: [u8; 40],
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub upper: Upper,
}

/// Reads what an ICMP error quotes, unless it is a later fragment, cut too short or of another family.
#[inline(always)]
pub fn quoted_packet(skb: Skb, flow: &Flow, quote: &mut Quoted) -> Option<()> {
    let at = flow.at + ICMP_LEN;
    if flow.family == IPV4 {
        quoted_v4(skb, at, flow.end, quote)
    } else {
        quoted_v6(skb, at, flow.end, quote)
    }
}

#[inline(always)]
fn quoted_v4(skb: Skb, at: u32, end: u32, quote: &mut Quoted) -> Option<()> {
    if at + 20 > end {
        return None;
    }
    skb.load::<20>(at, &mut quote.header)?;
    let header = &quote.header;
    let header_len = (header[0] & 0x0f) as u32 * 4;
    let is_first = be16(header, 6) & FRAGMENT_OFFSET == 0;
    if header[0] >> 4 != 4 || header_len < 20 || at + header_len > end || !is_first {
        return None;
    }
    quote.source = [0; 16];
    put(&mut quote.source, 0, &part::<4>(header, 12));
    quote.destination = [0; 16];
    put(&mut quote.destination, 0, &part::<4>(header, 16));
    quote.upper = quoted(skb, header[9], at + header_len, end)?;
    Some(())
}

#[inline(always)]
fn quoted_v6(skb: Skb, at: u32, end: u32, quote: &mut Quoted) -> Option<()> {
    if at + 40 > end {
        return None;
    }
    skb.load::<40>(at, &mut quote.header)?;
    let header = &quote.header;
    let mut walked = Walked::default();
    if header[0] >> 4 != 6 || !walk(skb, header[6] as u32, at + 40, end, &mut walked) || !walked.is_known {
        return None;
    }
    quote.source = part(header, 8);
    quote.destination = part(header, 24);
    quote.upper = quoted(skb, walked.protocol, walked.at, end)?;
    Some(())
}
