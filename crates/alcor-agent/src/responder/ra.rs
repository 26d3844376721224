//! Router advertisements (RFC 4861, section 4.2; DNS by RFC 8106) for the ports of a network.

use std::net::{IpAddr, Ipv6Addr};

use alcor_model::{MacAddr, net::GATEWAY_MAC};
use ipnet::IpNet;

use super::{
    Context, Refusal,
    frame::{ICMPV6, IPV6, ethernet, icmpv6, split_ethernet, split_ipv6},
};

/// Router lifetime in seconds, when the subnet has a gateway (three times the longest pause between two would be
/// enough; this is the default of RFC 4861, section 6.2.1).
pub const ROUTER_LIFETIME_S: u16 = 1_800;
/// Valid lifetime of prefixes, in seconds (RFC 4861, section 6.2.1: 30 days).
pub const VALID_S: u32 = 2_592_000;
/// Preferred lifetime of prefixes, in seconds (RFC 4861, section 6.2.1: 7 days).
pub const PREFERRED_S: u32 = 604_800;
/// Lifetime of DNS servers, in seconds (RFC 8106, section 5.1: at least three times the longest pause).
pub const DNS_S: u32 = 1_800;
/// Most DNS servers of one option: its length is a byte, in units of 8 bytes.
const MAX_DNS: usize = 127;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// The answer to a router solicitation: to who asked, or to all nodes when it has no address yet.
///
/// # Errors
/// [`Refusal::Malformed`] when it is none, [`Refusal::NoAddress`] when nothing is advertised to the port.
pub fn answer(context: &Context<'_>, frame: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (source, ethertype, packet) = split_ethernet(frame)?;
    if ethertype != IPV6 {
        return Err(Refusal::Malformed);
    }
    let ip = split_ipv6(packet)?;
    // RFC 4861, section 6.1.1: hop limit 255, code 0, at least 8 bytes.
    if ip.next_header != ICMPV6 || ip.payload.len() < 8 || ip.payload[..2] != [133, 0] || packet[7] != 255 {
        return Err(Refusal::Malformed);
    }
    let (mac, address) = if ip.source.is_unspecified() {
        (ALL_NODES_MAC, ALL_NODES)
    } else {
        (source, ip.source)
    };
    advertise(context, mac, address).ok_or(Refusal::NoAddress)
}

/// The advertisement that nobody asked for, to all nodes; `None` when nothing is advertised to the port.
pub fn unsolicited(context: &Context<'_>) -> Option<Vec<u8>> {
    advertise(context, ALL_NODES_MAC, ALL_NODES)
}

fn advertise(context: &Context<'_>, mac: MacAddr, address: Ipv6Addr) -> Option<Vec<u8>> {
    let mut subnets: Vec<_> = context
        .addresses()
        .filter_map(|(_, subnet)| match subnet.cidr {
            IpNet::V6(prefix) if subnet.enable_dhcp => Some((prefix, subnet)),
            _ => None,
        })
        .collect();
    subnets.sort_by_key(|(prefix, _)| *prefix);
    subnets.dedup_by_key(|(prefix, _)| *prefix);
    if subnets.is_empty() {
        return None;
    }
    let router = subnets.iter().any(|(_, subnet)| subnet.gateway_ip.is_some());
    // Type 134, code 0, checksum, hop limit 64, no flags, lifetime, reachable and retransmission time unsaid.
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend_from_slice(&(if router { ROUTER_LIFETIME_S } else { 0 }).to_be_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[1, 1]);
    message.extend_from_slice(&GATEWAY_MAC.0);
    message.extend_from_slice(&[5, 1, 0, 0]);
    message.extend_from_slice(&u32::from(context.network.mtu).to_be_bytes());
    let mut servers: Vec<Ipv6Addr> = Vec::new();
    for (prefix, subnet) in &subnets {
        // On-link always; autonomous when addresses are formed from the prefix.
        let flags = if subnet.slaac { 0xc0 } else { 0x80 };
        message.extend_from_slice(&[3, 4, prefix.prefix_len(), flags]);
        message.extend_from_slice(&VALID_S.to_be_bytes());
        message.extend_from_slice(&PREFERRED_S.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&prefix.network().octets());
        for server in &subnet.dns_nameservers {
            if let IpAddr::V6(server) = server
                && !servers.contains(server)
                && servers.len() < MAX_DNS
            {
                servers.push(*server);
            }
        }
    }
    if let (Ok(count), false) = (u8::try_from(servers.len()), servers.is_empty()) {
        message.extend_from_slice(&[25, 1 + 2 * count, 0, 0]);
        message.extend_from_slice(&DNS_S.to_be_bytes());
        message.extend(servers.iter().flat_map(Ipv6Addr::octets));
    }
    let packet = icmpv6(GATEWAY_MAC.link_local(), address, 255, message);
    Some(ethernet(mac, GATEWAY_MAC, IPV6, &packet))
}
