//! What comes from the underlay to the gateway's own address: probes, and VXLAN from hosts.

use alcor_dataplane_abi::{DropReason, gateway_layout::*, layout::*};
use aya_ebpf::maps::lpm_trie::Key;

use crate::{
    ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, GATEWAY_MAC, IPV4_LEN,
    end::End,
    frame::{Frame, be16, header_checksum},
    maps::*,
    probes, tunnel_ip,
};

const PROTO_UDP: u8 = 17;
/// "More to come", and the offset.
const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// Where the outer UDP header starts.
const UDP: usize = ETH_LEN + IPV4_LEN;
/// Where the VXLAN header starts.
const VXLAN: usize = UDP + 8;
/// Where the inner frame starts.
pub const INNER: usize = ETH_LEN + VXLAN_OVERHEAD;

/// A tunnel packet, as far as it is looked at.
pub struct Tunnelled {
    /// Handle of its network.
    pub network: u32,
    /// Outer source address.
    pub source: [u8; 4],
    /// Bytes of the inner packet, behind its Ethernet header.
    pub len: usize,
}

/// `End::NORTH`: the packet goes to the outside; [`crate::packet::Work`] has its network. Not inlined: its registers take much of the stack.
#[inline(never)]
pub fn stages(frame: Frame) -> u32 {
    let Some(ip) = frame.read::<[u8; IPV4_LEN]>(ETH_LEN) else {
        return End::PASS.0;
    };
    from_underlay(frame, &ip).0
}

#[inline(always)]
fn from_underlay(frame: Frame, ip: &[u8; IPV4_LEN]) -> End {
    let malformed = End::drop(DropReason::Malformed);
    if ip[9] != PROTO_UDP || ip[0] >> 4 != 4 || be16(ip, 6) & FRAGMENT_OFFSET != 0 {
        return End::PASS;
    }
    if ip[0] != 0x45 {
        return malformed;
    }
    let Some(udp) = frame.read::<[u8; 8]>(UDP) else {
        return malformed;
    };
    let port = be16(&udp, 2);
    if port != VXLAN_PORT && !(port == PROBE_PORT && probes()) {
        return End::PASS;
    }
    if be16(ip, 6) & FRAGMENT != 0 {
        return End::drop(DropReason::UnknownFragment);
    }
    let (total_len, udp_len) = (be16(ip, 2) as usize, be16(&udp, 4) as usize);
    let is_whole = udp_len >= 8 && IPV4_LEN + udp_len <= total_len && ETH_LEN + total_len <= frame.len();
    if !is_whole || header_checksum(ip) != 0 {
        return malformed;
    }
    if port == PROBE_PORT {
        return probe(frame, ip, &udp);
    }
    vxlan(frame, ip, udp_len)
}

/// Sends a probe back.
#[inline(always)]
fn probe(frame: Frame, ip: &[u8; IPV4_LEN], udp: &[u8; 8]) -> End {
    let malformed = End::drop(DropReason::Malformed);
    let from = be16(udp, 0);
    if from == PROBE_PORT || from == VXLAN_PORT {
        // Two gateways would send it to and fro for ever.
        return End::drop(DropReason::Loop);
    }
    let mut new = *ip;
    let mut i = 0;
    while i < 4 {
        new[12 + i] = ip[16 + i];
        new[16 + i] = ip[12 + i];
        i += 1;
    }
    new[8] = GATEWAY_TTL;
    set_checksum(&mut new);
    let ports = [udp[2], udp[3], udp[0], udp[1]];
    let done = frame
        .write(ETH_LEN, new)
        .and_then(|()| frame.write(UDP, ports))
        .and_then(|()| turn(frame));
    if done.is_none() {
        return malformed;
    }
    if let Some(load) = LOAD.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's own.
        unsafe { (*load).probes += 1 };
    }
    End::REPLY
}

/// Makes a frame one for whoever sent it.
#[inline(always)]
pub fn turn(frame: Frame) -> Option<()> {
    let macs = frame.read::<[[u8; 6]; 2]>(0)?;
    frame.write(0, [macs[1], macs[0]])
}

/// Puts the right checksum into an IPv4 header without options.
#[inline(always)]
pub fn set_checksum(ip: &mut [u8; IPV4_LEN]) {
    ip[10] = 0;
    ip[11] = 0;
    let sum = header_checksum(ip).to_be_bytes();
    ip[10] = sum[0];
    ip[11] = sum[1];
}

/// The network of a tunnel packet, which this host may send and which is up.
#[inline(always)]
fn carried(vni: u32, source: [u8; 4]) -> Result<&'static VniValue, End> {
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let Some(network) = (unsafe { VNIS.get(&vni) }) else {
        return Err(End::drop(DropReason::UnknownVni));
    };
    let own = Ipv4Key {
        network: network.network,
        ip: source,
    };
    if network.flags & NETWORK_UNDERLAY != 0 && UNDERLAY.get(Key::new(IPV4_KEY_BITS, own)).is_none() {
        return Err(End::drop(DropReason::UnknownUnderlay));
    }
    if network.flags & NETWORK_UP == 0 {
        return Err(End::drop(DropReason::PortDown));
    }
    Ok(network)
}

#[inline(always)]
fn vxlan(frame: Frame, ip: &[u8; IPV4_LEN], udp_len: usize) -> End {
    let malformed = End::drop(DropReason::Malformed);
    let Some(header) = frame.read::<[u8; 8]>(VXLAN) else {
        return malformed;
    };
    if udp_len < 16 || header[0] & VXLAN_HAS_VNI == 0 {
        return malformed;
    }
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    let source = [ip[12], ip[13], ip[14], ip[15]];
    let network = match carried(vni, source) {
        Ok(network) => network,
        Err(end) => return end,
    };
    let Some(ethernet) = frame.read::<[u8; ETH_LEN]>(INNER) else {
        return malformed;
    };
    // Ethernet lies within the datagram.
    let Some(len) = udp_len.checked_sub(16 + ETH_LEN) else {
        return malformed;
    };
    if ethernet[0] & 1 != 0 {
        return End::drop(DropReason::NoFlood);
    }
    let packet = Tunnelled {
        network: network.network,
        source,
        len,
    };
    let destination = [
        ethernet[0],
        ethernet[1],
        ethernet[2],
        ethernet[3],
        ethernet[4],
        ethernet[5],
    ];
    let to_gateway = destination == GATEWAY_MAC;
    match be16(&ethernet, 12) {
        ETHERTYPE_IPV4 => carry_v4(frame, ip, &packet, to_gateway.then_some((vni, network))),
        ETHERTYPE_IPV6 => carry_v6(frame, ip, &packet, to_gateway),
        _ => End::drop(DropReason::UnsupportedEtherType),
    }
}

/// An inner IPv4 packet; to the outside, when its network is named.
#[inline(always)]
fn carry_v4(
    frame: Frame,
    ip: &[u8; IPV4_LEN],
    packet: &Tunnelled,
    outside: Option<(u32, &VniValue)>,
) -> End {
    let Some(inner) = inner_v4(frame, packet) else {
        return End::drop(DropReason::Malformed);
    };
    if is_group(&inner) {
        return End::drop(DropReason::NoFlood);
    }
    if let Some((vni, network)) = outside {
        return to_outside(vni, network);
    }
    let key = Ipv4Key {
        network: packet.network,
        ip: [inner[16], inner[17], inner[18], inner[19]],
    };
    // SAFETY: as in `carried`.
    pass_on(frame, ip, packet, unsafe { PEERS_V4.get(&key) })
}

#[inline(always)]
fn carry_v6(frame: Frame, ip: &[u8; IPV4_LEN], packet: &Tunnelled, to_gateway: bool) -> End {
    let Some(destination) = inner_v6(frame, packet) else {
        return End::drop(DropReason::Malformed);
    };
    if destination[0] == 0xff {
        return End::drop(DropReason::NoFlood);
    }
    if to_gateway {
        return End::drop(DropReason::NoRoute);
    }
    let key = Ipv6Key {
        network: packet.network,
        ip: destination,
    };
    // SAFETY: as in `carried`.
    pass_on(frame, ip, packet, unsafe { PEERS_V6.get(&key) })
}

#[inline(always)]
fn to_outside(vni: u32, network: &VniValue) -> End {
    let Some(work) = WORK.get_ptr_mut(0) else {
        return End::drop(DropReason::Internal);
    };
    // SAFETY: the entry is this CPU's own; no other frame is in this program on it until this one has left.
    let work = unsafe { &mut *work };
    work.vni = vni;
    work.network = network.network;
    work.has_underlay = network.flags & NETWORK_UNDERLAY != 0;
    End::NORTH
}

/// The header of an inner IPv4 packet that is whole.
#[inline(always)]
fn inner_v4(frame: Frame, packet: &Tunnelled) -> Option<[u8; IPV4_LEN]> {
    let ip = frame.read::<[u8; IPV4_LEN]>(INNER + ETH_LEN)?;
    let (header_len, total_len) = ((ip[0] & 0x0f) as usize * 4, be16(&ip, 2) as usize);
    let is_whole = packet.len >= IPV4_LEN
        && ip[0] >> 4 == 4
        && header_len >= IPV4_LEN
        && header_len <= total_len
        && total_len <= packet.len;
    if is_whole { Some(ip) } else { None }
}

/// The destination of an inner IPv6 packet that is whole.
#[inline(always)]
fn inner_v6(frame: Frame, packet: &Tunnelled) -> Option<[u8; 16]> {
    let ip = frame.read::<[u8; 40]>(INNER + ETH_LEN)?;
    let payload_len = be16(&ip, 4) as usize;
    if packet.len < 40 || ip[0] >> 4 != 6 || 40 + payload_len > packet.len {
        return None;
    }
    let mut destination = [0; 16];
    let mut i = 0;
    while i < 16 {
        destination[i] = ip[24 + i];
        i += 1;
    }
    Some(destination)
}

/// True for a packet to more than one station.
#[inline(always)]
pub const fn is_group(ip: &[u8; IPV4_LEN]) -> bool {
    ip[16] & 0xf0 == 0xe0 || (ip[16] & ip[17] & ip[18] & ip[19]) == 0xff
}

/// Sends a tunnel packet to the host that has its destination.
#[inline(always)]
fn pass_on(frame: Frame, ip: &[u8; IPV4_LEN], packet: &Tunnelled, peer: Option<&PeerValue>) -> End {
    let Some(peer) = peer else {
        return End::drop(DropReason::UnknownDestination);
    };
    if peer.host == packet.source || peer.host == tunnel_ip() {
        // It would come back.
        return End::drop(DropReason::Loop);
    }
    let mut new = *ip;
    let mut i = 0;
    while i < 4 {
        new[12 + i] = ip[16 + i];
        new[16 + i] = peer.host[i];
        i += 1;
    }
    new[8] = GATEWAY_TTL;
    set_checksum(&mut new);
    let done = frame
        .write(ETH_LEN, new)
        .and_then(|()| frame.write(UDP + 6, [0u8; 2]))
        .and_then(|()| frame.write(INNER, peer.mac));
    if done.is_none() {
        return End::drop(DropReason::Malformed);
    }
    End::EAST_WEST
}
