//! Who is known and not of the region: somebody who says hello under a new name, until the region has registered him, and whoever
//! the region has deleted. How many of them there may be, and when nothing is left of them.
//!
//! **What a deleted host may still hold.** A host that an operator deletes is gone for good, he says. The NCM cannot know: it may be cut
//! off and forward on, by all that it was told, as hosts do. So it counts from then on as follows.
//! - Everybody else is told with the commit of the deletion that its ports cannot be reached, and packets from it are refused where its
//!   address was among the network's.
//! - What it may match of old labels keeps no number from being used again, but in networks in which ports are bound to it: there numbers
//!   rest until it has no ports any more.
//! - If it lives after all, it comes back as one of whom nobody knows what he holds: it is told to forget the networks that it has something
//!   of and in which ports are bound to it again, and is registered, and so reachable there, only when it has.
//!
//! A stranger without a session is forgotten after [`STRANGER_KEPT`], as soon as no port is bound to him; his number is used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Ncm;

/// Strangers that are known at once. Beyond that nobody gets in under a new name.
pub(super) const STRANGERS_MAX: usize = 16_384;
/// How long a stranger without a session is known: longer than the region needs to register somebody.
pub(super) const STRANGER_KEPT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// Those with an entry, and since when they are strangers, or without a session.
    since: BTreeMap<String, Duration>,
    /// Names to which no port is bound any more, and that may have nothing but a number in the directory.
    unplaced: BTreeSet<String>,
}

impl Strangers {
    /// Somebody is a stranger, and has no session from now on or is about to have one.
    pub(super) fn begin(&mut self, name: &str, now: Duration) {
        self.since.insert(name.to_owned(), now);
    }

    /// The region has a row of somebody.
    pub(super) fn end(&mut self, name: &str) {
        self.since.remove(name);
    }

    /// A session has ended; if it was a stranger's, he is known for a while.
    pub(super) fn closed(&mut self, name: &str, now: Duration) {
        if let Some(since) = self.since.get_mut(name) {
            *since = now;
        }
    }

    /// No port is bound to a name any more.
    pub(super) fn unplaced(&mut self, name: &str) {
        self.unplaced.insert(name.to_owned());
    }

    /// Whether there is no room for one more.
    pub(super) fn is_full(&self) -> bool {
        self.since.len() >= STRANGERS_MAX
    }
}

impl Ncm {
    /// Whether the region has a row of a host or gateway.
    pub(super) fn is_registered(&self, name: &str) -> bool {
        let has_row = self.hosts.get(name).is_some_and(|entry| entry.row.is_some());
        has_row || self.fleet.row(name).is_some()
    }

    /// What somebody said is forgotten, and with it what he may hold: see the module.
    pub(super) fn forget_words_of(&mut self, name: &str) {
        let Some(entry) = self.hosts.get_mut(name) else {
            return;
        };
        let status = std::mem::take(&mut entry.status);
        for network in status.complete.into_keys() {
            self.completed(name, network);
        }
    }

    /// The region has deleted a host or gateway.
    pub(super) fn becomes_a_stranger(&mut self, name: &str) {
        self.unheard.remove(name);
        if self.hosts.contains_key(name) {
            self.strangers.begin(name, self.clock);
            self.forget_words_of(name);
        }
    }

    /// A state of the region was loaded. Who has lost his row is a stranger, and names may have lost all their ports.
    pub(super) fn strangers_after_load(&mut self, before: &BTreeSet<String>) {
        let after = self.registered();
        for name in before.difference(&after) {
            self.becomes_a_stranger(name);
        }
        let names = self.directory.names();
        let unplaced =
            names.filter(|name| !self.hosts.contains_key(*name) && !self.host_networks.contains_key(*name));
        self.strangers.unplaced = unplaced.map(str::to_owned).collect();
    }

    /// Forgets strangers that have been away for long enough.
    pub(super) fn forget_strangers(&mut self) {
        let now = self.clock;
        let since = self.strangers.since.iter();
        let due = since.filter(|(_, since)| now.saturating_sub(**since) >= STRANGER_KEPT);
        let is_away = |name: &str| self.hosts.get(name).is_none_or(|entry| entry.session.is_none());
        let due: Vec<String> = due
            .map(|(name, _)| name)
            .filter(|name| is_away(name))
            .cloned()
            .collect();
        for name in due {
            self.forget_words_of(&name);
            self.fleet.drop_stranger(&name);
            if self.host_networks.contains_key(&name) || self.fleet.has(&name) {
                continue;
            }
            self.hosts.remove(&name);
            self.strangers.end(&name);
            self.strangers.unplaced(&name);
        }
        for name in std::mem::take(&mut self.strangers.unplaced) {
            if !self.hosts.contains_key(&name) && !self.host_networks.contains_key(&name) {
                self.directory.forget_host(&name);
            }
        }
    }

    /// Names that are known in some way, for tests of what is forgotten.
    #[cfg(test)]
    pub(super) fn known_names(&self) -> BTreeSet<String> {
        let names = self
            .hosts
            .keys()
            .chain(&self.unheard)
            .chain(self.strangers.since.keys());
        let names = names
            .chain(self.host_networks.keys())
            .chain(self.knowers.values().flatten());
        names
            .cloned()
            .chain(self.directory.names().map(str::to_owned))
            .collect()
    }
}
