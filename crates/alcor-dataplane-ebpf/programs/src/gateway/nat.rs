//! Source NAT's memory. What a packet means to a connection is `alcor_dataplane_abi::connection`'s; here are the maps.

use alcor_dataplane_abi::{
    DropReason,
    connection::{Connection, Direction, FRAGMENT, Segment, Step, Tracking, step},
    flow::{Identity, Sides, Upper, identify},
    gateway_layout::*,
};
use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use crate::{end::End, maps::*, nat_last_port, nat_most, nat_room, packet::Work, trace};

/// "There is one already."
const EEXIST: i32 = 17;

/// Nanoseconds since the machine started; of a traced frame what the test says.
#[inline(always)]
pub fn now() -> u64 {
    if trace() {
        return CLOCK.get(0).copied().unwrap_or_default();
    }
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// What a packet is to tracking.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of a connection: `Work::key` has its sides.
    Tracked,
    /// An ICMP error.
    Error,
    /// Neither.
    Other,
}

/// Puts the sides of a packet's connection into the key.
#[inline(always)]
pub fn classify(work: &mut Work, upper: &Upper, direction: Direction) -> Kind {
    match identify(upper, direction) {
        Identity::Tracked {
            sides,
            tracking,
            begins,
        } => {
            set_sides(&mut work.key, &sides);
            work.tracking = tracking as u32;
            work.begins = begins;
            Kind::Tracked
        }
        Identity::Error => Kind::Error,
        Identity::Single => Kind::Other,
    }
}

#[inline(always)]
const fn set_sides(key: &mut NatKey, sides: &Sides) {
    key.local = sides.local;
    key.remote = sides.remote;
    key.protocol = sides.protocol;
    key.asks = sides.asks;
    key.pad = 0;
}

#[inline(always)]
const fn tracking(work: &Work) -> Tracking {
    match work.tracking {
        0 => Tracking::Tcp,
        1 => Tracking::Udp,
        2 => Tracking::Query,
        _ => Tracking::Other,
    }
}

/// The connection after a packet, and whether the packet begins it.
#[inline(always)]
fn after(known: Option<Connection>, work: &Work, direction: Direction) -> (Connection, bool) {
    let segment = Segment {
        direction,
        tracking: tracking(work),
        tcp: work.upper.tcp,
        label: 0,
    };
    match step(known, &segment, 0, work.now) {
        Step::Pass(connection) | Step::Deny(connection) => (connection, false),
        Step::Ask(question) => (question.allowed, true),
    }
}

/// A packet from inside with its key: `Work::port` becomes the outside port of its connection.
#[inline(never)]
pub fn north(work: &mut Work) -> u32 {
    let no_translation = End::drop(DropReason::NoTranslation).0;
    let key = work.key;
    let address = work.router.address;
    if let Some(known) = NAT.get_ptr_mut(&key) {
        // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
        let known = unsafe { &mut *known };
        if known.address == address {
            let (connection, begins) = after(Some(known.connection), work, Direction::Egress);
            if begins && !work.begins {
                return no_translation;
            }
            known.connection = connection;
            work.port = known.port;
            return End::ON.0;
        }
        if !work.begins {
            return no_translation;
        }
        // The router has another address now, or it is another router. Who takes the outside away takes the inside away too and counts
        // it; there is one who can.
        let number = known.router;
        if NAT_BACK.remove(&key.outside(known.address, known.port)).is_ok() && NAT.remove(&key).is_ok() {
            count(number, u64::MAX);
        }
    }
    if !work.begins {
        return no_translation;
    }
    let end = begin(work);
    if end == End::drop(DropReason::NatConnectionLimit).0 || end == End::drop(DropReason::NatPortsExhausted).0 {
        add(&NAT_REFUSED, work.number, 1);
    }
    end
}

/// Connections that are held by this number.
#[inline(always)]
fn held(number: u32) -> u64 {
    match (NAT_BEGUN.get(number), NAT_GONE.get(number)) {
        (Some(begun), Some(gone)) => begun.wrapping_sub(*gone),
        _ => u64::MAX,
    }
}

/// Counts a connection of a router that is begun, or that is taken back (by: -1).
#[inline(always)]
fn count(number: u32, by: u64) {
    add(&NAT_BEGUN, number, by);
    add(&NAT_BEGUN, NAT_ALL, by);
}

/// Begins a connection.
#[inline(never)]
fn begin(work: &mut Work) -> u32 {
    let number = work.number;
    let free = nat_room().saturating_sub(held(NAT_ALL));
    if held(number) >= nat_limit(nat_most(), free) {
        return End::drop(DropReason::NatConnectionLimit).0;
    }
    let key = work.key;
    let back = NatBack {
        vni: key.vni,
        own: key.own,
        local: key.local,
        pad: 0,
    };
    let address = work.router.address;
    let (seed, last) = (key.port_seed(), nat_last_port());
    let mut outside = key.outside(address, 0);
    let mut turn = 0;
    loop {
        if turn == NAT_PORT_TRIES {
            return End::drop(DropReason::NatPortsExhausted).0;
        }
        outside.local = nat_port(key.local, seed, turn, last);
        match NAT_BACK.insert(&outside, &back, u64::from(BPF_NOEXIST)) {
            Ok(()) => break,
            Err(error) if error == -EEXIST => turn += 1,
            Err(_) => return End::drop(DropReason::NatConnectionLimit).0,
        }
    }
    let (connection, _) = after(None, work, Direction::Egress);
    let value = NatValue {
        connection,
        address,
        router: number,
        port: outside.local,
        pad: [0; 6],
    };
    work.port = outside.local;
    if let Err(error) = NAT.insert(&key, &value, u64::from(BPF_NOEXIST)) {
        let _ = NAT_BACK.remove(&outside);
        // Another processor has begun it at the same time.
        if error == -EEXIST
            && let Some(known) = NAT.get_ptr_mut(&key)
        {
            // SAFETY: as in `north`.
            let known = unsafe { &*known };
            if known.address != address {
                // One of before, which another processor is about to take away.
                return End::drop(DropReason::NoTranslation).0;
            }
            work.port = known.port;
            return End::ON.0;
        }
        return End::drop(DropReason::NatConnectionLimit).0;
    }
    count(number, 1);
    End::ON.0
}

/// Counts some more; the largest number is one less.
#[inline(always)]
fn add(counters: &aya_ebpf::maps::Array<u64>, number: u32, by: u64) {
    if let Some(counter) = counters.get_ptr_mut(number) {
        // The target has no atomic types, but this instruction. SAFETY: an aligned number in a map, which other processors
        // change by this only.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, by) };
    }
}

/// A connection that lives, by the key of its outside; `Work::back` becomes its inside.
#[inline(always)]
fn live(work: &mut Work) -> Option<*mut NatValue> {
    // SAFETY: as in `north`.
    let back = *unsafe { NAT_BACK.get(&work.key) }?;
    let outside = work.key;
    let inside = outside.inside(&back);
    let known = NAT.get_ptr_mut(&inside)?;
    // SAFETY: as in `north`.
    let value = unsafe { &*known };
    let is_it = value.address == outside.own && value.port == outside.local;
    if !is_it || !value.connection.is_live(work.now) {
        return None;
    }
    work.vni = back.vni;
    work.address = back.own;
    work.port = back.local;
    Some(known)
}

/// A packet from outside, with the key of its outside: its network, and the tenant's address and port. 0: there is none.
#[inline(never)]
pub fn south(work: &mut Work) -> u32 {
    let Some(known) = live(work) else {
        return 0;
    };
    if work.is_error {
        return 1;
    }
    // SAFETY: as in `north`.
    let known = unsafe { &mut *known };
    let (connection, begins) = after(Some(known.connection), work, Direction::Ingress);
    if begins {
        return 0;
    }
    known.connection = connection;
    1
}

/// The outside port of a connection that lives, by the key of its inside; 0 when there is none.
#[inline(never)]
pub fn port(work: &mut Work) -> u32 {
    // SAFETY: as in `north`.
    let Some(known) = (unsafe { NAT.get(&work.key) }) else {
        return 0;
    };
    if known.address != work.router.address || !known.connection.is_live(work.now) {
        return 0;
    }
    work.port = known.port;
    1
}

/// Later fragments of the packet may follow: they get this address. Without room they are dropped.
#[inline(never)]
pub fn expect(work: &Work, address: [u8; 4], vni: u32, router: u32) -> u32 {
    let value = FragmentValue {
        expires_ns: work.now.saturating_add(FRAGMENT),
        address,
        vni,
        router,
        pad: 0,
    };
    let _ = FRAGMENTS.insert(&work.fragment, &value, 0);
    0
}

/// A later fragment of a packet behind this router: `Work::address` becomes the one that it gets, `Work::vni` the network of a packet from outside. 0: no
/// first fragment was there.
#[inline(never)]
pub fn expected(work: &mut Work, router: u32) -> u32 {
    // SAFETY: as in `north`.
    let Some(known) = (unsafe { FRAGMENTS.get(&work.fragment) }) else {
        return 0;
    };
    if known.expires_ns <= work.now || known.router != router {
        return 0;
    }
    work.address = known.address;
    if known.vni != 0 {
        work.vni = known.vni;
    }
    1
}
