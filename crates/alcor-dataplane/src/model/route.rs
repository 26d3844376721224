//! Stages 8 and 9: to whom the frame goes. The gateway answers pings and forwards between the subnets of one
//! network and of networks that share a router; all else is switched by MAC.

use alcor_model::net::GATEWAY_MAC;

use super::{
    path::{Context, End, Exit, Leaving, Packet, Used},
    tables::{Peer, is_link_local},
};
use crate::{
    DropReason, PuntReason,
    packet::{ETH_LEN, Ethernet, IPV4_LEN, IPV6_LEN, array, put, replace_word, u8_at},
};

/// The TTL or hop limit of what the gateway sends.
const GATEWAY_TTL: u8 = 64;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// Where the fields that change lie in a frame.
const IPV4_TTL: usize = ETH_LEN + 8;
const IPV4_CHECKSUM: usize = ETH_LEN + 10;
const IPV4_ADDRESSES: usize = ETH_LEN + 12;
const IPV4_ICMP: usize = ETH_LEN + IPV4_LEN;
const IPV6_HOP_LIMIT: usize = ETH_LEN + 7;
const IPV6_ADDRESSES: usize = ETH_LEN + 8;
const IPV6_ICMP: usize = ETH_LEN + IPV6_LEN;

pub(super) fn switch<'a>(context: &Context<'a>, packet: &Packet) -> Result<Exit<'a>, End> {
    let network = context.network;
    let mac = context.ethernet.destination;
    let mut frame = context.frame.to_vec();
    let (peer, used) = match network.fdb(mac) {
        Some(peer) => (peer, Used::ByMac(mac)),
        None if network.is_gateway(packet.destination) => {
            return Err(DropReason::UnknownDestination.into());
        }
        None => {
            let peer = network.neigh(packet.destination);
            let peer = peer.ok_or(End::Unknown(network.row.id, packet.destination))?;
            put(&mut frame, 0, &peer.mac().0);
            (peer, Used::ByIp(packet.destination))
        }
    };
    if matches!(peer, Peer::Local(receiver) if receiver.id == context.port.id) {
        return Err(DropReason::Loop.into());
    }
    Ok(Exit::Peer(Leaving {
        network,
        peer,
        frame,
        used,
    }))
}

pub(super) fn route<'a>(context: &Context<'a>, packet: &Packet) -> Result<Exit<'a>, End> {
    let network = context.network;
    if network.is_gateway(packet.destination) {
        return match packet.echo_request {
            true => Ok(Exit::Gateway(echo_reply(context, packet))),
            false => Err(DropReason::ToGateway.into()),
        };
    }
    if is_link_local(packet.source) || is_link_local(packet.destination) {
        return Err(DropReason::NoRoute.into());
    }
    if packet.ttl <= 1 {
        return Err(End::Punt(PuntReason::TtlExceeded));
    }
    let (id, hop) = network.route(packet.destination).ok_or(DropReason::NoRoute)?;
    let network = context.tables.network(id).ok_or(DropReason::NoRoute)?;
    if !network.row.admin_state_up {
        return Err(DropReason::PortDown.into());
    }
    let peer = network.neigh(hop).ok_or(End::Unknown(id, hop))?;
    let mut frame = context.frame.to_vec();
    set_ttl(&mut frame, packet, packet.ttl - 1);
    let ethernet = Ethernet {
        destination: peer.mac(),
        source: GATEWAY_MAC,
        ..context.ethernet
    };
    put(&mut frame, 0, &ethernet.bytes());
    Ok(Exit::Peer(Leaving {
        network,
        peer,
        frame,
        used: Used::ByIp(hop),
    }))
}

fn set_ttl(frame: &mut [u8], packet: &Packet, ttl: u8) {
    if packet.destination.is_ipv4() {
        let protocol = u8_at(frame, IPV4_TTL + 1).unwrap_or_default();
        replace_word(
            frame,
            IPV4_TTL,
            IPV4_CHECKSUM,
            u16::from_be_bytes([ttl, protocol]),
        );
    } else {
        put(frame, IPV6_HOP_LIMIT, &[ttl]);
    }
}

/// The request turned around. Swapped addresses leave every checksum as it is.
fn echo_reply(context: &Context<'_>, packet: &Packet) -> Vec<u8> {
    let mut frame = context.frame.to_vec();
    let request = context.ethernet;
    let ethernet = Ethernet {
        destination: request.source,
        source: request.destination,
        ..request
    };
    put(&mut frame, 0, &ethernet.bytes());
    set_ttl(&mut frame, packet, GATEWAY_TTL);
    let (icmp, reply_type) = if packet.destination.is_ipv4() {
        swap::<4>(&mut frame, IPV4_ADDRESSES);
        (IPV4_ICMP, ICMP_ECHO_REPLY)
    } else {
        swap::<16>(&mut frame, IPV6_ADDRESSES);
        (IPV6_ICMP, ICMPV6_ECHO_REPLY)
    };
    let code = u8_at(&frame, icmp + 1).unwrap_or_default();
    replace_word(&mut frame, icmp, icmp + 2, u16::from_be_bytes([reply_type, code]));
    frame
}

/// Exchanges two neighbouring addresses of `N` bytes.
fn swap<const N: usize>(frame: &mut [u8], at: usize) {
    if let (Some(source), Some(destination)) = (array::<N>(frame, at), array::<N>(frame, at + N)) {
        put(frame, at, &destination);
        put(frame, at + N, &source);
    }
}
