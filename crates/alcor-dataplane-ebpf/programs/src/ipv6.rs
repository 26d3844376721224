//! Stage 6: the IPv6 header and its extension headers, neighbour discovery (RFC 4861), source addresses.

use alcor_dataplane_abi::{
    DropReason, PuntReason, csum_fold,
    layout::{IPV6, PORT_RA, verdict},
    link_local,
};

use crate::{
    ETH_LEN, ETHERTYPE_IPV6, GATEWAY_MAC, Work,
    end::End,
    maps::{has_fixed_ip, is_gateway, local_mac, remote_mac},
    skb::{be16, part, put},
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
struct Upper {
    protocol: u8,
    extended: bool,
    /// Where it starts and ends in the frame.
    at: u32,
    end: u32,
}

#[inline(always)]
fn walk(work: &Work, first: u8, end: u32) -> Result<Upper, End> {
    let mut next = first;
    let mut at = ETH_LEN + 40;
    let mut walked = 0;
    while walked <= MAX_EXTENSION_HEADERS {
        let is_options = next == HOP_BY_HOP || next == ROUTING || next == DESTINATION_OPTIONS;
        if !is_options && next != FRAGMENT {
            return Ok(Upper {
                protocol: next,
                extended: walked > 0,
                at,
                end,
            });
        }
        if walked == MAX_EXTENSION_HEADERS || at + 8 > end {
            return Err(MALFORMED);
        }
        let header: [u8; 4] = work.skb.bytes(at).ok_or(MALFORMED)?;
        let len = if is_options { (header[1] as u32 + 1) * 8 } else { 8 };
        if at + len > end {
            return Err(MALFORMED);
        }
        at += len;
        if next == FRAGMENT && be16(&header, 2) & 0xfff8 != 0 {
            return Ok(Upper {
                protocol: UNKNOWN,
                extended: true,
                at,
                end,
            });
        }
        next = header[0];
        walked += 1;
    }
    Err(MALFORMED)
}

#[inline(always)]
pub fn check(work: &mut Work) -> Result<(), End> {
    let header: [u8; 40] = work.skb.bytes(ETH_LEN).ok_or(MALFORMED)?;
    let end = ETH_LEN + 40 + be16(&header, 4) as u32;
    if header[0] >> 4 != 6 || end > work.skb.len() {
        return Err(MALFORMED);
    }
    let upper = walk(work, header[6], end)?;
    work.family = IPV6;
    work.ttl = header[7];
    work.protocol = upper.protocol;
    work.upper = upper.at;
    work.source = part(&header, 8);
    work.destination = part(&header, 24);
    let mut first = [0u8; 4];
    if upper.protocol == ICMPV6 || upper.protocol == UDP {
        if upper.at + 8 > end {
            return Err(MALFORMED);
        }
        first = work.skb.bytes(upper.at).ok_or(MALFORMED)?;
    }
    let own_link_local = link_local(work.port.mac);
    if upper.protocol == ICMPV6 {
        work.echo_request = !upper.extended && first[0] == 128;
        icmp(work, &upper, first[0], &own_link_local)?;
    }
    if work.secured() {
        if upper.protocol == UDP && be16(&first, 0) == 547 && be16(&first, 2) == 546 {
            return Err(End::drop(DropReason::DhcpServer));
        }
        if work.source != own_link_local && !work.is_allowed(&work.source) {
            return Err(End::drop(DropReason::SpoofedIp));
        }
    }
    Ok(())
}

/// What is special about ICMPv6: neighbour discovery.
#[inline(always)]
fn icmp(work: &mut Work, upper: &Upper, kind: u8, own_link_local: &[u8; 16]) -> Result<(), End> {
    if !(133..=137).contains(&kind) {
        return Ok(());
    }
    if upper.extended && work.secured() {
        return Err(End::drop(DropReason::SpoofedNd));
    }
    if !upper.extended && work.ttl != 255 {
        return Err(MALFORMED);
    }
    if kind == 134 || kind == 137 {
        return Err(End::drop(DropReason::RouterAdvertisement));
    }
    if upper.extended {
        return Ok(());
    }
    Err(match kind {
        133 if work.port.flags & PORT_RA != 0 => End::punt(PuntReason::RouterSolicitation),
        133 => End::drop(DropReason::NoFlood),
        135 => solicitation(work, upper, own_link_local),
        _ => End::drop(DropReason::NdIgnored),
    })
}

#[inline(always)]
fn solicitation(work: &mut Work, upper: &Upper, own_link_local: &[u8; 16]) -> End {
    if upper.at + 24 > upper.end {
        return MALFORMED;
    }
    let Some(target) = work.skb.bytes::<16>(upper.at + 8) else {
        return MALFORMED;
    };
    let from_nobody = work.source == [0; 16];
    if work.secured() {
        let allowed = from_nobody || work.source == *own_link_local || work.is_allowed(&work.source);
        if !allowed || claims_other_mac(work, upper) {
            return End::drop(DropReason::SpoofedNd);
        }
    }
    if has_fixed_ip(work.port.port, IPV6, &target) || target == *own_link_local {
        return End::drop(DropReason::OwnAddress);
    }
    let (mac, router_flag) = if is_gateway(work.port.network, IPV6, &target) {
        (GATEWAY_MAC, 0x80)
    } else {
        match work.neigh_mac(&target).or_else(|| eui64_neighbour(work, &target)) {
            Some(mac) => (mac, 0),
            None => {
                work.destination = target;
                return End::unknown();
            }
        }
    };
    let mut frame = [0u8; ADVERTISEMENT_LEN];
    let solicited_flag = if from_nobody {
        put(&mut frame, 0, &[0x33, 0x33, 0, 0, 0, 1]);
        put(
            &mut frame,
            38,
            &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        );
        0
    } else {
        put(&mut frame, 0, &work.source_mac);
        put(&mut frame, 38, &work.source);
        0x40
    };
    put(&mut frame, 6, &mac);
    put(&mut frame, 12, &ETHERTYPE_IPV6.to_be_bytes());
    put(&mut frame, 14, &[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    put(&mut frame, 22, &target);
    put(
        &mut frame,
        54,
        &[136, 0, 0, 0, router_flag | solicited_flag | 0x20],
    );
    put(&mut frame, 62, &target);
    put(&mut frame, 78, &[2, 1]);
    put(&mut frame, 80, &mac);
    // Pseudo header (addresses, length, protocol) and message.
    let mut sum = 32 + ICMPV6 as u32;
    let mut at = 22;
    while at < ADVERTISEMENT_LEN {
        sum += be16(&frame, at) as u32;
        at += 2;
    }
    put(&mut frame, 56, &csum_fold(sum).to_be_bytes());
    if work.skb.resize(ADVERTISEMENT_LEN as u32).is_none() || work.skb.store(0, &frame, 0).is_none() {
        return End::drop(DropReason::Internal);
    }
    End::act(verdict::REPLY, 0)
}

/// True when the first option is a source link-layer address other than the frame's.
#[inline(always)]
fn claims_other_mac(work: &Work, upper: &Upper) -> bool {
    if upper.at + 32 > upper.end {
        return false;
    }
    let Some(option) = work.skb.bytes::<8>(upper.at + 24) else {
        return false;
    };
    option[0] == 1 && option[1] == 1 && part::<6>(&option, 2) != work.source_mac
}

/// The MAC that this link-local address was formed from, when the network knows it.
#[inline(always)]
fn eui64_neighbour(work: &Work, ip: &[u8; 16]) -> Option<[u8; 6]> {
    let mac = [ip[8] ^ 2, ip[9], ip[10], ip[13], ip[14], ip[15]];
    let network = work.port.network;
    let known =
        link_local(mac) == *ip && (local_mac(network, &mac).is_some() || remote_mac(network, &mac).is_some());
    known.then_some(mac)
}
