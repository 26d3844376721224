//! An engine that fails on demand, around a real one: for tests of what happens when the disk says no.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use alcor_model::Revision;

use crate::engine::{Batch, Engine, EngineError, FeedEntry, StoredRow};

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
        if self.switch.is(Fault::Dead) {
            return Err(EngineError::Database("the disk is gone".into()));
        }
        self.inner.load(sink)
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
        if self.switch.is(Fault::LostAnswer) {
            return Err(EngineError::Database(
                "the connection broke after the commit".into(),
            ));
        }
        Ok(())
    }
}
