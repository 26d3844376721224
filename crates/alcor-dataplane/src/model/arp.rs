//! Stage 4: ARP requests (RFC 826) are answered here; nothing else of ARP goes anywhere.

use std::net::IpAddr;

use alcor_model::{
    MacAddr,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};

use super::{
    path::{Context, End, Used},
    tables::{has_fixed_ip, is_allowed},
};
use crate::{
    DropReason,
    packet::{ETH_LEN, ETHERTYPE_ARP, Ethernet, array, ipv4_at, mac_at, put, u16_at},
};

/// Length of an ARP message for Ethernet and IPv4.
const ARP_LEN: usize = 28;
/// Ethernet (1), IPv4 (0x0800), 6-byte and 4-byte addresses.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const OP_REQUEST: u16 = 1;
const OP_REPLY: u16 = 2;

struct Arp {
    operation: u16,
    sender_mac: MacAddr,
    sender_ip: IpAddr,
    target_ip: IpAddr,
}

fn read(message: &[u8]) -> Option<Arp> {
    if array(message, 0)? != ARP_KIND {
        return None;
    }
    Some(Arp {
        operation: u16_at(message, 6)?,
        sender_mac: mac_at(message, 8)?,
        sender_ip: ipv4_at(message, 14)?,
        target_ip: ipv4_at(message, 24)?,
    })
}

pub(super) fn answer(context: &Context<'_>) -> End {
    let Context {
        port,
        network,
        frame,
        ethernet,
        ..
    } = context;
    let Some(arp) = frame.get(ETH_LEN..).and_then(read) else {
        return End::Drop(DropReason::Malformed);
    };
    if arp.operation != OP_REQUEST {
        return End::Drop(DropReason::ArpIgnored);
    }
    if port.port_security_enabled {
        let allowed = arp.sender_ip.is_unspecified() || is_allowed(port, ethernet.source, arp.sender_ip);
        if arp.sender_mac != ethernet.source || !allowed {
            return End::Drop(DropReason::SpoofedArp);
        }
    }
    if has_fixed_ip(port, arp.target_ip) {
        return End::Drop(DropReason::OwnAddress);
    }
    if network.is_gateway(arp.target_ip) {
        return End::Reply(reply(&arp, ethernet.source, GATEWAY_MAC), None);
    }
    match network.neigh(arp.target_ip) {
        Some(peer) => End::Reply(
            reply(&arp, ethernet.source, peer.mac()),
            Some(Used::ByIp(arp.target_ip)),
        ),
        None if context.is_answered(arp.sender_ip, arp.target_ip) => {
            End::OnDemand(reply(&arp, ethernet.source, ON_DEMAND_MAC), arp.target_ip)
        }
        None => End::Unknown(network.row.id, arp.target_ip),
    }
}

/// "The target is at `answer`", to whoever sent the request.
fn reply(request: &Arp, requester: MacAddr, answer: MacAddr) -> Vec<u8> {
    let ethernet = Ethernet {
        destination: requester,
        source: answer,
        ethertype: ETHERTYPE_ARP,
    };
    let mut message = [0; ARP_LEN];
    put(&mut message, 0, &ARP_KIND);
    put(&mut message, 6, &OP_REPLY.to_be_bytes());
    put(&mut message, 8, &answer.0);
    put_ipv4(&mut message, 14, request.target_ip);
    put(&mut message, 18, &request.sender_mac.0);
    put_ipv4(&mut message, 24, request.sender_ip);
    [&ethernet.bytes()[..], &message].concat()
}

fn put_ipv4(message: &mut [u8], at: usize, ip: IpAddr) {
    if let IpAddr::V4(ip) = ip {
        put(message, at, &ip.octets());
    }
}
