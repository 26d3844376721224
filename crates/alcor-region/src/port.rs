//! Ports: addresses, MACs, binding.

use std::{net::IpAddr, sync::Arc};

use alcor_model::{
    Id, MacAddr, Network, Port, Resource, ResourceKey, Subnet,
    net::GATEWAY_MAC,
    resource::{AddressPair, Binding, FixedIp},
};
use alcor_store::Tx;

use crate::{
    Env, RegionError, RegionState,
    command::{AddressPairRequest, Caller, FixedIpRequest, PortCreate, PortUpdate},
    env::check_if_match,
    managed::Managed,
    network,
    subnet::{self, is_usable, pool_offsets},
};

/// How often a random MAC is tried before the port is refused; at a million ports of sixteen million
/// addresses, 64 misses in a row do not happen.
const MAC_TRIES: usize = 64;
/// How often a random IPv6 address is tried before the first gap is looked for.
const IP_TRIES: usize = 32;
/// How many starts of an id are tried from the time on, and how many random ones after that.
const ID_TRIES: u128 = 64;
/// Where the part of an id begins that a device name shows.
const PREFIX_SHIFT: u32 = 88;
const PREFIX_MAX: u128 = (1 << 40) - 1;

impl Managed for Port {
    type Create = PortCreate;
    type Update = PortUpdate;
    const QUOTA: Option<&'static str> = Some("port");

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
        _: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        self::delete(tx, caller, *id, if_match)
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_port(caller, self)
    }
}

/// Makes a port.
///
/// # Errors
/// Whatever Neutron refuses: an unknown network or subnet, an address that is taken or does not fit, no address left.
fn create(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    create: PortCreate,
) -> Result<Arc<Port>, RegionError> {
    let network = tx
        .state()
        .visible_network(caller, create.network_id)
        .cloned()
        .ok_or(RegionError::NetworkNotFound(create.network_id))?;
    let owns_network = caller.is_admin || network.standard.project_id == caller.project_id;
    if !owns_network && (create.mac_address.is_some() || names_an_address(create.fixed_ips.as_deref())) {
        return Err(RegionError::Forbidden {
            action: "create_port:mac_address or fixed_ips".into(),
        });
    }
    if !caller.is_admin && !create.binding_host_id.is_empty() {
        return Err(RegionError::Forbidden {
            action: "create_port:binding:host_id".into(),
        });
    }
    let mac_address = match create.mac_address {
        Some(mac) => check_mac(tx.state(), network.id, mac, None)?,
        None => allocate_mac(tx.state(), env, network.id)?,
    };
    let id = new_id(tx.state(), env)?;
    let fixed_ips = match create.fixed_ips {
        None => default_addresses(tx.state(), env, &network, mac_address)?,
        Some(asked) => asked_addresses(tx.state(), env, caller, &network, mac_address, &asked, None)?,
    };
    let port_security_enabled = create
        .port_security_enabled
        .unwrap_or(network.port_security_enabled);
    let port = Port {
        id,
        revision: tx.revision(),
        standard: env.standard(caller, create.standard)?,
        network_id: network.id,
        mac_address,
        fixed_ips,
        allowed_address_pairs: pairs(mac_address, port_security_enabled, create.allowed_address_pairs)?,
        admin_state_up: create.admin_state_up.unwrap_or(true),
        device_id: create.device_id,
        device_owner: create.device_owner,
        port_security_enabled,
        dns_name: create.dns_name,
        binding: Binding {
            host_id: create.binding_host_id,
            vnic_type: check_vnic_type(create.binding_vnic_type.unwrap_or_else(|| "normal".into()))?,
            profile: create.binding_profile.unwrap_or_default(),
            since: tx.revision(),
        },
    };
    tx.put(Resource::Port(Arc::new(port)));
    written(tx, id)
}

/// Changes a port. A port that moves to another host starts without a report.
///
/// # Errors
/// As creation; also not found, not the caller's, `If-Match`.
fn update(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Port>,
    update: PortUpdate,
    if_match: Option<u64>,
) -> Result<Arc<Port>, RegionError> {
    let before = Arc::clone(owned(tx.state(), caller, id, "update_port")?);
    let network = tx
        .state()
        .networks()
        .get(&before.network_id)
        .cloned()
        .ok_or(RegionError::NetworkNotFound(before.network_id))?;
    let owns_network = network::owns_network_of(tx.state(), caller, &before);
    if !owns_network && (update.mac_address.is_some() || names_an_address(update.fixed_ips.as_deref())) {
        return Err(RegionError::Forbidden {
            action: "update_port:mac_address or fixed_ips".into(),
        });
    }
    if !caller.is_admin && update.binding_host_id.is_some() {
        return Err(RegionError::Forbidden {
            action: "update_port:binding:host_id".into(),
        });
    }
    let mut port = Port::clone(&before);
    env.update_standard(&mut port.standard, update.standard, if_match)?;
    if let Some(mac) = update.mac_address {
        port.mac_address = check_mac(tx.state(), network.id, mac, Some(id))?;
    }
    if let Some(asked) = update.fixed_ips {
        port.fixed_ips = asked_addresses(
            tx.state(),
            env,
            caller,
            &network,
            port.mac_address,
            &asked,
            Some(&before),
        )?;
    } else if port.mac_address != before.mac_address {
        form_addresses_again(tx.state(), &mut port)?;
    }
    port.admin_state_up = update.admin_state_up.unwrap_or(port.admin_state_up);
    port.device_id = update.device_id.unwrap_or(port.device_id);
    port.device_owner = update.device_owner.unwrap_or(port.device_owner);
    port.port_security_enabled = update.port_security_enabled.unwrap_or(port.port_security_enabled);
    port.dns_name = update.dns_name.unwrap_or(port.dns_name);
    if let Some(asked) = update.allowed_address_pairs {
        port.allowed_address_pairs = pairs(port.mac_address, port.port_security_enabled, asked)?;
    } else if !port.port_security_enabled && !port.allowed_address_pairs.is_empty() {
        return Err(RegionError::InvalidInput(
            "port security cannot be switched off while the port has allowed address pairs".into(),
        ));
    }
    port.binding.host_id = update.binding_host_id.unwrap_or(port.binding.host_id);
    port.binding.profile = update.binding_profile.unwrap_or(port.binding.profile);
    if let Some(vnic_type) = update.binding_vnic_type {
        port.binding.vnic_type = check_vnic_type(vnic_type)?;
    }
    if port.binding.host_id != before.binding.host_id {
        port.binding.since = tx.revision();
        tx.delete(ResourceKey::PortRuntime(id));
    }
    tx.put(Resource::Port(Arc::new(port)));
    written(tx, id)
}

/// Deletes a port; its addresses are free at once.
///
/// # Errors
/// Not found, not the caller's, `If-Match`.
fn delete(
    tx: &mut Tx<'_, RegionState>,
    caller: &Caller,
    id: Id<Port>,
    if_match: Option<u64>,
) -> Result<(), RegionError> {
    let port = owned(tx.state(), caller, id, "delete_port")?;
    check_if_match(&port.standard, if_match)?;
    tx.delete(ResourceKey::PortRuntime(id));
    tx.delete(ResourceKey::Port(id));
    Ok(())
}

/// A port that the caller may change.
fn owned<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<Port>,
    action: &str,
) -> Result<&'a Arc<Port>, RegionError> {
    let port = state
        .visible_port(caller, id)
        .ok_or(RegionError::PortNotFound(id))?;
    if network::owns_network_of(state, caller, port) || port.standard.project_id == caller.project_id {
        Ok(port)
    } else {
        Err(RegionError::Forbidden {
            action: action.to_owned(),
        })
    }
}

/// A new port's id: a UUID of version 8 that begins with 40 bits of fine time and goes on with random bits.
///
/// Nova and Neutron name a port's device after the first ten hexadecimal digits of its id, 40 bits. In a UUIDv7 a
/// step of these is a quarter of a second, so ports made together would share one device name. Here a step is
/// 3.6 microseconds (they begin anew after 46 days), and nobody gets digits that another port has. Rows made
/// together still lie together in the database.
fn new_id(state: &RegionState, env: &Env) -> Result<Id<Port>, RegionError> {
    let micros = u128::try_from(env.source.now().as_microsecond()).unwrap_or_default();
    let ticks = micros * (1 << 24) / 60_000_000;
    let later = (0..ID_TRIES).map(|step| ticks + step);
    let anywhere = (0..ID_TRIES).map(|_| u128::from(env.source.random() >> 24));
    let prefix = later
        .chain(anywhere)
        .map(|prefix| prefix & PREFIX_MAX)
        .find(|prefix| !has_prefix(state, *prefix))
        .ok_or(RegionError::DeviceNameGenerationFailure)?;
    let random = u128::from(env.source.random()) << 24 | u128::from(env.source.random() & 0xff_ffff);
    Ok(Id::from_uuid(uuid::Uuid::new_v8(
        (prefix << PREFIX_SHIFT | random).to_be_bytes(),
    )))
}

/// Whether a port's id begins with these 40 bits.
fn has_prefix(state: &RegionState, prefix: u128) -> bool {
    // No id of version 8 has only zeros behind the prefix, so everything with the prefix comes after this one.
    let first = Id::from_uuid(uuid::Uuid::from_u128(prefix << PREFIX_SHIFT));
    state
        .ports()
        .after(&first)
        .next()
        .is_some_and(|next| next.id.uuid().as_u128() >> PREFIX_SHIFT == prefix)
}

fn written(tx: &Tx<'_, RegionState>, id: Id<Port>) -> Result<Arc<Port>, RegionError> {
    tx.state()
        .ports()
        .get(&id)
        .cloned()
        .ok_or(RegionError::PortNotFound(id))
}

fn names_an_address(asked: Option<&[FixedIpRequest]>) -> bool {
    asked.is_some_and(|asked| asked.iter().any(|fixed| fixed.ip_address.is_some()))
}

fn check_vnic_type(vnic_type: String) -> Result<String, RegionError> {
    if vnic_type == "normal" {
        Ok(vnic_type)
    } else {
        Err(RegionError::InvalidInput(format!(
            "binding:vnic_type '{vnic_type}' is not supported; use 'normal'"
        )))
    }
}

fn check_mac(
    state: &RegionState,
    network: Id<Network>,
    mac: MacAddr,
    own: Option<Id<Port>>,
) -> Result<MacAddr, RegionError> {
    if mac.is_multicast() || mac == MacAddr::default() || mac == GATEWAY_MAC {
        return Err(RegionError::InvalidInput(format!(
            "'{mac}' cannot be the MAC address of a port"
        )));
    }
    match state.port_with_mac(network, mac) {
        Some(owner) if Some(owner) != own => Err(RegionError::MacAddressInUse { network, mac }),
        _ => Ok(mac),
    }
}

fn allocate_mac(state: &RegionState, env: &Env, network: Id<Network>) -> Result<MacAddr, RegionError> {
    let base = env.config.mac_base;
    (0..MAC_TRIES)
        .map(|_| {
            let [.., a, b, c] = env.source.random().to_be_bytes();
            MacAddr([base[0], base[1], base[2], a, b, c])
        })
        .find(|mac| *mac != GATEWAY_MAC && state.port_with_mac(network, *mac).is_none())
        .ok_or(RegionError::MacAddressGenerationFailure(network))
}

/// One IPv4 address, one IPv6 address of a subnet without automatic addresses, and one of each subnet with them:
/// what Neutron gives when the client does not say.
fn default_addresses(
    state: &RegionState,
    env: &Env,
    network: &Network,
    mac: MacAddr,
) -> Result<Vec<FixedIp>, RegionError> {
    let mut fixed_ips = Vec::new();
    for ipv6 in [false, true] {
        let mut any = false;
        let mut found = None;
        for subnet in state.subnets_of(network.id) {
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
    for subnet in state
        .subnets_of(network.id)
        .filter(|subnet| subnet.is_auto_address())
    {
        if fixed_ips.len() < Port::MAX_FIXED_IPS {
            fixed_ips.push(auto_address(state, subnet, mac, None)?);
        }
    }
    Ok(fixed_ips)
}

/// The addresses that the client asks for. `before` is the port as it is, whose addresses count as free.
fn asked_addresses(
    state: &RegionState,
    env: &Env,
    caller: &Caller,
    network: &Network,
    mac: MacAddr,
    asked: &[FixedIpRequest],
    before: Option<&Port>,
) -> Result<Vec<FixedIp>, RegionError> {
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
                if subnet.is_auto_address() && !formed {
                    return Err(RegionError::InvalidInput(format!(
                        "IPv6 address {ip} can not be directly assigned to a port on subnet {} since the subnet is configured for automatic addresses",
                        subnet.id
                    )));
                }
                if !is_usable(subnet.cidr, ip) {
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
        let gateway = subnet.gateway_ip == Some(fixed.ip_address);
        if taken || gateway || fixed_ips.contains(&fixed) {
            return Err(RegionError::IpAddressInUse {
                ip: fixed.ip_address,
                subnet: subnet.id,
            });
        }
        fixed_ips.push(fixed);
    }
    Ok(fixed_ips)
}

fn asked_subnet<'a>(
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
fn kept_or_new(
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

fn auto_address(
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
fn form_addresses_again(state: &RegionState, port: &mut Port) -> Result<(), RegionError> {
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
fn allocate(state: &RegionState, env: &Env, subnet: &Subnet, chosen: &[FixedIp]) -> Option<FixedIp> {
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

fn allocate_v4(state: &RegionState, subnet: &Subnet, chosen: &[FixedIp]) -> Option<IpAddr> {
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
fn allocate_v6(state: &RegionState, env: &Env, subnet: &Subnet, chosen: &[FixedIp]) -> Option<IpAddr> {
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

fn pairs(
    own_mac: MacAddr,
    port_security_enabled: bool,
    asked: Vec<AddressPairRequest>,
) -> Result<Vec<AddressPair>, RegionError> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    if !port_security_enabled {
        return Err(RegionError::AddressPairAndPortSecurityRequired);
    }
    if asked.len() > Port::MAX_ADDRESS_PAIRS {
        return Err(RegionError::AddressPairsExhausted(Port::MAX_ADDRESS_PAIRS));
    }
    let mut pairs: Vec<AddressPair> = Vec::with_capacity(asked.len());
    for request in asked {
        let pair = AddressPair {
            ip_address: request.ip_address.trunc(),
            mac_address: request.mac_address.unwrap_or(own_mac),
        };
        if pairs.contains(&pair) {
            return Err(RegionError::InvalidInput(format!(
                "Request contains duplicate address pair: mac_address {} ip_address {}",
                pair.mac_address, pair.ip_address
            )));
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use alcor_store::State as _;

    use super::*;
    use crate::{RegionConfig, env::Source};

    /// Time stands still, and there are few random numbers.
    struct Few(std::sync::atomic::AtomicU64);
    impl Source for Few {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
        fn uuid(&self) -> uuid::Uuid {
            uuid::Uuid::nil()
        }
        fn random(&self) -> u64 {
            // Each number twice, in the bits that become the start of an id.
            (self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) / 4) << 40
        }
    }

    #[test]
    fn ports_made_in_one_moment_have_device_names_of_their_own() {
        let env = Env {
            config: Arc::new(RegionConfig::default()),
            source: Arc::new(Few(0.into())),
        };
        let mut state = RegionState::default();
        let mut names = BTreeSet::new();
        for _ in 0..100 {
            let id = new_id(&state, &env).unwrap();
            let port: Port = serde_json::from_value(serde_json::json!({
                "id": id, "revision": 1, "project_id": "p", "name": "", "description": "", "tags": [],
                "created_at": "1970-01-01T00:00:00Z", "updated_at": "1970-01-01T00:00:00Z", "revision_number": 1,
                "network_id": uuid::Uuid::nil(), "mac_address": "fa:16:3e:00:00:01", "fixed_ips": [],
                "allowed_address_pairs": [], "admin_state_up": true, "device_id": "", "device_owner": "",
                "port_security_enabled": true, "dns_name": "",
                "binding": {"host_id": "", "vnic_type": "normal", "profile": {}, "since": 1}
            }))
            .unwrap();
            state.put(Resource::Port(Arc::new(port)));
            assert!(names.insert(Port::device_name(id)), "{id}");
        }
    }
}
