//! The maps, and lookups in them that more than one stage makes.

use alcor_dataplane_abi::layout::*;
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{
        Array, HashMap, PerCpuArray, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
};

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
    HashMap::with_max_entries(MAX_SUBNETS + MAX_NETWORKS, BPF_F_NO_PREALLOC);
/// Subnets that have a gateway.
#[map(name = "routed")]
pub static ROUTED: LpmTrie<IpKey, u32> = LpmTrie::with_max_entries(MAX_SUBNETS, BPF_F_NO_PREALLOC);
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
pub static KEPT: HashMap<KeptKey, KeptValue> = HashMap::with_max_entries(MAX_ROWS, BPF_F_NO_PREALLOC);
/// Drops by port handle; 0 is no port.
#[map(name = "drops")]
pub static DROPS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(MAX_PORTS + 1, 0);
/// Two meters a port: packets handed up, unknown destinations.
#[map(name = "meters")]
pub static METERS: Array<Meter> = Array::with_max_entries(2 * (MAX_PORTS + 1), 0);
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
pub fn local_mac(network: u32, mac: &[u8; 6]) -> Option<&'static LocalMac> {
    let key = MacKey {
        scope: network,
        mac: *mac,
        pad: [0; 2],
    };
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    unsafe { LOCAL_MACS.get(&key) }
}

#[inline(always)]
pub fn remote_mac(network: u32, mac: &[u8; 6]) -> Option<&'static RemoteMac> {
    let key = MacKey {
        scope: network,
        mac: *mac,
        pad: [0; 2],
    };
    // SAFETY: as in `local_mac`.
    unsafe { REMOTE_MACS.get(&key) }
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
    PAIR_MACS
        .get_ptr(&MacKey {
            scope: port,
            mac: *mac,
            pad: [0; 2],
        })
        .is_some()
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
pub fn is_routed(network: u32, family: u32, ip: &[u8; 16]) -> bool {
    let key = IpKey {
        scope: network,
        family,
        ip: *ip,
    };
    ROUTED
        .get(&Key::new(IP_SCOPE_BITS + address_bits(family), key))
        .is_some()
}
