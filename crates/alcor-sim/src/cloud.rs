//! The region of a simulation: the real state and deciders, and a store that is a list of rows. What was decided is
//! durable with the next commit; a controller that dies has the rows that were committed, and nothing else.
//!
//! Not here: when a commit happens and who hears of it (the engine), SQL.

use std::{collections::BTreeMap, sync::Arc};

use alcor_model::{Change, Resource, ResourceKey, Revision};
use alcor_ncm::core::KINDS;
use alcor_region::{Env, RegionConfig, RegionError, RegionState, command::Caller, security_group};
use alcor_store::{State as _, Tx};

use crate::clock::SimSource;

/// The region.
pub(crate) struct Cloud {
    state: RegionState,
    env: Env,
    source: Arc<SimSource>,
    /// The newest revision that was given out.
    revision: Revision,
    /// Decided, not yet durable.
    waiting: Vec<Change>,
    rows: BTreeMap<ResourceKey, Resource>,
    durable: Revision,
    up: bool,
}

impl Cloud {
    pub(crate) fn new(seed: u64) -> Self {
        let source = SimSource::new(seed);
        let env = Env {
            config: Arc::new(RegionConfig::default()),
            source: Arc::<SimSource>::clone(&source),
        };
        Self {
            state: RegionState::default(),
            env,
            source,
            revision: Revision::ZERO,
            waiting: Vec::new(),
            rows: BTreeMap::new(),
            durable: Revision::ZERO,
            up: true,
        }
    }

    /// Makes what every region has from its beginning.
    pub(crate) fn begin(&mut self) -> Result<(), RegionError> {
        self.write(|tx, env| {
            security_group::ensure_templates(tx, env);
            Ok(())
        })
    }

    /// Whose word the simulation's commands are.
    pub(crate) fn caller(project: u64) -> Caller {
        Caller {
            project_id: format!("project-{project}"),
            is_admin: false,
        }
    }

    pub(crate) fn set_clock(&self, unix_us: u64) {
        self.source.set(unix_us);
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.up
    }

    /// What has been decided, durable or not; of a controller that is away, what is durable.
    pub(crate) const fn state(&self) -> &RegionState {
        &self.state
    }

    /// The newest durable revision.
    pub(crate) const fn durable(&self) -> Revision {
        self.durable
    }

    /// Runs a decider. What it wrote becomes durable with the next commit.
    pub(crate) fn write<T>(
        &mut self,
        decide: impl FnOnce(&mut Tx<'_, RegionState>, &Env) -> Result<T, RegionError>,
    ) -> Result<T, RegionError> {
        let revision = self.revision.next();
        let mut tx = Tx::new(&mut self.state, revision);
        match decide(&mut tx, &self.env) {
            Ok(result) => {
                let changes = tx.finish();
                if !changes.is_empty() {
                    self.revision = revision;
                    self.waiting.extend(changes);
                }
                Ok(result)
            }
            Err(refusal) => {
                tx.undo();
                Err(refusal)
            }
        }
    }

    pub(crate) const fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Makes durable what waits; gives it, in commit order.
    pub(crate) fn commit(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut self.waiting);
        for change in &changes {
            match change {
                Change::Put(row) => drop(self.rows.insert(row.key(), row.clone())),
                Change::Delete { key, .. } => drop(self.rows.remove(key)),
            }
        }
        self.durable = self.revision;
        changes
    }

    /// The controller dies, and with it what was not durable.
    pub(crate) fn crash(&mut self) {
        self.waiting.clear();
        self.state = RegionState::default();
        for row in self.rows.values() {
            self.state.put(row.clone());
        }
        self.revision = self.durable;
        self.up = false;
    }

    /// It starts again, from its rows.
    pub(crate) const fn recover(&mut self) {
        self.up = true;
    }

    /// What an NCM needs of the region, in an order in which it can be loaded. Only durable rows are told.
    pub(crate) fn rows_for_ncm(&self) -> Vec<Resource> {
        // Keys are in the order of their kinds, which is the order in which rows can be loaded.
        let rows = self.rows.iter().filter(|(key, _)| KINDS.contains(&key.kind()));
        rows.map(|(_, row)| row.clone()).collect()
    }
}
