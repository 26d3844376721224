//! "North": from a tenant to the outside.

use alcor_dataplane_abi::{
    DropReason,
    connection::{Direction, Tracking},
    flow::{Identity, identify},
    gateway_layout::*,
    icmp::ERROR_LEN,
};
use aya_ebpf::{helpers::bpf_xdp_adjust_head, maps::lpm_trie::Key};

use crate::{
    ETH_LEN,
    end::End,
    frame::Frame,
    maps::*,
    nat::{self, Kind},
    outside,
    packet::{self, DESTINATION, FIRST, LATER, SOURCE, WHOLE, Work},
    tunnel_ip,
    underlay::INNER,
};

/// Stage 5 of "From the underlay". The frame is still in the tunnel; its network is known.
#[inline(always)]
pub fn stages(frame: Frame, device: &DeviceValue) -> End {
    let Some(work) = WORK.get_ptr_mut(0) else {
        return End::drop(DropReason::Internal);
    };
    // SAFETY: the entry is this CPU's own; no other frame is in this program on it until this one has left.
    let work = unsafe { &mut *work };
    work.inside = true;
    // SAFETY: no pointers into the frame are held.
    if unsafe { bpf_xdp_adjust_head(frame.0, INNER as i32) } != 0 {
        return End::drop(DropReason::Internal);
    }
    let end = End(packet::read(frame, work));
    if end != End::ON {
        return end;
    }
    if work.note_head(frame).is_none() {
        work.error = [0; ERROR_LEN];
    }
    let end = End(translate(frame, work));
    if end != End::ON {
        return end;
    }
    outside::hairpin(frame, work, device)
}

/// Translates the packet's source.
#[inline(never)]
fn translate(frame: Frame, work: &mut Work) -> u32 {
    let no_route = End::drop(DropReason::NoRoute).0;
    let destination = Ipv4Key {
        network: work.network,
        ip: work.destination(),
    };
    if destination.ip == tunnel_ip() {
        return no_route;
    }
    if work.has_underlay && UNDERLAY.get(Key::new(IPV4_KEY_BITS, destination)).is_some() {
        return no_route;
    }
    let source = Ipv4Key {
        network: work.network,
        ip: work.source(),
    };
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let floating = unsafe { FLOATING.get(&source) };
    let number = match floating {
        Some(floating) => floating.router,
        None => match BLOCKS.get(Key::new(IPV4_KEY_BITS, source)) {
            Some(block) => block.router,
            None => return no_route,
        },
    };
    let Some(router) = ROUTERS.get(number) else {
        return End::drop(DropReason::Internal).0;
    };
    work.router = *router;
    work.number = number;
    if router.flags & ROUTER_OWNED == 0 {
        return End::drop(DropReason::NotOwner).0;
    }
    if let Some(floating) = floating {
        work.address = floating.address;
        return one_to_one(frame, work);
    }
    if router.flags & ROUTER_SNAT == 0 {
        return no_route;
    }
    work.now = nat::now();
    source_nat(frame, work)
}

/// The end of a packet whose bytes are not where they were found before.
const LOST: u32 = End::drop(DropReason::Malformed).0;

const fn done(changed: Option<()>) -> u32 {
    match changed {
        Some(()) => End::ON.0,
        None => LOST,
    }
}

/// True for an ICMP error, or the first fragment of one.
#[inline(always)]
pub fn is_error(work: &Work) -> bool {
    work.part != LATER && matches!(identify(&work.upper, Direction::Egress), Identity::Error)
}

#[inline(never)]
fn one_to_one(frame: Frame, work: &mut Work) -> u32 {
    if is_error(work) {
        if packet::read_quote(frame, work) == 0 || work.quoted_destination != work.source() {
            return End::drop(DropReason::NoTranslation).0;
        }
        if packet::set_quoted_address::<DESTINATION>(frame, work.address).is_none() {
            return LOST;
        }
    }
    done(packet::set_address::<SOURCE>(frame, work, work.address))
}

#[inline(never)]
fn source_nat(frame: Frame, work: &mut Work) -> u32 {
    let no_translation = End::drop(DropReason::NoTranslation).0;
    if work.part != WHOLE {
        work.set_fragment(work.vni);
    }
    if work.part == LATER {
        if nat::expected(work, work.number) == 0 || work.address != work.router.address {
            return End::drop(DropReason::UnknownFragment).0;
        }
        return done(packet::set_address::<SOURCE>(frame, work, work.address));
    }
    work.key.vni = work.vni;
    work.key.own = work.source();
    work.key.other = work.destination();
    let upper = work.upper;
    match nat::classify(work, &upper, Direction::Egress) {
        Kind::Tracked if work.tracking != Tracking::Other as u32 => {
            let end = nat::north(work);
            if end != End::ON.0 {
                return end;
            }
            if work.part == FIRST {
                nat::expect(work, work.router.address, 0, work.number);
            }
            let changed = packet::set_address::<SOURCE>(frame, work, work.router.address)
                .and_then(|()| packet::set_port::<0>(frame, work, work.port));
            done(changed)
        }
        Kind::Error => {
            if packet::read_quote(frame, work) == 0 || work.quoted_destination != work.source() {
                return no_translation;
            }
            work.key.other = work.quoted_source;
            let quoted = work.quoted;
            let is_tracked = matches!(
                nat::classify(work, &quoted, Direction::Ingress),
                Kind::Tracked
            );
            if !is_tracked || nat::port(work) == 0 {
                return no_translation;
            }
            let changed = packet::set_quoted_address::<DESTINATION>(frame, work.router.address)
                .and_then(|()| packet::set_quoted_port::<2>(frame, work, work.port))
                .and_then(|()| packet::set_address::<SOURCE>(frame, work, work.router.address));
            done(changed)
        }
        _ => no_translation,
    }
}
