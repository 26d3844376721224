//! The security rows of one network, and the compiled sets of the labels that its ports have. Every data plane that
//! filters keeps one [`Rules`] for each network. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::Arc,
};

use alcor_model::Id;

use crate::{
    DataplaneError, LabelRow, PolicyRow,
    compiled::Compiled,
    security::{MAX_GROUPS_PER_LABEL, MAX_RULES, SecurityGroup},
};

/// A set of rules as packets meet it.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Another number whenever the rules are others: what was judged under another one is judged again.
    pub epoch: u32,
    /// The rules.
    pub set: Compiled,
}

/// The sets of a network, by label.
pub type Sets = BTreeMap<u16, Arc<InForce>>;

/// What a label means.
pub type Groups = BTreeSet<Id<SecurityGroup>>;

/// The groups of a label row.
pub fn groups(row: &LabelRow) -> Groups {
    row.groups.iter().copied().collect()
}

/// Rows and sets. A change is in force as a whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    policies: BTreeMap<Id<SecurityGroup>, PolicyRow>,
    labels: BTreeMap<NonZeroU16, LabelRow>,
    by_groups: BTreeMap<Groups, BTreeSet<NonZeroU16>>,
    sets: Sets,
}

impl Rules {
    /// The policy rows.
    pub const fn policies(&self) -> &BTreeMap<Id<SecurityGroup>, PolicyRow> {
        &self.policies
    }

    /// The label rows.
    pub const fn labels(&self) -> &BTreeMap<NonZeroU16, LabelRow> {
        &self.labels
    }

    /// The sets in force.
    pub const fn sets(&self) -> &Sets {
        &self.sets
    }

    /// The rules of a label that a local port has.
    pub fn of(&self, label: u16) -> Option<&InForce> {
        self.sets.get(&label).map(Arc::as_ref)
    }

    /// What a label is in another network: the lowest that means the same set there, 0 when none does.
    pub fn translate(&self, there: &Self, label: u16) -> u16 {
        let Some(row) = NonZeroU16::new(label).and_then(|label| self.labels.get(&label)) else {
            return 0;
        };
        let same = there.labels_of(&groups(row)).next();
        same.map_or(0, NonZeroU16::get)
    }

    /// The labels that mean a set, in order.
    pub fn labels_of(&self, groups: &Groups) -> impl Iterator<Item = NonZeroU16> + '_ {
        self.by_groups.get(groups).into_iter().flatten().copied()
    }

    /// All sets that a label means.
    pub fn all_groups(&self) -> impl Iterator<Item = &Groups> {
        self.by_groups.keys()
    }

    fn set_label(&mut self, label: NonZeroU16, row: Option<LabelRow>) -> Option<LabelRow> {
        if let Some(row) = &row {
            self.by_groups.entry(groups(row)).or_default().insert(label);
        }
        let new = row.as_ref().map(groups);
        let old = match row {
            Some(row) => self.labels.insert(label, row),
            None => self.labels.remove(&label),
        };
        let before = old
            .as_ref()
            .map(groups)
            .filter(|groups| Some(groups) != new.as_ref());
        if let Some(groups) = before
            && let Some(labels) = self.by_groups.get_mut(&groups)
        {
            labels.remove(&label);
            if labels.is_empty() {
                self.by_groups.remove(&groups);
            }
        }
        old
    }

    /// Puts a policy row; `used` are the labels that ports have, `epochs` the last epoch that was given out.
    ///
    /// # Errors
    /// [`DataplaneError::Full`] when the row has too many rules or a set does not fit: nothing changes then.
    pub fn put_policy(
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

    /// Puts a label row, as [`Self::put_policy`].
    ///
    /// # Errors
    /// [`DataplaneError::Full`] when the row has too many groups or a set does not fit: nothing changes then.
    pub fn put_label(
        &mut self,
        row: LabelRow,
        used: &BTreeSet<u16>,
        epochs: &mut u32,
    ) -> Result<(), DataplaneError> {
        room("group in a label", row.groups.len(), MAX_GROUPS_PER_LABEL)?;
        let label = row.label;
        let old = self.set_label(label, Some(row));
        let compiled = self.compile(used, epochs);
        if compiled.is_err() {
            self.set_label(label, old);
        }
        compiled
    }

    /// Removes a policy row; true when it was there. The caller compiles.
    pub fn remove_policy(&mut self, group: Id<SecurityGroup>) -> bool {
        self.policies.remove(&group).is_some()
    }

    /// Removes a label row; true when it was there. The caller compiles.
    pub fn remove_label(&mut self, label: NonZeroU16) -> bool {
        self.set_label(label, None).is_some()
    }

    /// Compiles the set of a label that a port is about to have, unless it is there.
    ///
    /// # Errors
    /// [`DataplaneError::Full`] when it does not fit.
    pub fn ensure(&mut self, label: u16, epochs: &mut u32) -> Result<(), DataplaneError> {
        if !self.sets.contains_key(&label) {
            let set = Compiled::new(label, &self.labels, &self.policies)?;
            *epochs += 1;
            let epoch = *epochs;
            self.sets.insert(label, Arc::new(InForce { epoch, set }));
        }
        Ok(())
    }

    /// Forgets the sets of labels that no port has any more.
    pub fn retain(&mut self, used: &BTreeSet<u16>) {
        self.sets.retain(|label, _| used.contains(label));
    }

    /// Brings the sets of all labels that ports have up to date; one that does not fit leaves all as they were.
    ///
    /// # Errors
    /// [`DataplaneError::Full`] when one does not fit.
    pub fn compile(&mut self, used: &BTreeSet<u16>, epochs: &mut u32) -> Result<(), DataplaneError> {
        let mut sets = Sets::new();
        let mut last = *epochs;
        for label in used {
            let set = Compiled::new(*label, &self.labels, &self.policies)?;
            let same = self.sets.get(label).filter(|old| old.set == set);
            let in_force = same.map(Arc::clone).unwrap_or_else(|| {
                last += 1;
                Arc::new(InForce { epoch: last, set })
            });
            sets.insert(*label, in_force);
        }
        self.sets = sets;
        *epochs = last;
        Ok(())
    }

    /// Gives a set the epoch under which it is in force already: for a data plane that finds it there.
    pub fn adopt(&mut self, label: u16, epoch: u32) {
        if let Some(in_force) = self.sets.get_mut(&label) {
            Arc::make_mut(in_force).epoch = epoch;
        }
    }
}

fn room(what: &'static str, count: usize, limit: usize) -> Result<(), DataplaneError> {
    if count <= limit {
        Ok(())
    } else {
        Err(DataplaneError::Full { what, limit })
    }
}
