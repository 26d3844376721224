//! The kernel programs: `from_port` on the ingress of every port's device, `from_tunnel` on the ingress of
//! the tunnel device, `from_external` on that of devices to external networks, `released` for frames that were held. They follow `alcor_dataplane::path` stage by stage and are compared with the model.
//!
//! Not here: any decision about rows; whoever fills the maps does that.
#![no_std]
#![no_main]

mod arp;
mod end;
mod filter;
mod floating;
mod flow;
mod ipv4;
mod ipv6;
mod maps;
mod send;
mod skb;

use alcor_dataplane_abi::{DropReason, connection::Direction, layout::*};
use aya_ebpf::{macros::classifier, programs::TcContext};
use end::{End, finish};
use filter::Filters;
use maps::*;
use send::{Exit, Origin};
use skb::{Skb, be16, part};

/// The MAC of every gateway; the same as `alcor_model::net::GATEWAY_MAC` (the comparison with the model shows it).
const GATEWAY_MAC: [u8; 6] = [0x0e, 0xa1, 0xc0, 0x00, 0x00, 0x01];
/// The MAC that stands for addresses that gateways know; the same as `alcor_model::net::ON_DEMAND_MAC` (the comparison with the model shows it).
const ON_DEMAND_MAC: [u8; 6] = [0x0e, 0xa1, 0xc0, 0x00, 0x00, 0x02];
const ETH_LEN: u32 = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Tests set this when they load: the verdict is written where `BPF_PROG_TEST_RUN` shows it, events are not
/// metered, the clock is the packet's time stamp, and `from_tunnel` takes the VNI from the mark, label and family from the
/// first word of `cb` (the family's highest bit: the packet was passed on), the other host from the others.
#[unsafe(no_mangle)]
static TRACE: u32 = 0;
/// Interface index of the tunnel device, set when loaded.
#[unsafe(no_mangle)]
static TUNNEL_IFINDEX: u32 = 0;

#[inline(always)]
pub fn trace() -> bool {
    // SAFETY: a plain read; volatile because the loader, not the compiler, knows the value.
    unsafe { core::ptr::read_volatile(&raw const TRACE) != 0 }
}

#[inline(always)]
pub fn tunnel_ifindex() -> u32 {
    // SAFETY: as in `trace`.
    unsafe { core::ptr::read_volatile(&raw const TUNNEL_IFINDEX) }
}

/// A packet of a port that is up, and what the stages found out about it.
pub struct Work {
    pub skb: Skb,
    pub port: &'static PortValue,
    /// The network that the packet is in: the port's, or one that a router has brought it to.
    pub network: &'static NetworkValue,
    /// Handle of that network.
    pub scope: u32,
    pub packet: &'static mut Packet,
    /// Handle of the port that a drop is counted for.
    pub blamed: u32,
}

/// What the stages found out, and room to work. It lies in a map: the stack is too small.
pub struct Packet {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    pub family: u32,
    pub source: [u8; 16],
    /// Destination of the packet, or the next hop of its route; also the address that an unknown destination is reported with.
    pub destination: [u8; 16],
    /// TTL or hop limit.
    pub ttl: u8,
    /// IP protocol of the upper layer when it is known.
    pub protocol: u8,
    /// Where the upper layer starts in the frame.
    pub upper: u32,
    /// An echo request that a gateway may answer.
    pub echo_request: bool,
    /// Where a neighbour solicitation starts, else 0, and where it ends.
    pub solicitation: u32,
    /// The packet was held, and is released now.
    pub was_held: bool,
    /// A gateway takes the packet, or speaks for the address: the agent is told to ask for it.
    pub asks: bool,
    /// As in [`Work`], for the agent.
    pub scope: u32,
    /// What a packet that is too big must fit, for the agent.
    pub mtu: u32,
    /// Number of a set of gateways, and the one that was chosen of it.
    pub gateways: u32,
    pub gateway_family: u32,
    pub gateway: [u8; 16],
    pub end: u32,
    /// A header as it came, or an answer before it goes.
    pub bytes: [u8; PACKET_BYTES],
}

/// The longest of headers and answers: a neighbour advertisement.
pub const PACKET_BYTES: usize = 88;

impl Work {
    #[inline(always)]
    pub fn secured(&self) -> bool {
        self.port.flags & PORT_SECURITY != 0
    }

    /// True when the port may send from this address with the packet's MAC.
    #[inline(always)]
    pub fn is_allowed(&self, ip: &[u8; 16]) -> bool {
        self.port.is_first(self.packet.family, ip)
            || has_fixed_ip(self.port.port, self.packet.family, ip)
            || (self.port.flags & PORT_PAIRS != 0
                && has_pair(self.port.port, &self.packet.source_mac, self.packet.family, ip))
    }

    /// The MAC of `neigh(network, ip)`, which is used.
    #[inline(always)]
    pub fn neigh_mac(&self, ip: &[u8; 16]) -> Option<[u8; 6]> {
        let key = IpKey {
            scope: self.port.network,
            family: self.packet.family,
            ip: *ip,
        };
        // SAFETY: entries are freed after an RCU grace period only.
        if let Some(local) = unsafe { LOCAL_IPS.get(&key) } {
            return Some(local.mac);
        }
        use_neighbour(&key).map(|neighbour| neighbour.mac)
    }

    /// True where gateways take what goes to addresses that no row knows.
    #[inline(always)]
    pub fn has_gateways(&self) -> bool {
        !self.packet.was_held && self.network.flags & NETWORK_ON_DEMAND != 0 && self.network.gateways != 0
    }

    /// True when gateways speak for the address in `Packet::destination`, which no row knows, to the one in `Packet::source`; it
    /// is to be asked for then. Who asks from nowhere, or for its own address, asks whether anybody else has it.
    #[inline(always)]
    pub fn is_answered(&mut self) -> bool {
        self.packet.asks = self.packet.source != [0; 16]
            && self.packet.source != self.packet.destination
            && self.has_gateways()
            && has_subnet_of(self.port.network, self.packet.family, &self.packet.destination);
        self.packet.asks
    }
}

#[classifier]
pub fn from_port(ctx: TcContext) -> i32 {
    of_port(Skb(ctx.skb.skb), false)
}

/// Not on any device: the loader runs it with a frame that was held, as of the device of its port.
#[classifier]
pub fn released(ctx: TcContext) -> i32 {
    of_port(Skb(ctx.skb.skb), true)
}

#[inline(always)]
fn of_port(skb: Skb, was_held: bool) -> i32 {
    let ifindex = skb.ifindex();
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let Some(port) = (unsafe { PORTS.get(&ifindex) }) else {
        return finish(skb, 0, End::drop(DropReason::UnknownPort));
    };
    // SAFETY: as above.
    let Some(network) = (unsafe { NETWORKS.get(&port.network) }) else {
        return finish(skb, port.port, End::drop(DropReason::PortDown));
    };
    let Some(packet) = PACKETS.get_ptr_mut(0) else {
        return finish(skb, port.port, End::drop(DropReason::Internal));
    };
    let mut work = Work {
        skb,
        port,
        network,
        scope: port.network,
        // SAFETY: the entry is this CPU's own; no other packet is in this program on it until this one has left.
        packet: unsafe { &mut *packet },
        blamed: port.port,
    };
    work.packet.family = 0;
    work.packet.source = [0; 16];
    work.packet.destination = [0; 16];
    work.packet.echo_request = false;
    work.packet.solicitation = 0;
    work.packet.was_held = was_held;
    work.packet.asks = false;
    work.packet.mtu = 0;
    // The last stage always ends the way.
    let end = match stages(&mut work) {
        Ok(()) => End::drop(DropReason::Internal),
        Err(end) => end,
    };
    end::finish_work(&mut work, end)
}

/// Stages 1 to 10.
#[inline(always)]
fn stages(work: &mut Work) -> Result<(), End> {
    if work.port.flags & PORT_UP == 0 || work.network.flags & NETWORK_UP == 0 {
        return Err(End::drop(DropReason::PortDown));
    }
    let ethernet: [u8; 14] = work.skb.bytes(0).ok_or(End::drop(DropReason::Malformed))?;
    work.packet.destination_mac = part(&ethernet, 0);
    work.packet.source_mac = part(&ethernet, 6);
    let own = work.packet.source_mac == work.port.mac;
    let spoofed = work.secured() && !own && !has_pair_mac(work.port.port, &work.packet.source_mac);
    if spoofed || work.packet.source_mac[0] & 1 != 0 {
        return Err(End::drop(DropReason::SpoofedMac));
    }
    if work.skb.has_vlan_tag() {
        return Err(End::drop(DropReason::UnsupportedEtherType));
    }
    match be16(&ethernet, 12) {
        ETHERTYPE_ARP => End::unpack(arp::answer(work))?,
        ETHERTYPE_IPV4 => End::unpack(ipv4::check(work))?,
        ETHERTYPE_IPV6 => {
            End::unpack(ipv6::check(work))?;
            if work.packet.solicitation != 0 {
                End::unpack(ipv6::solicitation(work))?;
            }
        }
        _ => return Err(End::drop(DropReason::UnsupportedEtherType)),
    }
    if is_group(work) {
        return Err(End::drop(DropReason::NoFlood));
    }
    let mut exit = Exit::new();
    if work.packet.destination_mac == GATEWAY_MAC {
        End::unpack(send::route(work, &mut exit))?;
    } else {
        End::unpack(send::switch(work, &mut exit))?;
    }
    let label = send::filter(work, &exit)?;
    if exit.is_external() {
        return Err(floating::leave(work));
    }
    End::unpack(send::send(work, &exit, label))
}

/// Stage 7: for more than one station.
#[inline(always)]
fn is_group(work: &Work) -> bool {
    let ip = &work.packet.destination;
    let group_ip = if work.packet.family == IPV4 {
        ip[0] & 0xf0 == 0xe0 || (ip[0] & ip[1] & ip[2] & ip[3]) == 0xff
    } else {
        ip[0] == 0xff
    };
    work.packet.destination_mac[0] & 1 != 0 || group_ip
}

#[classifier]
pub fn from_tunnel(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let mut port = 0;
    let end = match tunnel_stages(skb, &mut port) {
        Ok(end) | Err(end) => end,
    };
    finish(skb, port, end)
}

#[inline(always)]
fn tunnel_stages(skb: Skb, port: &mut u32) -> Result<End, End> {
    let mut origin = Origin::default();
    if !send::origin(skb, &mut origin) {
        return Err(End::drop(DropReason::UnknownVni));
    }
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let handle = *unsafe { VNIS.get(&origin.vni) }.ok_or(End::drop(DropReason::UnknownVni))?;
    // SAFETY: as above.
    let network = unsafe { NETWORKS.get(&handle) }.ok_or(End::drop(DropReason::UnknownVni))?;
    let checked = network.flags & NETWORK_UNDERLAY != 0;
    if checked && !is_underlay(handle, origin.family, &origin.host) {
        return Err(End::drop(DropReason::UnknownUnderlay));
    }
    if network.flags & NETWORK_UP == 0 {
        return Err(End::drop(DropReason::PortDown));
    }
    let ethernet: [u8; 14] = skb.bytes(0).ok_or(End::drop(DropReason::Malformed))?;
    if ethernet[0] & 1 != 0 {
        return Err(End::drop(DropReason::NoFlood));
    }
    let destination = part(&ethernet, 0);
    let Some(receiver) = local_mac(handle, &destination) else {
        End::unpack(send::pass_on(skb, &origin, handle, &destination))?;
        return Err(End::drop(DropReason::Internal));
    };
    *port = receiver.port;
    send::receivable(receiver)?;
    if let Some(filter) = filter_of(receiver.port) {
        let filters = Filters::new(skb, be16(&ethernet, 12), false).ok_or(End::drop(DropReason::Internal))?;
        filters.pass(Direction::Ingress, receiver.port, filter, origin.label, false)?;
    }
    Ok(send::hand_over(skb, receiver, false))
}

/// On devices that lead to external networks.
#[classifier]
pub fn from_external(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let (port, end) = floating::arrive(skb);
    finish(skb, port, end)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
