//! The gateway's maps.

use alcor_dataplane_abi::{gateway_layout::*, layout::*};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, PerCpuArray, lpm_trie::LpmTrie},
};

/// Devices by interface index.
#[map(name = "gw_devices")]
pub static DEVICES: HashMap<u32, DeviceValue> =
    HashMap::with_max_entries(MAX_GATEWAY_DEVICES, BPF_F_NO_PREALLOC);
/// Networks by VNI.
#[map(name = "gw_vnis")]
pub static VNIS: HashMap<u32, VniValue> = HashMap::with_max_entries(MAX_GATEWAY_NETWORKS, BPF_F_NO_PREALLOC);
/// Networks by handle.
#[map(name = "gw_networks")]
pub static NETWORKS: HashMap<u32, NetworkValue> =
    HashMap::with_max_entries(MAX_GATEWAY_NETWORKS, BPF_F_NO_PREALLOC);
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
