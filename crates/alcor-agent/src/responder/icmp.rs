//! The ICMP errors of the gateway: "time exceeded" for packets whose TTL or hop limit ends there (RFC 792; RFC 4443, section 3.3), and
//! "fragmentation needed" and "packet too big" for packets that do not fit the network that they are routed into (RFC 1191; RFC 4443, section 3.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alcor_model::net::GATEWAY_MAC;

use super::{
    Context, Refusal,
    frame::{
        ICMP, ICMPV6, IPV4, IPV6, beginning_of_ipv4, beginning_of_ipv6, checksum, ethernet, icmpv6, ipv4,
        split_ethernet,
    },
};

/// Most bytes of an ICMP error with IPv4 header (RFC 1812, section 4.3.2.3).
const MAX_ERROR_V4: usize = 576;
/// Most bytes of an ICMPv6 error with IPv6 header (RFC 4443, section 2.4 (c)): the smallest MTU.
const MAX_ERROR_V6: usize = 1_280;

/// What an error tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The TTL or hop limit ended.
    TimeExceeded,
    /// The packet does not fit the network that it is routed into, and must not be fragmented.
    TooBig {
        /// The largest IP packet that does, in bytes.
        mtu: u16,
    },
}

impl Cause {
    /// The first 8 bytes of the ICMP message, without checksum.
    const fn v4(self) -> [u8; 8] {
        match self {
            Self::TimeExceeded => [11, 0, 0, 0, 0, 0, 0, 0],
            Self::TooBig { mtu } => {
                let [high, low] = mtu.to_be_bytes();
                [3, 4, 0, 0, 0, 0, high, low]
            }
        }
    }

    /// As [`Self::v4`], of ICMPv6.
    const fn v6(self) -> [u8; 8] {
        match self {
            Self::TimeExceeded => [3, 0, 0, 0, 0, 0, 0, 0],
            Self::TooBig { mtu } => {
                let [high, low] = mtu.to_be_bytes();
                [2, 0, 0, 0, 0, 0, high, low]
            }
        }
    }
}

/// The ICMP error for the frame, from the gateway of the sender's subnet to the sender. The end of a long packet may be missing: what is
/// quoted is its beginning.
///
/// # Errors
/// [`Refusal::Malformed`] when it is no IP packet, [`Refusal::NotForUs`] when such a packet is never answered with an
/// error (an ICMP error, a later fragment, no unicast address), [`Refusal::NoAddress`] when there is no gateway to answer from.
pub fn error(context: &Context<'_>, cause: Cause, frame: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (_, ethertype, packet) = split_ethernet(frame)?;
    match ethertype {
        IPV4 => error_v4(context, cause, packet),
        IPV6 => error_v6(context, cause, packet),
        _ => Err(Refusal::Malformed),
    }
}

fn error_v4(context: &Context<'_>, cause: Cause, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    let ip = beginning_of_ipv4(packet)?;
    // RFC 1812, section 4.3.2.7. ICMP queries (echo, timestamp, information, mask) may be answered with an error.
    let is_error = ip.protocol == ICMP && !matches!(ip.payload.first(), Some(0 | 8 | 13..=18));
    let no_host = |a: Ipv4Addr| a.is_unspecified() || a.is_multicast() || a.is_broadcast() || a.is_loopback();
    if is_error || !ip.first_fragment || no_host(ip.source) || no_host(ip.destination) {
        return Err(Refusal::NotForUs);
    }
    let Some(IpAddr::V4(gateway)) = gateway(context, IpAddr::V4(ip.source)) else {
        return Err(Refusal::NoAddress);
    };
    let quote = ip.payload.len().min(MAX_ERROR_V4 - 20 - 8 - ip.header.len());
    let mut message = cause.v4().to_vec();
    message.extend_from_slice(ip.header);
    message.extend_from_slice(&ip.payload[..quote]);
    let check = checksum(&[&message]);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let answer = ipv4(gateway, ip.source, ICMP, &message);
    Ok(ethernet(context.port.mac, GATEWAY_MAC, IPV4, &answer))
}

fn error_v6(context: &Context<'_>, cause: Cause, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    let ip = beginning_of_ipv6(packet)?;
    // RFC 4443, section 2.4 (e): not for ICMPv6 errors (types below 128) and redirects.
    let is_error =
        ip.next_header == ICMPV6 && ip.payload.first().is_none_or(|kind| *kind < 128 || *kind == 137);
    let no_host = |a: Ipv6Addr| a.is_unspecified() || a.is_multicast() || a.is_loopback();
    if is_error || no_host(ip.source) || no_host(ip.destination) {
        return Err(Refusal::NotForUs);
    }
    let Some(IpAddr::V6(gateway)) = gateway(context, IpAddr::V6(ip.source)) else {
        return Err(Refusal::NoAddress);
    };
    let quote = (40 + ip.payload.len()).min(MAX_ERROR_V6 - 40 - 8);
    let mut message = cause.v6().to_vec();
    message.extend_from_slice(&packet[..quote]);
    let answer = icmpv6(gateway, ip.source, 64, message);
    Ok(ethernet(context.port.mac, GATEWAY_MAC, IPV6, &answer))
}

/// The gateway of the subnet that the address lies in. A sender outside of all (an allowed pair) is answered by
/// any gateway of its family.
fn gateway(context: &Context<'_>, sender: IpAddr) -> Option<IpAddr> {
    let family = |ip: &IpAddr| ip.is_ipv4() == sender.is_ipv4();
    let near = context
        .subnets
        .iter()
        .filter(|subnet| subnet.cidr.contains(&sender));
    near.chain(&context.subnets)
        .find_map(|subnet| subnet.gateway_ip.filter(family))
}
