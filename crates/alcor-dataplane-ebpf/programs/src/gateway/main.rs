//! The gateway's kernel program: XDP on the devices of a gateway. It follows `alcor_dataplane::gateway::path` and is compared
//! with the model.
//!
//! Not here: any decision about rows; whoever fills the maps does that.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "counting by all processors at once")]

mod end;
mod frame;
mod maps;
mod nat;
mod north;
mod outside;
mod packet;
mod underlay;

use alcor_dataplane_abi::gateway_layout::*;
use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use end::{End, finish};
use frame::Frame;
use maps::*;

/// The MAC of every gateway of a subnet; the same as `alcor_model::net::GATEWAY_MAC` (the loader asserts it).
const GATEWAY_MAC: [u8; 6] = [0x0e, 0xa1, 0xc0, 0x00, 0x00, 0x01];
const ETH_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// Tests set this when they load: the program returns its verdict, sends nothing, and the clock is in a map.
#[unsafe(no_mangle)]
static TRACE: u32 = 0;
/// The gateway's tunnel address, its bytes in the order of the wire; set when loaded.
#[unsafe(no_mangle)]
static TUNNEL_IP: [u8; 4] = [0; 4];
/// Probes are sent back; set when loaded.
#[unsafe(no_mangle)]
static PROBES: u32 = 0;

/// Connections that are translated, all routers together; set when loaded.
#[unsafe(no_mangle)]
static NAT_ROOM: u64 = MAX_NAT_CONNECTIONS as u64;
/// Most connections that are translated for one router; set when loaded.
#[unsafe(no_mangle)]
static NAT_LIMIT: u64 = NAT_CONNECTIONS_PER_ROUTER;
/// The last outside port that is given; set when loaded.
#[unsafe(no_mangle)]
static NAT_LAST_PORT: u32 = u16::MAX as u32;

#[inline(always)]
fn nat_room() -> u64 {
    // SAFETY: as in `trace`.
    unsafe { core::ptr::read_volatile(&raw const NAT_ROOM) }
}

#[inline(always)]
fn nat_most() -> u64 {
    // SAFETY: as in `trace`.
    unsafe { core::ptr::read_volatile(&raw const NAT_LIMIT) }
}

#[inline(always)]
fn nat_last_port() -> u16 {
    // SAFETY: as in `trace`.
    unsafe { core::ptr::read_volatile(&raw const NAT_LAST_PORT) as u16 }
}

#[inline(always)]
fn trace() -> bool {
    // SAFETY: a plain read; volatile because the loader, not the compiler, knows the value.
    unsafe { core::ptr::read_volatile(&raw const TRACE) != 0 }
}

#[inline(always)]
fn tunnel_ip() -> [u8; 4] {
    // SAFETY: as in `trace`.
    unsafe { core::ptr::read_volatile(&raw const TUNNEL_IP) }
}

#[inline(always)]
fn probes() -> bool {
    // SAFETY: as in `trace`.
    unsafe { core::ptr::read_volatile(&raw const PROBES) != 0 }
}

#[xdp]
pub fn gateway(ctx: XdpContext) -> u32 {
    let frame = Frame(ctx.ctx);
    let ifindex = frame.ifindex();
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let Some(device) = (unsafe { DEVICES.get(&ifindex) }) else {
        return xdp_action::XDP_PASS;
    };
    let bytes = frame.len();
    let end = stages(frame, device);
    finish(frame, bytes, ifindex, device, end)
}

/// Where a frame belongs.
#[inline(always)]
fn stages(frame: Frame, device: &DeviceValue) -> End {
    match frame.be16(12) {
        Some(ETHERTYPE_IPV4) => {}
        Some(ETHERTYPE_ARP) if device.flags & DEVICE_EXTERNAL != 0 => {
            return End(outside::arp(frame, device));
        }
        Some(ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) if device.flags == DEVICE_EXTERNAL => {
            return outside::tagged(frame);
        }
        _ => return End::PASS,
    }
    let Some(destination) = frame.read::<[u8; 4]>(ETH_LEN + 16) else {
        return End::PASS;
    };
    if device.flags & DEVICE_UNDERLAY != 0 && destination == tunnel_ip() {
        let end = End(underlay::stages(frame));
        if end == End::NORTH {
            return north::stages(frame, device);
        }
        return end;
    }
    if device.flags & DEVICE_EXTERNAL != 0 {
        return outside::stages(frame, destination, device);
    }
    End::PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Programs that could panic are not loaded: the verifier refuses the loop.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
