//! Stage 4: ARP requests (RFC 826) are answered here; nothing else of ARP goes anywhere.

use alcor_dataplane_abi::{
    DropReason,
    layout::{IPV4, verdict},
};

use crate::{
    ETH_LEN, ETHERTYPE_ARP, GATEWAY_MAC, Work,
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

#[inline(always)]
pub fn answer(work: &mut Work) -> End {
    let Some(arp) = work.skb.bytes::<28>(ETH_LEN) else {
        return End::drop(DropReason::Malformed);
    };
    if be16(&arp, 0) != 1 || be16(&arp, 2) != 0x0800 || be16(&arp, 4) != 0x0604 {
        return End::drop(DropReason::Malformed);
    }
    if be16(&arp, 6) != 1 {
        return End::drop(DropReason::ArpIgnored);
    }
    work.family = IPV4;
    work.source = address(&arp, 14);
    work.destination = address(&arp, 24);
    let sender_mac: [u8; 6] = part(&arp, 8);
    if work.secured() {
        let allowed = work.source == [0; 16] || work.is_allowed(&work.source);
        if sender_mac != work.source_mac || !allowed {
            return End::drop(DropReason::SpoofedArp);
        }
    }
    if has_fixed_ip(work.port.port, IPV4, &work.destination) {
        return End::drop(DropReason::OwnAddress);
    }
    let answer = if is_gateway(work.port.network, IPV4, &work.destination) {
        GATEWAY_MAC
    } else {
        match work.neigh_mac(&work.destination) {
            Some(mac) => mac,
            None => return End::unknown(),
        }
    };
    let mut reply = [0u8; FRAME_LEN];
    put(&mut reply, 0, &work.source_mac);
    put(&mut reply, 6, &answer);
    put(&mut reply, 12, &ETHERTYPE_ARP.to_be_bytes());
    put(&mut reply, 14, &[0, 1, 8, 0, 6, 4, 0, 2]);
    put(&mut reply, 22, &answer);
    put(&mut reply, 28, &part::<4>(&arp, 24));
    put(&mut reply, 32, &sender_mac);
    put(&mut reply, 38, &part::<4>(&arp, 14));
    if work.skb.resize(FRAME_LEN as u32).is_none() || work.skb.store(0, &reply, 0).is_none() {
        return End::drop(DropReason::Internal);
    }
    End::act(verdict::REPLY, 0)
}
