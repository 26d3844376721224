//! The compiled gateway program, when this build has it, and its maps.

use alcor_dataplane::DataplaneError;
use alcor_model::net::GATEWAY_MAC;
use aya::{Ebpf, EbpfLoader, maps::MapInfo, programs::Xdp};

use super::GatewayConfig;
use crate::{error, object::in_spite_of_signals, pins::Pins};

#[cfg(kernel_programs)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("ALCOR_GATEWAY_PROGRAMS")));
#[cfg(not(kernel_programs))]
static OBJECT: Option<&[u8]> = None;

/// The MAC that the program has.
const _: () = assert!(matches!(GATEWAY_MAC.0, [0x0e, 0xa1, 0xc0, 0x00, 0x00, 0x01]));

/// On all devices of a gateway.
const PROGRAM: &str = "gateway";

/// Maps that are pinned: all that must outlive the process.
const PINNED: &[&str] = &[
    "gw_devices",
    "gw_vnis",
    "gw_routers",
    "gw_externals",
    "gw_floating",
    "gw_blocks",
    "gw_nat",
    "gw_nat_back",
    "gw_nat_begun",
    "gw_nat_gone",
    "gw_nat_refused",
    "gw_fragments",
    "gw_icmp",
    "gw_underlay",
    "gw_peers4",
    "gw_peers6",
    "gw_kept",
    "gw_drops",
    "gw_load",
];

/// Maps that have room for all neighbours of a family.
const PEERS: [&str; 2] = ["gw_peers4", "gw_peers6"];

/// Maps that have room for all translated connections.
const CONNECTIONS: [&str; 2] = ["gw_nat", "gw_nat_back"];

/// How many connections the table has room for, which may be there already.
pub(super) fn nat_room(pins: &Pins, config: &GatewayConfig) -> Result<u32, DataplaneError> {
    let [path, _] = CONNECTIONS.map(|name| pins.map(name));
    if !path.exists() {
        return Ok(config.nat.connections);
    }
    let found = MapInfo::from_pin(&path);
    let found = found.map_err(|source| error::kernel(format!("looking at {}", path.display()), source))?;
    Ok(found.max_entries())
}

/// Loads the program, with the maps that are pinned or with new ones that are pinned now.
pub(super) fn load(pins: &Pins, config: &GatewayConfig, nat_room: u32) -> Result<Ebpf, DataplaneError> {
    let Some(object) = OBJECT else {
        let reason =
            "this alcor was built without kernel programs: run `cargo xtask setup`, then build again";
        return Err(error::kernel("loading the gateway program", reason));
    };
    let (trace, probes) = (u32::from(config.trace), u32::from(config.probes));
    let tunnel_ip = config.tunnel_ip.octets();
    let mut loader = EbpfLoader::new();
    loader.override_global("TRACE", &trace, true);
    loader.override_global("PROBES", &probes, true);
    loader.override_global("TUNNEL_IP", &tunnel_ip, true);
    let nat_room = u64::from(nat_room);
    loader.override_global("NAT_ROOM", &nat_room, true);
    loader.override_global("NAT_LIMIT", &config.nat.connections_per_router, true);
    let last_port = u32::from(config.nat.last_port);
    loader.override_global("NAT_LAST_PORT", &last_port, true);
    for name in PEERS {
        loader.map_max_entries(name, config.max_neighbours);
    }
    for name in CONNECTIONS {
        loader.map_max_entries(name, config.nat.connections);
    }
    for name in PINNED {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = loader
        .load(object)
        .map_err(|source| error::kernel("loading the gateway program", source))?;
    let program = program(&mut ebpf)?;
    in_spite_of_signals(|| program.load())
        .map_err(|source| error::kernel("loading the gateway program", source))?;
    Ok(ebpf)
}

/// The program.
pub(super) fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, DataplaneError> {
    let program = ebpf
        .program_mut(PROGRAM)
        .ok_or_else(|| error::kernel("looking for the gateway program", "the object does not have it"))?;
    program.try_into().map_err(|source: aya::programs::ProgramError| {
        error::kernel("looking for the gateway program", source)
    })
}
