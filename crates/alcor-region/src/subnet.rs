//! Subnets: blocks that do not overlap in their network, gateways, pools, and what Neutron checks of them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

use alcor_model::{
    Id, Network, Resource, ResourceKey, Subnet,
    resource::{AllocationPool, FixedIp, HostRoute, Ipv6Mode, ROUTER_INTERFACE},
};
use alcor_store::Tx;
use ipnet::IpNet;

use crate::{
    Env, RegionError, RegionState,
    command::{Caller, SubnetCreate, SubnetUpdate},
    env::check_if_match,
    managed::Managed,
    network,
};

/// DNS servers of one subnet (Neutron's `max_dns_nameservers`).
pub const DNS_NAMESERVERS_MAX: usize = 5;
/// Static routes of one subnet (Neutron's `max_subnet_host_routes`).
pub const HOST_ROUTES_MAX: usize = 20;
/// Allocation pools of one subnet.
pub const ALLOCATION_POOLS_MAX: usize = 64;
/// Subnets of one network.
pub const SUBNETS_PER_NETWORK_MAX: usize = 64;

impl Managed for Subnet {
    type Create = SubnetCreate;
    type Update = SubnetUpdate;
    const QUOTA: Option<&'static str> = Some("subnet");

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        self::create(tx, env, caller, create)
    }

    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        self::update(tx, env, caller, *id, update, if_match)
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        self::delete(tx, env, caller, *id, if_match)
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_subnet(caller, self)
    }
}

/// Makes a subnet. Ports that are there already get an address of it when it forms addresses by EUI-64, as in
/// Neutron.
///
/// # Errors
/// Whatever Neutron refuses: an overlap, a gateway or pool outside, a mode that does not fit.
fn create(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    create: SubnetCreate,
) -> Result<Arc<Subnet>, RegionError> {
    let network = Arc::clone(network::owned(
        tx.state(),
        caller,
        create.network_id,
        "create_subnet",
    )?);
    let cidr = create.cidr.trunc();
    check_block(tx.state(), &network, cidr)?;
    check_modes(
        cidr,
        create.ipv6_address_mode,
        create.ipv6_ra_mode,
        create.enable_dhcp.unwrap_or(true),
    )?;
    let gateway_ip = match create.gateway_ip {
        None => default_gateway(cidr),
        Some(given) => given,
    };
    let given_pools = create.allocation_pools.is_some();
    let allocation_pools = create
        .allocation_pools
        .unwrap_or_else(|| default_pools(cidr, gateway_ip));
    let subnet = Subnet {
        id: env.new_id(),
        revision: tx.revision(),
        standard: env.standard(caller, create.standard)?,
        network_id: network.id,
        cidr,
        gateway_ip,
        allocation_pools: if given_pools {
            check_pools(cidr, allocation_pools)?
        } else {
            allocation_pools
        },
        dns_nameservers: create.dns_nameservers,
        host_routes: create.host_routes,
        enable_dhcp: create.enable_dhcp.unwrap_or(true),
        ipv6_address_mode: create.ipv6_address_mode,
        ipv6_ra_mode: create.ipv6_ra_mode,
    };
    check_whole(&subnet)?;
    let (id, auto) = (subnet.id, subnet.is_auto_address());
    tx.put(Resource::Subnet(Arc::new(subnet)));
    if auto {
        add_auto_addresses(tx, env, id, network.id)?;
    }
    written(tx, id)
}

/// Changes a subnet.
///
/// # Errors
/// As creation; also when a port has the new gateway's address.
fn update(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Subnet>,
    update: SubnetUpdate,
    if_match: Option<u64>,
) -> Result<Arc<Subnet>, RegionError> {
    let mut subnet = Subnet::clone(owned(tx.state(), caller, id, "update_subnet")?);
    env.update_standard(&mut subnet.standard, update.standard, if_match)?;
    if let Some(gateway) = update.gateway_ip {
        if let Some(ip) = gateway
            && gateway != subnet.gateway_ip
            && tx.state().port_with_ip(id, ip).is_some()
        {
            return Err(RegionError::IpAddressInUse { ip, subnet: id });
        }
        subnet.gateway_ip = gateway;
    }
    if let Some(pools) = update.allocation_pools {
        subnet.allocation_pools = check_pools(subnet.cidr, pools)?;
    }
    subnet.dns_nameservers = update.dns_nameservers.unwrap_or(subnet.dns_nameservers);
    subnet.host_routes = update.host_routes.unwrap_or(subnet.host_routes);
    subnet.enable_dhcp = update.enable_dhcp.unwrap_or(subnet.enable_dhcp);
    check_modes(
        subnet.cidr,
        subnet.ipv6_address_mode,
        subnet.ipv6_ra_mode,
        subnet.enable_dhcp,
    )?;
    check_whole(&subnet)?;
    tx.put(Resource::Subnet(Arc::new(subnet)));
    written(tx, id)
}

/// Deletes a subnet. Addresses formed by EUI-64 leave their ports; any other address is a refusal.
///
/// # Errors
/// Not found, not the caller's, `If-Match`, addresses in use.
fn delete(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Subnet>,
    if_match: Option<u64>,
) -> Result<(), RegionError> {
    let subnet = Arc::clone(owned(tx.state(), caller, id, "delete_subnet")?);
    check_if_match(&subnet.standard, if_match)?;
    let users: Vec<_> = tx.state().addresses_of(id).map(|(_, port)| port).collect();
    let is_router = |port: &Id<alcor_model::Port>| {
        let port = tx.state().ports().get(port);
        port.is_some_and(|port| port.device_owner == ROUTER_INTERFACE)
    };
    if !users.is_empty() && (!subnet.is_auto_address() || users.iter().any(is_router)) {
        return Err(RegionError::SubnetInUse {
            subnet: id,
            reason: "One or more ports have an IP allocation from this subnet".into(),
        });
    }
    for port_id in users {
        if let Some(port) = tx.state().ports().get(&port_id) {
            let mut port = alcor_model::Port::clone(port);
            port.fixed_ips.retain(|fixed| fixed.subnet_id != id);
            env.touch(&mut port.standard);
            tx.put(Resource::Port(Arc::new(port)));
        }
    }
    tx.delete(ResourceKey::Subnet(id));
    Ok(())
}

/// The pools of an IPv4 subnet as offsets from its base.
pub(crate) fn pool_offsets(subnet: &Subnet) -> Vec<RangeInclusive<u32>> {
    let IpAddr::V4(base) = subnet.cidr.network() else {
        return Vec::new();
    };
    let offset = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_sub(u32::from(base)),
        IpAddr::V6(_) => None,
    };
    subnet
        .allocation_pools
        .iter()
        .filter_map(|pool| Some(offset(pool.start)?..=offset(pool.end)?))
        .collect()
}

/// Whether a port may have this address of the subnet: inside, and (except for the ends of tiny blocks) neither the
/// network address nor the IPv4 broadcast address.
pub(crate) fn is_usable(cidr: IpNet, ip: IpAddr) -> bool {
    if !cidr.contains(&ip) {
        return false;
    }
    match cidr {
        IpNet::V4(net) if net.prefix_len() < 31 => ip != net.network() && ip != net.broadcast(),
        IpNet::V4(_) => true,
        IpNet::V6(net) => net.prefix_len() >= 127 || ip != net.network(),
    }
}

/// A subnet that the caller may change.
fn owned<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<Subnet>,
    action: &str,
) -> Result<&'a Arc<Subnet>, RegionError> {
    let subnet = state
        .visible_subnet(caller, id)
        .ok_or(RegionError::SubnetNotFound(id))?;
    let owns_network = state
        .networks()
        .get(&subnet.network_id)
        .is_some_and(|network| network.standard.project_id == caller.project_id);
    if caller.is_admin || subnet.standard.project_id == caller.project_id || owns_network {
        Ok(subnet)
    } else {
        Err(RegionError::Forbidden {
            action: action.to_owned(),
        })
    }
}

fn written(tx: &Tx<'_, RegionState>, id: Id<Subnet>) -> Result<Arc<Subnet>, RegionError> {
    tx.state()
        .subnets()
        .get(&id)
        .cloned()
        .ok_or(RegionError::SubnetNotFound(id))
}

fn check_block(state: &RegionState, network: &Network, cidr: IpNet) -> Result<(), RegionError> {
    if cidr.prefix_len() == 0 {
        return Err(RegionError::InvalidInput(format!(
            "{cidr} is the whole address space; give a longer prefix"
        )));
    }
    if is_special(cidr.network()) {
        return Err(RegionError::InvalidInput(format!(
            "{cidr} is not a block of unicast addresses"
        )));
    }
    if cidr.addr().is_ipv6() && network.mtu < network::MTU_MIN_IPV6 {
        return Err(RegionError::InvalidInput(format!(
            "IPv6 needs an MTU of at least {}, and network {} has {}",
            network::MTU_MIN_IPV6,
            network.id,
            network.mtu
        )));
    }
    let mut count = 0;
    for other in state.subnets_of(network.id) {
        count += 1;
        if other.cidr.contains(&cidr) || cidr.contains(&other.cidr) {
            return Err(RegionError::InvalidInput(format!(
                "Requested subnet with cidr: {cidr} for network: {} overlaps with another subnet",
                network.id
            )));
        }
    }
    if count >= SUBNETS_PER_NETWORK_MAX {
        return Err(RegionError::InvalidInput(format!(
            "network {} has {SUBNETS_PER_NETWORK_MAX} subnets, which is the limit",
            network.id
        )));
    }
    Ok(())
}

fn is_special(ip: IpAddr) -> bool {
    ip.is_multicast()
        || ip.is_loopback()
        || match ip {
            IpAddr::V4(ip) => ip.octets()[0] == 0 || ip.octets()[0] >= 240 || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
}

fn check_modes(
    cidr: IpNet,
    address_mode: Option<Ipv6Mode>,
    ra_mode: Option<Ipv6Mode>,
    enable_dhcp: bool,
) -> Result<(), RegionError> {
    if address_mode.is_none() && ra_mode.is_none() {
        return Ok(());
    }
    let refuse = |text: &str| Err(RegionError::InvalidInput(text.to_owned()));
    if !cidr.addr().is_ipv6() {
        return refuse("ipv6_address_mode and ipv6_ra_mode are for IPv6 subnets only");
    }
    if !enable_dhcp {
        return refuse("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False");
    }
    if let (Some(address_mode), Some(ra_mode)) = (address_mode, ra_mode)
        && address_mode != ra_mode
    {
        return refuse("ipv6_ra_mode and ipv6_address_mode must be the same when both are set");
    }
    let mode = address_mode.or(ra_mode);
    if mode == Some(Ipv6Mode::Dhcpv6Stateful) {
        return refuse("dhcpv6-stateful is not served yet; use slaac, or no mode and static addresses");
    }
    if cidr.prefix_len() != 64 {
        return refuse(
            "Invalid CIDR for IPv6 address mode. SLAAC and DHCPv6-stateless need a prefix length of 64",
        );
    }
    Ok(())
}

/// Everything that one subnet can check by itself.
fn check_whole(subnet: &Subnet) -> Result<(), RegionError> {
    let refuse = |text: String| Err(RegionError::InvalidInput(text));
    let family = |ip: &IpAddr| ip.is_ipv6() == subnet.cidr.addr().is_ipv6();
    if let Some(gateway) = subnet.gateway_ip {
        if !is_usable(subnet.cidr, gateway) {
            return refuse(format!(
                "Gateway {gateway} is not valid on subnet {}",
                subnet.cidr
            ));
        }
        for pool in &subnet.allocation_pools {
            if (pool.start..=pool.end).contains(&gateway) {
                return Err(RegionError::GatewayConflictWithAllocationPools {
                    ip: gateway,
                    pool: format!("{}-{}", pool.start, pool.end),
                });
            }
        }
    }
    if subnet.dns_nameservers.len() > DNS_NAMESERVERS_MAX {
        return refuse(format!("a subnet has at most {DNS_NAMESERVERS_MAX} DNS servers"));
    }
    if let Some(server) = subnet.dns_nameservers.iter().find(|server| !family(server)) {
        return refuse(format!(
            "DNS server {server} is not of the family of {}",
            subnet.cidr
        ));
    }
    if subnet.host_routes.len() > HOST_ROUTES_MAX {
        return refuse(format!("a subnet has at most {HOST_ROUTES_MAX} host routes"));
    }
    let fits = |route: &&HostRoute| family(&route.nexthop) && family(&route.destination.addr());
    match subnet.host_routes.iter().find(|route| !fits(route)) {
        Some(route) => refuse(format!(
            "host route {} via {} is not of the family of {}",
            route.destination, route.nexthop, subnet.cidr
        )),
        None => Ok(()),
    }
}

/// The first address after the network address; none for blocks of one address.
fn default_gateway(cidr: IpNet) -> Option<IpAddr> {
    let (first, last) = ends(cidr);
    let gateway = if cidr.prefix_len() == cidr.max_prefix_len() - 1 {
        first
    } else {
        first.checked_add(1)?
    };
    (gateway <= last).then(|| address(cidr, gateway))
}

/// Everything that a port may have, around the gateway.
fn default_pools(cidr: IpNet, gateway: Option<IpAddr>) -> Vec<AllocationPool> {
    let (mut first, mut last) = ends(cidr);
    match cidr {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            first += 1;
            last -= 1;
        }
        IpNet::V6(net) if net.prefix_len() < 127 => first += 1,
        _ => {}
    }
    let pool = |start, end| AllocationPool {
        start: address(cidr, start),
        end: address(cidr, end),
    };
    match gateway
        .map(number)
        .filter(|gateway| (first..=last).contains(gateway))
    {
        None if first <= last => vec![pool(first, last)],
        None => Vec::new(),
        Some(gateway) => {
            let mut pools = Vec::new();
            if gateway > first {
                pools.push(pool(first, gateway - 1));
            }
            if gateway < last {
                pools.push(pool(gateway + 1, last));
            }
            pools
        }
    }
}

/// Sorts the pools; refuses those that are no ranges, leave the block or overlap.
fn check_pools(cidr: IpNet, mut pools: Vec<AllocationPool>) -> Result<Vec<AllocationPool>, RegionError> {
    if pools.len() > ALLOCATION_POOLS_MAX {
        return Err(RegionError::InvalidInput(format!(
            "a subnet has at most {ALLOCATION_POOLS_MAX} allocation pools"
        )));
    }
    let text = |pool: &AllocationPool| format!("{}-{}", pool.start, pool.end);
    for pool in &pools {
        let same_family = pool.start.is_ipv6() == pool.end.is_ipv6();
        if !same_family || pool.start > pool.end || pool.start.is_ipv6() != cidr.addr().is_ipv6() {
            return Err(RegionError::InvalidAllocationPool(text(pool)));
        }
        if !is_usable(cidr, pool.start) || !is_usable(cidr, pool.end) {
            return Err(RegionError::OutOfBoundsAllocationPool {
                pool: text(pool),
                subnet_cidr: cidr.to_string(),
            });
        }
    }
    pools.sort_by_key(|pool| pool.start);
    for pair in pools.windows(2) {
        if pair[1].start <= pair[0].end {
            return Err(RegionError::OverlappingAllocationPools {
                pool_1: text(&pair[0]),
                pool_2: text(&pair[1]),
                subnet_cidr: cidr.to_string(),
            });
        }
    }
    Ok(pools)
}

/// First and last address of a block as numbers.
fn ends(cidr: IpNet) -> (u128, u128) {
    (number(cidr.network()), number(cidr.broadcast()))
}

pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address with this number, of the block's family. The number is within the block.
pub(crate) fn address(cidr: IpNet, number: u128) -> IpAddr {
    match cidr {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

fn add_auto_addresses(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    id: Id<Subnet>,
    network_id: Id<Network>,
) -> Result<(), RegionError> {
    let subnet = written(tx, id)?;
    let IpAddr::V6(prefix) = subnet.cidr.network() else {
        return Ok(());
    };
    let ports: Vec<_> = tx.state().ports_of(network_id).cloned().collect();
    for port in ports {
        if port.fixed_ips.len() >= alcor_model::Port::MAX_FIXED_IPS || port.device_owner == ROUTER_INTERFACE {
            continue;
        }
        let mut port = alcor_model::Port::clone(&port);
        let ip_address = IpAddr::V6(port.mac_address.eui64(prefix));
        port.fixed_ips.push(FixedIp {
            subnet_id: id,
            ip_address,
        });
        env.touch(&mut port.standard);
        tx.put(Resource::Port(Arc::new(port)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(cidr: &str, gateway: Option<&str>) -> Vec<String> {
        default_pools(cidr.parse().unwrap(), gateway.map(|g| g.parse().unwrap()))
            .iter()
            .map(|pool| format!("{}-{}", pool.start, pool.end))
            .collect()
    }

    #[test]
    fn default_pools_leave_the_gateway_and_the_ends_out() {
        assert_eq!(pools("10.0.0.0/24", Some("10.0.0.1")), ["10.0.0.2-10.0.0.254"]);
        assert_eq!(
            pools("10.0.0.0/24", Some("10.0.0.9")),
            ["10.0.0.1-10.0.0.8", "10.0.0.10-10.0.0.254"]
        );
        assert_eq!(pools("10.0.0.0/24", None), ["10.0.0.1-10.0.0.254"]);
        assert_eq!(pools("10.0.0.0/30", Some("10.0.0.1")), ["10.0.0.2-10.0.0.2"]);
        assert_eq!(pools("10.0.0.4/32", None), ["10.0.0.4-10.0.0.4"]);
        assert_eq!(pools("fd00::/126", Some("fd00::1")), ["fd00::2-fd00::3"]);
    }

    #[test]
    fn the_default_gateway_is_the_first_address() {
        let gateway = |cidr: &str| default_gateway(cidr.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(gateway("10.0.0.0/24").as_deref(), Some("10.0.0.1"));
        assert_eq!(gateway("fd00::/64").as_deref(), Some("fd00::1"));
        assert_eq!(gateway("10.0.0.4/32"), None);
    }
}
