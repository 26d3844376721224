//! Stages 8 to 12: the gateway, to whom the frame goes, and away.

use alcor_dataplane_abi::{
    DropReason, PuntReason,
    connection::Direction,
    gateway::{choose, flow_key},
    layout::*,
};
use aya_ebpf::{
    bindings::{
        BPF_F_DONT_FRAGMENT, BPF_F_RECOMPUTE_CSUM, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, TC_ACT_SHOT,
        bpf_tunnel_key,
    },
    helpers::{
        bpf_clone_redirect, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_peer,
        bpf_skb_change_type, bpf_skb_get_tunnel_key, bpf_skb_get_tunnel_opt, bpf_skb_set_tunnel_key,
        bpf_skb_set_tunnel_opt,
    },
};

use crate::{
    ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, GATEWAY_MAC, ON_DEMAND_MAC, Work,
    end::End,
    filter::Filters,
    maps::*,
    skb::{Skb, part, put},
    trace, tunnel_ifindex,
};

/// The TTL or hop limit of what the gateway sends, and of tunnel packets.
const TTL: u8 = 64;
const TCP: u8 = 6;
/// IPv4, in the first byte of the offset: "must not be fragmented".
pub const DONT_FRAGMENT: u8 = 0x40;
const INTERNAL: End = End::drop(DropReason::Internal);
/// `PACKET_HOST`: for whoever receives it, whatever the MAC of the device that it came in by.
const PACKET_HOST: u32 = 0;
const TUNNEL_KEY_LEN: u32 = core::mem::size_of::<bpf_tunnel_key>() as u32;

/// Where a frame goes, and how it is written anew. Flat, without references and whole from the beginning: the verifier
/// minds what nobody wrote, and what the compiler makes of references that may be null.
pub struct Exit {
    /// `TO_*`.
    kind: u32,
    local: LocalMac,
    host: [u8; 16],
    family: u32,
    /// Label of a neighbour.
    label: u16,
    /// Through the gateway to `mac`.
    is_routed: bool,
    /// To `mac`, which is not what the sender wrote.
    is_readdressed: bool,
    mac: [u8; 6],
}

/// [`Exit::kind`]: the gateway of a subnet, which answers.
const TO_SUBNET_GATEWAY: u32 = 0;
/// [`Exit::kind`]: a local port.
const TO_LOCAL: u32 = 1;
/// [`Exit::kind`]: another host.
const TO_HOST: u32 = 2;
/// [`Exit::kind`]: a gateway, which knows who has the address.
const TO_GATEWAY: u32 = 3;
/// [`Exit::kind`]: the gateway that owns the way out.
const TO_OUTSIDE: u32 = 4;
/// [`Exit::kind`]: out of a device of this host, from a floating IP.
const TO_EXTERNAL: u32 = 5;

impl Exit {
    #[inline(always)]
    pub const fn new() -> Self {
        Self {
            kind: TO_SUBNET_GATEWAY,
            local: LocalMac {
                ifindex: 0,
                port: 0,
                flags: 0,
            },
            host: [0; 16],
            family: 0,
            label: 0,
            is_routed: false,
            is_readdressed: false,
            mac: [0; 6],
        }
    }

    /// Out of a device of this host, from a floating IP.
    #[inline(always)]
    pub const fn is_external(&self) -> bool {
        self.kind == TO_EXTERNAL
    }
}

/// Puts the packet out of a device; straight into the other namespace where there is one. A packet that was held has no way
/// of its own: a copy of it goes.
#[inline(always)]
fn out(skb: Skb, ifindex: u32, peer: bool, was_held: bool) -> i32 {
    if was_held {
        if !trace() {
            // SAFETY: the context pointer is valid while the program runs. A device that is gone is one that a packet of the
            // port would not have reached either.
            unsafe { bpf_clone_redirect(skb.0, ifindex, 0) };
        }
        TC_ACT_SHOT as i32
    } else if peer {
        // SAFETY: the context pointer is valid while the program runs.
        unsafe {
            bpf_skb_change_type(skb.0, PACKET_HOST);
            bpf_redirect_peer(ifindex, 0) as i32
        }
    } else {
        // SAFETY: the helper only notes where the packet shall go.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }
}

/// Sends a reply back to its port.
#[inline(always)]
pub fn back(work: &Work) -> i32 {
    let (port, packet) = (work.port, &work.packet);
    out(
        work.skb,
        work.skb.ifindex(),
        port.flags & PORT_PEER != 0,
        packet.was_held,
    )
}

/// Stage 9, packed.
#[inline(never)]
pub fn switch(work: &mut Work, exit: &mut Exit) -> u64 {
    End::pack(switched(work, exit))
}

#[inline(always)]
fn switched(work: &mut Work, exit: &mut Exit) -> Result<(), End> {
    let network = work.port.network;
    match local_mac(network, &work.packet.destination_mac) {
        Some(local) if local.port == work.port.port => return Err(End::drop(DropReason::Loop)),
        Some(local) => {
            exit.kind = TO_LOCAL;
            exit.local = *local;
        }
        None => {
            let Some(remote) = use_remote_mac(network, &work.packet.destination_mac) else {
                return readdress(work, exit);
            };
            exit.kind = TO_HOST;
            exit.host = remote.host;
            exit.family = remote.family as u32;
            exit.label = remote.label;
        }
    }
    Ok(())
}

/// A frame for a MAC that no row tells goes to whoever has the address.
#[inline(always)]
fn readdress(work: &mut Work, exit: &mut Exit) -> Result<(), End> {
    let key = IpKey {
        scope: work.port.network,
        family: work.packet.family,
        ip: work.packet.destination,
    };
    if is_gateway(key.scope, key.family, &key.ip) {
        return Err(End::drop(DropReason::UnknownDestination));
    }
    exit.is_readdressed = true;
    by_address(work, &key, exit, true)?;
    if exit.kind == TO_LOCAL && exit.local.port == work.port.port {
        return Err(End::drop(DropReason::Loop));
    }
    Ok(())
}

/// To whoever has an address. `is_own`: it is the packet's destination, not the next hop of a route.
#[inline(always)]
fn by_address(work: &mut Work, key: &IpKey, exit: &mut Exit, is_own: bool) -> Result<(), End> {
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    if let Some(local) = unsafe { LOCAL_IPS.get(key) } {
        exit.kind = TO_LOCAL;
        exit.local = *local_mac(key.scope, &local.mac).ok_or(INTERNAL)?;
        exit.mac = local.mac;
    } else {
        let Some(remote) = use_neighbour(key) else {
            return if is_own && work.has_gateways() {
                by_gateway(work, exit)
            } else {
                Err(End::unknown(work))
            };
        };
        exit.kind = TO_HOST;
        exit.host = remote.host;
        exit.family = remote.family as u32;
        exit.label = remote.label;
        exit.mac = remote.mac;
    }
    Ok(())
}

/// To a gateway of the network, which knows who has the packet's destination.
#[inline(always)]
fn by_gateway(work: &mut Work, exit: &mut Exit) -> Result<(), End> {
    work.packet.gateways = work.network.gateways;
    if alcor_choose() == 0 {
        return Err(End::unknown(work));
    }
    exit.kind = TO_GATEWAY;
    exit.host = work.packet.gateway;
    exit.family = work.packet.gateway_family;
    exit.mac = ON_DEMAND_MAC;
    work.packet.asks = true;
    Ok(())
}

/// Chooses a gateway of a set for the packet; 0 when there is none. Global: the verifier looks at it once, whatever the paths
/// that lead here. So it takes nothing, and finds the rest where the stages work.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_choose() -> u32 {
    // SAFETY: the entry is this CPU's own; no other packet is in this program on it until this one has left.
    let Some(packet) = PACKETS.get_ptr_mut(0).map(|packet| unsafe { &mut *packet }) else {
        return 0;
    };
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let Some(set) = (unsafe { GATEWAY_SETS.get(&packet.gateways) }) else {
        return 0;
    };
    let members = set.members.iter().take(set.count as usize);
    let flow = flow_key(&packet.source, &packet.destination);
    let chosen = choose(flow, members.map(|member| member.key));
    let Some(member) = chosen.and_then(|at| set.members.get(at)) else {
        return 0;
    };
    packet.gateway = member.host;
    packet.gateway_family = member.family;
    1
}

/// To the outside, where a router leads there.
#[inline(always)]
fn lead_out(work: &Work, exit: &mut Exit) -> Result<(), End> {
    let source = IpKey {
        scope: work.port.network,
        family: work.packet.family,
        ip: work.packet.source,
    };
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    if !work.packet.was_held && unsafe { FLOATING_OUT.get(&source) }.is_some() {
        let checked = work.network.flags & NETWORK_UNDERLAY != 0;
        if checked && is_underlay(source.scope, source.family, &work.packet.destination) {
            return Err(End::drop(DropReason::NoRoute));
        }
        exit.kind = TO_EXTERNAL;
        exit.is_routed = true;
        return Ok(());
    }
    // There are none for IPv6.
    let Some(way) = way_out(work.port.network, work.packet.family, &work.packet.source) else {
        return Err(End::drop(DropReason::NoRoute));
    };
    if way.family == 0 {
        return Err(End::drop(DropReason::NoGateway));
    }
    exit.kind = TO_OUTSIDE;
    exit.host = way.owner;
    exit.family = way.family;
    exit.mac = GATEWAY_MAC;
    exit.is_routed = true;
    Ok(())
}

/// Stage 8, packed.
#[inline(never)]
pub fn route(work: &mut Work, exit: &mut Exit) -> u64 {
    End::pack(routed(work, exit))
}

#[inline(always)]
fn routed(work: &mut Work, exit: &mut Exit) -> Result<(), End> {
    let network = work.port.network;
    if is_gateway(network, work.packet.family, &work.packet.destination) {
        return if work.packet.echo_request {
            Ok(())
        } else {
            Err(End::drop(DropReason::ToGateway))
        };
    }
    if work.packet.family == IPV6
        && (is_link_local(&work.packet.source) || is_link_local(&work.packet.destination))
    {
        return Err(End::drop(DropReason::NoRoute));
    }
    if work.packet.ttl <= 1 {
        return Err(End::punt(PuntReason::TtlExceeded));
    }
    let Some(route) = route_to(network, work.packet.family, &work.packet.destination) else {
        return lead_out(work, exit);
    };
    if route.network != network {
        // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
        let there = unsafe { NETWORKS.get(&route.network) }.ok_or(End::drop(DropReason::NoRoute))?;
        if there.flags & NETWORK_UP == 0 {
            return Err(End::drop(DropReason::PortDown));
        }
        work.network = there;
        work.scope = route.network;
    }
    let mut is_own = true;
    if route.family != 0 {
        is_own = route.hop == work.packet.destination;
        work.packet.destination = route.hop;
    }
    let key = IpKey {
        scope: work.scope,
        family: work.packet.family,
        ip: work.packet.destination,
    };
    exit.is_routed = true;
    by_address(work, &key, exit, is_own)
}

#[inline(always)]
fn is_link_local(ip: &[u8; 16]) -> bool {
    ip[0] == 0xfe && ip[1] & 0xc0 == 0x80
}

#[inline(always)]
pub fn set_macs(skb: Skb, destination: &[u8; 6], source: &[u8; 6]) -> Option<()> {
    let mut macs = [0u8; 12];
    put(&mut macs, 0, destination);
    put(&mut macs, 6, source);
    skb.store(0, &macs, 0)
}

#[inline(always)]
fn set_ttl(work: &Work, ttl: u8) -> Option<()> {
    let skb = work.skb;
    if work.packet.family == IPV4 {
        let old: [u8; 2] = skb.bytes(ETH_LEN + 8)?;
        let new = [ttl, old[1]];
        // SAFETY: the context pointer is valid while the program runs.
        let rc = unsafe {
            bpf_l3_csum_replace(
                skb.0,
                ETH_LEN + 10,
                u16::from_ne_bytes(old) as u64,
                u16::from_ne_bytes(new) as u64,
                2,
            )
        };
        // The header sums up to the same as before, so a checksum over the whole packet still holds.
        if rc != 0 {
            None
        } else {
            skb.store(ETH_LEN + 8, &new, 0)
        }
    } else {
        skb.store(ETH_LEN + 7, &[ttl], BPF_F_RECOMPUTE_CSUM as u64)
    }
}

/// The request turned around. Swapped addresses leave every checksum as it is.
#[inline(always)]
fn echo_reply(work: &Work) -> Result<End, End> {
    let skb = work.skb;
    set_macs(skb, &work.packet.source_mac, &work.packet.destination_mac).ok_or(INTERNAL)?;
    set_ttl(work, TTL).ok_or(INTERNAL)?;
    let (at, reply) = if work.packet.family == IPV4 {
        let mut addresses = [0u8; 8];
        put(&mut addresses, 0, &part::<4>(&work.packet.destination, 0));
        put(&mut addresses, 4, &part::<4>(&work.packet.source, 0));
        skb.store(ETH_LEN + 12, &addresses, 0).ok_or(INTERNAL)?;
        (ETH_LEN + 20, 0u8)
    } else {
        skb.store(ETH_LEN + 8, &work.packet.destination, 0)
            .ok_or(INTERNAL)?;
        skb.store(ETH_LEN + 24, &work.packet.source, 0).ok_or(INTERNAL)?;
        (ETH_LEN + 40, 129u8)
    };
    let old: [u8; 2] = skb.bytes(at).ok_or(INTERNAL)?;
    let new = [reply, old[1]];
    // SAFETY: the context pointer is valid while the program runs.
    let rc = unsafe {
        bpf_l4_csum_replace(
            skb.0,
            at + 2,
            u16::from_ne_bytes(old) as u64,
            u16::from_ne_bytes(new) as u64,
            2,
        )
    };
    if rc != 0 {
        return Err(INTERNAL);
    }
    skb.store(at, &new, 0).ok_or(INTERNAL)?;
    Ok(End::act(verdict::REPLY, 0))
}

/// Stages 10 to 12 up to the point of no return; the sender's label. Nothing of the packet that filters look at changes
/// later, so both may look before it is written anew.
#[inline(always)]
pub fn filter(work: &mut Work, exit: &Exit) -> Result<u16, End> {
    let own = filter_of(work.port.port);
    let receiver = match exit.kind {
        TO_LOCAL => filter_of(exit.local.port),
        _ => None,
    };
    let peer_label = receiver.map_or(exit.label, |filter| filter.label);
    let label = own.map_or(0, |filter| filter.label);
    // Labels stay inside their network.
    let (own_network, network) = (work.port.network, work.scope);
    let (label, peer_label) = if own_network == network {
        (label, peer_label)
    } else {
        (
            translate(own_network, network, label, 0),
            translate(own_network, network, peer_label, 1),
        )
    };
    let filters = Filters::new(work.skb, ethertype(work.packet.family), true).ok_or(INTERNAL)?;
    if let Some(own) = own {
        let by_gateway = exit.kind == TO_GATEWAY;
        let judged = filters.pass(Direction::Egress, work.port.port, own, peer_label, by_gateway);
        if let Err(end) = judged {
            let is_held = by_gateway && end.code == End::drop(DropReason::EgressDenied).code;
            return Err(if is_held { End::unknown(work) } else { end });
        }
    }
    check(work, exit)?;
    if let Some(receiver) = receiver {
        work.blamed = exit.local.port;
        filters.pass(Direction::Ingress, exit.local.port, receiver, label, false)?;
        work.blamed = work.port.port;
    }
    // Whoever is outside has no use for it.
    Ok(if exit.kind == TO_OUTSIDE { 0 } else { label })
}

#[inline(always)]
const fn ethertype(family: u32) -> u16 {
    if family == IPV4 {
        ETHERTYPE_IPV4
    } else {
        ETHERTYPE_IPV6
    }
}

/// The size, and the receiver's state.
#[inline(always)]
fn check(work: &mut Work, exit: &Exit) -> Result<(), End> {
    if exit.kind == TO_SUBNET_GATEWAY {
        return Ok(());
    }
    if !fits(work.skb, work.packet.upper, work.packet.protocol, work.network.mtu) {
        work.packet.mtu = work.network.mtu;
        return Err(oversize(work, exit));
    }
    match exit.kind {
        TO_LOCAL => receivable(&exit.local),
        _ => Ok(()),
    }
}

/// What becomes of a packet that its network has no room for.
#[inline(always)]
fn oversize(work: &Work, exit: &Exit) -> End {
    let must_not_be_fragmented = work.packet.family != IPV4
        || work
            .skb
            .bytes::<1>(ETH_LEN + 6)
            .is_some_and(|flags| flags[0] & DONT_FRAGMENT != 0);
    if exit.is_routed && must_not_be_fragmented {
        End::punt(PuntReason::TooBig)
    } else {
        End::drop(DropReason::Oversize)
    }
}

/// True for a packet, or one whose segments are, of at most this many bytes; `upper` is where its upper layer starts in the frame.
#[inline(always)]
pub fn fits(skb: Skb, upper: u32, protocol: u8, mtu: u32) -> bool {
    if skb.len().wrapping_sub(ETH_LEN) <= mtu {
        return true;
    }
    let segment = skb.gso_size();
    segment != 0 && segment_len(skb, upper, protocol, segment) <= mtu
}

/// Length of the IP packets that a GSO packet is cut into.
#[inline(always)]
fn segment_len(skb: Skb, upper: u32, protocol: u8, payload: u32) -> u32 {
    let header = if protocol == TCP {
        skb.bytes::<1>(upper + 12)
            .map_or(60, |offset| (offset[0] >> 4) as u32 * 4)
    } else {
        8
    };
    upper - ETH_LEN + header + payload
}

#[inline(always)]
pub fn receivable(local: &LocalMac) -> Result<(), End> {
    if local.flags & PORT_UP as u32 == 0 || local.ifindex == 0 {
        return Err(End::drop(DropReason::PortDown));
    }
    Ok(())
}

/// Writes the packet anew and sends it, packed; never lets the packet go on.
#[inline(never)]
pub fn send(work: &Work, exit: &Exit, label: u16) -> u64 {
    End::pack(match sent(work, exit, label) {
        Ok(end) | Err(end) => Err(end),
    })
}

#[inline(always)]
fn sent(work: &Work, exit: &Exit, label: u16) -> Result<End, End> {
    if exit.is_routed {
        set_ttl(work, work.packet.ttl - 1).ok_or(INTERNAL)?;
        set_macs(work.skb, &exit.mac, &GATEWAY_MAC).ok_or(INTERNAL)?;
    } else if exit.is_readdressed {
        work.skb.store(0, &exit.mac, 0).ok_or(INTERNAL)?;
    }
    match exit.kind {
        TO_LOCAL => Ok(hand_over(work.skb, &exit.local, work.packet.was_held)),
        TO_HOST | TO_GATEWAY | TO_OUTSIDE => {
            let way = Way {
                host: &exit.host,
                family: exit.family,
                vni: work.network.vni,
                gbp: label as u32,
            };
            tunnel(work.skb, &way, work.packet.was_held)
        }
        _ => echo_reply(work),
    }
}

/// Out of the device of a local port.
#[inline(always)]
pub fn hand_over(skb: Skb, local: &LocalMac, was_held: bool) -> End {
    if trace() {
        // SAFETY: the context pointer is valid while the program runs; cb is the program's to write.
        unsafe { (*skb.0).cb[1] = local.ifindex };
    }
    End::act(
        verdict::DELIVER,
        out(skb, local.ifindex, local.flags & PORT_PEER as u32 != 0, was_held),
    )
}

/// To another host.
struct Way<'a> {
    host: &'a [u8; 16],
    family: u32,
    vni: u32,
    /// The group-policy word: the sender's label, and whether the packet is passed on.
    gbp: u32,
}

#[inline(always)]
fn tunnel(skb: Skb, way: &Way, was_held: bool) -> Result<End, End> {
    // SAFETY: all zeroes is a valid key; it has no references.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = way.vni;
    key.tunnel_ttl = TTL;
    let word = |at| u32::from_ne_bytes(part::<4>(way.host, at));
    let flags = if way.family == IPV4 {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes(part::<4>(way.host, 0));
        BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT
    } else {
        key.__bindgen_anon_1.remote_ipv6 = [word(0), word(4), word(8), word(12)];
        BPF_F_TUNINFO_IPV6 | BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT
    };
    // SAFETY: the helper reads as many bytes as the key has.
    let rc = unsafe { bpf_skb_set_tunnel_key(skb.0, &raw mut key, TUNNEL_KEY_LEN, flags as u64) };
    // Also when there is nothing to say: without an option, Linux (seen with 6.18) writes into the header what lay on its stack.
    if rc != 0 || !set_policy(skb, way.gbp) {
        return Err(INTERNAL);
    }
    if trace() {
        // SAFETY: the context pointer is valid while the program runs; these fields are the program's to write.
        unsafe {
            (*skb.0).priority = way.gbp & 0xffff;
            (*skb.0).mark = way.vni;
            (*skb.0).cb[1] = word(0);
            (*skb.0).cb[2] = word(4);
            (*skb.0).cb[3] = word(8);
            (*skb.0).cb[4] = word(12);
        }
    }
    let kind = if way.gbp & GBP_FORWARDED != 0 {
        verdict::FORWARD
    } else {
        verdict::TUNNEL
    };
    Ok(End::act(kind, out(skb, tunnel_ifindex(), false, was_held)))
}

/// Sends what came out of the tunnel to where its receiver went, unless another host has done so before; packed, and never
/// lets the packet go on.
#[inline(never)]
pub fn pass_on(skb: Skb, origin: &Origin, network: u32, mac: &[u8; 6]) -> u64 {
    End::pack(match passed_on(skb, origin, network, mac) {
        Ok(end) | Err(end) => Err(end),
    })
}

#[inline(always)]
fn passed_on(skb: Skb, origin: &Origin, network: u32, mac: &[u8; 6]) -> Result<End, End> {
    const NOBODY: End = End::drop(DropReason::NoLocalPort);
    let left = remote_mac(network, mac).ok_or(NOBODY)?;
    if left.flags & NEIGHBOUR_FORWARD == 0 || origin.was_passed_on {
        return Err(NOBODY);
    }
    let way = Way {
        host: &left.host,
        family: left.family as u32,
        vni: origin.vni,
        gbp: origin.label as u32 | GBP_FORWARDED,
    };
    tunnel(skb, &way, false)
}

/// Writes the group-policy word of the VXLAN header.
#[inline(always)]
fn set_policy(skb: Skb, mut gbp: u32) -> bool {
    // SAFETY: the helper reads as many bytes as a `vxlan_metadata` has: one word.
    unsafe { bpf_skb_set_tunnel_opt(skb.0, (&raw mut gbp).cast(), 4) == 0 }
}

/// Where a packet of the tunnel came from.
#[derive(Default)]
pub struct Origin {
    pub vni: u32,
    /// Outer source address and its family.
    pub host: [u8; 16],
    pub family: u32,
    /// The sender's label; 0 is none.
    pub label: u16,
    /// Another host has passed it on.
    pub was_passed_on: bool,
}

/// Reads where a packet came from; false when nothing says so. Not inlined: the room that it takes is free again then.
#[inline(never)]
pub fn origin(skb: Skb, found: &mut Origin) -> bool {
    match read_origin(skb) {
        Some(origin) => {
            *found = origin;
            true
        }
        None => false,
    }
}

#[inline(always)]
fn read_origin(skb: Skb) -> Option<Origin> {
    let mut host = [0u8; 16];
    if trace() {
        // SAFETY: the context pointer is valid while the program runs.
        let (vni, cb) = unsafe { ((*skb.0).mark, &(*skb.0).cb) };
        put(&mut host, 0, &cb[1].to_ne_bytes());
        put(&mut host, 4, &cb[2].to_ne_bytes());
        put(&mut host, 8, &cb[3].to_ne_bytes());
        put(&mut host, 12, &cb[4].to_ne_bytes());
        return Some(Origin {
            vni,
            host,
            family: cb[0] >> 16 & 0x7fff,
            label: cb[0] as u16,
            was_passed_on: cb[0] >> 31 != 0,
        });
    }
    // SAFETY: all zeroes is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    // SAFETY: the helper writes at most as many bytes as the key has.
    let mut get = |flags| unsafe { bpf_skb_get_tunnel_key(skb.0, &raw mut key, TUNNEL_KEY_LEN, flags) };
    // A packet of an IPv6 underlay is asked for as such.
    let family = if get(0) == 0 {
        IPV4
    } else if get(BPF_F_TUNINFO_IPV6 as u64) == 0 {
        IPV6
    } else {
        return None;
    };
    // SAFETY: the fields of the union are integers; any bytes are a value.
    unsafe {
        if family == IPV4 {
            put(&mut host, 0, &key.__bindgen_anon_1.remote_ipv4.to_be_bytes());
        } else {
            let words = key.__bindgen_anon_1.remote_ipv6;
            put(&mut host, 0, &words[0].to_ne_bytes());
            put(&mut host, 4, &words[1].to_ne_bytes());
            put(&mut host, 8, &words[2].to_ne_bytes());
            put(&mut host, 12, &words[3].to_ne_bytes());
        }
    }
    let mut gbp = 0u32;
    // SAFETY: the helper writes at most one word, or fails: a packet without a label has no such option.
    let rc = unsafe { bpf_skb_get_tunnel_opt(skb.0, (&raw mut gbp).cast(), 4) };
    if rc < 0 {
        gbp = 0;
    }
    Some(Origin {
        vni: key.tunnel_id,
        host,
        family,
        label: gbp as u16,
        was_passed_on: gbp & GBP_FORWARDED != 0,
    })
}
