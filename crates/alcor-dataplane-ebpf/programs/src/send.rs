//! Stages 8 to 10: the gateway, to whom the frame goes, and out.

use alcor_dataplane_abi::{DropReason, PuntReason, layout::*};
use aya_ebpf::{
    bindings::{
        BPF_F_DONT_FRAGMENT, BPF_F_RECOMPUTE_CSUM, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key,
    },
    helpers::{
        bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_peer, bpf_skb_change_type,
        bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key,
    },
};

use crate::{
    ETH_LEN, GATEWAY_MAC, Work,
    end::End,
    maps::*,
    skb::{Skb, part, put},
    trace, tunnel_ifindex,
};

/// The TTL or hop limit of what the gateway sends, and of tunnel packets.
const TTL: u8 = 64;
const TCP: u8 = 6;
const INTERNAL: End = End::drop(DropReason::Internal);
/// `PACKET_HOST`: for whoever receives it, whatever the MAC of the device that it came in by.
const PACKET_HOST: u32 = 0;
const TUNNEL_KEY_LEN: u32 = core::mem::size_of::<bpf_tunnel_key>() as u32;

/// Where a frame goes.
enum Peer {
    Local(&'static LocalMac),
    Remote { host: [u8; 16], family: u32 },
}

/// Puts the packet out of a device; straight into the other namespace where there is one.
#[inline(always)]
fn out(skb: Skb, ifindex: u32, peer: bool) -> i32 {
    if peer {
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
    out(work.skb, work.skb.ifindex(), work.port.flags & PORT_PEER != 0)
}

#[inline(always)]
pub fn switch(work: &mut Work) -> Result<End, End> {
    let network = work.port.network;
    let peer = match local_mac(network, &work.destination_mac) {
        Some(local) if local.port == work.port.port => return Err(End::drop(DropReason::Loop)),
        Some(local) => Peer::Local(local),
        None => {
            let remote = remote_mac(network, &work.destination_mac).ok_or(End::unknown())?;
            Peer::Remote {
                host: remote.host,
                family: remote.family,
            }
        }
    };
    check(work, &peer)?;
    send(work, &peer)
}

#[inline(always)]
pub fn route(work: &mut Work) -> Result<End, End> {
    let network = work.port.network;
    if is_gateway(network, work.family, &work.destination) {
        return if work.echo_request {
            echo_reply(work)
        } else {
            Err(End::drop(DropReason::ToGateway))
        };
    }
    if work.family == IPV6 && (is_link_local(&work.source) || is_link_local(&work.destination)) {
        return Err(End::drop(DropReason::NoRoute));
    }
    if work.ttl <= 1 {
        return Err(End::punt(PuntReason::TtlExceeded));
    }
    if !is_routed(network, work.family, &work.destination) {
        return Err(End::drop(DropReason::NoRoute));
    }
    let key = IpKey {
        scope: network,
        family: work.family,
        ip: work.destination,
    };
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let (mac, peer) = if let Some(local) = unsafe { LOCAL_IPS.get(&key) } {
        let at = local_mac(network, &local.mac).ok_or(INTERNAL)?;
        (local.mac, Peer::Local(at))
    } else {
        // SAFETY: as above.
        let remote = unsafe { NEIGHBOURS.get(&key) }.ok_or(End::unknown())?;
        (
            remote.mac,
            Peer::Remote {
                host: remote.host,
                family: remote.family,
            },
        )
    };
    check(work, &peer)?;
    set_ttl(work, work.ttl - 1).ok_or(INTERNAL)?;
    set_macs(work.skb, &mac, &GATEWAY_MAC).ok_or(INTERNAL)?;
    send(work, &peer)
}

#[inline(always)]
fn is_link_local(ip: &[u8; 16]) -> bool {
    ip[0] == 0xfe && ip[1] & 0xc0 == 0x80
}

#[inline(always)]
fn set_macs(skb: Skb, destination: &[u8; 6], source: &[u8; 6]) -> Option<()> {
    let mut macs = [0u8; 12];
    put(&mut macs, 0, destination);
    put(&mut macs, 6, source);
    skb.store(0, &macs, 0)
}

#[inline(always)]
fn set_ttl(work: &Work, ttl: u8) -> Option<()> {
    let skb = work.skb;
    if work.family == IPV4 {
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
fn echo_reply(work: &mut Work) -> Result<End, End> {
    let skb = work.skb;
    set_macs(skb, &work.source_mac, &work.destination_mac).ok_or(INTERNAL)?;
    set_ttl(work, TTL).ok_or(INTERNAL)?;
    let (at, reply) = if work.family == IPV4 {
        let mut addresses = [0u8; 8];
        put(&mut addresses, 0, &part::<4>(&work.destination, 0));
        put(&mut addresses, 4, &part::<4>(&work.source, 0));
        skb.store(ETH_LEN + 12, &addresses, 0).ok_or(INTERNAL)?;
        (ETH_LEN + 20, 0u8)
    } else {
        skb.store(ETH_LEN + 8, &work.destination, 0).ok_or(INTERNAL)?;
        skb.store(ETH_LEN + 24, &work.source, 0).ok_or(INTERNAL)?;
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

/// Stage 10 up to the point of no return: the size, and the receiver's state.
#[inline(always)]
fn check(work: &Work, peer: &Peer) -> Result<(), End> {
    let skb = work.skb;
    let len = skb.len().wrapping_sub(ETH_LEN);
    if len > work.network.mtu {
        let segment = skb.gso_size();
        if segment == 0 || segment_len(work, segment) > work.network.mtu {
            return Err(End::drop(DropReason::Oversize));
        }
    }
    if let Peer::Local(local) = peer {
        receivable(local)?;
    }
    Ok(())
}

/// Length of the IP packets that a GSO packet is cut into.
#[inline(always)]
fn segment_len(work: &Work, payload: u32) -> u32 {
    let upper = work.upper - ETH_LEN;
    let header = if work.protocol == TCP {
        work.skb
            .bytes::<1>(work.upper + 12)
            .map_or(60, |offset| (offset[0] >> 4) as u32 * 4)
    } else {
        8
    };
    upper + header + payload
}

#[inline(always)]
fn receivable(local: &LocalMac) -> Result<(), End> {
    if local.flags & PORT_UP as u32 == 0 || local.ifindex == 0 {
        return Err(End::drop(DropReason::PortDown));
    }
    Ok(())
}

#[inline(always)]
fn send(work: &Work, peer: &Peer) -> Result<End, End> {
    match peer {
        Peer::Local(local) => Ok(hand_over(work.skb, local)),
        Peer::Remote { host, family } => tunnel(work, host, *family),
    }
}

/// Out of the device of a local port, when it takes packets.
#[inline(always)]
pub fn deliver(skb: Skb, local: &'static LocalMac) -> Result<End, End> {
    receivable(local)?;
    Ok(hand_over(skb, local))
}

#[inline(always)]
fn hand_over(skb: Skb, local: &LocalMac) -> End {
    if trace() {
        // SAFETY: the context pointer is valid while the program runs; cb is the program's to write.
        unsafe { (*skb.0).cb[1] = local.ifindex };
    }
    End::act(
        verdict::DELIVER,
        out(skb, local.ifindex, local.flags & PORT_PEER as u32 != 0),
    )
}

#[inline(always)]
fn tunnel(work: &Work, host: &[u8; 16], family: u32) -> Result<End, End> {
    let skb = work.skb;
    // SAFETY: all zeroes is a valid key; it has no references.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = work.network.vni;
    key.tunnel_ttl = TTL;
    let word = |at| u32::from_ne_bytes(part::<4>(host, at));
    let flags = if family == IPV4 {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes(part::<4>(host, 0));
        BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT
    } else {
        key.__bindgen_anon_1.remote_ipv6 = [word(0), word(4), word(8), word(12)];
        BPF_F_TUNINFO_IPV6 | BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT
    };
    // SAFETY: the helper reads as many bytes as the key has.
    let rc = unsafe { bpf_skb_set_tunnel_key(skb.0, &raw mut key, TUNNEL_KEY_LEN, flags as u64) };
    if rc != 0 {
        return Err(INTERNAL);
    }
    if trace() {
        // SAFETY: the context pointer is valid while the program runs; these fields are the program's to write.
        unsafe {
            (*skb.0).mark = work.network.vni;
            (*skb.0).cb[1] = word(0);
            (*skb.0).cb[2] = word(4);
            (*skb.0).cb[3] = word(8);
            (*skb.0).cb[4] = word(12);
        }
    }
    Ok(End::act(verdict::TUNNEL, out(skb, tunnel_ifindex(), false)))
}

/// The VNI that a packet came in with.
#[inline(always)]
pub fn tunnel_vni(skb: Skb) -> Option<u32> {
    if trace() {
        // SAFETY: the context pointer is valid while the program runs.
        return Some(unsafe { (*skb.0).mark });
    }
    // SAFETY: all zeroes is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    // SAFETY: the helper writes at most as many bytes as the key has.
    let mut get = |flags| unsafe { bpf_skb_get_tunnel_key(skb.0, &raw mut key, TUNNEL_KEY_LEN, flags) };
    // A packet of an IPv6 underlay is asked for as such.
    let known = get(0) == 0 || get(BPF_F_TUNINFO_IPV6 as u64) == 0;
    known.then_some(key.tunnel_id)
}
