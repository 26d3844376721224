//! Floating IPs of this host: out to their external networks, and in from there. Packets are changed by the kernel's helpers, which know
//! of checksums that a device has yet to make; the decisions are those of gateways.

use alcor_dataplane_abi::{
    DropReason, PuntReason, csum_fold,
    connection::Direction,
    flow::{
        Identity, PROTO_DCCP, PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE, Upper, has_ports, identify,
    },
    icmp::{self, ERROR_LEN, QUOTED_LEN, TIME_EXCEEDED, TOO_LONG},
    layout::*,
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_redir_neigh},
    helpers::{bpf_check_mtu, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh},
};

use crate::{
    ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, GATEWAY_MAC, Work,
    end::End,
    filter::{self, Filters},
    flow::TCP_LEN,
    maps::*,
    send::{DONT_FRAGMENT, fits, hand_over, receivable, set_macs},
    skb::{Skb, be16, part, put},
    trace,
};

const IPV4_LEN: u32 = 20;
const HEADER: u32 = ETH_LEN;
const UPPER: u32 = ETH_LEN + IPV4_LEN;
const ICMP_LEN: u32 = 8;
/// Where a header has its checksum and its addresses.
const CHECKSUM: u32 = 10;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// Where an ICMP message has its checksum, and the packet that it quotes.
const ICMP_CHECKSUM: u32 = UPPER + 2;
const QUOTE: u32 = UPPER + ICMP_LEN;
/// The shortest packet that is an ICMP error with all that is looked at.
const QUOTING_LEN: u32 = IPV4_LEN + ICMP_LEN + IPV4_LEN + ICMP_LEN;
const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;
const ARP_LEN: usize = 28;
/// Ethernet and IPv4, a request.
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
/// To programs behind this one, and the host's own stack (`TCX_NEXT`).
const NEXT: i32 = -1;
const AF_INET: u32 = 2;
/// The label of whoever is outside.
const OUTSIDE: u16 = 0;
const INTERNAL: End = End::drop(DropReason::Internal);
const MALFORMED: End = End::drop(DropReason::Malformed);

/// [`Floating::part`].
const WHOLE: u32 = 0;
const FIRST: u32 = 1;
const LATER: u32 = 2;

/// One packet, and what the stages found out about it. It lies in a map: functions that the verifier looks at once find it there.
pub struct Floating {
    /// It came from a port: nobody outside is to be told of it.
    is_inside: bool,
    ip: [u8; IPV4_LEN as usize],
    total_len: u32,
    part: u32,
    /// Of a later fragment only the protocol.
    upper: Upper,
    is_error: bool,
    /// What an ICMP error quotes.
    quoted_source: [u8; 4],
    quoted_destination: [u8; 4],
    out: FloatingOut,
    into: FloatingIn,
    /// Who gets the packet.
    receiver: LocalMac,
    /// The floating IP that the packet comes in by.
    address: [u8; 4],
    /// Handle of the port that a drop is counted for; 0 for none.
    blamed: u32,
    /// Room for an ICMP error.
    error: [u8; ERROR_LEN],
}

/// The work of this CPU.
#[inline(always)]
fn floating() -> Option<&'static mut Floating> {
    // SAFETY: the entry is this CPU's own; no other packet is in these programs on it until this one has left, and each global
    // function takes it once.
    FLOATING.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// The end of a packet of a port, behind stage 11.
#[inline(always)]
pub fn leave(work: &mut Work) -> End {
    let key = IpKey {
        scope: work.port.network,
        family: IPV4,
        ip: work.packet.source,
    };
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    let (Some(floating), Some(out)) = (floating(), unsafe { FLOATING_OUT.get(&key) }) else {
        return INTERNAL;
    };
    floating.is_inside = true;
    floating.out = *out;
    floating.blamed = work.port.port;
    let (blamed, end) = ended(work.skb, alcor_float_out(work.skb.0));
    work.blamed = blamed;
    end
}

/// A frame of a device that leads to an external network: the port that a drop is counted for, and its end.
#[inline(always)]
pub fn arrive(skb: Skb) -> (u32, End) {
    ended(skb, alcor_float_arrive(skb.0))
}

/// On *in*, if the packet goes on: its end, and the port that a drop is counted for.
#[inline(always)]
fn ended(skb: Skb, packed: u64) -> (u32, End) {
    let end = End::unpack(packed).and_then(|()| End::unpack(alcor_float_in(skb.0)));
    // Taken after the functions that change it.
    let Some(work) = floating() else {
        return (0, INTERNAL);
    };
    let end = match end.and_then(|()| deliver(skb, work)) {
        Ok(end) | Err(end) => end,
    };
    (work.blamed, end)
}

const PASS: End = End::act(verdict::PASS, NEXT);

#[inline(always)]
fn arrived(skb: Skb, work: &mut Floating) -> Result<(), End> {
    if skb.has_vlan_tag() {
        return Err(PASS);
    }
    let ethernet: [u8; 14] = skb.bytes(0).ok_or(PASS)?;
    match be16(&ethernet, 12) {
        ETHERTYPE_ARP => return Err(answer(skb, &ethernet)),
        ETHERTYPE_IPV4 => {}
        _ => return Err(PASS),
    }
    let address: [u8; 4] = skb.bytes(HEADER + DESTINATION).ok_or(PASS)?;
    let key = FloatingKey {
        ifindex: skb.ifindex(),
        address,
    };
    // SAFETY: as in `leave`.
    let into = unsafe { FLOATING_IN.get(&key) }.ok_or(PASS)?;
    if part::<6>(&ethernet, 0) != into.mac {
        return Err(PASS);
    }
    let ip: [u8; IPV4_LEN as usize] = skb.bytes(HEADER).ok_or(MALFORMED)?;
    let mut sum = 0;
    let mut at = 0;
    while at < ip.len() {
        sum += be16(&ip, at) as u32;
        at += 2;
    }
    let total_len = be16(&ip, 2) as u32;
    if ip[0] != 0x45 || csum_fold(sum) != 0 || total_len < IPV4_LEN || HEADER + total_len > skb.len() {
        return Err(MALFORMED);
    }
    work.address = address;
    work.into = *into;
    Ok(())
}

/// ARP.
#[inline(always)]
fn answer(skb: Skb, ethernet: &[u8; 14]) -> End {
    let Some(request) = skb.bytes::<ARP_LEN>(ETH_LEN) else {
        return PASS;
    };
    if part::<8>(&request, 0) != ARP_REQUEST {
        return PASS;
    }
    let key = FloatingKey {
        ifindex: skb.ifindex(),
        address: part(&request, 24),
    };
    // SAFETY: as in `leave`.
    let Some(into) = (unsafe { FLOATING_IN.get(&key) }) else {
        return PASS;
    };
    // Operation, sender's MAC and address, target's MAC and address.
    let mut message = [0u8; 22];
    put(&mut message, 0, &[0, 2]);
    put(&mut message, 2, &into.mac);
    put(&mut message, 8, &key.address);
    put(&mut message, 12, &part::<10>(&request, 8));
    let done = set_macs(skb, &part(ethernet, 6), &into.mac).and_then(|()| skb.store(ETH_LEN + 6, &message, 0));
    if done.is_none() {
        return INTERNAL;
    }
    send_back(key.ifindex)
}

/// A reply, out of the device that its question came from.
#[inline(always)]
fn send_back(ifindex: u32) -> End {
    // SAFETY: the helper only notes where the packet shall go.
    End::act(verdict::REPLY, unsafe { bpf_redirect(ifindex, 0) as i32 })
}

// The functions below are global: the verifier looks at each of them once, whatever the paths that lead there.

/// A frame of a device that leads to an external network; packed. 0: it is for a floating IP of this host, and goes on *in*.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_float_arrive(skb: *mut __sk_buff) -> u64 {
    match floating() {
        Some(work) => {
            work.is_inside = false;
            work.blamed = 0;
            End::pack(arrived(Skb(skb), work))
        }
        None => End::pack(Err(INTERNAL)),
    }
}

/// The floating IP becomes the source, and the packet leaves; packed. 0: it is for a floating IP of this host, and goes on *in*.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_float_out(skb: *mut __sk_buff) -> u64 {
    match floating() {
        Some(work) => End::pack(float_out(Skb(skb), work)),
        None => End::pack(Err(INTERNAL)),
    }
}

/// The fixed IP becomes the destination; packed.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_float_in(skb: *mut __sk_buff) -> u64 {
    match floating() {
        Some(work) => End::pack(float_in(Skb(skb), work)),
        None => End::pack(Err(INTERNAL)),
    }
}

/// Makes the frame an ICMP error about the packet in it, back to its sender, if it may be answered with one; else it is dropped for the reason
/// with this number. Packed, and never lets the packet go on.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_float_tell(skb: *mut __sk_buff, kind: u32, mtu: u32, reason: u32) -> u64 {
    match floating() {
        Some(work) => End::pack(Err(told(Skb(skb), work, (kind as u16, mtu as u16), reason))),
        None => End::pack(Err(INTERNAL)),
    }
}

/// The fixed IP's port gets the packet, if its filter lets it. In the programs themselves: the filter needs the rest of the stack.
#[inline(always)]
fn deliver(skb: Skb, work: &Floating) -> Result<End, End> {
    if let Some(filter) = filter_of(work.receiver.port) {
        let filters = Filters::new(skb, ETHERTYPE_IPV4, false).ok_or(INTERNAL)?;
        filters.pass(Direction::Ingress, work.receiver.port, filter, OUTSIDE, false)?;
    }
    Ok(hand_over(skb, &work.receiver, false))
}

#[inline(always)]
fn float_out(skb: Skb, work: &mut Floating) -> Result<(), End> {
    read(skb, work)?;
    let fixed = part::<4>(&work.ip, SOURCE as usize);
    if work.is_error && (!read_quote(skb, work) || work.quoted_destination != fixed) {
        return Err(End::drop(DropReason::NoTranslation));
    }
    let destination = part::<4>(&work.ip, DESTINATION as usize);
    let key = FloatingKey {
        ifindex: work.out.ifindex,
        address: destination,
    };
    // SAFETY: as in `leave`.
    if let Some(into) = unsafe { FLOATING_IN.get(&key) } {
        work.address = destination;
        work.into = *into;
        return translate_out(skb, work, &fixed).ok_or(INTERNAL);
    }
    let out = &work.out;
    let is_near = out.flags & FLOATING_NEAR != 0
        && u32::from_ne_bytes(destination) & u32::from_ne_bytes(out.mask) == u32::from_ne_bytes(out.block);
    let nexthop = if is_near { destination } else { out.nexthop };
    if !is_near && nexthop == [0; 4] {
        return Err(End::drop(DropReason::NoRoute));
    }
    let ifindex = out.ifindex;
    let mtu = mtu_of(skb, ifindex).ok_or(INTERNAL)?;
    if !fits(skb, UPPER, work.upper.protocol, mtu) {
        return Err(if work.ip[6] & DONT_FRAGMENT == 0 {
            End::drop(DropReason::Oversize)
        } else {
            too_big(mtu)
        });
    }
    translate_out(skb, work, &fixed).ok_or(INTERNAL)?;
    Err(send_out(skb, ifindex, nexthop))
}

/// For the agent, which tells the sender what is taken.
#[inline(always)]
fn too_big(mtu: u32) -> End {
    if let Some(packet) = PACKETS.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's own; no other packet is in these programs on it until this one has left.
        unsafe { (*packet).mtu = mtu };
    }
    End::punt(PuntReason::TooBig)
}

/// The floating IP becomes the source.
#[inline(always)]
fn translate_out(skb: Skb, work: &Floating, fixed: &[u8; 4]) -> Option<()> {
    if work.is_error {
        set_quoted::<DESTINATION>(skb, fixed, &work.out.address)?;
    }
    age(skb, work)?;
    set_address::<SOURCE>(skb, work, fixed, &work.out.address)
}

/// The MTU of a device.
#[inline(always)]
fn mtu_of(skb: Skb, ifindex: u32) -> Option<u32> {
    let mut mtu = 0;
    // SAFETY: the helper writes one word. Whether this packet fits, which it says too, it does not know of packets put together of segments.
    let rc = unsafe { bpf_check_mtu(skb.0.cast(), ifindex, &raw mut mtu, 0, 0) };
    (rc >= 0).then_some(mtu)
}

/// Out of a device; the kernel makes the Ethernet header.
#[inline(always)]
fn send_out(skb: Skb, ifindex: u32, nexthop: [u8; 4]) -> End {
    if trace() {
        // SAFETY: the context pointer is valid while the program runs; cb is the program's to write.
        unsafe {
            (*skb.0).cb[1] = ifindex;
            (*skb.0).cb[2] = u32::from_ne_bytes(nexthop);
        }
    }
    // SAFETY: all zeroes is a valid value; it has no references.
    let mut to: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    to.nh_family = AF_INET;
    to.__bindgen_anon_1.ipv4_nh = u32::from_ne_bytes(nexthop);
    // SAFETY: the helper reads as many bytes as the value has, and only notes where the packet shall go.
    let action = unsafe { bpf_redirect_neigh(ifindex, &raw mut to, size_of::<bpf_redir_neigh>() as i32, 0) };
    End::act(verdict::EXTERNAL, action as i32)
}

#[inline(always)]
fn float_in(skb: Skb, work: &mut Floating) -> Result<(), End> {
    read(skb, work)?;
    if work.ip[8] <= 1 {
        return tell(skb, TIME_EXCEEDED, 0, DropReason::Loop);
    }
    if work.is_error && (!read_quote(skb, work) || work.quoted_source != work.address) {
        return Err(End::drop(DropReason::NoTranslation));
    }
    let scope = work.into.network;
    // SAFETY: as in `leave`.
    let network = unsafe { NETWORKS.get(&scope) }.ok_or(INTERNAL)?;
    if network.flags & NETWORK_UP == 0 {
        return Err(End::drop(DropReason::PortDown));
    }
    if !fits(skb, UPPER, work.upper.protocol, network.mtu) {
        return if work.ip[6] & DONT_FRAGMENT == 0 {
            Err(End::drop(DropReason::Oversize))
        } else {
            tell(skb, TOO_LONG, network.mtu, DropReason::Oversize)
        };
    }
    let key = IpKey {
        scope,
        family: IPV4,
        ip: wide(&work.into.fixed_ip),
    };
    // SAFETY: as in `leave`.
    let local = unsafe { LOCAL_IPS.get(&key) }.ok_or(End::drop(DropReason::UnknownDestination))?;
    let receiver = local_mac(scope, &local.mac).ok_or(INTERNAL)?;
    work.blamed = receiver.port;
    receivable(receiver)?;
    work.receiver = *receiver;
    let (address, fixed) = (work.address, work.into.fixed_ip);
    if work.is_error {
        set_quoted::<SOURCE>(skb, &address, &fixed).ok_or(INTERNAL)?;
    }
    set_address::<DESTINATION>(skb, work, &address, &fixed).ok_or(INTERNAL)?;
    age(skb, work).ok_or(INTERNAL)?;
    set_macs(skb, &local.mac, &GATEWAY_MAC).ok_or(INTERNAL)
}

#[inline(always)]
fn tell(skb: Skb, kind: u16, mtu: u32, reason: DropReason) -> Result<(), End> {
    End::unpack(alcor_float_tell(skb.0, kind as u32, mtu, reason as u32))
}

#[inline(always)]
fn told(skb: Skb, work: &mut Floating, (kind, mtu): (u16, u16), reason: u32) -> End {
    let dropped = End::drop_code(reason);
    let source = part(&work.ip, SOURCE as usize);
    let is_answered = !work.is_inside
        && work.part != LATER
        && work.total_len as usize >= QUOTED_LEN
        && icmp::may_be_told(&work.upper, source);
    let quoted = skb.load::<QUOTED_LEN>(HEADER, &mut work.error[icmp::QUOTE..]);
    let (true, Some(()), Some(sender)) = (is_answered, quoted, skb.bytes(6)) else {
        return dropped;
    };
    if !admit(skb) {
        return End::drop(DropReason::IcmpLimit);
    }
    if skb.renew(HEADER + ERROR_LEN as u32).is_none() {
        return INTERNAL;
    }
    icmp::write(&mut work.error, work.address, source, kind, mtu);
    let done = set_macs(skb, &sender, &work.into.mac).and_then(|()| skb.store(HEADER, &work.error, 0));
    match done {
        Some(()) => send_back(skb.ifindex()),
        None => INTERNAL,
    }
}

/// Takes one of the ICMP errors that may be sent now. Two CPUs may take the same one: the limit is for protection, not for accounting.
#[inline(always)]
fn admit(skb: Skb) -> bool {
    let Some(meter) = ICMP.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the pointer is to a map entry that lives as long as the map.
    let after = unsafe { *meter }.admit(filter::now(skb));
    if let Some(after) = after {
        // SAFETY: as above.
        unsafe { *meter = after };
    }
    after.is_some()
}

#[inline(always)]
const fn wide(ip: &[u8; 4]) -> [u8; 16] {
    [ip[0], ip[1], ip[2], ip[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Reads the packet, whose lengths were compared with the bytes present.
#[inline(always)]
fn read(skb: Skb, work: &mut Floating) -> Result<(), End> {
    work.ip = skb.bytes(HEADER).ok_or(MALFORMED)?;
    let (total_len, fragment, protocol) = (be16(&work.ip, 2) as u32, be16(&work.ip, 6), work.ip[9]);
    work.total_len = total_len;
    work.is_error = false;
    work.upper = Upper::beginning(protocol, &[0; 8]);
    if work.ip[0] != 0x45 || total_len < IPV4_LEN {
        return Err(MALFORMED);
    }
    work.part = if fragment & FRAGMENT == 0 {
        WHOLE
    } else if fragment & FRAGMENT_OFFSET == 0 {
        FIRST
    } else {
        LATER
    };
    if work.part == LATER || !(protocol == PROTO_ICMP || has_ports(protocol)) {
        return Ok(());
    }
    let least = if protocol == PROTO_TCP { TCP_LEN } else { ICMP_LEN };
    if IPV4_LEN + least > total_len {
        return Err(MALFORMED);
    }
    let bytes: [u8; 8] = skb.bytes(UPPER).ok_or(MALFORMED)?;
    work.upper = Upper::beginning(protocol, &bytes);
    work.is_error = matches!(identify(&work.upper, Direction::Egress), Identity::Error);
    Ok(())
}

/// Reads what an ICMP error quotes; false when it cannot be read.
#[inline(always)]
fn read_quote(skb: Skb, work: &mut Floating) -> bool {
    if work.part != WHOLE || work.total_len < QUOTING_LEN {
        return false;
    }
    let Some(ip) = skb.bytes::<{ IPV4_LEN as usize }>(QUOTE) else {
        return false;
    };
    if ip[0] != 0x45 || be16(&ip, 6) & FRAGMENT_OFFSET != 0 {
        return false;
    }
    work.quoted_source = part(&ip, SOURCE as usize);
    work.quoted_destination = part(&ip, DESTINATION as usize);
    true
}

/// Changes the checksum of the header that begins at `header`.
#[inline(always)]
fn sum_header(skb: Skb, header: u32, old: u64, new: u64, size: u64) -> Option<()> {
    // SAFETY: the context pointer is valid while the program runs.
    (unsafe { bpf_l3_csum_replace(skb.0, header + CHECKSUM, old, new, size) } == 0).then_some(())
}

/// Changes the upper layer's checksum at `at`.
#[inline(always)]
fn sum_upper(skb: Skb, at: u32, old: u64, new: u64, flags: u64) -> Option<()> {
    // SAFETY: as in `sum_header`.
    (unsafe { bpf_l4_csum_replace(skb.0, at, old, new, flags) } == 0).then_some(())
}

#[inline(always)]
const fn number(address: &[u8; 4]) -> u64 {
    u32::from_ne_bytes(*address) as u64
}

/// One hop more.
#[inline(always)]
fn age(skb: Skb, work: &Floating) -> Option<()> {
    let (old, new) = ([work.ip[8], work.ip[9]], [work.ip[8].wrapping_sub(1), work.ip[9]]);
    let word = |bytes| u16::from_ne_bytes(bytes) as u64;
    sum_header(skb, HEADER, word(old), word(new), 2)?;
    skb.store(HEADER + 8, &new, 0)
}

/// Changes the address at `AT` in the header, and the checksums that cover it.
#[inline(always)]
fn set_address<const AT: u32>(skb: Skb, work: &Floating, old: &[u8; 4], new: &[u8; 4]) -> Option<()> {
    let pseudo = BPF_F_PSEUDO_HDR as u64;
    let covered = match work.upper.protocol {
        _ if work.part == LATER => None,
        PROTO_TCP => Some((UPPER + 16, pseudo)),
        PROTO_UDP => Some((UPPER + 6, pseudo | BPF_F_MARK_MANGLED_0 as u64)),
        PROTO_UDPLITE | PROTO_DCCP => Some((UPPER + 6, pseudo)),
        _ => None,
    };
    if let Some((at, flags)) = covered {
        sum_upper(skb, at, number(old), number(new), flags | 4)?;
    }
    sum_header(skb, HEADER, number(old), number(new), 4)?;
    skb.store(HEADER + AT, new, 0)
}

/// Changes the address at `AT` in the header that an ICMP error quotes.
#[inline(always)]
fn set_quoted<const AT: u32>(skb: Skb, old: &[u8; 4], new: &[u8; 4]) -> Option<()> {
    let before: [u8; 2] = skb.bytes(QUOTE + CHECKSUM)?;
    sum_header(skb, QUOTE, number(old), number(new), 4)?;
    let after: [u8; 2] = skb.bytes(QUOTE + CHECKSUM)?;
    skb.store(QUOTE + AT, new, 0)?;
    let word = |bytes| u16::from_ne_bytes(bytes) as u64;
    sum_upper(skb, ICMP_CHECKSUM, number(old), number(new), 4)?;
    sum_upper(skb, ICMP_CHECKSUM, word(before), word(after), 2)
}
