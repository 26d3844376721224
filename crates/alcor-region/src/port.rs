//! Ports: what may be asked of them. Addresses, MACs and ids are chosen in the modules below.

mod addresses;
pub mod binding;
pub mod command;
pub mod dhcp;
pub mod dns;
pub mod error;
mod id;
mod mac;

use std::sync::Arc;

use alcor_model::{
    Id, MacAddr, Port, Resource, ResourceKey,
    resource::{AddressPair, ROUTER_INTERFACE},
};
use alcor_store::Tx;

use self::{
    addresses::{Asker, asked_addresses, default_addresses, form_addresses_again},
    error::PortError,
    id::new_id,
    mac::{allocate_mac, check_mac},
};
use crate::{
    Env, RegionError, RegionState,
    command::{AddressPairRequest, Caller, PortCreate, PortUpdate},
    env::check_if_match,
    label,
    managed::Managed,
    router, security_group,
};

impl Managed for Port {
    type Create = PortCreate;
    type Update = PortUpdate;
    const QUOTA: Option<&'static str> = Some("port");

    /// Makes a port.
    ///
    /// # Errors
    /// Whatever Neutron refuses: an unknown network or subnet, an address that is taken or does not fit, no address left.
    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let network = tx
            .state()
            .visible_network(caller, create.network_id)
            .cloned()
            .ok_or(RegionError::NetworkNotFound(create.network_id))?;
        let mac_address = match create.mac_address {
            Some(mac) => check_mac(tx.state(), network.id, mac, None)?,
            None => allocate_mac(tx.state(), env, network.id)?,
        };
        let id = new_id(tx.state(), env)?;
        let unaddressed = create.fixed_ips.as_ref().is_some_and(Vec::is_empty);
        let fixed_ips = match create.fixed_ips {
            None => default_addresses(tx.state(), env, &network, &create.device_owner, mac_address)?,
            Some(asked) => {
                let asker = Asker {
                    device_owner: &create.device_owner,
                    caller,
                    is_router: create.device_owner == ROUTER_INTERFACE,
                    mac: mac_address,
                    before: None,
                };
                asked_addresses(tx.state(), env, &network, &asker, &asked)?
            }
        };
        // The platform's own ports are trusted.
        let port_security_enabled = !create.device_owner.starts_with(Port::PLATFORM_OWNER)
            && create
                .port_security_enabled
                .unwrap_or(network.port_security_enabled);
        let standard = env.standard(caller, create.standard)?;
        let new = security_group::NewPort {
            project_id: &standard.project_id,
            device_owner: &create.device_owner,
            port_security_enabled,
        };
        let security_groups = security_group::on_create(tx, env, caller, &new, create.security_groups)?;
        let label = label::of_groups(tx, env, network.id, port_security_enabled, &security_groups)?;
        let port = Port {
            id,
            revision: tx.revision(),
            standard,
            network_id: network.id,
            mac_address,
            fixed_ips,
            allowed_address_pairs: pairs(mac_address, port_security_enabled, create.allowed_address_pairs)?,
            admin_state_up: create.admin_state_up.unwrap_or(true),
            device_id: create.device_id,
            device_owner: create.device_owner,
            port_security_enabled,
            security_groups,
            label,
            dns_name: dns::check_name(create.dns_name, &env.config.dns_domain)?,
            binding: binding::bind(
                tx.state(),
                tx.revision(),
                create.binding_host_id,
                create.binding_vnic_type,
                create.binding_profile,
            ),
            standby: Vec::new(),
            unaddressed,
            dns_domain: create.dns_domain.to_ascii_lowercase(),
            extra_dhcp_opts: dhcp::changed(Vec::new(), create.extra_dhcp_opts)?,
            data_plane_status: None,
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
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let id = *id;
        let before = Arc::clone(visible(tx.state(), caller, id)?);
        let network = tx
            .state()
            .networks()
            .get(&before.network_id)
            .cloned()
            .ok_or(RegionError::NetworkNotFound(before.network_id))?;
        let mut port = Port::clone(&before);
        env.update_standard(&mut port.standard, update.standard, if_match)?;
        if let Some(mac) = update.mac_address {
            port.mac_address = new_mac(tx.state(), env, &before, mac)?;
        }
        if let Some(asked) = update.fixed_ips {
            port.unaddressed = asked.is_empty();
            let asker = Asker {
                device_owner: &port.device_owner,
                caller,
                is_router: port.device_owner == ROUTER_INTERFACE,
                mac: port.mac_address,
                before: Some(&before),
            };
            port.fixed_ips = asked_addresses(tx.state(), env, &network, &asker, &asked)?;
        } else if port.mac_address != before.mac_address {
            form_addresses_again(tx.state(), &mut port)?;
        }
        port.admin_state_up = update.admin_state_up.unwrap_or(port.admin_state_up);
        port.device_id = update.device_id.unwrap_or(port.device_id);
        port.device_owner = update.device_owner.unwrap_or(port.device_owner);
        port.port_security_enabled = update.port_security_enabled.unwrap_or(port.port_security_enabled);
        if let Some(name) = update.dns_name {
            port.dns_name = dns::check_name(name, &env.config.dns_domain)?;
        }
        if let Some(domain) = update.dns_domain {
            port.dns_domain = domain.to_ascii_lowercase();
        }
        port.extra_dhcp_opts = dhcp::changed(port.extra_dhcp_opts, update.extra_dhcp_opts)?;
        port.data_plane_status = update.data_plane_status.unwrap_or(port.data_plane_status);
        if let Some(asked) = update.allowed_address_pairs {
            port.allowed_address_pairs = pairs(port.mac_address, port.port_security_enabled, asked)?;
        } else if !port.port_security_enabled && !port.allowed_address_pairs.is_empty() {
            return Err(RegionError::InvalidInput(
                "port security cannot be switched off while the port has allowed address pairs".into(),
            ));
        }
        port.security_groups = security_group::on_update(tx.state(), caller, &port, update.security_groups)?;
        port.label = label::of_groups(
            tx,
            env,
            port.network_id,
            port.port_security_enabled,
            &port.security_groups,
        )?;
        let anew = binding::rebind(
            tx.state(),
            tx.revision(),
            &mut port.binding,
            update.binding_host_id,
            update.binding_vnic_type,
            update.binding_profile,
        );
        if anew {
            port.standby
                .retain(|standby| standby.host_id != port.binding.host_id);
            tx.delete(ResourceKey::PortRuntime(id));
        }
        router::ports::check_update(tx.state(), &before, &port)?;
        let port = tx.write(port);
        label::left(tx, before.network_id, before.label);
        router::ports::changed(tx, env, &port);
        Ok(port)
    }

    /// Deletes a port; its addresses are free at once.
    ///
    /// # Errors
    /// Not found, not the caller's, `If-Match`, a router's or a floating IP's.
    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let id = *id;
        let port = visible(tx.state(), caller, id)?;
        check_if_match(&port.standard, if_match)?;
        router::ports::check_delete(tx.state(), port)?;
        remove(tx, env, id);
        Ok(())
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_port(caller, self)
    }
}

/// Removes a port, whoever owns it, and what leads to it.
pub(crate) fn remove(tx: &mut Tx<'_, RegionState>, env: &Env, id: Id<Port>) {
    router::ports::gone(tx, env, id);
    let had = tx
        .state()
        .ports()
        .get(&id)
        .map(|port| (port.network_id, port.label));
    tx.delete(ResourceKey::PortRuntime(id));
    tx.delete(ResourceKey::Port(id));
    if let Some((network, label)) = had {
        label::left(tx, network, label);
    }
}

fn visible<'a>(state: &'a RegionState, caller: &Caller, id: Id<Port>) -> Result<&'a Arc<Port>, RegionError> {
    state
        .visible_port(caller, id)
        .ok_or(RegionError::PortNotFound(id))
}

fn written(tx: &Tx<'_, RegionState>, id: Id<Port>) -> Result<Arc<Port>, RegionError> {
    tx.state()
        .ports()
        .get(&id)
        .cloned()
        .ok_or(RegionError::PortNotFound(id))
}

/// The MAC that a port gets: what is asked for, or another free one. A port that is plugged keeps its own.
fn new_mac(
    state: &RegionState,
    env: &Env,
    port: &Port,
    asked: Option<MacAddr>,
) -> Result<MacAddr, RegionError> {
    let mac = match asked {
        Some(mac) => check_mac(state, port.network_id, mac, Some(port.id))?,
        None => allocate_mac(state, env, port.network_id)?,
    };
    if mac != port.mac_address && port.is_bound() {
        return Err(PortError::Bound {
            port: port.id,
            vif_type: port.binding.vif_type(),
            old_mac: port.mac_address,
            new_mac: mac,
        }
        .into());
    }
    Ok(mac)
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
