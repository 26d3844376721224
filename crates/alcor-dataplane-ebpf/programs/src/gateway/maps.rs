//! The gateway's maps.

use alcor_dataplane_abi::{gateway_layout::*, layout::*};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, lpm_trie::LpmTrie},
};

use crate::packet::Work;

/// Devices by interface index.
#[map(name = "gw_devices")]
pub static DEVICES: HashMap<u32, DeviceValue> =
    HashMap::with_max_entries(MAX_GATEWAY_DEVICES, BPF_F_NO_PREALLOC);
/// Networks by VNI.
#[map(name = "gw_vnis")]
pub static VNIS: HashMap<u32, VniValue> = HashMap::with_max_entries(MAX_GATEWAY_NETWORKS, BPF_F_NO_PREALLOC);
/// Blocks of tunnel addresses by network.
#[map(name = "gw_underlay")]
pub static UNDERLAY: LpmTrie<Ipv4Key, u32> =
    LpmTrie::with_max_entries(MAX_GATEWAY_UNDERLAY, BPF_F_NO_PREALLOC);
/// Neighbours by (network, IPv4 address).
#[map(name = "gw_peers4")]
pub static PEERS_V4: HashMap<Ipv4Key, PeerValue> =
    HashMap::with_max_entries(MAX_GATEWAY_NEIGHBOURS, BPF_F_NO_PREALLOC);
/// Neighbours by (network, IPv6 address).
#[map(name = "gw_peers6")]
pub static PEERS_V6: HashMap<Ipv6Key, PeerValue> =
    HashMap::with_max_entries(MAX_GATEWAY_NEIGHBOURS, BPF_F_NO_PREALLOC);
/// Routers by number.
#[map(name = "gw_routers")]
pub static ROUTERS: Array<RouterValue> = Array::with_max_entries(MAX_GATEWAY_ROUTERS + 1, 0);
/// External addresses.
#[map(name = "gw_externals")]
pub static EXTERNALS: HashMap<[u8; 4], ExternalValue> =
    HashMap::with_max_entries(MAX_EXTERNAL_ADDRESSES, BPF_F_NO_PREALLOC);
/// Floating IPs by (network, fixed IP).
#[map(name = "gw_floating")]
pub static FLOATING: HashMap<Ipv4Key, FloatingValue> =
    HashMap::with_max_entries(MAX_EXTERNAL_ADDRESSES, BPF_F_NO_PREALLOC);
/// Routers by block of a network behind them.
#[map(name = "gw_blocks")]
pub static BLOCKS: LpmTrie<Ipv4Key, BlockValue> = LpmTrie::with_max_entries(MAX_NAT_BLOCKS, BPF_F_NO_PREALLOC);
/// Translated connections by their inside.
#[map(name = "gw_nat")]
pub static NAT: HashMap<NatKey, NatValue> = HashMap::with_max_entries(MAX_NAT_CONNECTIONS, BPF_F_NO_PREALLOC);
/// Whose an outside port is, by the connection's outside.
#[map(name = "gw_nat_back")]
pub static NAT_BACK: HashMap<NatKey, NatBack> =
    HashMap::with_max_entries(MAX_NAT_CONNECTIONS, BPF_F_NO_PREALLOC);
/// Connections that were begun, less those that were replaced, by number of the router, and of `NAT_ALL`; counted here only.
#[map(name = "gw_nat_begun")]
pub static NAT_BEGUN: Array<u64> = Array::with_max_entries(MAX_GATEWAY_ROUTERS + 1, 0);
/// Connections that were forgotten, likewise; counted by the loader only.
#[map(name = "gw_nat_gone")]
pub static NAT_GONE: Array<u64> = Array::with_max_entries(MAX_GATEWAY_ROUTERS + 1, 0);
/// Connections that were refused for want of room or ports, likewise.
#[map(name = "gw_nat_refused")]
pub static NAT_REFUSED: Array<u64> = Array::with_max_entries(MAX_GATEWAY_ROUTERS + 1, 0);
/// Packets behind source NAT whose later fragments are waited for.
#[map(name = "gw_fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> =
    LruHashMap::with_max_entries(MAX_NAT_FRAGMENTS, 0);
/// How many ICMP errors were sent lately.
#[map(name = "gw_icmp")]
pub static ICMP: Array<IcmpMeter> = Array::with_max_entries(1, 0);
/// Where translation works: the stack is too small.
#[map(name = "gw_work")]
pub static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
/// Of traced frames the clock, in nanoseconds, and the most bytes of a packet that the way to the outside takes.
#[map(name = "gw_clock")]
pub static CLOCK: Array<u64> = Array::with_max_entries(2, 0);
/// Rows for a gateway that starts again. The program never looks here.
#[map(name = "gw_kept")]
pub static KEPT: HashMap<KeptKey, KeptValue> = HashMap::with_max_entries(MAX_ROW_PARTS, BPF_F_NO_PREALLOC);
/// Drops.
#[map(name = "gw_drops")]
pub static DROPS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);
/// What went through.
#[map(name = "gw_load")]
pub static LOAD: PerCpuArray<Load> = PerCpuArray::with_max_entries(1, 0);

/// Bits of an [`Ipv4Key`].
pub const IPV4_KEY_BITS: u32 = 64;
