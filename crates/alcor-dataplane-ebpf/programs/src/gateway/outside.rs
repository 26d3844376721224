//! "From the outside": ARP, and packets to external addresses that this gateway owns.

use alcor_dataplane_abi::{
    DropReason, csum_replace,
    connection::{Direction, Tracking},
    flow::{PROTO_ICMP, PROTO_UDP},
    gateway::flow_key,
    gateway_layout::*,
    icmp::{self, ERROR_LEN, QUOTED_LEN, TIME_EXCEEDED, TOO_LONG},
    layout::*,
};
use aya_ebpf::{
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    maps::lpm_trie::Key,
};

use crate::{
    ETH_LEN, ETHERTYPE_IPV4, GATEWAY_MAC, IPV4_LEN,
    end::{End, stack_leads_inside},
    frame::{Frame, be16, header_checksum},
    maps::*,
    nat::{self, Kind},
    north::is_error,
    packet::{self, DESTINATION, FIRST, ICMP_CHECKSUM, LATER, SOURCE, UPPER, WHOLE, Work},
    tunnel_ip,
    underlay::{INNER, set_checksum, turn},
};

const ARP_LEN: usize = 28;
/// Ethernet and IPv4, a request.
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
const ICMP_ECHO_REQUEST: u16 = 8;
/// The whole frame of an ICMP error.
const TOLD_LEN: usize = ETH_LEN + ERROR_LEN;
const DONT_FRAGMENT: u16 = 0x4000;
/// Of a VLAN tag: which VLAN.
const VLAN_NUMBER: u16 = 0x0fff;

/// The entry of an address that is external and of a router that is owned, and the router's.
#[inline(always)]
fn owned(address: [u8; 4]) -> Option<&'static ExternalValue> {
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let external = unsafe { EXTERNALS.get(&address) }?;
    let router = ROUTERS.get(external.router)?;
    if router.flags & ROUTER_OWNED != 0 { Some(external) } else { None }
}

#[inline(always)]
fn count_reply() {
    if let Some(load) = LOAD.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's own.
        unsafe { (*load).replies += 1 };
    }
}

/// Stage 1.
#[inline(never)]
pub fn arp(frame: Frame, device: &DeviceValue) -> u32 {
    answer(frame, device).0
}

#[inline(always)]
fn answer(frame: Frame, device: &DeviceValue) -> End {
    let Some(request) = frame.read::<[u8; ARP_LEN]>(ETH_LEN) else {
        return End::PASS;
    };
    let mut i = 0;
    while i < 8 {
        if request[i] != ARP_REQUEST[i] {
            return End::PASS;
        }
        i += 1;
    }
    let target = [request[24], request[25], request[26], request[27]];
    if owned(target).is_none() {
        return End::PASS;
    }
    let Some(sender) = frame.read::<[u8; 6]>(6) else {
        return End::PASS;
    };
    // Operation, sender's MAC and address, target's MAC and address.
    let mut message = [0u8; 22];
    message[1] = 2;
    i = 0;
    while i < 6 {
        message[2 + i] = device.mac[i];
        i += 1;
    }
    i = 0;
    while i < 4 {
        message[8 + i] = target[i];
        i += 1;
    }
    i = 0;
    while i < 10 {
        message[12 + i] = request[8 + i];
        i += 1;
    }
    let done = frame
        .write(0, sender)
        .and_then(|()| frame.write(6, device.mac))
        .and_then(|()| frame.write(ETH_LEN + 6, message));
    match done {
        Some(()) => {
            count_reply();
            End::REPLY
        }
        None => End::PASS,
    }
}

/// Stage 2: an IPv4 frame to this address.
#[inline(always)]
pub fn stages(frame: Frame, destination: [u8; 4], device: &DeviceValue) -> End {
    let Some(external) = owned(destination) else {
        return if device.flags == DEVICE_EXTERNAL { End(foreign(frame)) } else { End::PASS };
    };
    let end = End(check(frame));
    if end != End::ON {
        return end;
    }
    let Some(work) = WORK.get_ptr_mut(0) else {
        return End::drop(DropReason::Internal);
    };
    // SAFETY: the entry is this CPU's own; no other frame is in this program on it until this one has left.
    let work = unsafe { &mut *work };
    work.inside = false;
    work.external = *external;
    let end = End(packet::read(frame, work));
    if end != End::ON {
        return end;
    }
    south(frame, work, device)
}

/// Stage 2: a VLAN tag.
#[inline(always)]
pub fn tagged(frame: Frame) -> End {
    match frame.be16(ETH_LEN) {
        Some(tag) if tag & VLAN_NUMBER == 0 => End::drop(DropReason::UnsupportedEtherType),
        _ => End::PASS,
    }
}

/// Stage 2: what is not the gateway's to translate must not get by it into the underlay.
#[inline(never)]
fn foreign(frame: Frame) -> u32 {
    let is_ours = match frame.read::<[u8; 4]>(ETH_LEN + SOURCE) {
        Some(source) => source == tunnel_ip(),
        None => false,
    };
    if is_ours || stack_leads_inside(frame) {
        return End::drop(DropReason::OutsideDenied).0;
    }
    End::PASS.0
}

/// The header, and that the frame is for one station.
#[inline(never)]
fn check(frame: Frame) -> u32 {
    let malformed = End::drop(DropReason::Malformed).0;
    let (Some(ip), Some(mac)) = (
        frame.read::<[u8; IPV4_LEN]>(ETH_LEN),
        frame.read::<[u8; 6]>(0),
    ) else {
        return malformed;
    };
    let total_len = be16(&ip, 2) as usize;
    let is_whole = total_len >= IPV4_LEN && ETH_LEN + total_len <= frame.len();
    if ip[0] != 0x45 || header_checksum(&ip) != 0 || !is_whole {
        return malformed;
    }
    if mac[0] & 1 != 0 {
        return End::drop(DropReason::NoFlood).0;
    }
    End::ON.0
}

/// The rest of a packet's way that came from a tenant and is translated: at once back, or out.
#[inline(always)]
pub fn hairpin(frame: Frame, work: &mut Work, device: &DeviceValue) -> End {
    let Some(external) = owned(work.destination()) else {
        return End::OUTSIDE;
    };
    work.external = *external;
    let end = End(packet::read(frame, work));
    if end != End::ON {
        return end;
    }
    south(frame, work, device)
}

/// Stages 3 to 5.
#[inline(always)]
fn south(frame: Frame, work: &mut Work, device: &DeviceValue) -> End {
    let end = End(arrive(frame, work));
    if end != End::ON {
        return end;
    }
    let end = End(enter(frame, work));
    if end != End::ON {
        return end;
    }
    End(encapsulate(frame, work, device))
}

/// Finds the tenant that a packet is for.
#[inline(never)]
fn arrive(frame: Frame, work: &mut Work) -> u32 {
    let no_translation = End::drop(DropReason::NoTranslation).0;
    let is_routers = work.external.kind == EXTERNAL_ROUTER;
    let is_ping = work.part == WHOLE
        && work.upper.protocol == PROTO_ICMP
        && work.upper.point >> 8 == ICMP_ECHO_REQUEST;
    if is_routers && is_ping {
        return echo(frame, work);
    }
    if work.ip[8] <= 1 {
        return tell(frame, work, u32::from(TIME_EXCEEDED), 0, DropReason::Loop as u32);
    }
    work.is_error = is_error(work);
    if work.is_error {
        let is_quoted = packet::read_quote(frame, work) != 0 && work.quoted_source == work.destination();
        if !is_quoted {
            return no_translation;
        }
    }
    if is_routers {
        work.now = nat::now();
        if work.part != WHOLE {
            work.set_fragment(0);
        }
        return if work.part == LATER { later(work) } else { connection(work) };
    }
    work.vni = work.external.vni;
    work.address = work.external.fixed_ip;
    End::ON.0
}

/// The connection of a packet to a router's own address.
#[inline(never)]
fn connection(work: &mut Work) -> u32 {
    let no_translation = End::drop(DropReason::NoTranslation).0;
    work.key.vni = 0;
    work.key.own = work.destination();
    let kind = if work.is_error {
        work.key.other = work.quoted_destination;
        let quoted = work.quoted;
        nat::classify(work, &quoted, Direction::Egress)
    } else {
        work.key.other = work.source();
        let upper = work.upper;
        nat::classify(work, &upper, Direction::Ingress)
    };
    let is_other = !work.is_error && work.tracking == Tracking::Other as u32;
    if kind != Kind::Tracked || is_other || nat::south(work) == 0 {
        return no_translation;
    }
    if work.part == FIRST {
        nat::expect(work, work.address, work.vni, work.external.router);
    }
    End::ON.0
}

/// The way of the first fragment.
#[inline(always)]
fn later(work: &mut Work) -> u32 {
    if nat::expected(work, work.external.router) == 0 {
        return End::drop(DropReason::UnknownFragment).0;
    }
    End::ON.0
}

/// Translates a packet whose tenant is found.
#[inline(never)]
fn enter(frame: Frame, work: &mut Work) -> u32 {
    // SAFETY: as in `owned`.
    let Some(network) = (unsafe { VNIS.get(&work.vni) }) else {
        return End::drop(DropReason::NoTranslation).0;
    };
    if network.flags & NETWORK_UP == 0 {
        return End::drop(DropReason::PortDown).0;
    }
    work.network = network.network;
    if work.total_len > network.mtu {
        if be16(&work.ip, 6) & DONT_FRAGMENT == 0 {
            return End::drop(DropReason::Oversize).0;
        }
        return tell(frame, work, u32::from(TOO_LONG), network.mtu, DropReason::Oversize as u32);
    }
    if change(frame, work).is_none() {
        return End::drop(DropReason::Malformed).0;
    }
    End::ON.0
}

#[inline(always)]
fn change(frame: Frame, work: &Work) -> Option<()> {
    let is_routers = work.external.kind == EXTERNAL_ROUTER;
    if work.is_error {
        packet::set_quoted_address::<SOURCE>(frame, work.address)?;
        if is_routers {
            packet::set_quoted_port::<0>(frame, work, work.port)?;
        }
    }
    packet::set_address::<DESTINATION>(frame, work, work.address)?;
    if is_routers && !work.is_error && work.part != LATER {
        packet::set_port::<2>(frame, work, work.port)?;
    }
    packet::age(frame)
}

/// Stage 3.
#[inline(never)]
fn echo(frame: Frame, work: &mut Work) -> u32 {
    if work.inside {
        return End::drop(DropReason::NoTranslation).0;
    }
    let mut ip = work.ip;
    let mut i = 0;
    while i < 4 {
        ip[SOURCE + i] = work.ip[DESTINATION + i];
        ip[DESTINATION + i] = work.ip[SOURCE + i];
        i += 1;
    }
    ip[8] = GATEWAY_TTL;
    set_checksum(&mut ip);
    let (old, new) = (work.upper.point, work.upper.point & 0xff);
    let changed = frame.be16(ICMP_CHECKSUM).and_then(|checksum| {
        frame.write(ICMP_CHECKSUM, csum_replace(checksum, old, new).to_be_bytes())?;
        frame.write(UPPER, new.to_be_bytes())?;
        frame.write(ETH_LEN, ip)?;
        turn(frame)
    });
    if changed.is_none() {
        return End::drop(DropReason::Malformed).0;
    }
    count_reply();
    End::REPLY.0
}

/// True for a packet that may be answered with an ICMP error.
#[inline(always)]
fn may_tell(work: &Work) -> bool {
    icmp::may_be_told(&work.upper, work.source()) && work.part != LATER && work.total_len as usize >= QUOTED_LEN
}

/// Makes the frame an ICMP error about the packet in it, if it may be answered with one; else it is dropped for this reason.
#[inline(never)]
fn tell(frame: Frame, work: &mut Work, kind: u32, mtu: u32, reason: u32) -> u32 {
    let dropped = End::drop_code(reason).0;
    if work.inside || !may_tell(work) {
        return dropped;
    }
    if work.note_head(frame).is_none() {
        return dropped;
    }
    let source = work.destination();
    let end = write_told(frame, work, source, kind, mtu);
    if end != End::ON.0 {
        return end;
    }
    match turn(frame) {
        Some(()) => End::REPLY.0,
        None => dropped,
    }
}

/// Makes the frame, which goes to the outside and is too long for the way there, an ICMP error to the tenant.
#[inline(never)]
pub fn tell_tenant(frame: Frame, device: &DeviceValue, mtu: u32) -> u32 {
    let oversize = End::drop(DropReason::Oversize).0;
    let Some(work) = WORK.get_ptr_mut(0) else {
        return oversize;
    };
    // SAFETY: the entry is this CPU's own; no other frame is in this program on it until this one has left.
    let work = unsafe { &mut *work };
    let tenant = Ipv4Key {
        network: work.network,
        ip: work.source(),
    };
    let Some(block) = BLOCKS.get(Key::new(IPV4_KEY_BITS, tenant)) else {
        return oversize;
    };
    if be16(&work.ip, 6) & DONT_FRAGMENT == 0 || !may_tell(work) {
        return oversize;
    }
    let kind = u32::from(TOO_LONG);
    let end = write_told(frame, work, block.address, kind, mtu);
    if end != End::ON.0 {
        return end;
    }
    // What is put into the tunnel is the error now.
    work.address = tenant.ip;
    work.total_len = (TOLD_LEN - ETH_LEN) as u32;
    let mut i = 0;
    while i < 4 {
        work.ip[SOURCE + i] = block.address[i];
        i += 1;
    }
    work.ip[1] = 0;
    let end = wrap(frame, work, device);
    if end == End::HAIRPIN { End::TOLD.0 } else { end.0 }
}

/// Takes one of the ICMP errors that may be sent now.
#[inline(always)]
fn admit() -> bool {
    let Some(meter) = ICMP.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the pointer is to a map entry that lives as long as the map. Two processors may take the same one: the limit is for
    // protection, not for accounting.
    match unsafe { *meter }.admit(nat::now()) {
        Some(after) => {
            // SAFETY: as above.
            unsafe { *meter = after };
            true
        }
        None => false,
    }
}

/// Makes the frame an ICMP error, from this address to the packet's source, about the packet whose head was noted.
#[inline(never)]
fn write_told(frame: Frame, work: &mut Work, source: [u8; 4], kind: u32, mtu: u32) -> u32 {
    if !admit() {
        return End::drop(DropReason::IcmpLimit).0;
    }
    let tail = TOLD_LEN as i32 - frame.len() as i32;
    // SAFETY: no pointers into the frame are held.
    if unsafe { bpf_xdp_adjust_tail(frame.0, tail) } != 0 {
        return End::drop(DropReason::Internal).0;
    }
    let destination = work.source();
    icmp::write(&mut work.error, source, destination, kind as u16, mtu as u16);
    if frame.write_from(ETH_LEN, &work.error).is_none() {
        return End::drop(DropReason::Internal).0;
    }
    count_reply();
    End::ON.0
}

/// A header of ours, not to be fragmented.
#[inline(always)]
fn header(source: [u8; 4], destination: [u8; 4], protocol: u8, tos: u8, total_len: usize) -> [u8; IPV4_LEN] {
    let (len, fragment) = ((total_len as u16).to_be_bytes(), DONT_FRAGMENT.to_be_bytes());
    let mut ip = [
        0x45,
        tos,
        len[0],
        len[1],
        0,
        0,
        fragment[0],
        fragment[1],
        GATEWAY_TTL,
        protocol,
        0,
        0,
        source[0],
        source[1],
        source[2],
        source[3],
        destination[0],
        destination[1],
        destination[2],
        destination[3],
    ];
    set_checksum(&mut ip);
    ip
}

#[inline(always)]
const fn wide(ip: [u8; 4]) -> [u8; 16] {
    [ip[0], ip[1], ip[2], ip[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Stage 5.
#[inline(never)]
fn encapsulate(frame: Frame, work: &mut Work, device: &DeviceValue) -> u32 {
    wrap(frame, work, device).0
}

#[inline(always)]
fn wrap(frame: Frame, work: &Work, device: &DeviceValue) -> End {
    let key = Ipv4Key {
        network: work.network,
        ip: work.address,
    };
    // SAFETY: as in `owned`.
    let Some(peer) = (unsafe { PEERS_V4.get(&key) }) else {
        return End::drop(DropReason::UnknownDestination);
    };
    if peer.host == tunnel_ip() {
        return End::drop(DropReason::Loop);
    }
    // SAFETY: no pointers into the frame are held.
    if unsafe { bpf_xdp_adjust_head(frame.0, -(INNER as i32)) } != 0 {
        return End::drop(DropReason::Internal);
    }
    let port = tunnel_port(flow_key(&wide(work.source()), &wide(work.address))).to_be_bytes();
    let udp_len = VXLAN_OVERHEAD - IPV4_LEN + ETH_LEN + work.total_len as usize;
    let ip = header(
        tunnel_ip(),
        peer.host,
        PROTO_UDP,
        work.ip[1],
        IPV4_LEN + udp_len,
    );
    let (vxlan, len) = (VXLAN_PORT.to_be_bytes(), (udp_len as u16).to_be_bytes());
    let vni = work.vni.to_be_bytes();
    let tunnel = [
        port[0], port[1], vxlan[0], vxlan[1], len[0], len[1], 0, 0, VXLAN_HAS_VNI, 0, 0, 0, vni[1], vni[2],
        vni[3], 0,
    ];
    let ethertype = ETHERTYPE_IPV4.to_be_bytes();
    let done = frame
        .write(0, device.mac)
        .and_then(|()| frame.write(6, device.mac))
        .and_then(|()| frame.write(12, ethertype))
        .and_then(|()| frame.write(ETH_LEN, ip))
        .and_then(|()| frame.write(ETH_LEN + IPV4_LEN, tunnel))
        .and_then(|()| frame.write(INNER, peer.mac))
        .and_then(|()| frame.write(INNER + 6, GATEWAY_MAC))
        .and_then(|()| frame.write(INNER + 12, ethertype));
    match done {
        Some(()) if work.inside => End::HAIRPIN,
        Some(()) => End::SOUTH,
        None => End::drop(DropReason::Malformed),
    }
}
