//! A port's MAC address: unique in its network.

use alcor_model::{
    Id, MacAddr, Network, Port,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};

use crate::{Env, RegionError, RegionState};

/// How often a random MAC is tried before the port is refused; at a million ports of sixteen million
/// addresses, 64 misses in a row do not happen.
const MAC_TRIES: usize = 64;
/// What hosts answer with for others than ports.
const RESERVED: [MacAddr; 2] = [GATEWAY_MAC, ON_DEMAND_MAC];

pub(super) fn check_mac(
    state: &RegionState,
    network: Id<Network>,
    mac: MacAddr,
    own: Option<Id<Port>>,
) -> Result<MacAddr, RegionError> {
    if mac.is_multicast() || mac == MacAddr::default() || RESERVED.contains(&mac) {
        return Err(RegionError::InvalidInput(format!(
            "'{mac}' cannot be the MAC address of a port"
        )));
    }
    match state.port_with_mac(network, mac) {
        Some(owner) if Some(owner) != own => Err(RegionError::MacAddressInUse { network, mac }),
        _ => Ok(mac),
    }
}

pub(super) fn allocate_mac(
    state: &RegionState,
    env: &Env,
    network: Id<Network>,
) -> Result<MacAddr, RegionError> {
    let base = env.config.mac_base;
    (0..MAC_TRIES)
        .map(|_| {
            let [.., a, b, c] = env.source.random().to_be_bytes();
            MacAddr([base[0], base[1], base[2], a, b, c])
        })
        .find(|mac| !RESERVED.contains(mac) && state.port_with_mac(network, *mac).is_none())
        .ok_or(RegionError::MacAddressGenerationFailure(network))
}
