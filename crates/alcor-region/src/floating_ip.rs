//! Floating IPs: their address in an external network, and the port that they lead to. Ports of TCP and UDP that lead to
//! several places are in [`forwarding`].

mod error;
pub mod forwarding;

use std::{net::IpAddr, sync::Arc};

use alcor_model::{
    FloatingIp, Id, Network, Port, Resource, ResourceKey, Router, Subnet,
    resource::{Association, FLOATING_IP, FixedIp, FloatingIpWord},
};
use alcor_store::Tx;
pub use error::FloatingIpError;

use crate::{
    Env, RegionError, RegionState,
    command::{Caller, FixedIpRequest, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
    port,
    router::{self, ports},
};

/// `device_owner` of the ports that answer DHCP; floating IPs do not lead there.
const DHCP: &str = "network:dhcp";

/// Where a floating IP should lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssociationRequest {
    /// The port; `Some(None)` leads nowhere, `None` leaves it.
    pub port_id: Option<Option<Id<Port>>>,
    /// Default: the port's only IPv4 address.
    pub fixed_ip_address: Option<IpAddr>,
    /// Default: the router that connects the two.
    pub router_id: Option<Id<Router>>,
}

/// `POST /v2.0/floatingips`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingIpCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// The external network.
    pub floating_network_id: Id<Network>,
    /// Take an address of this subnet.
    pub subnet_id: Option<Id<Subnet>>,
    /// Take this address.
    pub floating_ip_address: Option<IpAddr>,
    /// Where it leads.
    pub association: AssociationRequest,
    /// Default empty.
    pub dns_name: String,
    /// Default empty.
    pub dns_domain: String,
}

/// `PUT /v2.0/floatingips/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FloatingIpUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// Where it leads from now on.
    pub association: AssociationRequest,
}

impl Managed for FloatingIp {
    type Create = FloatingIpCreate;
    type Update = FloatingIpUpdate;
    const QUOTA: Option<&'static str> = Some("floatingip");

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let id = env.new_id();
        check_network(tx.state(), caller, &create)?;
        let network = create.floating_network_id;
        let asked = FixedIpRequest {
            subnet_id: create.subnet_id,
            ip_address: create.floating_ip_address,
        };
        let fixed_ips = (asked.subnet_id.is_some() || asked.ip_address.is_some()).then(|| vec![asked]);
        let owner = ports::Owner {
            // Nobody's, as Neutron's: the project sees the floating IP, not this port.
            project_id: String::new(),
            device_id: Id::<Self>::to_string(&id),
            device_owner: FLOATING_IP,
        };
        let port = ports::make(tx, env, network, owner, fixed_ips)?;
        let address = first_ipv4(&port).ok_or(FloatingIpError::AddressesExhausted(network))?;
        let mut floating_ip = Self {
            id,
            revision: tx.revision(),
            standard: env.standard(caller, create.standard)?,
            floating_network_id: network,
            floating_ip_address: address.ip_address,
            floating_port_id: port.id,
            association: None,
            router_id: None,
            in_force: false,
            dns_name: create.dns_name,
            dns_domain: create.dns_domain,
        };
        associate(tx.state(), caller, &mut floating_ip, create.association)?;
        Ok(put(tx, floating_ip))
    }

    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let known = visible(tx.state(), caller, *id)?;
        let mut floating_ip = Self::clone(known);
        env.update_standard(&mut floating_ip.standard, update.standard, if_match)?;
        associate(tx.state(), caller, &mut floating_ip, update.association)?;
        let leads = |floating_ip: &Self| (floating_ip.association, floating_ip.router_id);
        floating_ip.in_force &= leads(known) == leads(&floating_ip);
        Ok(put(tx, floating_ip))
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let floating_ip = visible(tx.state(), caller, *id)?;
        check_if_match(&floating_ip.standard, if_match)?;
        remove(tx, env, *id)
    }

    fn visible(&self, caller: &Caller, _: &RegionState) -> bool {
        sees(caller, self)
    }
}

fn sees(caller: &Caller, floating_ip: &FloatingIp) -> bool {
    caller.is_admin || floating_ip.standard.project_id == caller.project_id
}

/// The floating IP, if the caller may see it.
pub(crate) fn visible<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<FloatingIp>,
) -> Result<&'a Arc<FloatingIp>, RegionError> {
    state
        .floating_ips()
        .get(&id)
        .filter(|floating_ip| sees(caller, floating_ip))
        .ok_or_else(|| RegionError::NotFound {
            exception: "FloatingIPNotFound",
            resource: "Floating IP",
            id: id.to_string(),
        })
}

fn put(tx: &mut Tx<'_, RegionState>, floating_ip: FloatingIp) -> Arc<FloatingIp> {
    let floating_ip = Arc::new(floating_ip);
    tx.put(Resource::FloatingIp(Arc::clone(&floating_ip)));
    floating_ip
}

fn remove(tx: &mut Tx<'_, RegionState>, env: &Env, id: Id<FloatingIp>) -> Result<(), RegionError> {
    let Some(floating_ip) = tx.state().floating_ips().get(&id).cloned() else {
        return Ok(());
    };
    if tx.state().port_forwardings_of(id).next().is_some() {
        return Err(FloatingIpError::InUseByForwarding(id).into());
    }
    port::remove(tx, env, floating_ip.floating_port_id);
    tx.delete(ResourceKey::FloatingIp(id));
    Ok(())
}

/// Before an external network goes: the floating IPs of it that lead nowhere go with it.
pub(crate) fn remove_unused(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    network: Id<Network>,
) -> Result<(), RegionError> {
    let unused: Vec<Id<FloatingIp>> = tx
        .state()
        .ports_of(network)
        .filter(|port| port.device_owner == FLOATING_IP)
        .filter_map(|port| tx.state().floating_ips().get(&port.device_id.parse().ok()?))
        .filter(|floating_ip| floating_ip.router_id.is_none())
        .map(|floating_ip| floating_ip.id)
        .collect();
    unused.into_iter().try_for_each(|id| remove(tx, env, id))
}

/// Before a port goes: no floating IP leads to it any more.
pub(crate) fn disassociate_all(tx: &mut Tx<'_, RegionState>, env: &Env, port: Id<Port>) {
    let leading_there: Vec<Arc<FloatingIp>> = tx.state().floating_ips_to(port).cloned().collect();
    for floating_ip in leading_there {
        let mut floating_ip = FloatingIp::clone(&floating_ip);
        floating_ip.association = None;
        floating_ip.router_id = None;
        floating_ip.in_force = false;
        env.touch(&mut floating_ip.standard);
        put(tx, floating_ip);
    }
}

/// Takes what an NCM knows of floating IPs. A word about a row that is another one meanwhile is ignored. Gives how many were news.
pub fn note(tx: &mut Tx<'_, RegionState>, words: &[FloatingIpWord]) -> usize {
    let mut news = 0;
    for word in words {
        let known = tx.state().floating_ips().get(&word.id);
        let is_news = |known: &&Arc<FloatingIp>| {
            known.revision == word.revision
                && known.in_force != word.in_force
                && (known.association.is_some() || !word.in_force)
        };
        let Some(known) = known.filter(is_news) else {
            continue;
        };
        let floating_ip = FloatingIp {
            in_force: word.in_force,
            revision: tx.revision(),
            ..FloatingIp::clone(known)
        };
        put(tx, floating_ip);
        news += 1;
    }
    news
}

fn bad_request<T>(words: impl Into<String>) -> Result<T, RegionError> {
    Err(FloatingIpError::BadRequest(words.into()).into())
}

fn check_network(state: &RegionState, caller: &Caller, create: &FloatingIpCreate) -> Result<(), RegionError> {
    let id = create.floating_network_id;
    let network = state
        .visible_network(caller, id)
        .ok_or(RegionError::NetworkNotFound(id))?;
    if !state.is_external(network) {
        return bad_request(format!("Network {id} is not a valid external network"));
    }
    if !state.subnets_of(id).any(|subnet| subnet.cidr.addr().is_ipv4()) {
        return bad_request(format!("Network {id} does not contain any IPv4 subnet"));
    }
    match create.subnet_id {
        Some(subnet) if state.visible_subnet(caller, subnet).is_none() => {
            Err(RegionError::SubnetNotFound(subnet))
        }
        _ => Ok(()),
    }
}

fn first_ipv4(port: &Port) -> Option<FixedIp> {
    port.fixed_ips
        .iter()
        .find(|fixed| fixed.ip_address.is_ipv4())
        .copied()
}

/// Lets a floating IP lead to where the client wants it.
fn associate(
    state: &RegionState,
    caller: &Caller,
    floating_ip: &mut FloatingIp,
    request: AssociationRequest,
) -> Result<(), RegionError> {
    let Some(Some(port_id)) = request.port_id else {
        if request.fixed_ip_address.is_some() {
            return bad_request("fixed_ip_address cannot be specified without a port_id");
        }
        if request.port_id == Some(None) && floating_ip.association.take().is_some() {
            floating_ip.router_id = None;
        }
        return Ok(());
    };
    if state.port_forwardings_of(floating_ip.id).next().is_some() {
        return Err(FloatingIpError::InUseByForwarding(floating_ip.id).into());
    }
    let port = state
        .visible_port(caller, port_id)
        .ok_or(RegionError::PortNotFound(port_id))?;
    if port.standard.project_id != floating_ip.standard.project_id && !caller.is_admin {
        return bad_request(format!(
            "Cannot process floating IP association with Port {port_id}, since that port is owned by a different project"
        ));
    }
    if port.device_owner == DHCP {
        return bad_request(format!("Port {port_id} is unable to be assigned a floating IP"));
    }
    let inside = inside_address(port, request.fixed_ip_address)?;
    let network = floating_ip.floating_network_id;
    let router_id = match request.router_id {
        Some(router) => named_router(state, caller, router, network)?,
        None => {
            connecting_router(state, port, inside.subnet_id, network).ok_or(FloatingIpError::NoGateway {
                network,
                subnet: inside.subnet_id,
                port: port_id,
            })?
        }
    };
    let association = Association {
        port_id,
        fixed_ip_address: inside.ip_address,
    };
    let taken = state.floating_ips_to(port_id).any(|other| {
        other.id != floating_ip.id
            && other.floating_network_id == network
            && other.association == Some(association)
    });
    if taken {
        return Err(FloatingIpError::AlreadyAssociated {
            address: floating_ip.floating_ip_address,
            floating_ip: floating_ip.id,
            port: port_id,
            fixed_ip: inside.ip_address,
            network,
        }
        .into());
    }
    floating_ip.association = Some(association);
    floating_ip.router_id = Some(router_id);
    Ok(())
}

/// The address of a port that a floating IP leads to.
fn inside_address(port: &Port, asked: Option<IpAddr>) -> Result<FixedIp, RegionError> {
    let id = port.id;
    match asked {
        Some(ip) if ip.is_ipv6() => bad_request(format!(
            "Cannot process floating IP association with {ip}, since that is not an IPv4 address"
        )),
        Some(ip) => match port.fixed_ips.iter().find(|fixed| fixed.ip_address == ip) {
            Some(fixed) => Ok(*fixed),
            None => bad_request(format!("Port {id} does not have fixed ip {ip}")),
        },
        None => {
            let mut ipv4 = port.fixed_ips.iter().filter(|fixed| fixed.ip_address.is_ipv4());
            match (ipv4.next(), ipv4.next()) {
                (Some(fixed), None) => Ok(*fixed),
                (None, _) => bad_request(format!(
                    "Cannot add floating IP to port {id} that has no fixed IPv4 addresses"
                )),
                (Some(_), Some(_)) => bad_request(format!(
                    "Port {id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a \
                     floating IP"
                )),
            }
        }
    }
}

/// The router that the client names; it must have its way out through the external network.
fn named_router(
    state: &RegionState,
    caller: &Caller,
    id: Id<Router>,
    network: Id<Network>,
) -> Result<Id<Router>, RegionError> {
    let router = router::visible(state, caller, id)?;
    if router.gateway.is_none_or(|gateway| gateway.network_id != network) {
        return Err(FloatingIpError::RouterWithoutGateway(format!(
            "Router {id} has no external gateway on network {network}"
        ))
        .into());
    }
    Ok(id)
}

/// The router between a port's subnet and an external network; of several the one that has the subnet's gateway
/// address.
fn connecting_router(
    state: &RegionState,
    port: &Port,
    subnet: Id<Subnet>,
    external: Id<Network>,
) -> Option<Id<Router>> {
    let gateway_ip = state.subnets().get(&subnet)?.gateway_ip;
    let mut first = None;
    for router in state.routers_in(port.network_id) {
        if router
            .gateway
            .is_none_or(|gateway| gateway.network_id != external)
        {
            continue;
        }
        let interfaces = router
            .interfaces
            .iter()
            .filter_map(|interface| state.ports().get(&interface.port_id));
        for fixed in interfaces
            .flat_map(|port| &port.fixed_ips)
            .filter(|fixed| fixed.subnet_id == subnet)
        {
            if Some(fixed.ip_address) == gateway_ip {
                return Some(router.id);
            }
            first = first.or(Some(router.id));
        }
    }
    first
}
