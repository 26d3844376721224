//! Writing Ethernet, IPv4, IPv6, UDP and ICMP by hand, and reading the little that is needed of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use alcor_dataplane_abi::csum_fold;
use alcor_model::MacAddr;

use super::Refusal;

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Next header of ICMPv6.
pub const ICMPV6: u8 = 58;

/// The 16-bit ones' complement sum of the bytes (RFC 1071), not folded, on top of `sum`.
fn sum(sum: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(sum, |sum, word| {
        let low = word.get(1).copied().unwrap_or(0);
        // Folded as it goes: a frame of any length cannot overflow.
        let sum = sum + u32::from(u16::from_be_bytes([word[0], low]));
        (sum & 0xffff) + (sum >> 16)
    })
}

/// The Internet checksum of the bytes, with what a pseudo-header adds in `parts`.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    csum_fold(parts.iter().fold(0, |total, part| sum(total, part)))
}

/// An Ethernet frame around `payload`.
pub fn ethernet(destination: MacAddr, source: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + payload.len());
    frame.extend_from_slice(&destination.0);
    frame.extend_from_slice(&source.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An IPv4 packet without options, TTL 64, around `payload`. Empty when it would be longer than 65,535 bytes.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let Ok(length) = u16::try_from(20 + payload.len()) else {
        return Vec::new();
    };
    let mut packet = Vec::with_capacity(usize::from(length));
    packet.extend_from_slice(&[0x45, 0]);
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let check = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A UDP datagram for an IPv4 packet between these addresses. Empty when it would be too long.
pub fn udp4(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let Ok(length) = u16::try_from(8 + payload.len()) else {
        return Vec::new();
    };
    let mut datagram = Vec::with_capacity(usize::from(length));
    datagram.extend_from_slice(&source.1.to_be_bytes());
    datagram.extend_from_slice(&destination.1.to_be_bytes());
    datagram.extend_from_slice(&length.to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    let pseudo = [&[0, UDP][..], &length.to_be_bytes()].concat();
    let check = match checksum(&[&source.0.octets(), &destination.0.octets(), &pseudo, &datagram]) {
        // Zero would say "no checksum" (RFC 768).
        0 => 0xffff,
        check => check,
    };
    datagram[6..8].copy_from_slice(&check.to_be_bytes());
    datagram
}

/// An IPv6 packet with an ICMPv6 message; writes the checksum into bytes 2 and 3 of the message. Empty when it
/// would be too long or the message has no room for a checksum.
pub fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, mut message: Vec<u8>) -> Vec<u8> {
    let Ok(length) = u16::try_from(message.len()) else {
        return Vec::new();
    };
    if length < 4 {
        return Vec::new();
    }
    message[2..4].fill(0);
    let pseudo = [&u32::from(length).to_be_bytes()[..], &[0, 0, 0, ICMPV6]].concat();
    let check = checksum(&[&source.octets(), &destination.octets(), &pseudo, &message]);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let mut packet = Vec::with_capacity(40 + message.len());
    packet.extend_from_slice(&[0x60, 0, 0, 0]);
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[ICMPV6, hop_limit]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&message);
    packet
}

/// The parts of an Ethernet frame: source, EtherType, payload.
pub(crate) fn split_ethernet(frame: &[u8]) -> Result<(MacAddr, u16, &[u8]), Refusal> {
    let (header, payload) = frame.split_at_checked(ETHERNET).ok_or(Refusal::Malformed)?;
    let mut source = [0; 6];
    source.copy_from_slice(&header[6..12]);
    Ok((
        MacAddr(source),
        u16::from_be_bytes([header[12], header[13]]),
        payload,
    ))
}

/// The parts of an IPv4 packet that are needed here.
pub(crate) struct Ipv4<'a> {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) first_fragment: bool,
    /// Header with options.
    pub(crate) header: &'a [u8],
    /// Up to the packet's total length.
    pub(crate) payload: &'a [u8],
    /// The total length that the header says.
    pub(crate) total: usize,
}

pub(crate) fn split_ipv4(packet: &[u8]) -> Result<Ipv4<'_>, Refusal> {
    let ip = beginning_of_ipv4(packet)?;
    match ip.total == ip.header.len() + ip.payload.len() {
        true => Ok(ip),
        false => Err(Refusal::Malformed),
    }
}

/// As [`split_ipv4`], of a packet whose end may be missing: the payload is what is there.
pub(crate) fn beginning_of_ipv4(packet: &[u8]) -> Result<Ipv4<'_>, Refusal> {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return Err(Refusal::Malformed);
    }
    let ihl = usize::from(packet[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let end = total.min(packet.len());
    if ihl < 20 || ihl > end {
        return Err(Refusal::Malformed);
    }
    let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    Ok(Ipv4 {
        source: address(12),
        destination: address(16),
        protocol: packet[9],
        first_fragment: u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff == 0,
        header: &packet[..ihl],
        payload: &packet[ihl..end],
        total,
    })
}

/// The parts of an IPv6 packet that are needed here.
pub(crate) struct Ipv6<'a> {
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
    pub(crate) next_header: u8,
    pub(crate) payload: &'a [u8],
    /// What the header says of the payload's length.
    pub(crate) payload_len: usize,
}

pub(crate) fn split_ipv6(packet: &[u8]) -> Result<Ipv6<'_>, Refusal> {
    let ip = beginning_of_ipv6(packet)?;
    match ip.payload_len == ip.payload.len() {
        true => Ok(ip),
        false => Err(Refusal::Malformed),
    }
}

/// As [`split_ipv6`], of a packet whose end may be missing: the payload is what is there.
pub(crate) fn beginning_of_ipv6(packet: &[u8]) -> Result<Ipv6<'_>, Refusal> {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return Err(Refusal::Malformed);
    }
    let payload_len = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let payload = &packet[40..packet.len().min(40 + payload_len)];
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&packet[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    Ok(Ipv6 {
        source: address(8),
        destination: address(24),
        next_header: packet[6],
        payload,
        payload_len,
    })
}
