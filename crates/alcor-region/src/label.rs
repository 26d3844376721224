//! Labels of sets of security groups: given in the commit of the port that needs one, retired with the last port that
//! had it, free again when no host knows any more what it meant.
//!
//! A label of a network means one set, from the first port to the last host's forgetting, so that a packet with an old
//! label can never be taken for one of another set. Which hosts have forgotten is the NCM's to know.

use std::num::NonZeroU16;

use alcor_model::{Id, Label, Network, ResourceKey, SecurityGroup};
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
    let number = match tx.state().label_of_set(network, groups) {
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
    };
    Ok(Some(number.get()))
}

/// A port that had this label is gone or has another one now; the last one retires it.
pub(crate) fn left(tx: &mut Tx<'_, RegionState>, network: Id<Network>, label: Option<u16>) {
    let Some(number) = label.and_then(NonZeroU16::new) else {
        return;
    };
    if tx.state().ports_with_label(network, number.get()) > 0 {
        return;
    }
    if let Some(label) = tx.state().label_of_number(network, number) {
        let label = Label {
            retired: true,
            ..Label::clone(label)
        };
        tx.write(label);
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
