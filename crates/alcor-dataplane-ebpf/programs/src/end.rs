//! The end of a packet's way: what is counted, what the agent is told, what the kernel does with it.

use alcor_dataplane_abi::{DROP_REASONS, DropReason, PuntReason, layout::*};
use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes},
};

use crate::{Work, maps::*, send, skb::Skb, trace};

/// What becomes of a packet: the verdict's kind in the high half, a reason in the low half, and what the kernel
/// shall do with the packet.
#[derive(Clone, Copy)]
pub struct End {
    pub code: u32,
    pub action: i32,
}

const NS_PER_TOKEN: u64 = 1_000_000_000 / EVENTS_PER_SECOND;
const METER_PUNT: u32 = 0;
const METER_UNKNOWN: u32 = 1;

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

    /// Dropped as `UnknownDestination`; the agent is told `Work::destination`.
    #[inline(always)]
    pub const fn unknown() -> Self {
        Self {
            code: verdict::UNKNOWN << 16 | DropReason::UnknownDestination as u32,
            action: TC_ACT_SHOT as i32,
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
    } else if end.kind() == verdict::PUNT {
        if !admit(port * 2 + METER_PUNT) {
            end = End::drop(DropReason::PuntLimit);
        } else if !punt(work, end.code & 0xffff) {
            end = End::drop(DropReason::Internal);
        }
    } else if end.kind() == verdict::UNKNOWN && admit(port * 2 + METER_UNKNOWN) {
        // A lost event costs nothing but time: the next packet tells it again.
        tell_unknown(work);
    }
    finish(work.skb, work.blamed, end)
}

/// Counts a drop for `port` (0: none) and tells a test the verdict.
#[inline(always)]
pub fn finish(skb: Skb, port: u32, end: End) -> i32 {
    let kind = end.kind();
    if kind == verdict::DROP || kind == verdict::UNKNOWN {
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
fn admit(meter: u32) -> bool {
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
    let new = now.wrapping_sub(meter.last_ns) / NS_PER_TOKEN;
    if new > 0 {
        let tokens = meter.tokens + new;
        meter.tokens = if tokens > EVENT_BURST { EVENT_BURST } else { tokens };
        meter.last_ns = now;
    }
    if meter.tokens == 0 {
        return false;
    }
    meter.tokens -= 1;
    true
}

#[inline(always)]
fn header(work: &Work, kind: u32, len: u32) -> EventHeader {
    EventHeader {
        kind,
        len,
        port: work.port.id,
        network: work.port.network,
        family: work.packet.family,
        ip: work.packet.destination,
    }
}

#[inline(always)]
fn tell_unknown(work: &Work) {
    if let Some(mut event) = EVENTS.reserve::<EventHeader>(0) {
        event.write(header(work, EVENT_UNKNOWN, 0));
        event.submit(0);
    }
}

/// Hands the packet's first bytes to the agent; false when there is no room.
#[inline(always)]
fn punt(work: &Work, reason: u32) -> bool {
    let Some(mut event) = EVENTS.reserve::<PuntEvent>(0) else {
        return false;
    };
    let mut len = work.skb.len();
    if len > PUNT_BYTES as u32 {
        len = PUNT_BYTES as u32;
    }
    if len == 0 {
        event.discard(0);
        return false;
    }
    let to = event.as_mut_ptr();
    // SAFETY: the reservation is as large as a PuntEvent; the helper writes at most PUNT_BYTES into its frame.
    let rc = unsafe {
        (&raw mut (*to).header).write(header(work, reason, len));
        bpf_skb_load_bytes(work.skb.0.cast(), 0, (&raw mut (*to).frame).cast(), len)
    };
    if rc != 0 {
        event.discard(0);
        return false;
    }
    event.submit(0);
    true
}
