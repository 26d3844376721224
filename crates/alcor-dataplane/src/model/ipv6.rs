//! Stage 6: the IPv6 header and its extension headers, neighbour discovery (RFC 4861), source addresses.

use std::net::{IpAddr, Ipv6Addr};

use alcor_model::{
    MacAddr,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};

use super::{
    path::{Context, End, Packet, Used},
    tables::{has_fixed_ip, is_allowed, own_link_local},
};
use crate::{
    DropReason, PuntReason,
    packet::{
        ETH_LEN, ETHERTYPE_IPV6, Ethernet, IPV6_LEN, PROTO_DESTINATION_OPTIONS, PROTO_FRAGMENT,
        PROTO_HOP_BY_HOP, PROTO_ICMPV6, PROTO_ROUTING, PROTO_UDP, array, ipv6_at, mac_at, put, u8_at, u16_at,
        word_sum,
    },
};

/// How many extension headers are walked; a packet with more is malformed.
const MAX_EXTENSION_HEADERS: usize = 4;
/// Units of 8 bytes, behind three bits of flags.
const FRAGMENT_OFFSET: u16 = 0xfff8;
const FRAGMENT_RESERVED: u16 = 0x0006;
/// The least that the path must see of ICMPv6 and UDP.
const UPPER_LEN: usize = 8;
const PORT_DHCPV6_CLIENT: u16 = 546;
const PORT_DHCPV6_SERVER: u16 = 547;

const ECHO_REQUEST: u8 = 128;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// A neighbour solicitation without options; an advertisement has the same length.
const NS_LEN: usize = 24;
const OPTION_SOURCE_MAC: [u8; 2] = [1, 1];
const OPTION_TARGET_MAC: [u8; 2] = [2, 1];
const OPTION_LEN: usize = 8;
const ND_HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// The upper layer, when the packet tells it.
pub(super) struct Upper<'a> {
    /// `None` in a fragment that is not the first.
    pub(super) protocol: Option<u8>,
    pub(super) extended: bool,
    pub(super) bytes: &'a [u8],
    /// The fragment header, unless the packet is whole.
    pub(super) fragment: Option<Fragment>,
}

/// What a fragment header says.
#[derive(Clone, Copy)]
pub(super) struct Fragment {
    pub(super) id: u32,
    /// In bytes.
    pub(super) offset: u16,
}

/// Walks the extension headers. `None` when there are too many or one is not whole.
pub(super) fn upper(first: u8, payload: &[u8]) -> Option<Upper<'_>> {
    let mut next = first;
    let mut rest = payload;
    let mut fragment = None;
    for walked in 0..=MAX_EXTENSION_HEADERS {
        let len = match next {
            PROTO_HOP_BY_HOP | PROTO_ROUTING | PROTO_DESTINATION_OPTIONS => {
                (usize::from(u8_at(rest, 1)?) + 1) * 8
            }
            PROTO_FRAGMENT => 8,
            _ => {
                return Some(Upper {
                    protocol: Some(next),
                    extended: walked > 0,
                    bytes: rest,
                    fragment,
                });
            }
        };
        if walked == MAX_EXTENSION_HEADERS {
            return None;
        }
        let (header, behind) = rest.split_at_checked(len)?;
        if next == PROTO_FRAGMENT {
            let field = u16_at(header, 2)?;
            let offset = field & FRAGMENT_OFFSET;
            let id = array(header, 4).map(u32::from_be_bytes)?;
            // Offset 0 and no more to come: a whole packet.
            fragment = (field & !FRAGMENT_RESERVED != 0).then_some(Fragment { id, offset });
            if offset != 0 {
                return Some(Upper {
                    protocol: None,
                    extended: true,
                    bytes: behind,
                    fragment,
                });
            }
        }
        next = u8_at(header, 0)?;
        rest = behind;
    }
    None
}

/// Reads the packet and its upper layer, both within the payload length.
pub(super) fn read(bytes: &[u8]) -> Option<(Packet, Upper<'_>)> {
    let payload_len = usize::from(u16_at(bytes, 4)?);
    if u8_at(bytes, 0)? >> 4 != 6 {
        return None;
    }
    let payload = bytes.get(IPV6_LEN..IPV6_LEN + payload_len)?;
    let upper = upper(u8_at(bytes, 6)?, payload)?;
    let looked_at = matches!(upper.protocol, Some(PROTO_ICMPV6 | PROTO_UDP));
    if looked_at && upper.bytes.len() < UPPER_LEN {
        return None;
    }
    let packet = Packet {
        source: ipv6_at(bytes, 8)?,
        destination: ipv6_at(bytes, 24)?,
        ttl: u8_at(bytes, 7)?,
        must_not_be_fragmented: true,
        echo_request: !upper.extended && icmp_type(&upper) == Some(ECHO_REQUEST),
    };
    Some((packet, upper))
}

fn icmp_type(upper: &Upper<'_>) -> Option<u8> {
    (upper.protocol == Some(PROTO_ICMPV6))
        .then(|| u8_at(upper.bytes, 0))
        .flatten()
}

pub(super) fn check(context: &Context<'_>) -> Result<Packet, End> {
    let Context {
        port,
        network,
        frame,
        ethernet,
        ..
    } = context;
    let (packet, upper) = frame.get(ETH_LEN..).and_then(read).ok_or(DropReason::Malformed)?;
    let secured = port.port_security_enabled;

    let icmp = icmp_type(&upper);
    if let Some(ROUTER_SOLICITATION..=REDIRECT) = icmp {
        if upper.extended && secured {
            return Err(DropReason::SpoofedNd.into());
        }
        if !upper.extended && packet.ttl != ND_HOP_LIMIT {
            return Err(DropReason::Malformed.into());
        }
    }
    match icmp {
        Some(ROUTER_ADVERTISEMENT | REDIRECT) => return Err(DropReason::RouterAdvertisement.into()),
        Some(ROUTER_SOLICITATION) if !upper.extended => {
            return Err(match network.serves(port, false) {
                true => End::Punt(PuntReason::RouterSolicitation),
                false => End::Drop(DropReason::NoFlood),
            });
        }
        Some(NEIGHBOUR_SOLICITATION) if !upper.extended => {
            return Err(answer_solicitation(context, packet.source, upper.bytes));
        }
        Some(NEIGHBOUR_ADVERTISEMENT) if !upper.extended => return Err(DropReason::NdIgnored.into()),
        _ => {}
    }

    if secured && upper.protocol == Some(PROTO_UDP) {
        let ports = (u16_at(upper.bytes, 0), u16_at(upper.bytes, 2));
        if ports == (Some(PORT_DHCPV6_SERVER), Some(PORT_DHCPV6_CLIENT)) {
            return Err(DropReason::DhcpServer.into());
        }
    }
    let allowed = is_allowed(port, ethernet.source, packet.source) || packet.source == own_link_local(port);
    if secured && !allowed {
        return Err(DropReason::SpoofedIp.into());
    }
    Ok(packet)
}

/// Answers a neighbour solicitation for every address that the network's rows know.
fn answer_solicitation(context: &Context<'_>, source: IpAddr, message: &[u8]) -> End {
    let Context {
        port,
        network,
        ethernet,
        ..
    } = context;
    let Some(IpAddr::V6(target)) = ipv6_at(message, 8) else {
        return End::Drop(DropReason::Malformed);
    };
    let target_ip = IpAddr::V6(target);
    if port.port_security_enabled {
        let allowed = source.is_unspecified()
            || is_allowed(port, ethernet.source, source)
            || source == own_link_local(port);
        if !allowed || claimed_mac(message).is_some_and(|mac| mac != ethernet.source) {
            return End::Drop(DropReason::SpoofedNd);
        }
    }
    if has_fixed_ip(port, target_ip) || target_ip == own_link_local(port) {
        return End::Drop(DropReason::OwnAddress);
    }
    let (mac, router, used) = if network.is_gateway(target_ip) {
        (GATEWAY_MAC, FLAG_ROUTER, None)
    } else if let Some(peer) = network.neigh(target_ip) {
        (peer.mac(), 0, Some(Used::ByIp(target_ip)))
    } else if let Some(peer) = network.link_local(target_ip) {
        (peer.mac(), 0, Some(Used::ByMac(peer.mac())))
    } else if context.is_answered(source, target_ip) {
        let reply = advertisement(target, ON_DEMAND_MAC, 0, source, ethernet.source);
        return End::OnDemand(reply, target_ip);
    } else {
        return End::Unknown(network.row.id, target_ip);
    };
    End::Reply(advertisement(target, mac, router, source, ethernet.source), used)
}

/// The MAC in a source link-layer address option, if that is the first option.
fn claimed_mac(solicitation: &[u8]) -> Option<MacAddr> {
    let option = solicitation.get(NS_LEN..NS_LEN + OPTION_LEN)?;
    option
        .starts_with(&OPTION_SOURCE_MAC)
        .then(|| mac_at(option, 2))
        .flatten()
}

/// The neighbour advertisement "`target` is at `mac`", to the solicitation's sender, or to all nodes when it
/// came from the unspecified address (RFC 4861, section 7.2.4).
fn advertisement(
    target: Ipv6Addr,
    mac: MacAddr,
    router_flag: u8,
    requester: IpAddr,
    requester_mac: MacAddr,
) -> Vec<u8> {
    let (destination, destination_mac, solicited_flag) = match requester {
        IpAddr::V6(ip) if !ip.is_unspecified() => (ip, requester_mac, FLAG_SOLICITED),
        _ => (ALL_NODES, ALL_NODES_MAC, 0),
    };
    let mut message = [0; NS_LEN + OPTION_LEN];
    let message_len = (NS_LEN + OPTION_LEN) as u16;
    put(&mut message, 0, &[NEIGHBOUR_ADVERTISEMENT, 0]);
    put(&mut message, 4, &[router_flag | solicited_flag | FLAG_OVERRIDE]);
    put(&mut message, 8, &target.octets());
    put(&mut message, NS_LEN, &OPTION_TARGET_MAC);
    put(&mut message, NS_LEN + 2, &mac.0);
    let addresses = [target.octets(), destination.octets()].concat();
    let pseudo_header = word_sum(&addresses) + u32::from(message_len) + u32::from(PROTO_ICMPV6);
    let checksum = alcor_dataplane_abi::csum_fold(pseudo_header + word_sum(&message));
    put(&mut message, 2, &checksum.to_be_bytes());

    let mut header = [0; IPV6_LEN];
    put(&mut header, 0, &[0x60]);
    put(&mut header, 4, &message_len.to_be_bytes());
    put(&mut header, 6, &[PROTO_ICMPV6, ND_HOP_LIMIT]);
    put(&mut header, 8, &addresses);
    let ethernet = Ethernet {
        destination: destination_mac,
        source: mac,
        ethertype: ETHERTYPE_IPV6,
    };
    [&ethernet.bytes()[..], &header, &message].concat()
}
