//! Labels of sets of security groups: given in the commit of the port that needs one, retired with the last port that
//! had it, free again when no host knows any more what it meant.
//!
//! A label of a network means one set, from the first port to the last host's forgetting, so that a packet with an old
//! label can never be taken for one of another set. Which hosts have forgotten is the NCM's to know.
//!
//! Labels never cross networks. What a port sends through a router into another network carries the label that its set
//! has *there*, so the networks of a router have labels for each other's sets: a label is in use as long as a port of
//! its network, or of one that shares a router with it, is under the set.

use std::{collections::BTreeSet, num::NonZeroU16};

use alcor_model::{Id, Label, Network, ResourceKey, Router, SecurityGroup};
use alcor_store::Tx;
use thiserror::Error;

use crate::{Env, ErrorClass, Refusal, RegionState};

/// Why a port cannot get a label.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LabelError {
    /// All numbers have a meaning.
    #[error(
        "Network {0} has ports under 65535 different sets of security groups, and there can be no more. Use one of the sets that other ports of the network have."
    )]
    Exhausted(Id<Network>),
}

impl Refusal for LabelError {
    fn neutron_type(&self) -> &'static str {
        "SecurityGroupSetsExhausted"
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Conflict
    }
}

/// The number for a port's groups, which are sorted: none without port security, 0 for no groups. A set that the
/// network does not have yet gets a row.
///
/// # Errors
/// When the network has no number left.
pub(crate) fn of_groups(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    network: Id<Network>,
    port_security_enabled: bool,
    groups: &[Id<SecurityGroup>],
) -> Result<Option<u16>, LabelError> {
    if !port_security_enabled {
        return Ok(None);
    }
    if groups.is_empty() {
        return Ok(Some(0));
    }
    let number = ensure(tx, env, network, groups)?;
    // With the first port under the set; the others find what it left.
    if tx.state().ports_with_label(network, number.get()) == 0 {
        for peer in peers(tx.state(), network) {
            ensure(tx, env, peer, groups)?;
        }
    }
    Ok(Some(number.get()))
}

/// The label of a set in a network, which means it from now on if it did not.
fn ensure(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    network: Id<Network>,
    groups: &[Id<SecurityGroup>],
) -> Result<NonZeroU16, LabelError> {
    Ok(match tx.state().label_of_set(network, groups) {
        Some(label) if label.retired => {
            let label = Label {
                retired: false,
                ..Label::clone(label)
            };
            tx.write(label).number
        }
        Some(label) => label.number,
        None => {
            let number = tx
                .state()
                .free_label_number(network)
                .ok_or(LabelError::Exhausted(network))?;
            let label = Label {
                id: env.new_id(),
                revision: tx.revision(),
                network_id: network,
                number,
                security_groups: groups.to_vec(),
                retired: false,
            };
            tx.write(label).number
        }
    })
}

/// The other networks that share a router with this one.
fn peers(state: &RegionState, network: Id<Network>) -> BTreeSet<Id<Network>> {
    let mut peers: BTreeSet<_> = state
        .routers_in(network)
        .flat_map(|router| networks(router))
        .collect();
    peers.remove(&network);
    peers
}

fn networks(router: &Router) -> impl Iterator<Item = Id<Network>> + '_ {
    router.interfaces.iter().map(|interface| interface.network_id)
}

/// The sets that a network's own ports are under.
fn sets_of(state: &RegionState, network: Id<Network>) -> Vec<Vec<Id<SecurityGroup>>> {
    let own = state.labels_of(network);
    let own = own.filter(|label| state.ports_with_label(network, label.number.get()) > 0);
    own.map(|label| label.security_groups.clone()).collect()
}

/// A router has a place in this network now: it and the router's other networks get labels for each other's sets.
///
/// # Errors
/// When one of them has no number left.
pub(crate) fn connect(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    router: &Router,
    network: Id<Network>,
) -> Result<(), LabelError> {
    let others: BTreeSet<_> = networks(router).filter(|other| *other != network).collect();
    let own = sets_of(tx.state(), network);
    for other in others {
        for groups in sets_of(tx.state(), other) {
            ensure(tx, env, network, &groups)?;
        }
        for groups in &own {
            ensure(tx, env, other, groups)?;
        }
    }
    Ok(())
}

/// A router, which is as it is now, has lost a place in this network: what nobody needs any more rests.
pub(crate) fn disconnect(tx: &mut Tx<'_, RegionState>, router: &Router, network: Id<Network>) {
    let concerned: BTreeSet<_> = networks(router).chain([network]).collect();
    for network in concerned {
        let live = tx.state().labels_of(network).filter(|label| !label.retired);
        let sets: Vec<_> = live.map(|label| label.security_groups.clone()).collect();
        for groups in sets {
            retire_unused(tx, network, &groups);
        }
    }
}

/// Retires the label of a set that no port needs.
fn retire_unused(tx: &mut Tx<'_, RegionState>, network: Id<Network>, groups: &[Id<SecurityGroup>]) {
    let state = tx.state();
    let Some(label) = state.label_of_set(network, groups).filter(|label| !label.retired) else {
        return;
    };
    let has_ports = |network: Id<Network>| {
        let label = state.label_of_set(network, groups);
        label.is_some_and(|label| state.ports_with_label(network, label.number.get()) > 0)
    };
    if has_ports(network) || peers(state, network).into_iter().any(has_ports) {
        return;
    }
    let label = Label {
        retired: true,
        ..Label::clone(label)
    };
    tx.write(label);
}

/// A port that had this label is gone or has another one now; with the last one it rests, here and in the networks that
/// had a label of the set for this network's ports.
pub(crate) fn left(tx: &mut Tx<'_, RegionState>, network: Id<Network>, label: Option<u16>) {
    let Some(number) = label.and_then(NonZeroU16::new) else {
        return;
    };
    if tx.state().ports_with_label(network, number.get()) > 0 {
        return;
    }
    let Some(label) = tx.state().label_of_number(network, number) else {
        return;
    };
    let groups = label.security_groups.clone();
    for network in peers(tx.state(), network).into_iter().chain([network]) {
        retire_unused(tx, network, &groups);
    }
}

/// Every host has forgotten what these labels meant; those that are still retired since that revision or longer are
/// free. Gives how many.
pub fn release(tx: &mut Tx<'_, RegionState>, labels: &[(Id<Label>, alcor_model::Revision)]) -> usize {
    let mut released = 0;
    for (id, retired_at) in labels {
        let still = |label: &Label| label.retired && label.revision <= *retired_at;
        if tx.state().labels().get(id).is_some_and(|label| still(label)) {
            tx.delete(ResourceKey::Label(*id));
            released += 1;
        }
    }
    released
}

/// The network goes, and with it everything that its numbers meant.
pub(crate) fn forget_network(tx: &mut Tx<'_, RegionState>, network: Id<Network>) {
    let labels: Vec<_> = tx.state().labels_of(network).map(|label| label.id).collect();
    for id in labels {
        tx.delete(ResourceKey::Label(id));
    }
}
