//! Snapshots of which a host has got some parts and not all, when the NCM dies, its session breaks, or it is cut off: what
//! the host had before stays in force until somebody tells it otherwise (fail static).
//!
//! Looked at as soon as the session is over, and when the next one begins. That all is as it must be later, is seen at rest.

use std::collections::{BTreeMap, BTreeSet};

use alcor_dataplane::{Row, RowKey};
use alcor_model::{Id, Network};
use alcor_proto::v1::{self, SnapshotPhase};
use alcor_southbound::convert::{decode_id, decode_row};

use super::{Kind, Sim};
use crate::host;

/// Share of the parts of a snapshot after which what is to go wrong meanwhile does not yet.
const GOES_ON: f64 = 0.5;

/// A snapshot of one network that a host has some parts of.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// What a host with an agent had in force when it began and was not told to remove since.
    before: BTreeSet<RowKey>,
    /// Its session is over.
    is_cut: bool,
}

/// All of them, and what is to happen in the next one.
#[derive(Debug, Default)]
pub(super) struct Partials {
    running: BTreeMap<(u32, Id<Network>), Partial>,
    /// The NCM dies in it.
    pub(super) kills_ncm: bool,
    /// The host's session breaks, or it is cut off.
    pub(super) cuts_host: bool,
}

impl Partials {
    fn of(&self, actor: u32) -> impl Iterator<Item = (&(u32, Id<Network>), &Partial)> {
        self.running.iter().filter(move |((of, _), _)| *of == actor)
    }

    /// A host has lost all that it had.
    pub(super) fn forget(&mut self, actor: u32) {
        self.running.retain(|(of, _), _| *of != actor);
    }
}

impl Sim {
    /// A host is about to take a delta.
    pub(super) fn note_part(&mut self, actor: u32, delta: &v1::Delta) {
        let Ok(network) = decode_id::<Network>("the network", &delta.network_id) else {
            return;
        };
        let key = (actor, network);
        match delta.snapshot() {
            SnapshotPhase::Begin => {
                // What its data plane has yet to do may be to remove rows.
                let is_busy = matches!(&self.actor(actor).kind, Kind::Full(full) if full.has_work());
                let before = match is_busy {
                    true => BTreeSet::new(),
                    false => self.in_force(actor, network),
                };
                let partial = Partial {
                    before,
                    is_cut: false,
                };
                self.partials.running.insert(key, partial);
            }
            SnapshotPhase::End | SnapshotPhase::Whole | SnapshotPhase::Forget => {
                self.partials.running.remove(&key);
                return;
            }
            SnapshotPhase::Part | SnapshotPhase::Delta | SnapshotPhase::Unspecified => {}
        }
        if let Some(partial) = self.partials.running.get_mut(&key) {
            for row in &delta.rows {
                if let Ok((_, alcor_dataplane::RowChange::Remove(key))) = decode_row(network, row) {
                    partial.before.remove(&key);
                }
            }
        }
    }

    /// A host has taken a delta: if it is a part of a snapshot and more is to come, that may be the end of it.
    pub(super) fn perhaps_cut_in_snapshot(&mut self, actor: u32, phase: SnapshotPhase) {
        let more_comes = matches!(phase, SnapshotPhase::Begin | SnapshotPhase::Part);
        let armed = self.partials.kills_ncm || self.partials.cuts_host;
        if !more_comes
            || !armed
            || matches!(self.actor(actor).kind, Kind::Liar(_))
            || self.rng.chance(GOES_ON)
        {
            return;
        }
        if std::mem::take(&mut self.partials.kills_ncm) {
            self.figures.add("ncm_deaths_in_snapshot", 1);
            self.cut(actor);
            return self.ncm_dies();
        }
        self.partials.cuts_host = false;
        if self.rng.chance(0.5) {
            let until = self.now
                + self
                    .rng
                    .between(super::faults::seconds(self.scenario.faults.partition_s));
            self.partition(actor, until);
        }
        self.cut(actor);
    }

    /// A host's session is over.
    pub(super) fn session_over(&mut self, actor: u32) {
        let keys: Vec<_> = self.partials.of(actor).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(partial) = self.partials.running.get_mut(&key)
                && !std::mem::replace(&mut partial.is_cut, true)
            {
                self.figures.add("snapshots_cut_short", 1);
            }
        }
        self.check_kept(actor, "when its session was over");
    }

    /// A host's next session begins: from now on it is told.
    pub(super) fn session_begins(&mut self, actor: u32) {
        self.check_kept(actor, "before its next session");
        self.partials.forget(actor);
    }

    /// What was in force before a snapshot that was cut short still is.
    fn check_kept(&mut self, actor: u32, when: &str) {
        let cut = self.partials.of(actor).filter(|(_, partial)| partial.is_cut);
        let before: Vec<_> = cut
            .map(|((_, network), partial)| (*network, partial.before.clone()))
            .collect();
        for (network, before) in before {
            let Kind::Full(full) = &mut self.actor(actor).kind else {
                return;
            };
            let rows = full.rows_of(network);
            let asks = asks(&rows);
            let now: BTreeSet<_> = rows.iter().map(Row::key).collect();
            // A network that the host has begun to ask in has leases.
            let stays = |key: &RowKey| !asks || !matches!(key, RowKey::Neighbour(..));
            let lost = before.iter().find(|key| stays(key) && !now.contains(*key));
            if let Some(lost) = lost {
                let name = host::name(actor);
                self.violate(format!(
                    "{name} has lost {lost:?} by a snapshot of network {network} that it did not get all of, {when}"
                ));
            }
        }
    }

    /// What a host with an agent goes by in a network, without what it may forget by itself: neighbours that it asks for, or
    /// passes packets on to.
    fn in_force(&mut self, actor: u32, network: Id<Network>) -> BTreeSet<RowKey> {
        let Kind::Full(full) = &mut self.actor(actor).kind else {
            return BTreeSet::new();
        };
        let rows = full.rows_of(network);
        let asks = asks(&rows);
        let stays = |row: &&Row| match row {
            Row::Neighbour(row) => !asks && !row.forward,
            _ => true,
        };
        rows.iter().filter(stays).map(Row::key).collect()
    }
}

/// Whether a host asks for neighbours in the network of these rows.
fn asks(rows: &[Row]) -> bool {
    rows.iter()
        .any(|row| matches!(row, Row::Network(row) if row.on_demand))
}
