//! The maps, and lookups in them that more than one stage makes.

use alcor_dataplane_abi::{connection::Connection, gateway_layout::IcmpMeter, layout::*};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{ArrayOfMaps, LruHashMap},
    macros::{btf_map, map},
    maps::{
        Array, HashMap, PerCpuArray, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
};

use crate::{Packet, filter::Scratch, floating::Floating};

/// Ports by interface index.
#[map(name = "ports")]
pub static PORTS: HashMap<u32, PortValue> = HashMap::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);
/// Network handles by VNI.
#[map(name = "vnis")]
pub static VNIS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_NETWORKS, BPF_F_NO_PREALLOC);
/// Networks by handle.
#[map(name = "networks")]
pub static NETWORKS: HashMap<u32, NetworkValue> = HashMap::with_max_entries(MAX_NETWORKS, BPF_F_NO_PREALLOC);
/// Local ports by (network, MAC).
#[map(name = "local_macs")]
pub static LOCAL_MACS: HashMap<MacKey, LocalMac> = HashMap::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);
/// Local ports' MACs by (network, fixed IP).
#[map(name = "local_ips")]
pub static LOCAL_IPS: HashMap<IpKey, LocalIp> = HashMap::with_max_entries(MAX_FIXED_IPS, BPF_F_NO_PREALLOC);
/// Fixed IPs by (port, address).
#[map(name = "fixed_ips")]
pub static FIXED_IPS: HashMap<IpKey, u32> = HashMap::with_max_entries(MAX_FIXED_IPS, BPF_F_NO_PREALLOC);
/// Allowed address pairs.
#[map(name = "pairs")]
pub static PAIRS: LpmTrie<PairKey, u32> = LpmTrie::with_max_entries(MAX_PAIRS, BPF_F_NO_PREALLOC);
/// MACs of allowed address pairs by (port, MAC).
#[map(name = "pair_macs")]
pub static PAIR_MACS: HashMap<MacKey, u32> = HashMap::with_max_entries(MAX_PAIRS, BPF_F_NO_PREALLOC);
/// Gateway addresses by (network, address).
#[map(name = "gateways")]
pub static GATEWAYS: HashMap<IpKey, u32> =
    HashMap::with_max_entries(MAX_ROUTES + MAX_NETWORKS, BPF_F_NO_PREALLOC);
/// Subnets that have a gateway, and what routers lead to.
#[map(name = "routed")]
pub static ROUTED: LpmTrie<IpKey, RouteValue> = LpmTrie::with_max_entries(MAX_ROUTES, BPF_F_NO_PREALLOC);
/// Ways out by (network, source).
#[map(name = "ways_out")]
pub static WAYS_OUT: LpmTrie<IpKey, WayOut> = LpmTrie::with_max_entries(MAX_ROUTES, BPF_F_NO_PREALLOC);
/// How packets leave from floating IPs, by (network, fixed IP).
#[map(name = "floating_out")]
pub static FLOATING_OUT: HashMap<IpKey, FloatingOut> =
    HashMap::with_max_entries(MAX_FLOATING_IPS, BPF_F_NO_PREALLOC);
/// Where floating IPs lead, by device and address.
#[map(name = "floating_in")]
pub static FLOATING_IN: HashMap<FloatingKey, FloatingIn> =
    HashMap::with_max_entries(MAX_FLOATING_IPS, BPF_F_NO_PREALLOC);
/// Where packets of floating IPs are worked on.
#[map(name = "floating")]
pub static FLOATING: PerCpuArray<Floating> = PerCpuArray::with_max_entries(1, 0);
/// How many ICMP errors were sent to the outside lately.
#[map(name = "icmp")]
pub static ICMP: Array<IcmpMeter> = Array::with_max_entries(1, 0);
/// Subnets, with a gateway or without.
#[map(name = "subnets")]
pub static SUBNETS: LpmTrie<IpKey, u32> = LpmTrie::with_max_entries(MAX_SUBNETS, BPF_F_NO_PREALLOC);
/// Sets of gateways by number.
#[map(name = "gateway_sets")]
pub static GATEWAY_SETS: HashMap<u32, GatewaySet> =
    HashMap::with_max_entries(MAX_GATEWAY_SETS, BPF_F_NO_PREALLOC);
/// Labels in terms of other networks.
#[map(name = "translations")]
pub static TRANSLATIONS: HashMap<TranslationKey, u32> =
    HashMap::with_max_entries(MAX_TRANSLATIONS, BPF_F_NO_PREALLOC);
/// Neighbours by (network, address).
#[map(name = "neighbours")]
pub static NEIGHBOURS: HashMap<IpKey, NeighbourValue> =
    HashMap::with_max_entries(MAX_NEIGHBOURS, BPF_F_NO_PREALLOC);
/// Neighbours' hosts by (network, MAC).
#[map(name = "remote_macs")]
pub static REMOTE_MACS: HashMap<MacKey, RemoteMac> =
    HashMap::with_max_entries(MAX_NEIGHBOURS, BPF_F_NO_PREALLOC);
/// Rows for an agent that starts again. The programs never look here.
#[map(name = "kept")]
pub static KEPT: HashMap<KeptKey, KeptValue> = HashMap::with_max_entries(MAX_ROW_PARTS, BPF_F_NO_PREALLOC);
/// Blocks of tunnel addresses by network.
#[map(name = "underlay")]
pub static UNDERLAY: LpmTrie<IpKey, u32> = LpmTrie::with_max_entries(MAX_UNDERLAY, BPF_F_NO_PREALLOC);
/// How ports are filtered, by handle. One write puts a whole set of rules into force.
#[map(name = "filters")]
pub static FILTERS: HashMap<u32, FilterValue> = HashMap::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);
/// Classes of what packets carry.
#[map(name = "services")]
pub static SERVICES: LpmTrie<ServiceKey, u32> = LpmTrie::with_max_entries(MAX_SERVICES, BPF_F_NO_PREALLOC);
/// Rows of bits by address.
#[map(name = "prefixes")]
pub static PREFIXES: LpmTrie<PrefixKey, u32> = LpmTrie::with_max_entries(MAX_PREFIXES, BPF_F_NO_PREALLOC);
/// Rows of bits by label.
#[map(name = "labels")]
pub static LABELS: HashMap<LabelKey, u32> = HashMap::with_max_entries(MAX_LABELS, BPF_F_NO_PREALLOC);
/// Words of rows of bits.
#[map(name = "bits")]
pub static BITS: HashMap<BitsKey, u64> = HashMap::with_max_entries(MAX_BITS, BPF_F_NO_PREALLOC);

/// The last number given to a set of rules. The programs never look here.
#[map(name = "epochs")]
pub static EPOCHS: Array<u32> = Array::with_max_entries(1, 0);

/// What a port's filter remembers. Full, it forgets what was not used for long.
pub type Memory<const ENTRIES: usize> = LruHashMap<ConnectionKey, Connection, ENTRIES>;
pub type Pending = Memory<{ PENDING_PER_PORT as usize }>;
pub type Answered = Memory<{ ANSWERED_PER_PORT as usize }>;
/// Connections that may be forgotten early, and first fragments, by port handle.
#[btf_map(name = "pending")]
pub static PENDING: ArrayOfMaps<Pending, { MAX_PORTS as usize + 1 }> = ArrayOfMaps::new();
/// Connections that were answered and are not over, by port handle.
#[btf_map(name = "answered")]
pub static ANSWERED: ArrayOfMaps<Answered, { MAX_PORTS as usize + 1 }> = ArrayOfMaps::new();
/// Where the stages work.
#[map(name = "packets")]
pub static PACKETS: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);
/// Where a filter works: the stack is too small.
#[map(name = "scratch")]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
/// Drops by port handle; 0 is no port.
#[map(name = "drops")]
pub static DROPS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(MAX_PORTS + 1, 0);
/// Two meters a port: packets handed up, unresolved addresses.
#[map(name = "meters")]
pub static METERS: Array<Meter> = Array::with_max_entries(2 * (MAX_PORTS + 1), 0);
/// The time of use: a number that the agent counts up when it asks which rows were used.
#[map(name = "use_time")]
pub static USE_TIME: Array<u32> = Array::with_max_entries(1, 0);
/// Where an event is made.
#[map(name = "punts")]
pub static PUNTS: PerCpuArray<PuntEvent> = PerCpuArray::with_max_entries(1, 0);
/// Events for the agent.
#[map(name = "events")]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_RING_BYTES, 0);

/// Bits of [`PairKey`] before the address.
const PAIR_SCOPE_BITS: u32 = 96;
/// Bits of [`IpKey`] before the address.
const IP_SCOPE_BITS: u32 = 64;

#[inline(always)]
fn address_bits(family: u32) -> u32 {
    if family == IPV4 { 32 } else { 128 }
}

#[inline(always)]
const fn mac_key(scope: u32, mac: &[u8; 6]) -> MacKey {
    MacKey {
        scope,
        mac: *mac,
        pad: [0; 2],
    }
}

#[inline(always)]
pub fn local_mac(network: u32, mac: &[u8; 6]) -> Option<&'static LocalMac> {
    let key = mac_key(network, mac);
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    unsafe { LOCAL_MACS.get(&key) }
}

#[inline(always)]
pub fn remote_mac(network: u32, mac: &[u8; 6]) -> Option<&'static RemoteMac> {
    let key = mac_key(network, mac);
    // SAFETY: as in `local_mac`.
    unsafe { REMOTE_MACS.get(&key) }
}

/// Notes that a neighbour is used now. Written once each time of use: most packets only read.
#[inline(always)]
fn note_use(used: *const u32) {
    let Some(now) = USE_TIME.get(0) else { return };
    // SAFETY: it lies in an entry of a map; writing it, programs and whoever replaces the entry may only lose a note.
    unsafe {
        if *used != *now {
            *used.cast_mut() = *now;
        }
    }
}

/// The neighbour with this address; it is used.
#[inline(always)]
pub fn use_neighbour(key: &IpKey) -> Option<&'static NeighbourValue> {
    let value = NEIGHBOURS.get_ptr_mut(key)?;
    // SAFETY: as in `local_mac`.
    unsafe {
        note_use(&raw const (*value).used);
        Some(&*value)
    }
}

/// As [`remote_mac`]; all neighbours with this MAC are used.
#[inline(always)]
pub fn use_remote_mac(network: u32, mac: &[u8; 6]) -> Option<&'static RemoteMac> {
    let key = mac_key(network, mac);
    let value = REMOTE_MACS.get_ptr_mut(&key)?;
    // SAFETY: as in `local_mac`.
    unsafe {
        note_use(&raw const (*value).used);
        Some(&*value)
    }
}

#[inline(always)]
pub fn is_gateway(network: u32, family: u32, ip: &[u8; 16]) -> bool {
    GATEWAYS
        .get_ptr(&IpKey {
            scope: network,
            family,
            ip: *ip,
        })
        .is_some()
}

#[inline(always)]
pub fn has_fixed_ip(port: u32, family: u32, ip: &[u8; 16]) -> bool {
    FIXED_IPS
        .get_ptr(&IpKey {
            scope: port,
            family,
            ip: *ip,
        })
        .is_some()
}

#[inline(always)]
pub fn has_pair_mac(port: u32, mac: &[u8; 6]) -> bool {
    PAIR_MACS.get_ptr(&mac_key(port, mac)).is_some()
}

#[inline(always)]
pub fn has_pair(port: u32, mac: &[u8; 6], family: u32, ip: &[u8; 16]) -> bool {
    let key = PairKey {
        port,
        mac: *mac,
        family: family as u16,
        ip: *ip,
    };
    PAIRS
        .get(&Key::new(PAIR_SCOPE_BITS + address_bits(family), key))
        .is_some()
}

#[inline(always)]
pub fn route_to(network: u32, family: u32, ip: &[u8; 16]) -> Option<&'static RouteValue> {
    let key = IpKey {
        scope: network,
        family,
        ip: *ip,
    };
    ROUTED.get(&Key::new(IP_SCOPE_BITS + address_bits(family), key))
}

/// How packets of this source go out of the network.
#[inline(always)]
pub fn way_out(network: u32, family: u32, source: &[u8; 16]) -> Option<&'static WayOut> {
    let key = IpKey {
        scope: network,
        family,
        ip: *source,
    };
    WAYS_OUT.get(&Key::new(IP_SCOPE_BITS + address_bits(family), key))
}

/// True for an address of one of the network's subnets.
#[inline(always)]
pub fn has_subnet_of(network: u32, family: u32, ip: &[u8; 16]) -> bool {
    let key = IpKey {
        scope: network,
        family,
        ip: *ip,
    };
    SUBNETS
        .get(&Key::new(IP_SCOPE_BITS + address_bits(family), key))
        .is_some()
}

/// A label in terms of another network; 0 when nothing there means the same. `back`: from `peer` to `own`.
#[inline(always)]
pub fn translate(own: u32, peer: u32, label: u16, back: u16) -> u16 {
    let key = TranslationKey {
        own,
        peer,
        label,
        back,
    };
    // SAFETY: as in `local_mac`.
    unsafe { TRANSLATIONS.get(&key) }.map_or(0, |label| *label as u16)
}

/// True when the network believes packets out of the tunnel from this address.
#[inline(always)]
pub fn is_underlay(network: u32, family: u32, ip: &[u8; 16]) -> bool {
    let key = IpKey {
        scope: network,
        family,
        ip: *ip,
    };
    UNDERLAY
        .get(&Key::new(IP_SCOPE_BITS + address_bits(family), key))
        .is_some()
}

/// How the port is filtered, if it is.
#[inline(always)]
pub fn filter_of(port: u32) -> Option<&'static FilterValue> {
    // SAFETY: as in `local_mac`.
    unsafe { FILTERS.get(&port) }
}
