//! The end of a frame's way: what is counted, what the kernel does with it.

use alcor_dataplane_abi::{DROP_REASONS, DropReason, gateway_layout::*};
use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        BPF_FIB_LKUP_RET_UNSUPP_LWT, bpf_fib_lookup, xdp_action,
    },
    helpers::{bpf_fib_lookup as fib_lookup, bpf_redirect},
};

use crate::{
    ETH_LEN, IPV4_LEN,
    frame::{Frame, be16},
    maps::{CLOCK, DEVICES, DROPS, LOAD},
    outside::tell_tenant,
    trace,
};

const AF_INET: u8 = 2;
/// The kind of [`End::too_long`]; no verdict has it.
const TOO_LONG: u32 = 0x7fff;

/// What becomes of a frame: the verdict's kind in the high half, a reason in the low half. A plain number, so that functions that
/// are not inlined can return it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct End(pub u32);

impl End {
    pub const PASS: Self = Self(verdict::PASS << 16);
    pub const REPLY: Self = Self(verdict::REPLY << 16);
    /// From host to host.
    pub const EAST_WEST: Self = Self(verdict::UNDERLAY << 16);
    /// From the outside to a host.
    pub const SOUTH: Self = Self(verdict::UNDERLAY << 16 | 1);
    /// From a tenant to an external address of this gateway, and so to a host.
    pub const HAIRPIN: Self = Self(verdict::UNDERLAY << 16 | 2);
    /// From the gateway itself to a tenant.
    pub const TOLD: Self = Self(verdict::UNDERLAY << 16 | 3);
    pub const OUTSIDE: Self = Self(verdict::OUTSIDE << 16);
    /// Not an end: the frame goes to the outside.
    pub const NORTH: Self = Self(1);
    /// Not an end: the frame goes on.
    pub const ON: Self = Self(0);

    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self(verdict::DROP << 16 | reason as u32)
    }

    /// Not an end: the way takes packets of this many bytes only.
    const fn too_long(mtu: u16) -> Self {
        Self(TOO_LONG << 16 | mtu as u32)
    }

    /// As [`Self::drop`], with the reason's number.
    #[inline(always)]
    pub const fn drop_code(reason: u32) -> Self {
        Self(verdict::DROP << 16 | reason)
    }

    #[inline(always)]
    const fn kind(self) -> u32 {
        self.0 >> 16
    }
}

/// Ends a frame that came with so many bytes.
#[inline(always)]
pub fn finish(frame: Frame, bytes: usize, ifindex: u32, device: &DeviceValue, end: End) -> u32 {
    let mut end = end;
    let mut action = xdp_action::XDP_PASS;
    match end.kind() {
        verdict::REPLY => action = xdp_action::XDP_TX,
        verdict::UNDERLAY | verdict::OUTSIDE => {
            let mut way = forward(frame, ifindex, device, end.0);
            if End(way as u32).kind() == TOO_LONG {
                end = End(tell_tenant(frame, device, way as u32 & 0xffff));
                way = if end == End::TOLD {
                    forward(frame, ifindex, device, end.0)
                } else {
                    u64::from(end.0)
                };
            }
            let gone = End(way as u32);
            if gone.kind() != verdict::DROP {
                count_load(end, bytes as u64);
            }
            end = gone;
            action = (way >> 32) as u32;
        }
        _ => {}
    }
    if end.kind() == verdict::DROP {
        count(end.0 & 0xffff);
        action = xdp_action::XDP_DROP;
    }
    if trace() { end.0 } else { action }
}

/// Counts what is on its way.
#[inline(always)]
fn count_load(end: End, bytes: u64) {
    let Some(load) = LOAD.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the entry is this CPU's own.
    let load = unsafe { &mut *load };
    if end == End::EAST_WEST {
        load.east_west_packets += 1;
        load.east_west_bytes += bytes;
    }
    if end == End::OUTSIDE || end == End::HAIRPIN {
        load.north_packets += 1;
        load.north_bytes += bytes;
    }
    if end == End::SOUTH || end == End::HAIRPIN {
        load.south_packets += 1;
        load.south_bytes += bytes;
    }
}

#[inline(always)]
fn count(reason: u32) {
    if let Some(drops) = DROPS.get_ptr_mut(0)
        && (reason as usize) < DROP_REASONS
    {
        // SAFETY: the entry is this CPU's own, and the index is below its length.
        unsafe { (*drops).by_reason[reason as usize] += 1 };
    }
}

/// Sends a frame that ends so to where the node's routes lead, out of a device of its kind only. When the next hop's MAC is not known, the
/// node's own stack asks for it and forwards. The end in the low half, what the kernel shall do in the high half.
#[inline(never)]
fn forward(frame: Frame, ifindex: u32, device: &DeviceValue, end: u32) -> u64 {
    let end = End(end);
    let (end, action) = if trace() {
        (traced(frame, end), xdp_action::XDP_PASS)
    } else {
        way(frame, ifindex, device, end)
    };
    u64::from(action) << 32 | u64::from(end.0)
}

/// What [`way`] makes of a traced frame: the test says how long packets to the outside may be.
#[inline(always)]
fn traced(frame: Frame, end: End) -> End {
    let mtu = CLOCK.get(1).copied().unwrap_or_default();
    let len = frame.be16(ETH_LEN + 2).unwrap_or_default();
    if end == End::OUTSIDE && mtu != 0 && u64::from(len) > mtu {
        return End::too_long(mtu as u16);
    }
    end
}

/// What the node's routes say of a packet of this length; 0: of any.
#[inline(always)]
fn look(frame: Frame, ifindex: u32, ip: &[u8; IPV4_LEN], len: u16) -> (i64, bpf_fib_lookup) {
    // SAFETY: integers and arrays of them; the kernel wants what is not used to be zero.
    let mut way: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    way.family = AF_INET;
    way.__bindgen_anon_1.tot_len = len;
    way.ifindex = ifindex;
    way.__bindgen_anon_2.tos = ip[1];
    way.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]]);
    way.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]]);
    // SAFETY: the context and the parameters are valid; their size is said.
    let outcome = unsafe {
        fib_lookup(
            frame.0.cast(),
            &raw mut way,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    (outcome, way)
}

/// True when the node's own stack would send a packet from the outside on by anything but a device that leads to the outside only, or
/// when that cannot be told. What the stack keeps or refuses it does not send on. Not asked of traced frames.
#[inline(always)]
pub fn stack_leads_inside(frame: Frame) -> bool {
    if trace() {
        return false;
    }
    let Some(ip) = frame.read::<[u8; IPV4_LEN]>(ETH_LEN) else {
        return false;
    };
    let (outcome, way) = look(frame, frame.ifindex(), &ip, 0);
    if outcome == i64::from(BPF_FIB_LKUP_RET_UNSUPP_LWT) {
        return true;
    }
    if outcome != i64::from(BPF_FIB_LKUP_RET_SUCCESS) && outcome != i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
        return false;
    }
    let egress = way.ifindex;
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    match unsafe { DEVICES.get(&egress) } {
        Some(egress) => egress.flags != DEVICE_EXTERNAL,
        None => true,
    }
}

#[inline(always)]
fn way(frame: Frame, ifindex: u32, device: &DeviceValue, end: End) -> (End, u32) {
    let is_outside = end == End::OUTSIDE;
    let role = if is_outside { DEVICE_EXTERNAL } else { DEVICE_UNDERLAY };
    let no_way = (End::drop(DropReason::NoRoute), xdp_action::XDP_DROP);
    let Some(ip) = frame.read::<[u8; IPV4_LEN]>(ETH_LEN) else {
        return (End::drop(DropReason::Malformed), xdp_action::XDP_DROP);
    };
    let (outcome, way) = look(frame, ifindex, &ip, be16(&ip, 2));
    if outcome == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
        // SAFETY: any bytes are a number; with this outcome the kernel has written it.
        let mtu = unsafe { way.__bindgen_anon_1.mtu_result };
        let end = if is_outside { End::too_long(mtu) } else { End::drop(DropReason::Oversize) };
        return (end, xdp_action::XDP_DROP);
    }
    if outcome != i64::from(BPF_FIB_LKUP_RET_SUCCESS) && outcome != i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
        return no_way;
    }
    let egress = way.ifindex;
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    match unsafe { DEVICES.get(&egress) } {
        Some(egress) if egress.flags & role != 0 => {}
        _ => return no_way,
    }
    if outcome == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
        // What the stack forwards must be for this node.
        return match frame.write(0, device.mac) {
            Some(()) => (End::PASS, xdp_action::XDP_PASS),
            None => no_way,
        };
    }
    if frame.write(0, way.dmac).is_none() || frame.write(6, way.smac).is_none() {
        return (End::drop(DropReason::Malformed), xdp_action::XDP_DROP);
    }
    if egress == ifindex {
        return (End::REPLY, xdp_action::XDP_TX);
    }
    // SAFETY: no pointers.
    (End::REPLY, unsafe { bpf_redirect(egress, 0) } as u32)
}
