//! Virtual time and the region's source of time, ids and random numbers, all decided by a seed; and the clock by which the
//! simulator measures what deciders cost, which no decision depends on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alcor_region::env::Source;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use crate::rng::Rng;

/// Microseconds since the simulation began.
pub type Us = u64;

/// What the wall clocks show when a simulation begins, in microseconds since the Unix epoch (2026-01-01).
pub const BEGIN_UNIX_US: u64 = 1_767_225_600_000_000;

/// CPU time of this thread so far, the kernel's work for it included: what others do on the machine does not count. Zero when
/// the kernel does not say.
pub(crate) fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// The region's source: a clock that the simulation sets, and numbers that a seed decides.
#[derive(Debug)]
pub struct SimSource {
    now_us: AtomicU64,
    state: AtomicU64,
}

impl SimSource {
    /// A source by this seed.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            now_us: AtomicU64::new(BEGIN_UNIX_US),
            state: AtomicU64::new(seed),
        })
    }

    /// Sets the clock, in microseconds since the Unix epoch.
    pub fn set(&self, unix_us: u64) {
        self.now_us.store(unix_us, Ordering::Relaxed);
    }

    fn next(&self) -> u64 {
        let step = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Rng::new(step).next()
    }
}

impl Source for SimSource {
    fn now(&self) -> Timestamp {
        let now = i64::try_from(self.now_us.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        Timestamp::from_microsecond(now).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn uuid(&self) -> Uuid {
        let (high, low) = (self.next(), self.next());
        uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid()
    }

    fn random(&self) -> u64 {
        self.next()
    }
}
