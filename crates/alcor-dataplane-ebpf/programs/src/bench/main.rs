//! Programs for benchmarks: a source of tunnel packets and a sink, both without a stack in the way. Not part of any data plane.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, xdp_action},
    helpers::{bpf_get_prandom_u32, bpf_redirect},
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray},
    programs::{TcContext, XdpContext},
};

/// Bytes of a packet.
const LEN: usize = 96;
/// Where the last two bytes of the inner destination MAC are, and of the inner destination address.
const MAC: usize = 50 + 4;
const ADDRESS: usize = 50 + 14 + 18;

/// Interface index of the device that packets leave by; set when loaded.
#[unsafe(no_mangle)]
static EGRESS: u32 = 0;
/// How many destinations there are, less one; one less than a power of 2. Set when loaded.
#[unsafe(no_mangle)]
static DESTINATIONS: u32 = 0;

/// The packet.
#[map(name = "template")]
static TEMPLATE: Array<[u8; LEN]> = Array::with_max_entries(1, 0);

/// Makes the frame the packet, to any of the destinations, and sends it.
#[xdp]
pub fn source(ctx: XdpContext) -> u32 {
    let Some(template) = TEMPLATE.get(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: plain reads; volatile because the loader knows the values.
    let (egress, destinations) = unsafe {
        (
            core::ptr::read_volatile(&raw const EGRESS),
            core::ptr::read_volatile(&raw const DESTINATIONS),
        )
    };
    // SAFETY: no arguments.
    let any = (unsafe { bpf_get_prandom_u32() } & destinations).to_be_bytes();
    let start = ctx.data();
    if start + LEN > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    let frame = start as *mut [u8; LEN];
    // SAFETY: as many bytes are there; the type has no alignment.
    unsafe {
        *frame = *template;
        (*frame)[MAC] = any[2];
        (*frame)[MAC + 1] = any[3];
        (*frame)[ADDRESS] = any[2];
        (*frame)[ADDRESS + 1] = any[3];
        bpf_redirect(egress, 0) as u32
    }
}

/// Takes frames away.
#[xdp]
pub fn sink(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// What went into the sink at the end of a stack.
#[map(name = "sunk")]
static SUNK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Takes packets away that the stack has made ready for a device, and counts them.
#[classifier]
pub fn stack_sink(_: TcContext) -> i32 {
    if let Some(sunk) = SUNK.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's own.
        unsafe { *sunk += 1 };
    }
    TC_ACT_SHOT as i32
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
