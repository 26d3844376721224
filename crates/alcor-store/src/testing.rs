//! For tests: an engine that fails on demand around a real one, and a state without rules.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use alcor_model::{Host, Resource, ResourceKey, Revision};
use imbl::OrdMap;
use jiff::Timestamp;

use crate::{
    engine::{Batch, Engine, EngineError, FeedEntry, StoredRow},
    tx::State,
};

/// A state that is all rows by key, and nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// The rows.
    pub rows: OrdMap<ResourceKey, Resource>,
}

impl State for Rows {
    fn put(&mut self, row: Resource) -> Option<Resource> {
        self.rows.insert(row.key(), row)
    }
    fn get(&self, key: &ResourceKey) -> Option<Resource> {
        self.rows.get(key).cloned()
    }
    fn remove(&mut self, key: &ResourceKey) -> Option<Resource> {
        self.rows.remove(key)
    }
}

/// A row that carries a number: a host of that name.
pub fn numbered(name: &str, number: u32) -> Resource {
    Resource::Host(Arc::new(Host {
        name: name.to_owned(),
        revision: Revision::ZERO,
        tunnel_ip: IpAddr::V4(number.into()),
        admin_state_up: true,
        description: String::new(),
        availability_zone: alcor_model::resource::DEFAULT_ZONE.to_owned(),
        external_networks: BTreeSet::new(),
        created_at: Timestamp::UNIX_EPOCH,
    }))
}

/// The number that [`numbered`] put in.
pub fn number_of(row: &Resource) -> Option<u32> {
    match row {
        Resource::Host(host) => match host.tunnel_ip {
            IpAddr::V4(ip) => Some(ip.into()),
            IpAddr::V6(_) => None,
        },
        _ => None,
    }
}

/// The key of a [`numbered`] row.
pub fn named(name: &str) -> ResourceKey {
    ResourceKey::Host(name.to_owned())
}

/// What the next commits do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Nothing unusual.
    None = 0,
    /// Nothing is written, and the error says so.
    DiskFull = 1,
    /// Everything is written, and an error is answered all the same.
    LostAnswer = 2,
    /// Nothing is written, and the database cannot be read either.
    Dead = 3,
    /// Everything is written, an error is answered, and the database cannot be read.
    Silent = 4,
}

/// The switch of a [`FaultyEngine`].
#[derive(Clone, Debug, Default)]
pub struct FaultSwitch(Arc<AtomicU8>);

impl FaultSwitch {
    /// Sets what happens from now on.
    pub fn set(&self, fault: Fault) {
        self.0.store(fault as u8, Ordering::SeqCst);
    }

    fn is(&self, fault: Fault) -> bool {
        self.0.load(Ordering::SeqCst) == fault as u8
    }
}

/// An engine that fails as its switch says.
pub struct FaultyEngine {
    inner: Box<dyn Engine>,
    switch: FaultSwitch,
}

impl FaultyEngine {
    /// Around `inner`.
    pub fn new(inner: Box<dyn Engine>, switch: FaultSwitch) -> Self {
        Self { inner, switch }
    }
}

impl Engine for FaultyEngine {
    fn load(
        &mut self,
        sink: &mut dyn FnMut(StoredRow) -> Result<(), EngineError>,
    ) -> Result<Revision, EngineError> {
        if self.switch.is(Fault::Dead) || self.switch.is(Fault::Silent) {
            return Err(EngineError::Database("the disk is gone".into()));
        }
        self.inner.load(sink)
    }

    fn identity(&mut self) -> Result<u64, EngineError> {
        self.inner.identity()
    }

    fn committed(&mut self) -> Result<Revision, EngineError> {
        if self.switch.is(Fault::Dead) || self.switch.is(Fault::Silent) {
            return Err(EngineError::Database("the disk is gone".into()));
        }
        self.inner.committed()
    }

    fn feed(&mut self) -> Result<Vec<FeedEntry>, EngineError> {
        self.inner.feed()
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), EngineError> {
        if self.switch.is(Fault::DiskFull) {
            return Err(EngineError::DiskFull);
        }
        if self.switch.is(Fault::Dead) {
            return Err(EngineError::Database("the disk is gone".into()));
        }
        self.inner.commit(batch)?;
        if self.switch.is(Fault::LostAnswer) || self.switch.is(Fault::Silent) {
            return Err(EngineError::Database(
                "the connection broke after the commit".into(),
            ));
        }
        Ok(())
    }
}
