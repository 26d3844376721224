//! Stage 4: ARP requests (RFC 826) are answered here; nothing else of ARP goes anywhere.

use alcor_dataplane_abi::{
    DropReason,
    layout::{IPV4, verdict},
};

use crate::{
    ETH_LEN, ETHERTYPE_ARP, GATEWAY_MAC, ON_DEMAND_MAC, Work,
    end::End,
    maps::{has_fixed_ip, is_gateway},
    skb::{be16, part, put},
};

const FRAME_LEN: usize = 42;

#[inline(always)]
fn address(arp: &[u8; 28], at: usize) -> [u8; 16] {
    let mut ip = [0; 16];
    put(&mut ip, 0, &part::<4>(arp, at));
    ip
}

/// Stage 4, packed; never lets the packet go on.
#[inline(never)]
pub fn answer(work: &mut Work) -> u64 {
    End::pack(Err(build_answer(work)))
}

#[inline(always)]
fn build_answer(work: &mut Work) -> End {
    let Some(arp) = work.skb.bytes::<28>(ETH_LEN) else {
        return End::drop(DropReason::Malformed);
    };
    if be16(&arp, 0) != 1 || be16(&arp, 2) != 0x0800 || be16(&arp, 4) != 0x0604 {
        return End::drop(DropReason::Malformed);
    }
    if be16(&arp, 6) != 1 {
        return End::drop(DropReason::ArpIgnored);
    }
    work.packet.family = IPV4;
    work.packet.source = address(&arp, 14);
    work.packet.destination = address(&arp, 24);
    let sender_mac: [u8; 6] = part(&arp, 8);
    if work.secured() {
        let allowed = work.packet.source == [0; 16] || work.is_allowed(&work.packet.source);
        if sender_mac != work.packet.source_mac || !allowed {
            return End::drop(DropReason::SpoofedArp);
        }
    }
    if has_fixed_ip(work.port.port, IPV4, &work.packet.destination) {
        return End::drop(DropReason::OwnAddress);
    }
    let answer = if is_gateway(work.port.network, IPV4, &work.packet.destination) {
        GATEWAY_MAC
    } else {
        match work.neigh_mac(&work.packet.destination) {
            Some(mac) => mac,
            None if work.is_answered() => ON_DEMAND_MAC,
            None => return End::unknown(work),
        }
    };
    let (source_mac, reply) = (work.packet.source_mac, &mut work.packet.bytes);
    put(reply, 0, &source_mac);
    put(reply, 6, &answer);
    put(reply, 12, &ETHERTYPE_ARP.to_be_bytes());
    put(reply, 14, &[0, 1, 8, 0, 6, 4, 0, 2]);
    put(reply, 22, &answer);
    put(reply, 28, &part::<4>(&arp, 24));
    put(reply, 32, &sender_mac);
    put(reply, 38, &part::<4>(&arp, 14));
    if work.skb.resize(FRAME_LEN as u32).is_none() || work.skb.store_from::<FRAME_LEN>(0, reply).is_none() {
        return End::drop(DropReason::Internal);
    }
    End::act(verdict::REPLY, 0)
}
