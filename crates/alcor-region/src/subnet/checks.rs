//! What one subnet can be: its block beside those of its network, gateway, pools, modes, lists.

use std::net::IpAddr;

use alcor_model::{
    Network, Subnet,
    resource::{AllocationPool, HostRoute, Ipv6Mode},
};
use ipnet::IpNet;

use super::{
    ALLOCATION_POOLS_MAX, DNS_NAMESERVERS_MAX, HOST_ROUTES_MAX, SUBNETS_PER_NETWORK_MAX, address, is_gateway,
    is_usable, number,
};
use crate::{RegionError, RegionState, network};

pub(super) fn check_block(state: &RegionState, network: &Network, cidr: IpNet) -> Result<(), RegionError> {
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
    network::check_mtu_for(network.id, network.mtu, cidr.addr().is_ipv6())?;
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

pub(super) fn check_modes(
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
    if mode != Some(Ipv6Mode::Dhcpv6Stateful) && cidr.prefix_len() != 64 {
        return refuse(
            "Invalid CIDR for IPv6 address mode. SLAAC and DHCPv6-stateless need a prefix length of 64",
        );
    }
    Ok(())
}

/// Everything that one subnet can check by itself.
pub(super) fn check_whole(subnet: &Subnet) -> Result<(), RegionError> {
    let refuse = |text: String| Err(RegionError::InvalidInput(text));
    let family = |ip: &IpAddr| ip.is_ipv6() == subnet.cidr.addr().is_ipv6();
    if let Some(gateway) = subnet.gateway_ip {
        if !is_gateway(subnet.cidr, gateway) {
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

/// What a block's gateway is when the client does not say: the first address after the network address, or, as in
/// Neutron, the network address itself of an IPv6 block that the client chose. None for an IPv4 block of one address.
pub(super) fn default_gateway(cidr: IpNet, chosen: bool) -> Option<IpAddr> {
    let (first, last) = ends(cidr);
    let at_first = cidr.prefix_len() == cidr.max_prefix_len() - 1 || (cidr.addr().is_ipv6() && chosen);
    let gateway = if at_first { first } else { first.checked_add(1)? };
    (gateway <= last).then(|| address(cidr, gateway))
}

/// Everything that a port may have, around the gateway.
pub(super) fn default_pools(cidr: IpNet, gateway: Option<IpAddr>) -> Vec<AllocationPool> {
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
pub(super) fn check_pools(
    cidr: IpNet,
    mut pools: Vec<AllocationPool>,
) -> Result<Vec<AllocationPool>, RegionError> {
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
        let gateway =
            |cidr: &str, chosen| default_gateway(cidr.parse().unwrap(), chosen).map(|ip| ip.to_string());
        assert_eq!(gateway("10.0.0.0/24", true).as_deref(), Some("10.0.0.1"));
        assert_eq!(gateway("fd00::/64", true).as_deref(), Some("fd00::"));
        assert_eq!(gateway("fd00::/64", false).as_deref(), Some("fd00::1"));
        assert_eq!(gateway("10.0.0.4/32", true), None);
    }
}
