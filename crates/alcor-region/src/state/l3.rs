//! Routers, floating IPs and port forwardings: their indexes.

use std::sync::Arc;

use alcor_model::{FloatingIp, Id, Network, Port, PortForwarding, Router};
use alcor_store::MultiIndex;

use super::{Indexed, RegionState};

/// What is derived from the rows of routers, floating IPs and port forwardings.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct L3Indexes {
    /// By the networks of their interfaces.
    routers_by_network: MultiIndex<Id<Network>, Id<Router>>,
    floating_ips_by_port: MultiIndex<Id<Port>, Id<FloatingIp>>,
    floating_ips_by_router: MultiIndex<Id<Router>, Id<FloatingIp>>,
    forwardings_by_floating_ip: MultiIndex<Id<FloatingIp>, Id<PortForwarding>>,
    forwardings_by_port: MultiIndex<Id<Port>, Id<PortForwarding>>,
}

impl RegionState {
    /// The routers that have an interface in a network.
    pub fn routers_in(&self, network: Id<Network>) -> impl Iterator<Item = &Arc<Router>> {
        self.l3
            .routers_by_network
            .get(&network)
            .filter_map(|id| self.routers.get(id))
    }

    /// The floating IPs that lead to a port as a whole.
    pub fn floating_ips_to(&self, port: Id<Port>) -> impl Iterator<Item = &Arc<FloatingIp>> {
        self.l3
            .floating_ips_by_port
            .get(&port)
            .filter_map(|id| self.floating_ips.get(id))
    }

    /// The floating IPs that a router translates.
    pub fn floating_ips_of_router(&self, router: Id<Router>) -> impl Iterator<Item = &Arc<FloatingIp>> {
        self.l3
            .floating_ips_by_router
            .get(&router)
            .filter_map(|id| self.floating_ips.get(id))
    }

    /// The port forwardings of a floating IP.
    pub fn port_forwardings_of(
        &self,
        floating_ip: Id<FloatingIp>,
    ) -> impl Iterator<Item = &Arc<PortForwarding>> {
        self.l3
            .forwardings_by_floating_ip
            .get(&floating_ip)
            .filter_map(|id| self.port_forwardings.get(id))
    }

    /// The port forwardings that lead to a port.
    pub fn port_forwardings_to(&self, port: Id<Port>) -> impl Iterator<Item = &Arc<PortForwarding>> {
        self.l3
            .forwardings_by_port
            .get(&port)
            .filter_map(|id| self.port_forwardings.get(id))
    }
}

impl Indexed for Router {
    fn index(&self, state: &mut RegionState) {
        for interface in &self.interfaces {
            state.l3.routers_by_network.insert(interface.network_id, self.id);
        }
    }

    fn unindex(&self, state: &mut RegionState) {
        for interface in &self.interfaces {
            state.l3.routers_by_network.remove(interface.network_id, self.id);
        }
    }
}

impl Indexed for FloatingIp {
    fn index(&self, state: &mut RegionState) {
        if let Some(association) = self.association {
            state.l3.floating_ips_by_port.insert(association.port_id, self.id);
        }
        if let Some(router) = self.router_id {
            state.l3.floating_ips_by_router.insert(router, self.id);
        }
    }

    fn unindex(&self, state: &mut RegionState) {
        if let Some(association) = self.association {
            state.l3.floating_ips_by_port.remove(association.port_id, self.id);
        }
        if let Some(router) = self.router_id {
            state.l3.floating_ips_by_router.remove(router, self.id);
        }
    }
}

impl Indexed for PortForwarding {
    fn index(&self, state: &mut RegionState) {
        state
            .l3
            .forwardings_by_floating_ip
            .insert(self.floatingip_id, self.id);
        state
            .l3
            .forwardings_by_port
            .insert(self.internal_port_id, self.id);
    }

    fn unindex(&self, state: &mut RegionState) {
        state
            .l3
            .forwardings_by_floating_ip
            .remove(self.floatingip_id, self.id);
        state
            .l3
            .forwardings_by_port
            .remove(self.internal_port_id, self.id);
    }
}
