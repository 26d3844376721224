//! Stage 6: the IPv6 header and its extension headers, neighbour discovery (RFC 4861), source addresses.

use alcor_dataplane_abi::{
    DropReason, PuntReason, csum_fold,
    layout::{IPV6, PORT_RA, verdict},
    link_local,
};

use aya_ebpf::helpers::bpf_csum_diff;

use crate::{
    ETH_LEN, ETHERTYPE_IPV6, GATEWAY_MAC, ON_DEMAND_MAC, PACKET_BYTES, Packet, Work,
    end::End,
    maps::{has_fixed_ip, is_gateway, local_mac, use_remote_mac},
    skb::{Skb, be16, part, put},
};

const MAX_EXTENSION_HEADERS: u32 = 4;
const HOP_BY_HOP: u8 = 0;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
/// No protocol: the upper layer is unknown. 59 is "no next header", about which nothing is checked either.
const UNKNOWN: u8 = 59;

const MALFORMED: End = End::drop(DropReason::Malformed);
const ADVERTISEMENT_LEN: usize = 86;

/// What the walk along the extension headers found.
#[derive(Default)]
pub struct Walked {
    /// Where the upper layer starts in the frame.
    pub at: u32,
    pub protocol: u8,
    /// False for a fragment that is not the first: the upper layer is unknown.
    pub is_known: bool,
    pub is_extended: bool,
    /// Of a packet in more than one piece.
    pub is_fragment: bool,
    /// The packet's id, and where in it the fragment begins.
    pub id: u32,
    pub offset: u16,
}

/// Walks the extension headers; false when there are too many or one is not whole.
#[inline(never)]
pub fn walk(skb: Skb, first: u32, start: u32, end: u32, found: &mut Walked) -> bool {
    let mut next = first as u8;
    let mut at = start;
    let mut walked = 0;
    found.is_known = true;
    found.is_fragment = false;
    found.id = 0;
    found.offset = 0;
    while walked <= MAX_EXTENSION_HEADERS {
        let is_options = next == HOP_BY_HOP || next == ROUTING || next == DESTINATION_OPTIONS;
        if !is_options && next != FRAGMENT {
            found.protocol = next;
            found.is_extended = walked > 0;
            found.at = at;
            return true;
        }
        if walked == MAX_EXTENSION_HEADERS || at + 8 > end {
            return false;
        }
        let Some(header) = skb.bytes::<8>(at) else {
            return false;
        };
        let len = if is_options { (header[1] as u32 + 1) * 8 } else { 8 };
        if at + len > end {
            return false;
        }
        at += len;
        if next == FRAGMENT {
            let field = be16(&header, 2);
            found.offset = field & 0xfff8;
            found.id = u32::from_be_bytes(part(&header, 4));
            // Offset 0 and no more to come: a whole packet.
            found.is_fragment = field & !0x0006 != 0;
            if found.offset != 0 {
                found.protocol = UNKNOWN;
                found.is_known = false;
                found.is_extended = true;
                found.at = at;
                return true;
            }
        }
        next = header[0];
        walked += 1;
    }
    false
}

/// Stage 6, packed.
#[inline(never)]
pub fn check(work: &mut Work) -> u64 {
    End::pack(checked(work))
}

#[inline(always)]
fn checked(work: &mut Work) -> Result<(), End> {
    let header = &mut work.packet.bytes;
    work.skb.load::<40>(ETH_LEN, header).ok_or(MALFORMED)?;
    let next = header[6];
    let end = ETH_LEN + 40 + be16(header, 4) as u32;
    if header[0] >> 4 != 6 || end > work.skb.len() {
        return Err(MALFORMED);
    }
    let mut upper = Walked::default();
    if !walk(work.skb, next as u32, ETH_LEN + 40, end, &mut upper) {
        return Err(MALFORMED);
    }
    let header = &work.packet.bytes;
    work.packet.source = part(header, 8);
    work.packet.destination = part(header, 24);
    work.packet.ttl = header[7];
    work.packet.family = IPV6;
    work.packet.protocol = upper.protocol;
    work.packet.upper = upper.at;
    let mut first = [0u8; 4];
    if upper.protocol == ICMPV6 || upper.protocol == UDP {
        if upper.at + 8 > end {
            return Err(MALFORMED);
        }
        first = work.skb.bytes(upper.at).ok_or(MALFORMED)?;
    }
    let own_link_local = link_local(work.port.mac);
    if upper.protocol == ICMPV6 {
        work.packet.echo_request = !upper.is_extended && first[0] == 128;
        icmp(work, &upper, end, first[0])?;
        if work.packet.solicitation != 0 {
            return Ok(());
        }
    }
    if work.secured() {
        if upper.protocol == UDP && be16(&first, 0) == 547 && be16(&first, 2) == 546 {
            return Err(End::drop(DropReason::DhcpServer));
        }
        if work.packet.source != own_link_local && !work.is_allowed(&work.packet.source) {
            return Err(End::drop(DropReason::SpoofedIp));
        }
    }
    Ok(())
}

/// What is special about ICMPv6: neighbour discovery.
#[inline(always)]
fn icmp(work: &mut Work, upper: &Walked, end: u32, kind: u8) -> Result<(), End> {
    if !(133..=137).contains(&kind) {
        return Ok(());
    }
    if upper.is_extended && work.secured() {
        return Err(End::drop(DropReason::SpoofedNd));
    }
    if !upper.is_extended && work.packet.ttl != 255 {
        return Err(MALFORMED);
    }
    if kind == 134 || kind == 137 {
        return Err(End::drop(DropReason::RouterAdvertisement));
    }
    if upper.is_extended {
        return Ok(());
    }
    let end = match kind {
        133 if work.port.flags & PORT_RA != 0 => End::punt(PuntReason::RouterSolicitation),
        133 => End::drop(DropReason::NoFlood),
        135 => {
            work.packet.solicitation = upper.at;
            work.packet.end = end;
            return Ok(());
        }
        _ => End::drop(DropReason::NdIgnored),
    };
    Err(end)
}

/// Answers a neighbour solicitation that [`check`] has found, packed; never lets the packet go on.
#[inline(never)]
pub fn solicitation(work: &mut Work) -> u64 {
    End::pack(Err(answer(work, work.packet.solicitation, work.packet.end)))
}

#[inline(always)]
fn answer(work: &mut Work, at: u32, end: u32) -> End {
    let own_link_local = link_local(work.port.mac);
    if at + 24 > end {
        return MALFORMED;
    }
    // What follows ends here, so the packet's own destination is of no more use.
    if work
        .skb
        .load::<16>(at + 8, &mut work.packet.destination)
        .is_none()
    {
        return MALFORMED;
    }
    let from_nobody = work.packet.source == [0; 16];
    if work.secured() {
        let allowed =
            from_nobody || work.packet.source == own_link_local || work.is_allowed(&work.packet.source);
        if !allowed || claims_other_mac(work, at, end) {
            return End::drop(DropReason::SpoofedNd);
        }
    }
    let target = &work.packet.destination;
    if has_fixed_ip(work.port.port, IPV6, target) || *target == own_link_local {
        return End::drop(DropReason::OwnAddress);
    }
    let (mac, router_flag) = if is_gateway(work.port.network, IPV6, target) {
        (GATEWAY_MAC, 0x80)
    } else {
        match work.neigh_mac(target).or_else(|| eui64_neighbour(work, target)) {
            Some(mac) => (mac, 0),
            None if work.is_answered() => (ON_DEMAND_MAC, 0),
            None => return End::unknown(work),
        }
    };
    put(&mut work.packet.bytes, 80, &mac);
    advertise(work.packet, router_flag, from_nobody);
    let check = checksum(&mut work.packet.bytes);
    put(&mut work.packet.bytes, 56, &check);
    let skb = work.skb;
    if skb.resize(ADVERTISEMENT_LEN as u32).is_none()
        || skb
            .store_from::<ADVERTISEMENT_LEN>(0, &work.packet.bytes)
            .is_none()
    {
        return End::drop(DropReason::Internal);
    }
    End::act(verdict::REPLY, 0)
}

/// Writes the advertisement of `destination`, without its checksum; the MAC is in its last six bytes already.
#[inline(never)]
fn advertise(packet: &mut Packet, router_flag: u8, to_all: bool) -> u32 {
    let frame = &mut packet.bytes;
    let solicited_flag = if to_all {
        put(frame, 0, &[0x33, 0x33, 0, 0, 0, 1]);
        put(frame, 38, &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        0
    } else {
        put(frame, 0, &packet.source_mac);
        put(frame, 38, &packet.source);
        0x40
    };
    let mac: [u8; 6] = part(frame, 80);
    put(frame, 6, &mac);
    put(frame, 12, &ETHERTYPE_IPV6.to_be_bytes());
    put(frame, 14, &[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    put(frame, 22, &packet.destination);
    let flags = router_flag | solicited_flag | 0x20;
    put(frame, 54, &[136, 0, 0, 0, flags, 0, 0, 0]);
    put(frame, 62, &packet.destination);
    put(frame, 78, &[2, 1]);
    0
}

/// The checksum of an advertisement as it is written: pseudo header (addresses, length, protocol) and message.
#[inline(always)]
fn checksum(frame: &mut [u8; PACKET_BYTES]) -> [u8; 2] {
    const SUMMED: usize = 22;
    let rest = (32 + ICMPV6 as u16).to_be() as u32;
    let bytes = (&raw mut frame[SUMMED]).cast();
    let len = (ADVERTISEMENT_LEN - SUMMED) as u32;
    // SAFETY: the helper reads `len` bytes of the frame, and nothing from the null pointer of length 0.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes, len, rest) };
    csum_fold(sum as u32).to_ne_bytes()
}

/// True when the first option is a source link-layer address other than the frame's.
#[inline(always)]
fn claims_other_mac(work: &Work, at: u32, end: u32) -> bool {
    if at + 32 > end {
        return false;
    }
    let Some(option) = work.skb.bytes::<8>(at + 24) else {
        return false;
    };
    option[0] == 1 && option[1] == 1 && part::<6>(&option, 2) != work.packet.source_mac
}

/// The MAC that this link-local address was formed from, when the network knows it.
#[inline(always)]
fn eui64_neighbour(work: &Work, ip: &[u8; 16]) -> Option<[u8; 6]> {
    let mac = [ip[8] ^ 2, ip[9], ip[10], ip[13], ip[14], ip[15]];
    let network = work.port.network;
    let known = link_local(mac) == *ip
        && (local_mac(network, &mac).is_some() || use_remote_mac(network, &mac).is_some());
    known.then_some(mac)
}
