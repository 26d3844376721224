//! The end of a packet's way: what is counted, what the agent is told, what the kernel does with it.

use alcor_dataplane_abi::{DROP_REASONS, DropReason, PuntReason, layout::*};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    helpers::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_skb_load_bytes},
};

use crate::{Work, maps::*, send, skb::Skb, trace};

/// What becomes of a packet: the verdict's kind in the high half, a reason in the low half, and what the kernel
/// shall do with the packet.
#[derive(Clone, Copy)]
pub struct End {
    pub code: u32,
    pub action: i32,
}

const NS_PER_SECOND: u64 = 1_000_000_000;
const METER_PUNT: u32 = 0;
const METER_UNRESOLVED: u32 = 1;

impl End {
    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self {
            code: verdict::DROP << 16 | reason as u32,
            action: TC_ACT_SHOT as i32,
        }
    }

    /// As [`Self::drop`], with the reason's number.
    #[inline(always)]
    pub const fn drop_code(reason: u32) -> Self {
        Self {
            code: verdict::DROP << 16 | reason,
            action: TC_ACT_SHOT as i32,
        }
    }

    #[inline(always)]
    pub const fn punt(reason: PuntReason) -> Self {
        Self {
            code: verdict::PUNT << 16 | reason as u32,
            action: TC_ACT_SHOT as i32,
        }
    }

    /// No row tells the address in `Packet::destination`: the agent asks for it, where that is done and the packet was not
    /// held before.
    #[inline(always)]
    pub fn unknown(work: &Work) -> Self {
        if work.network.flags & NETWORK_ON_DEMAND != 0 && !work.packet.was_held {
            Self::punt(PuntReason::Unresolved)
        } else {
            Self::drop(DropReason::UnknownDestination)
        }
    }

    #[inline(always)]
    pub const fn act(kind: u32, action: i32) -> Self {
        Self {
            code: kind << 16,
            action,
        }
    }

    /// A stage's outcome in one register: what a function that is not inlined returns by memory leaves a pointer to the
    /// caller's stack behind, which the verifier refuses. 0: the packet goes on.
    #[inline(always)]
    pub const fn pack(outcome: Result<(), Self>) -> u64 {
        match outcome {
            Ok(()) => 0,
            Err(end) => (end.code as u64) << 32 | end.action as u32 as u64,
        }
    }

    /// The opposite of [`Self::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Result<(), Self> {
        if packed == 0 {
            return Ok(());
        }
        Err(Self {
            code: (packed >> 32) as u32,
            action: packed as i32,
        })
    }

    #[inline(always)]
    const fn kind(self) -> u32 {
        self.code >> 16
    }
}

/// Ends a packet of a port: events first, then as [`finish`].
#[inline(always)]
pub fn finish_work(work: &mut Work, mut end: End) -> i32 {
    if end.kind() == verdict::REPLY && end.action == 0 {
        end.action = send::back(work);
    }
    if end.kind() == verdict::PUNT {
        work.packet.scope = work.scope;
        let refused = alcor_tell(work.skb.0, end.code & 0xffff, 1);
        if refused != 0 {
            end = End::drop_code(refused);
        }
    } else if work.packet.asks && end.kind() != verdict::DROP {
        work.packet.scope = work.scope;
        // What goes on goes on, whether the agent hears of it or not.
        alcor_tell(work.skb.0, PuntReason::Unresolved as u32, 0);
    }
    finish(work.skb, work.blamed, end)
}

/// Counts a drop for `port` (0: none) and tells a test the verdict.
#[inline(always)]
pub fn finish(skb: Skb, port: u32, end: End) -> i32 {
    if end.kind() == verdict::DROP {
        count(port, end.code & 0xffff);
    }
    if trace() {
        // SAFETY: the context pointer is valid while the program runs; cb is the program's to write.
        unsafe { (*skb.0).cb[0] = end.code };
    }
    end.action
}

#[inline(always)]
fn count(port: u32, reason: u32) {
    if let Some(counters) = DROPS.get_ptr_mut(port) {
        // Hidden from the compiler: it would mask in a way that the verifier cannot follow.
        let reason = core::hint::black_box(reason) & (DROP_REASONS as u32 - 1);
        // SAFETY: the entry is this CPU's own; the index is masked to the array's length.
        unsafe { (*counters).by_reason[reason as usize] += 1 };
    }
}

/// Takes a token. Two CPUs may take the same one: the limit is for protection, not for accounting.
#[inline(always)]
fn admit(meter: u32, ns_per_token: u64, burst: u64) -> bool {
    if trace() {
        return true;
    }
    let Some(meter) = METERS.get_ptr_mut(meter) else {
        return false;
    };
    // SAFETY: the pointer is to a map entry that lives as long as the map.
    let meter = unsafe { &mut *meter };
    // SAFETY: the helper takes no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let new = now.wrapping_sub(meter.last_ns) / ns_per_token;
    if new > 0 {
        let tokens = meter.tokens + new;
        meter.tokens = if tokens > burst { burst } else { tokens };
        meter.last_ns = now;
    }
    if meter.tokens == 0 {
        return false;
    }
    meter.tokens -= 1;
    true
}

/// Hands the packet's first bytes to the agent (`with_frame` 1), or the address only (0): 0, or the `DropReason` when it may not, or
/// cannot. Global: the verifier looks at it once, whatever the paths that lead here. So it finds what it needs where the stages work.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_tell(skb: *mut __sk_buff, reason: u32, with_frame: u32) -> u32 {
    const INTERNAL: u32 = DropReason::Internal as u32;
    let skb = Skb(skb);
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let Some(port) = (unsafe { PORTS.get(&skb.ifindex()) }) else {
        return INTERNAL;
    };
    // SAFETY: the entry is this CPU's own; no other packet is in this program on it until this one has left.
    let Some(packet) = PACKETS.get_ptr(0).map(|packet| unsafe { &*packet }) else {
        return INTERNAL;
    };
    let is_unresolved = reason == PuntReason::Unresolved as u32;
    let (meter, per_second, burst) = if is_unresolved {
        (METER_UNRESOLVED, UNRESOLVED_PER_SECOND, UNRESOLVED_BURST)
    } else {
        (METER_PUNT, PUNTS_PER_SECOND, PUNT_BURST)
    };
    if !admit(port.port * 2 + meter, NS_PER_SECOND / per_second, burst) {
        return DropReason::PuntLimit as u32;
    }
    let mut len = if with_frame != 0 { skb.len() } else { 0 };
    let mut kind = reason;
    if len > PUNT_BYTES as u32 {
        if is_unresolved {
            len = 0;
            kind |= EVENT_TOO_LONG;
        } else {
            len = PUNT_BYTES as u32;
        }
    }
    let header = EventHeader {
        kind,
        len,
        port: port.id,
        network: packet.scope,
        family: packet.family,
        ip: packet.destination,
        mtu: packet.mtu,
    };
    if hand_up(skb, header) { 0 } else { INTERNAL }
}

/// Hands up an event with as many bytes of the packet as its header says; false when there is no room. It is made beside the
/// ring, so that it takes no more room there than it has bytes.
#[inline(always)]
fn hand_up(skb: Skb, header: EventHeader) -> bool {
    let Some(event) = PUNTS.get_ptr_mut(0) else {
        return false;
    };
    // Hidden from the compiler, and looked at as one number: else what is compared and what is used are two for the verifier.
    let len = core::hint::black_box(header.len as u64);
    // SAFETY: the entry is this CPU's own.
    unsafe { (&raw mut (*event).header).write(header) };
    if len > PUNT_BYTES as u64 {
        return false;
    }
    if len > 0 {
        // SAFETY: the helper writes at most PUNT_BYTES into the event's frame.
        let rc =
            unsafe { bpf_skb_load_bytes(skb.0.cast(), 0, (&raw mut (*event).frame).cast(), len as u32) };
        if rc != 0 {
            return false;
        }
    }
    let bytes = size_of::<EventHeader>() as u64 + len;
    // SAFETY: the helper reads that many bytes of the event, which has as many.
    unsafe { bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), event.cast(), bytes, 0) == 0 }
}
