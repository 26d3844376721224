//! Gateways: by name, and by tunnel address.

use std::{net::IpAddr, sync::Arc};

use alcor_model::{GatewayNode, Id};
use alcor_store::UniqueIndex;

use super::{Indexed, RegionState};

/// What is derived from the rows of gateways.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct GatewayIndexes {
    by_name: UniqueIndex<String, Id<GatewayNode>>,
    by_tunnel_ip: UniqueIndex<IpAddr, Id<GatewayNode>>,
}

impl RegionState {
    /// The gateway of this name.
    pub fn gateway_named(&self, name: &str) -> Option<&Arc<GatewayNode>> {
        self.gateway_nodes
            .get(self.gateway_indexes.by_name.get(&name.to_owned())?)
    }

    /// The gateway with this tunnel address.
    pub fn gateway_at(&self, tunnel_ip: IpAddr) -> Option<&Arc<GatewayNode>> {
        self.gateway_nodes
            .get(self.gateway_indexes.by_tunnel_ip.get(&tunnel_ip)?)
    }
}

impl Indexed for GatewayNode {
    fn index(&self, state: &mut RegionState) {
        let indexes = &mut state.gateway_indexes;
        indexes.by_name.insert(self.name.clone(), self.id);
        indexes.by_tunnel_ip.insert(self.tunnel_ip, self.id);
    }

    fn unindex(&self, state: &mut RegionState) {
        let indexes = &mut state.gateway_indexes;
        indexes.by_name.remove(&self.name, &self.id);
        indexes.by_tunnel_ip.remove(&self.tunnel_ip, &self.id);
    }
}
