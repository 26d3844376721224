//! Snapshots are made for a few hosts at a time: when thousands of agents come back at once, the memory that waits to be sent
//! stays bounded, and those that come first are done first. Nobody holds a place for long without taking what he is sent.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use alcor_model::{Id, Network};

use super::SessionId;

/// After so long a snapshot that is still on its way does not count any more: a host that is slow keeps nobody waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who has a place, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Snapshots that are on their way, since when.
    flying: BTreeMap<(SessionId, Id<Network>), Duration>,
    waiting: VecDeque<SessionId>,
    /// The same, so that each waits once.
    known: BTreeSet<SessionId>,
}

impl Admission {
    fn has_room(&self, at_once: usize) -> bool {
        self.flying.len() < at_once.max(1)
    }

    /// Whether a snapshot may be made for a session. One that stands for another that was given up takes its place.
    pub(super) fn admits(&self, session: SessionId, network: Id<Network>, at_once: usize) -> bool {
        self.has_room(at_once) || self.flying.contains_key(&(session, network))
    }

    /// A snapshot is made for a session.
    pub(super) fn begin(&mut self, session: SessionId, network: Id<Network>, now: Duration) {
        self.flying.insert((session, network), now);
    }

    /// Gives back the places of a session whose snapshots are not on their way any more: taken, or given up.
    pub(super) fn settle(&mut self, session: SessionId, is_on_its_way: impl Fn(Id<Network>) -> bool) {
        self.flying
            .retain(|(of, network), _| *of != session || is_on_its_way(*network));
    }

    /// A session waits for a place.
    pub(super) fn wait(&mut self, session: SessionId) {
        if self.known.insert(session) {
            self.waiting.push_back(session);
        }
    }

    /// The session that has waited longest, if there is a place.
    pub(super) fn next(&mut self, at_once: usize) -> Option<SessionId> {
        if !self.has_room(at_once) {
            return None;
        }
        let session = self.waiting.pop_front()?;
        self.known.remove(&session);
        Some(session)
    }

    /// A session is over.
    pub(super) fn close(&mut self, session: SessionId) {
        self.flying.retain(|(of, _), _| *of != session);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Duration) {
        self.flying
            .retain(|_, since| now.saturating_sub(*since) < PATIENCE);
    }
}
