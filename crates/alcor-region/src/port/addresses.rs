//! A port's addresses: what it gets when nobody asks, what it may ask for, and how free ones are found.

use std::{net::IpAddr, sync::Arc};

use alcor_model::{
    Id, MacAddr, Network, Port, Subnet,
    resource::{FixedIp, ROUTER_INTERFACE},
};

use crate::{
    Env, RegionError, RegionState,
    command::{Caller, FixedIpRequest},
    subnet::{self, SubnetError, is_gateway, is_usable, pool_offsets},
};

/// How often a random IPv6 address is tried before the first gap is looked for.
const IP_TRIES: usize = 32;

/// One IPv4 address, one IPv6 address of a subnet without automatic addresses, and one of each subnet with them:
/// what Neutron gives when the client does not say.
pub(super) fn default_addresses(
    state: &RegionState,
    env: &Env,
    network: &Network,
    device_owner: &str,
    mac: MacAddr,
) -> Result<Vec<FixedIp>, RegionError> {
    let subnets = serving(state, network, device_owner)?;
    let mut fixed_ips = Vec::new();
    for ipv6 in [false, true] {
        let mut any = false;
        let mut found = None;
        for subnet in &subnets {
            if subnet.cidr.addr().is_ipv6() == ipv6 && !subnet.is_auto_address() {
                any = true;
                found = allocate(state, env, subnet, &fixed_ips);
                if found.is_some() {
                    break;
                }
            }
        }
        match found {
            Some(fixed) => fixed_ips.push(fixed),
            None if any => return Err(RegionError::IpAddressGenerationFailure(network.id)),
            None => {}
        }
    }
    for subnet in subnets.iter().filter(|subnet| subnet.is_auto_address()) {
        if fixed_ips.len() < Port::MAX_FIXED_IPS {
            fixed_ips.push(auto_address(state, subnet, mac, None)?);
        }
    }
    Ok(fixed_ips)
}

/// The subnets that a port of this kind gets addresses of: those for its kind first, then those for every kind.
fn serving<'a>(
    state: &'a RegionState,
    network: &Network,
    device_owner: &str,
) -> Result<Vec<&'a Arc<Subnet>>, RegionError> {
    let mut subnets: Vec<_> = state
        .subnets_of(network.id)
        .filter(|subnet| subnet.serves(device_owner))
        .collect();
    if subnets.is_empty() && state.subnets_of(network.id).next().is_some() {
        return Err(SubnetError::NoMatchingSubnet {
            network: network.id,
            device_owner: device_owner.to_owned(),
        }
        .into());
    }
    subnets.sort_by_key(|subnet| subnet.service_types.is_empty());
    Ok(subnets)
}

/// Who asks for addresses.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    /// Who sees the subnets.
    pub(super) caller: &'a Caller,
    /// What kind of port it is.
    pub(super) device_owner: &'a str,
    /// A router's interface has gateway addresses, also where others form theirs from their MAC.
    pub(super) is_router: bool,
    /// The port's MAC.
    pub(super) mac: MacAddr,
    /// The port as it is, whose addresses count as free.
    pub(super) before: Option<&'a Port>,
}

/// The addresses that the client asks for.
pub(super) fn asked_addresses(
    state: &RegionState,
    env: &Env,
    network: &Network,
    asker: &Asker<'_>,
    asked: &[FixedIpRequest],
) -> Result<Vec<FixedIp>, RegionError> {
    let Asker {
        caller,
        is_router,
        mac,
        before,
        ..
    } = *asker;
    if asked.len() > Port::MAX_FIXED_IPS {
        return Err(RegionError::InvalidInput(format!(
            "a port has at most {} fixed IPs",
            Port::MAX_FIXED_IPS
        )));
    }
    let own = before.map(|port| port.id);
    let mut fixed_ips: Vec<FixedIp> = Vec::with_capacity(asked.len());
    for request in asked {
        let subnet = asked_subnet(state, caller, network, request)?;
        let fixed = match request.ip_address {
            Some(ip) => {
                let formed = matches!(subnet.cidr.network(), IpAddr::V6(prefix) if IpAddr::V6(mac.eui64(prefix)) == ip);
                if subnet.is_auto_address() && !formed && !is_router {
                    return Err(RegionError::InvalidInput(format!(
                        "IPv6 address {ip} can not be directly assigned to a port on subnet {} since the subnet is configured for automatic addresses",
                        subnet.id
                    )));
                }
                let is_gateway = is_router && is_gateway(subnet.cidr, ip);
                if !is_usable(subnet.cidr, ip) && !is_gateway {
                    return Err(RegionError::InvalidIpForSubnet { ip });
                }
                FixedIp {
                    subnet_id: subnet.id,
                    ip_address: ip,
                }
            }
            None if subnet.is_auto_address() => auto_address(state, subnet, mac, own)?,
            None => kept_or_new(state, env, subnet, before, &fixed_ips)
                .ok_or(RegionError::IpAddressGenerationFailure(network.id))?,
        };
        let taken = state
            .port_with_ip(fixed.subnet_id, fixed.ip_address)
            .is_some_and(|owner| Some(owner) != own);
        let gateway = !is_router && subnet.gateway_ip == Some(fixed.ip_address);
        if taken || gateway || fixed_ips.contains(&fixed) {
            return Err(RegionError::IpAddressInUse {
                ip: fixed.ip_address,
                subnet: subnet.id,
            });
        }
        fixed_ips.push(fixed);
    }
    if !is_router {
        add_automatic(state, network, asker, &mut fixed_ips)?;
    }
    Ok(fixed_ips)
}

/// Whatever is asked for, a port has an address of each subnet that forms them by EUI-64, but of those that it just
/// gave up.
fn add_automatic(
    state: &RegionState,
    network: &Network,
    asker: &Asker<'_>,
    fixed_ips: &mut Vec<FixedIp>,
) -> Result<(), RegionError> {
    let Asker {
        device_owner,
        mac,
        before,
        ..
    } = *asker;
    let automatic = state
        .subnets_of(network.id)
        .filter(|subnet| subnet.is_auto_address() && subnet.serves(device_owner));
    for subnet in automatic {
        let had = before.into_iter().flat_map(|port| &port.fixed_ips);
        let handled = fixed_ips
            .iter()
            .chain(had)
            .any(|fixed| fixed.subnet_id == subnet.id);
        if !handled && fixed_ips.len() < Port::MAX_FIXED_IPS {
            fixed_ips.push(auto_address(state, subnet, mac, before.map(|port| port.id))?);
        }
    }
    Ok(())
}

pub(super) fn asked_subnet<'a>(
    state: &'a RegionState,
    caller: &Caller,
    network: &Network,
    request: &FixedIpRequest,
) -> Result<&'a Arc<Subnet>, RegionError> {
    match (request.subnet_id, request.ip_address) {
        (Some(id), _) => {
            let subnet = state
                .visible_subnet(caller, id)
                .ok_or(RegionError::SubnetNotFound(id))?;
            if subnet.network_id == network.id {
                Ok(subnet)
            } else {
                Err(RegionError::InvalidInput(format!(
                    "Failed to create port on network {}, because fixed_ips included invalid subnet {id}",
                    network.id
                )))
            }
        }
        (None, Some(ip)) => state
            .subnets_of(network.id)
            .find(|subnet| subnet.cidr.contains(&ip))
            .ok_or(RegionError::InvalidIpForNetwork { ip }),
        (None, None) => Err(RegionError::InvalidInput(
            "IP allocation requires subnet_id or ip_address".into(),
        )),
    }
}

/// On an update that names only the subnet, the port keeps an address that it has there.
pub(super) fn kept_or_new(
    state: &RegionState,
    env: &Env,
    subnet: &Subnet,
    before: Option<&Port>,
    chosen: &[FixedIp],
) -> Option<FixedIp> {
    let kept = before
        .into_iter()
        .flat_map(|port| &port.fixed_ips)
        .find(|fixed| fixed.subnet_id == subnet.id && !chosen.contains(fixed));
    kept.copied().or_else(|| allocate(state, env, subnet, chosen))
}

pub(super) fn auto_address(
    state: &RegionState,
    subnet: &Subnet,
    mac: MacAddr,
    own: Option<Id<Port>>,
) -> Result<FixedIp, RegionError> {
    let IpAddr::V6(prefix) = subnet.cidr.network() else {
        return Err(RegionError::IpAddressGenerationFailure(subnet.network_id));
    };
    let ip = IpAddr::V6(mac.eui64(prefix));
    match state.port_with_ip(subnet.id, ip) {
        Some(owner) if Some(owner) != own => Err(RegionError::IpAddressInUse {
            ip,
            subnet: subnet.id,
        }),
        _ => Ok(FixedIp {
            subnet_id: subnet.id,
            ip_address: ip,
        }),
    }
}

/// A port's EUI-64 addresses after its MAC changed.
pub(super) fn form_addresses_again(state: &RegionState, port: &mut Port) -> Result<(), RegionError> {
    if port.device_owner == ROUTER_INTERFACE {
        // A router's addresses are those of its gateways, whatever its MAC.
        return Ok(());
    }
    let (mac, own) = (port.mac_address, port.id);
    for fixed in &mut port.fixed_ips {
        if let Some(subnet) = state.subnets().get(&fixed.subnet_id)
            && subnet.is_auto_address()
        {
            *fixed = auto_address(state, subnet, mac, Some(own))?;
        }
    }
    Ok(())
}

/// A free address of the subnet's pools that is not in `chosen`.
pub(super) fn allocate(
    state: &RegionState,
    env: &Env,
    subnet: &Subnet,
    chosen: &[FixedIp],
) -> Option<FixedIp> {
    let ip_address = if subnet.cidr.addr().is_ipv4() {
        allocate_v4(state, subnet, chosen)?
    } else {
        allocate_v6(state, env, subnet, chosen)?
    };
    Some(FixedIp {
        subnet_id: subnet.id,
        ip_address,
    })
}

pub(super) fn allocate_v4(state: &RegionState, subnet: &Subnet, chosen: &[FixedIp]) -> Option<IpAddr> {
    let base = subnet::number(subnet.cidr.network());
    let ranges = pool_offsets(subnet);
    let ip_at = |offset: u32| subnet::address(subnet.cidr, base + u128::from(offset));
    let chosen_here = |ip: IpAddr| {
        chosen
            .iter()
            .any(|fixed| fixed.subnet_id == subnet.id && fixed.ip_address == ip)
    };
    let Some(space) = state.offsets(subnet.id) else {
        return ranges
            .into_iter()
            .flatten()
            .map(ip_at)
            .find(|ip| !chosen_here(*ip));
    };
    let first = ip_at(space.find_free(&ranges)?);
    if !chosen_here(first) {
        return Some(first);
    }
    // Rare: the same command took it already. Look on in a copy that knows.
    let mut space = space.clone();
    for fixed in chosen.iter().filter(|fixed| fixed.subnet_id == subnet.id) {
        space.take(u32::try_from(subnet::number(fixed.ip_address).checked_sub(base)?).ok()?);
    }
    space.find_free(&ranges).map(ip_at)
}

/// The address after the highest one taken in a pool; when a client took the pool's end, some random one of the
/// pool; when those are taken too, the pool is small or full, and the first gap is looked for.
pub(super) fn allocate_v6(
    state: &RegionState,
    env: &Env,
    subnet: &Subnet,
    chosen: &[FixedIp],
) -> Option<IpAddr> {
    let free = |number: u128| {
        let ip = subnet::address(subnet.cidr, number);
        let chosen_here = chosen
            .iter()
            .any(|fixed| fixed.subnet_id == subnet.id && fixed.ip_address == ip);
        (!chosen_here && state.port_with_ip(subnet.id, ip).is_none()).then_some(ip)
    };
    for pool in &subnet.allocation_pools {
        let (first, last) = (subnet::number(pool.start), subnet::number(pool.end));
        let after = state
            .highest_address(subnet.id, pool.start, pool.end)
            .map_or(first, |ip| subnet::number(ip).saturating_add(1));
        let size = (last - first).saturating_add(1);
        let random = (0..IP_TRIES).map(|_| first + u128::from(env.source.random()) % size);
        let found = (after..=last)
            .take(Port::MAX_FIXED_IPS + 1)
            .chain(random)
            .chain(first..=last)
            .find_map(free);
        if found.is_some() {
            return found;
        }
    }
    None
}
