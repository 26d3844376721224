//! Neighbours that the host has asked for, and how long it may use them. The rows themselves are in [`crate::table`]; here
//! is which of them have a lease, when to look whether they are used, and which goes first when there are too many.
//! Values only: what is asked and removed is decided in [`crate::core`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use alcor_model::{Id, Network};
use alcor_southbound::convert::resolve::LEASE_UNASKED;

use crate::held::{Key, pop_due};

/// Most neighbours with a lease; beyond that, the least recently used goes.
pub const LEARNED_MAX: usize = 65_536;
/// Shortest lease that is taken as the NCM says.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// Longest lease that is taken as the NCM says.
pub const LEASE_MAX: Duration = Duration::from_secs(3_600);
/// How many neighbours the data plane is asked about at once, whether they are used.
pub const CHECK_BATCH: usize = 1_024;

#[derive(Debug)]
struct Lease {
    until: Duration,
    /// When to look whether it is used; `None` while that is being found out, or the NCM is asked.
    check_at: Option<Duration>,
    /// The last time that it was known to be used.
    used_at: Duration,
    /// It was used since the NCM last told of it, as far as is known.
    is_used: bool,
    /// The NCM of this session knows that the host has it, and tells of changes.
    is_confirmed: bool,
}

/// What to do with a neighbour after it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Keep,
    /// Ask the NCM again.
    Ask,
    /// Remove it.
    Remove,
}

/// All leases of the host.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    leases: BTreeMap<Key, Lease>,
    checks: BTreeSet<(Duration, Key)>,
    /// Least recently used first.
    by_use: BTreeSet<(Duration, Key)>,
}

impl Learned {
    /// The NCM has answered with this lease.
    pub(crate) fn grant(&mut self, now: Duration, key: Key, length: Duration) {
        let length = length.clamp(LEASE_MIN, LEASE_MAX);
        self.insert(
            key,
            Lease {
                until: now + length,
                check_at: Some(now + length * 2 / 3),
                used_at: now,
                is_used: true,
                is_confirmed: true,
            },
        );
    }

    /// The NCM tells of this neighbour without having been asked. A lease that it knows of goes on.
    pub(crate) fn tell(&mut self, now: Duration, key: Key, length: Duration) {
        if !self.leases.get(&key).is_some_and(|lease| lease.is_confirmed) {
            self.grant(now, key, length);
        }
    }

    /// The host had this neighbour when it started: whether it may be used is asked as soon as there is a session.
    pub(crate) fn adopt(&mut self, key: Key) {
        self.tell(Duration::ZERO, key, LEASE_UNASKED);
    }

    /// The host has this neighbour, and the NCM may not know: it is looked at then, and stays only if it is used.
    pub(crate) fn doubt(&mut self, then: Duration, key: Key) {
        let Some(lease) = self.leases.get_mut(&key) else {
            return self.insert(
                key,
                Lease {
                    until: then,
                    check_at: Some(then),
                    used_at: then,
                    is_used: false,
                    is_confirmed: false,
                },
            );
        };
        lease.is_confirmed = false;
        if let Some(at) = lease.check_at.replace(then) {
            self.checks.remove(&(at, key));
        }
        self.checks.insert((then, key));
    }

    fn insert(&mut self, key: Key, lease: Lease) {
        self.remove(&key);
        self.checks.extend(lease.check_at.map(|at| (at, key)));
        self.by_use.insert((lease.used_at, key));
        self.leases.insert(key, lease);
    }

    /// The row is gone.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(lease) = self.leases.remove(key) {
            self.by_use.remove(&(lease.used_at, *key));
            if let Some(at) = lease.check_at {
                self.checks.remove(&(at, *key));
            }
        }
    }

    /// The network is gone, or not on demand any more: its rows have no leases.
    pub(crate) fn remove_network(&mut self, network: Id<Network>) {
        let keys: Vec<Key> = self.of(network).collect();
        for key in keys {
            self.remove(&key);
        }
    }

    fn of(&self, network: Id<Network>) -> impl Iterator<Item = Key> {
        let range = self.leases.range((network, [0, 0, 0, 0].into())..);
        range.map(|(key, _)| *key).take_while(move |key| key.0 == network)
    }

    /// A new session: its NCM does not know what the host has.
    pub(crate) fn doubt_all(&mut self, then: Duration) {
        for key in self.leases.keys().copied().collect::<Vec<_>>() {
            self.doubt(then, key);
        }
    }

    /// Those to be looked at now, at most [`CHECK_BATCH`]. Each must come back to [`Self::looked_at`].
    pub(crate) fn checks(&mut self, now: Duration) -> Vec<Key> {
        let mut keys = Vec::new();
        while keys.len() < CHECK_BATCH
            && let Some(key) = pop_due(&mut self.checks, now)
        {
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.check_at = None;
                keys.push(key);
            }
        }
        keys
    }

    /// The data plane said whether the neighbour was used.
    pub(crate) fn looked_at(&mut self, now: Duration, key: Key, used: bool) -> Next {
        let Some(lease) = self.leases.get_mut(&key) else {
            return Next::Keep;
        };
        if used {
            self.by_use.remove(&(lease.used_at, key));
            (lease.used_at, lease.is_used) = (now, true);
            self.by_use.insert((now, key));
        }
        if lease.check_at.is_some() {
            // It was granted again since, or there is another session since.
            return Next::Keep;
        }
        if used || (!lease.is_confirmed && lease.is_used) {
            return Next::Ask;
        }
        if !lease.is_confirmed || lease.until <= now {
            return Next::Remove;
        }
        lease.is_used = false;
        lease.check_at = Some(lease.until);
        self.checks.insert((lease.until, key));
        Next::Keep
    }

    /// One too many, if there are: the least recently used.
    pub(crate) fn surplus(&self) -> Option<Key> {
        let first = self.by_use.first().map(|(_, key)| *key);
        first.filter(|_| self.leases.len() > LEARNED_MAX)
    }

    /// When the next has to be looked at.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.checks.first().map(|(at, _)| *at)
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.leases.contains_key(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }
}
