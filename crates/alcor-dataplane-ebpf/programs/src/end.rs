//! The end of a packet's way: what is counted, what the agent is told, what the kernel does with it.

use alcor_dataplane_abi::{DROP_REASONS, DropReason, PuntReason, layout::*};
use aya_ebpf::{
    bindings::TC_ACT_SHOT,
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
pub fn finish_work(work: &Work, mut end: End) -> i32 {
    let port = work.port.port;
    if end.kind() == verdict::REPLY && end.action == 0 {
        end.action = send::back(work);
    }
    let is_punted = end.kind() == verdict::PUNT;
    if is_punted || (work.packet.asks && end.kind() != verdict::DROP) {
        let reason = if is_punted {
            end.code & 0xffff
        } else {
            PuntReason::Unresolved as u32
        };
        let is_admitted = if reason == PuntReason::Unresolved as u32 {
            admit(
                port * 2 + METER_UNRESOLVED,
                NS_PER_SECOND / UNRESOLVED_PER_SECOND,
                UNRESOLVED_BURST,
            )
        } else {
            admit(
                port * 2 + METER_PUNT,
                NS_PER_SECOND / PUNTS_PER_SECOND,
                PUNT_BURST,
            )
        };
        // What goes on goes on, whether the agent hears of it or not.
        let is_told = is_admitted && punt(work, reason, is_punted);
        if is_punted && !is_told {
            end = End::drop(if is_admitted {
                DropReason::Internal
            } else {
                DropReason::PuntLimit
            });
        }
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

/// Hands the packet's first bytes to the agent, or the address only; false when there is no room. The event is made beside the ring, so that it
/// takes no more room there than it has bytes.
#[inline(always)]
fn punt(work: &Work, reason: u32, with_frame: bool) -> bool {
    let Some(event) = PUNTS.get_ptr_mut(0) else {
        return false;
    };
    let mut len = if with_frame { work.skb.len() } else { 0 };
    if len > PUNT_BYTES as u32 {
        let is_held = reason == PuntReason::Unresolved as u32;
        len = if is_held { 0 } else { PUNT_BYTES as u32 };
    }
    let header = EventHeader {
        kind: reason,
        len,
        port: work.port.id,
        network: work.scope,
        family: work.packet.family,
        ip: work.packet.destination,
    };
    // SAFETY: the entry is this CPU's own.
    unsafe { (&raw mut (*event).header).write(header) };
    if len > 0 {
        // SAFETY: the helper writes at most PUNT_BYTES into the event's frame.
        let rc = unsafe { bpf_skb_load_bytes(work.skb.0.cast(), 0, (&raw mut (*event).frame).cast(), len) };
        if rc != 0 {
            return false;
        }
    }
    let bytes = size_of::<EventHeader>() as u64 + len as u64;
    // SAFETY: the helper reads that many bytes of the event, which has as many.
    unsafe { bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), event.cast(), bytes, 0) == 0 }
}
