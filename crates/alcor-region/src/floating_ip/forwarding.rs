//! Port forwardings: ports of TCP, UDP and the like of one floating IP that lead to several places inside.

use std::{net::Ipv4Addr, sync::Arc};

use alcor_model::{
    FloatingIp, Id, Port, PortForwarding, Resource, ResourceKey, Router,
    resource::{FixedIp, PortRange},
};
use alcor_store::Tx;

use super::{FloatingIpError, connecting_router, put as put_floating_ip, visible};
use crate::{
    Env, RegionError, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
};

/// `POST /v2.0/floatingips/{id}/port_forwardings`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwardingCreate {
    /// The floating IP.
    pub floatingip_id: Id<FloatingIp>,
    /// For people.
    pub description: String,
    /// `tcp`, `udp`, ...
    pub protocol: String,
    /// Ports of the floating IP.
    pub external: PortRange,
    /// Ports inside.
    pub internal: PortRange,
    /// The port inside.
    pub internal_port_id: Id<Port>,
    /// Its address.
    pub internal_ip_address: Ipv4Addr,
}

/// `PUT /v2.0/floatingips/{id}/port_forwardings/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortForwardingUpdate {
    /// For people.
    pub description: Option<String>,
    /// New protocol.
    pub protocol: Option<String>,
    /// New ports outside.
    pub external: Option<PortRange>,
    /// New ports inside.
    pub internal: Option<PortRange>,
    /// New port inside.
    pub internal_port_id: Option<Id<Port>>,
    /// New address inside.
    pub internal_ip_address: Option<Ipv4Addr>,
}

impl Managed for PortForwarding {
    type Create = PortForwardingCreate;
    type Update = PortForwardingUpdate;
    const QUOTA: Option<&'static str> = None;

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let floating_ip = Arc::clone(visible(tx.state(), caller, create.floatingip_id)?);
        let standard = StandardCreate {
            project_id: Some(floating_ip.standard.project_id.clone()),
            description: create.description,
            ..StandardCreate::default()
        };
        let forwarding = Self {
            id: env.new_id(),
            revision: tx.revision(),
            standard: env.standard(caller, standard)?,
            floatingip_id: floating_ip.id,
            protocol: create.protocol,
            external: create.external,
            internal: create.internal,
            internal_port_id: create.internal_port_id,
            internal_ip_address: create.internal_ip_address,
        };
        write(tx, env, caller, &floating_ip, forwarding)
    }

    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let (floating_ip, before) = find(tx.state(), caller, *id)?;
        let mut forwarding = Self::clone(&before);
        let standard = StandardUpdate {
            description: update.description,
            ..StandardUpdate::default()
        };
        env.update_standard(&mut forwarding.standard, standard, if_match)?;
        forwarding.protocol = update.protocol.unwrap_or(forwarding.protocol);
        forwarding.external = update.external.unwrap_or(forwarding.external);
        forwarding.internal = update.internal.unwrap_or(forwarding.internal);
        forwarding.internal_port_id = update.internal_port_id.unwrap_or(forwarding.internal_port_id);
        forwarding.internal_ip_address = update
            .internal_ip_address
            .unwrap_or(forwarding.internal_ip_address);
        write(tx, env, caller, &floating_ip, forwarding)
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let (_, forwarding) = find(tx.state(), caller, *id)?;
        check_if_match(&forwarding.standard, if_match)?;
        remove_all(tx, env, vec![*id]);
        Ok(())
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        visible(state, caller, self.floatingip_id).is_ok()
    }
}

/// A port forwarding with its floating IP, if the caller may see that.
fn find(
    state: &RegionState,
    caller: &Caller,
    id: Id<PortForwarding>,
) -> Result<(Arc<FloatingIp>, Arc<PortForwarding>), RegionError> {
    let forwarding = state
        .port_forwardings()
        .get(&id)
        .ok_or(FloatingIpError::ForwardingNotFound(id))?;
    let floating_ip = visible(state, caller, forwarding.floatingip_id)
        .map_err(|_| FloatingIpError::ForwardingNotFound(id))?;
    Ok((Arc::clone(floating_ip), Arc::clone(forwarding)))
}

/// Removes port forwardings. The last one of a floating IP frees it from its router.
pub(crate) fn remove_all(tx: &mut Tx<'_, RegionState>, env: &Env, ids: Vec<Id<PortForwarding>>) {
    for id in ids {
        let Some(forwarding) = tx.state().port_forwardings().get(&id).cloned() else {
            continue;
        };
        tx.delete(ResourceKey::PortForwarding(id));
        if tx
            .state()
            .port_forwardings_of(forwarding.floatingip_id)
            .next()
            .is_none()
            && let Some(floating_ip) = tx.state().floating_ips().get(&forwarding.floatingip_id)
        {
            let mut floating_ip = FloatingIp::clone(floating_ip);
            floating_ip.router_id = None;
            env.touch(&mut floating_ip.standard);
            put_floating_ip(tx, floating_ip);
        }
    }
}

fn refuse<T>(words: impl Into<String>) -> Result<T, RegionError> {
    Err(FloatingIpError::BadForwarding(words.into()).into())
}

/// Checks a port forwarding as it should be and writes it.
fn write(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    floating_ip: &FloatingIp,
    forwarding: PortForwarding,
) -> Result<Arc<PortForwarding>, RegionError> {
    let state = tx.state();
    check_ranges(state, &forwarding)?;
    let port_id = forwarding.internal_port_id;
    let port = state
        .visible_port(caller, port_id)
        .ok_or(RegionError::PortNotFound(port_id))?;
    check_free(state, floating_ip, &forwarding)?;
    let router = router_for(state, floating_ip, &forwarding, port)?;
    if floating_ip.router_id != Some(router) {
        let mut floating_ip = floating_ip.clone();
        floating_ip.router_id = Some(router);
        env.touch(&mut floating_ip.standard);
        put_floating_ip(tx, floating_ip);
    }
    let forwarding = Arc::new(forwarding);
    tx.put(Resource::PortForwarding(Arc::clone(&forwarding)));
    Ok(forwarding)
}

/// Neither the floating IP nor the port inside is part of a whole association.
fn check_free(
    state: &RegionState,
    floating_ip: &FloatingIp,
    forwarding: &PortForwarding,
) -> Result<(), FloatingIpError> {
    let (port, fixed_ip) = (forwarding.internal_port_id, forwarding.internal_ip_address.into());
    if let Some(other) = state.floating_ips_to(port).next() {
        return Err(FloatingIpError::PortHasFloatingIp {
            address: other.floating_ip_address,
            floating_ip: other.id,
            port,
            fixed_ip,
        });
    }
    if floating_ip.association.is_some() {
        return Err(FloatingIpError::AlreadyAssociated {
            address: floating_ip.floating_ip_address,
            floating_ip: floating_ip.id,
            port,
            fixed_ip,
            network: floating_ip.floating_network_id,
        });
    }
    Ok(())
}

/// The router that connects the port inside with the floating IP's network; all port forwardings of one floating IP go
/// through one router.
fn router_for(
    state: &RegionState,
    floating_ip: &FloatingIp,
    forwarding: &PortForwarding,
    port: &Port,
) -> Result<Id<Router>, RegionError> {
    let (id, ip) = (port.id, forwarding.internal_ip_address);
    let ipv4: Vec<&FixedIp> = port
        .fixed_ips
        .iter()
        .filter(|fixed| fixed.ip_address.is_ipv4())
        .collect();
    if ipv4.is_empty() {
        return refuse(format!(
            "Requested internal port {id} must allocate an IPv4 address at least"
        ));
    }
    let Some(inside) = ipv4.iter().find(|fixed| fixed.ip_address == ip) else {
        return refuse(format!(
            "Requested internal IP address {ip} is not suitable for internal neutron port {id}, as it is none of its \
             addresses"
        ));
    };
    let network = floating_ip.floating_network_id;
    let Some(router) = connecting_router(state, port, inside.subnet_id, network) else {
        return refuse(format!(
            "External network {network} is not reachable from subnet {}. Cannot set Port forwarding for port {id} with \
             Floating IP {}",
            inside.subnet_id, floating_ip.id
        ));
    };
    let others = state
        .port_forwardings_of(floating_ip.id)
        .any(|other| other.id != forwarding.id);
    match floating_ip.router_id {
        Some(have) if have != router && others => refuse(format!(
            "The Floating IP {} had been set on router {have}, the internal Neutron port {id} can not reach it",
            floating_ip.id
        )),
        _ => Ok(router),
    }
}

/// As many ports outside as inside, or many outside and one inside; no port twice on either side.
fn check_ranges(state: &RegionState, forwarding: &PortForwarding) -> Result<(), RegionError> {
    if forwarding.internal.span() > 0 && forwarding.internal.span() != forwarding.external.span() {
        return refuse(
            "Invalid ranges of internal and/or external ports. The relation between internal and external ports must be N-N \
             or 1-N",
        );
    }
    let collision = |side: &str, have: PortRange, new: PortRange| {
        refuse(format!(
            "There is a port collision with the {side}_port_range. The following ranges collide: {}:{} and {}:{}",
            have.first, have.last, new.first, new.last
        ))
    };
    let other =
        |have: &&Arc<PortForwarding>| have.id != forwarding.id && have.protocol == forwarding.protocol;
    for have in state
        .port_forwardings_to(forwarding.internal_port_id)
        .filter(other)
        .filter(|have| have.internal_ip_address == forwarding.internal_ip_address)
    {
        if have.internal.overlaps(forwarding.internal) {
            return collision("internal", have.internal, forwarding.internal);
        }
    }
    let mut count = 0;
    for have in state.port_forwardings_of(forwarding.floatingip_id) {
        count += 1;
        if other(&have) && have.external.overlaps(forwarding.external) {
            return collision("external", have.external, forwarding.external);
        }
    }
    if count > PortForwarding::MAX_PER_FLOATING_IP {
        return refuse(format!(
            "A floating IP has at most {} port forwardings",
            PortForwarding::MAX_PER_FLOATING_IP
        ));
    }
    Ok(())
}
