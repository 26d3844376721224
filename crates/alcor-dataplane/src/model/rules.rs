//! The security rows of one network, and the compiled sets of the labels that its ports have.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use alcor_model::Id;

use crate::{
    DataplaneError, LabelRow, PolicyRow,
    compiled::Compiled,
    security::{MAX_GROUPS_PER_LABEL, MAX_RULES, SecurityGroup},
};

/// A set of rules as packets meet it.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    /// Another number whenever the rules are others: what was judged under another one is judged again.
    pub(super) epoch: u32,
    pub(super) set: Compiled,
}

/// Rows and sets. A change is in force as a whole or not at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) policies: BTreeMap<Id<SecurityGroup>, PolicyRow>,
    pub(super) labels: BTreeMap<NonZeroU16, LabelRow>,
    sets: BTreeMap<u16, InForce>,
}

impl Rules {
    /// The rules of a label that a local port has.
    pub(super) fn of(&self, label: u16) -> Option<&InForce> {
        self.sets.get(&label)
    }

    pub(super) fn put_policy(
        &mut self,
        row: PolicyRow,
        used: &BTreeSet<u16>,
        epochs: &mut u32,
    ) -> Result<(), DataplaneError> {
        room("rule in a group", row.ingress.len() + row.egress.len(), MAX_RULES)?;
        let group = row.group_id;
        let old = self.policies.insert(group, row);
        let compiled = self.compile(used, epochs);
        if compiled.is_err() {
            match old {
                Some(old) => self.policies.insert(group, old),
                None => self.policies.remove(&group),
            };
        }
        compiled
    }

    pub(super) fn put_label(
        &mut self,
        row: LabelRow,
        used: &BTreeSet<u16>,
        epochs: &mut u32,
    ) -> Result<(), DataplaneError> {
        room("group in a label", row.groups.len(), MAX_GROUPS_PER_LABEL)?;
        let label = row.label;
        let old = self.labels.insert(label, row);
        let compiled = self.compile(used, epochs);
        if compiled.is_err() {
            match old {
                Some(old) => self.labels.insert(label, old),
                None => self.labels.remove(&label),
            };
        }
        compiled
    }

    /// Compiles the set of a label that a port is about to have, unless it is there.
    pub(super) fn ensure(&mut self, label: u16, epochs: &mut u32) -> Result<(), DataplaneError> {
        if !self.sets.contains_key(&label) {
            let set = Compiled::new(label, &self.labels, &self.policies)?;
            *epochs += 1;
            self.sets.insert(label, InForce { epoch: *epochs, set });
        }
        Ok(())
    }

    /// Forgets the sets of labels that no port has any more.
    pub(super) fn retain(&mut self, used: &BTreeSet<u16>) {
        self.sets.retain(|label, _| used.contains(label));
    }

    /// Brings the sets of all labels that ports have up to date; one that does not fit leaves all as they were.
    pub(super) fn compile(&mut self, used: &BTreeSet<u16>, epochs: &mut u32) -> Result<(), DataplaneError> {
        let mut sets = BTreeMap::new();
        for label in used {
            let set = Compiled::new(*label, &self.labels, &self.policies)?;
            let same = self.sets.get(label).filter(|old| old.set == set);
            let epoch = same.map_or(*epochs + 1, |old| old.epoch);
            *epochs = (*epochs).max(epoch);
            sets.insert(*label, InForce { epoch, set });
        }
        self.sets = sets;
        Ok(())
    }
}

fn room(what: &'static str, count: usize, limit: usize) -> Result<(), DataplaneError> {
    if count <= limit {
        Ok(())
    } else {
        Err(DataplaneError::Full { what, limit })
    }
}
