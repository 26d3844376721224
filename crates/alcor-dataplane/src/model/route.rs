//! Stages 8 and 9: to whom the frame goes. The gateway of a subnet answers pings and forwards between the subnets of one
//! network and of networks that share a router, and out; all else is switched by MAC. What no row knows goes by a gateway of
//! the network, where it has any.

use std::net::IpAddr;

use alcor_model::{
    MacAddr,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};

use super::{
    path::{Context, End, Exit, Leaving, Packet, To, Used},
    tables::{NetworkTables, Peer, is_link_local},
};
use crate::{
    DropReason, PuntReason, choice,
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
    let to = match network.fdb(mac) {
        Some(peer) => To::Peer(peer, Used::ByMac(mac)),
        None if network.is_gateway(packet.destination) => {
            return Err(DropReason::UnknownDestination.into());
        }
        None => {
            let (to, mac) = by_address(context, packet, network, packet.destination)?;
            put(&mut frame, 0, &mac.0);
            to
        }
    };
    if matches!(to, To::Peer(Peer::Local(receiver), _) if receiver.id == context.port.id) {
        return Err(DropReason::Loop.into());
    }
    Ok(Exit::Away(Leaving {
        network,
        to,
        is_told: false,
        frame,
    }))
}

/// To whoever has the address in the network, or to a gateway that knows who that is; with the MAC that the frame gets.
fn by_address<'a>(
    context: &Context<'_>,
    packet: &Packet,
    network: &'a NetworkTables,
    hop: IpAddr,
) -> Result<(To<'a>, MacAddr), End> {
    if let Some(peer) = network.neigh(hop) {
        return Ok((To::Peer(peer, Used::ByIp(hop)), peer.mac()));
    }
    let gateways = context.gateways(network);
    // A gateway looks for the packet's destination: it cannot know whom a route leads to.
    let host =
        choice::of_flow(packet.source, packet.destination, gateways).filter(|_| hop == packet.destination);
    let host = host.ok_or(End::Unknown(network.row.id, hop))?;
    let to = To::Gateway { host, address: hop };
    Ok((to, ON_DEMAND_MAC))
}

pub(super) fn route<'a>(context: &Context<'a>, packet: &Packet) -> Result<Exit<'a>, End> {
    let network = context.network;
    if network.is_gateway(packet.destination) {
        return match packet.echo_request {
            true => Ok(Exit::Answer(echo_reply(context, packet))),
            false => Err(DropReason::ToGateway.into()),
        };
    }
    if is_link_local(packet.source) || is_link_local(packet.destination) {
        return Err(DropReason::NoRoute.into());
    }
    if packet.ttl <= 1 {
        return Err(End::Punt(PuntReason::TtlExceeded));
    }
    let (network, to, mac) = match network.route(packet.destination) {
        Some((id, hop)) => {
            let network = context.tables.network(id).ok_or(DropReason::NoRoute)?;
            if !network.row.admin_state_up {
                return Err(DropReason::PortDown.into());
            }
            let (to, mac) = by_address(context, packet, network, hop)?;
            (network, to, mac)
        }
        None => (network, out(context, packet)?, GATEWAY_MAC),
    };
    let mut frame = context.frame.to_vec();
    set_ttl(&mut frame, packet, packet.ttl - 1);
    let ethernet = Ethernet {
        destination: mac,
        source: GATEWAY_MAC,
        ..context.ethernet
    };
    put(&mut frame, 0, &ethernet.bytes());
    Ok(Exit::Away(Leaving {
        network,
        to,
        is_told: packet.must_not_be_fragmented,
        frame,
    }))
}

/// To the outside, if the network has a way there.
fn out<'a>(context: &Context<'a>, packet: &Packet) -> Result<To<'a>, DropReason> {
    let network = context.network;
    let IpAddr::V4(source) = packet.source else {
        return Err(DropReason::NoRoute);
    };
    let floating = context.tables.floating(network, source);
    if let Some((row, device)) = floating.filter(|_| !context.was_held) {
        return match network.is_underlay(packet.destination) {
            true => Err(DropReason::NoRoute),
            false => Ok(To::External { row, device }),
        };
    }
    let (router, external) = network.way_out(source).ok_or(DropReason::NoRoute)?;
    let host = choice::owner(router, &external.gateways).ok_or(DropReason::NoGateway)?;
    Ok(To::Outside { host })
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
