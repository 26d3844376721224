//! Subnets: blocks that do not overlap in their network, gateways, pools, and what Neutron checks of them.

mod checks;
mod counts;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

use alcor_model::{
    Id, Network, Port, Resource, ResourceKey, Subnet,
    resource::{FixedIp, ROUTER_INTERFACE, SubnetPool},
};
use alcor_store::Tx;
use checks::{check_block, check_modes, check_pools, check_whole, default_gateway, default_pools};
pub use counts::AddressCounts;
use ipnet::IpNet;
use thiserror::Error;

use crate::{
    Env, ErrorClass, Refusal, RegionError, RegionState,
    command::{Caller, SubnetCreate, SubnetUpdate},
    env::check_if_match,
    managed::Managed,
    network,
    subnet_pool::{self, SubnetPoolError},
};

/// DNS servers of one subnet (Neutron's `max_dns_nameservers`).
pub const DNS_NAMESERVERS_MAX: usize = 5;
/// Static routes of one subnet (Neutron's `max_subnet_host_routes`).
pub const HOST_ROUTES_MAX: usize = 20;
/// Allocation pools of one subnet.
pub const ALLOCATION_POOLS_MAX: usize = 64;
/// Subnets of one network.
pub const SUBNETS_PER_NETWORK_MAX: usize = 64;

/// What the rules of subnets refuse beyond [`RegionError`]'s own words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubnetError {
    /// All subnets are for ports of other kinds.
    #[error(
        "No valid service subnet for the given device owner, network {network}, service type {device_owner}."
    )]
    NoMatchingSubnet {
        /// The network.
        network: Id<Network>,
        /// The kind of port.
        device_owner: String,
    },
    /// A router's interface has the gateway's address.
    #[error("Gateway ip {ip} already in use by port {port}. Unable to update.")]
    GatewayInUse {
        /// The address.
        ip: IpAddr,
        /// The router's port.
        port: Id<Port>,
    },
}

impl Refusal for SubnetError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::NoMatchingSubnet { .. } => "IpAddressGenerationFailureNoMatchingSubnet",
            Self::GatewayInUse { .. } => "GatewayIpInUse",
        }
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Conflict
    }
}

impl Managed for Subnet {
    type Create = SubnetCreate;
    type Update = SubnetUpdate;
    const QUOTA: Option<&'static str> = Some("subnet");

    /// Makes a subnet. Ports that are there already get an address of it when it forms addresses by EUI-64, as in
    /// Neutron.
    ///
    /// # Errors
    /// Whatever Neutron refuses: an overlap, a gateway or pool outside, a mode that does not fit.
    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let network = Arc::clone(network::visible(tx.state(), caller, create.network_id)?);
        let standard = env.standard(caller, create.standard)?;
        let request = BlockRequest {
            ip_version: create.ip_version,
            cidr: create.cidr,
            prefixlen: create.prefixlen,
            pool: create.subnetpool_id,
            use_default_pool: create.use_default_subnetpool,
            has_ranges: create.allocation_pools.is_some(),
        };
        let (cidr, subnetpool_id) =
            choose_block(tx.state(), caller, &network, &standard.project_id, request)?;
        check_block(tx.state(), &network, cidr)?;
        let enable_dhcp = create.enable_dhcp.unwrap_or(true);
        check_modes(cidr, create.ipv6_address_mode, create.ipv6_ra_mode, enable_dhcp)?;
        let gateway_ip = match create.gateway_ip {
            None => default_gateway(cidr, create.cidr.is_some()),
            Some(given) => given,
        };
        let subnet = Subnet {
            id: env.new_id(),
            revision: tx.revision(),
            standard,
            network_id: network.id,
            cidr,
            gateway_ip,
            allocation_pools: match create.allocation_pools {
                Some(given) => check_pools(cidr, given)?,
                None => default_pools(cidr, gateway_ip),
            },
            dns_nameservers: create.dns_nameservers,
            host_routes: create.host_routes,
            enable_dhcp,
            ipv6_address_mode: create.ipv6_address_mode,
            ipv6_ra_mode: create.ipv6_ra_mode,
            subnetpool_id,
            service_types: sorted(create.service_types),
            dns_publish_fixed_ip: create.dns_publish_fixed_ip.unwrap_or(false),
        };
        check_whole(&subnet)?;
        let (id, auto) = (subnet.id, subnet.is_auto_address());
        tx.put(Resource::Subnet(Arc::new(subnet)));
        network::revise(tx, env, network.id);
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
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let id = *id;
        let mut subnet = Subnet::clone(visible(tx.state(), caller, id)?);
        env.update_standard(&mut subnet.standard, update.standard, if_match)?;
        if let Some(gateway) = update.gateway_ip {
            check_gateway_unused(tx.state(), &subnet, gateway)?;
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
        subnet.service_types = update.service_types.map_or(subnet.service_types, sorted);
        subnet.dns_publish_fixed_ip = update.dns_publish_fixed_ip.unwrap_or(subnet.dns_publish_fixed_ip);
        check_modes(
            subnet.cidr,
            subnet.ipv6_address_mode,
            subnet.ipv6_ra_mode,
            subnet.enable_dhcp,
        )?;
        check_whole(&subnet)?;
        let network = subnet.network_id;
        tx.put(Resource::Subnet(Arc::new(subnet)));
        network::revise(tx, env, network);
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
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let id = *id;
        let subnet = Arc::clone(visible(tx.state(), caller, id)?);
        check_if_match(&subnet.standard, if_match)?;
        let users: Vec<_> = tx.state().addresses_of(id).map(|(_, port)| port).collect();
        let is_router = |port: &Id<Port>| {
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
                let mut port = Port::clone(port);
                port.fixed_ips.retain(|fixed| fixed.subnet_id != id);
                env.touch(&mut port.standard);
                tx.put(Resource::Port(Arc::new(port)));
            }
        }
        tx.delete(ResourceKey::Subnet(id));
        network::revise(tx, env, subnet.network_id);
        Ok(())
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_subnet(caller, self)
    }
}

/// Which block a new subnet is to have.
struct BlockRequest {
    ip_version: u8,
    cidr: Option<IpNet>,
    prefixlen: Option<u64>,
    pool: Option<Id<SubnetPool>>,
    use_default_pool: bool,
    /// Whether the client chose ranges inside of the block.
    has_ranges: bool,
}

/// The block of a new subnet, and the pool that it was taken from.
fn choose_block(
    state: &RegionState,
    caller: &Caller,
    network: &Network,
    project: &str,
    request: BlockRequest,
) -> Result<(IpNet, Option<Id<SubnetPool>>), RegionError> {
    let bad = |text: &str| RegionError::from(SubnetPoolError::Request(text.to_owned()));
    let version = request.ip_version;
    if request.cidr.is_some() && request.prefixlen.is_some() {
        return Err(bad("cidr and prefixlen must not be supplied together"));
    }
    if let Some(cidr) = request.cidr
        && cidr.addr().is_ipv6() != (version == 6)
    {
        return Err(RegionError::InvalidInput(format!(
            "cidr '{cidr}' does not match the ip_version '{version}'"
        )));
    }
    let pool = match (request.pool, request.use_default_pool) {
        (Some(_), true) => {
            return Err(bad(
                "subnetpool_id and use_default_subnetpool cannot both be specified",
            ));
        }
        (Some(id), false) => Some(subnet_pool::seen(state, caller, id)?),
        (None, true) => {
            let default = state.default_pool(version);
            let seen = default.and_then(|id| subnet_pool::seen(state, caller, id).ok());
            Some(seen.ok_or_else(|| bad(&format!("No default subnetpool found for IPv{version}")))?)
        }
        (None, false) => None,
    };
    let Some(pool) = pool else {
        let cidr = request.cidr.map(|cidr| cidr.trunc());
        let cidr = cidr.ok_or_else(|| bad("a subnetpool must be specified in the absence of a cidr"))?;
        subnet_pool::check_affinity(state, network.id, version == 6, None)?;
        return Ok((cidr, None));
    };
    subnet_pool::check_affinity(state, network.id, version == 6, Some(pool))?;
    if pool.ip_version() != version {
        return Err(bad(&format!(
            "Cannot allocate IPv{version} subnet from IPv{} subnet pool",
            pool.ip_version()
        )));
    }
    let wanted = match request.cidr {
        Some(cidr) => subnet_pool::Wanted::Block(cidr.trunc()),
        None if request.has_ranges => {
            return Err(bad("allocation_pools allowed only for specific subnet requests."));
        }
        None => subnet_pool::Wanted::Any(request.prefixlen),
    };
    let cidr = subnet_pool::allocate(state, pool, project, wanted)?;
    Ok((cidr, Some(pool.id)))
}

fn sorted(mut service_types: Vec<String>) -> Vec<String> {
    service_types.sort();
    service_types.dedup();
    service_types
}

/// A gateway stays as long as a router's interface has its address.
fn check_gateway_unused(
    state: &RegionState,
    subnet: &Subnet,
    wanted: Option<IpAddr>,
) -> Result<(), SubnetError> {
    let Some(ip) = subnet.gateway_ip.filter(|_| wanted != subnet.gateway_ip) else {
        return Ok(());
    };
    let port = state
        .port_with_ip(subnet.id, ip)
        .and_then(|id| state.ports().get(&id));
    match port.filter(|port| port.device_owner == ROUTER_INTERFACE) {
        Some(port) => Err(SubnetError::GatewayInUse { ip, port: port.id }),
        None => Ok(()),
    }
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

/// Whether an address can be a gateway of the block: that of IPv6 can be the network address (RFC 4291, 2.6.1).
pub(crate) fn is_gateway(cidr: IpNet, ip: IpAddr) -> bool {
    is_usable(cidr, ip) || (ip.is_ipv6() && cidr.network() == ip)
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

fn visible<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<Subnet>,
) -> Result<&'a Arc<Subnet>, RegionError> {
    state
        .visible_subnet(caller, id)
        .ok_or(RegionError::SubnetNotFound(id))
}

fn written(tx: &Tx<'_, RegionState>, id: Id<Subnet>) -> Result<Arc<Subnet>, RegionError> {
    tx.state()
        .subnets()
        .get(&id)
        .cloned()
        .ok_or(RegionError::SubnetNotFound(id))
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
        if port.fixed_ips.len() >= Port::MAX_FIXED_IPS || port.device_owner == ROUTER_INTERFACE {
            continue;
        }
        let mut port = Port::clone(&port);
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
