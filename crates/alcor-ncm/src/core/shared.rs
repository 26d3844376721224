//! Rows that many hosts are told of at once, made once for all of them. Nothing here lives longer than it takes to tell them, so
//! nothing here is old.

use std::collections::BTreeMap;

use alcor_model::{Id, Network, Router};

use super::{Ncm, view::KeyedRow};

/// Whom the row of a network is for: all hosts of a kind are told the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Audience {
    Host { filters: bool },
    Gateway,
}

/// The rows of networks and routers that were made so far.
#[derive(Debug, Default)]
pub(super) struct Shared {
    networks: BTreeMap<(Id<Network>, Audience), Option<KeyedRow>>,
    routers: BTreeMap<(Id<Network>, Id<Router>), Option<KeyedRow>>,
}

impl Shared {
    /// The row of a network, for a host or gateway.
    pub(super) fn network(&mut self, ncm: &Ncm, network: Id<Network>, host: &str) -> Option<KeyedRow> {
        let audience = match ncm.is_gateway(host) {
            true => Audience::Gateway,
            false => Audience::Host {
                filters: ncm.filters(host),
            },
        };
        let make = || {
            let view = ncm.networks.get(&network)?;
            match audience {
                Audience::Gateway => view.network_row_of_gateways(),
                Audience::Host { filters } => view.network_row(filters),
            }
        };
        let row = self.networks.entry((network, audience));
        row.or_insert_with(make).clone()
    }

    /// The row of a router in a network.
    pub(super) fn router(&mut self, ncm: &Ncm, network: Id<Network>, id: Id<Router>) -> Option<KeyedRow> {
        let row = self.routers.entry((network, id));
        row.or_insert_with(|| ncm.router_row(network, id)).clone()
    }
}
