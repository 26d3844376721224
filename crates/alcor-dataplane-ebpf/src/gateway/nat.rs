//! Source NAT's memory in the kernel, as the process sees it: what expired is swept, what lies in networks and behind routers that go
//! goes too, and who asks is told how much there is.
//!
//! A connection has an entry by its inside and one by its outside. The program makes both; only this side removes them, and counts how
//! many, so that the program knows how many a router has.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use alcor_dataplane::DataplaneError;
use alcor_dataplane_abi::gateway_layout::{FragmentKey, FragmentValue, NAT_ALL, NatBack, NatKey, NatValue};
use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    error,
    kernel::{Hash, take},
    layout::Plain,
    syscall::Table,
};

/// How often expired connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Every so many sweeps it is looked whether both entries of each connection are there.
const PAIRS_EVERY: u32 = 60;
/// The sweeper rests this many times as long as it took: looking through a million connections takes its time.
const REST: u32 = 10;

pub(super) struct Nat {
    entries: Table<Plain<NatKey>, Plain<NatValue>>,
    backs: Table<Plain<NatKey>, Plain<NatBack>>,
    begun: Array<MapData, u64>,
    gone: Array<MapData, u64>,
    refused: Array<MapData, u64>,
    fragments: Hash<Plain<FragmentKey>, Plain<FragmentValue>>,
    /// Connections that there is room for.
    room: u32,
    /// Insides and outsides that had no other half when it was looked last.
    halves: (BTreeSet<NatKey>, BTreeSet<NatKey>),
}

/// Shared with the thread that sweeps.
pub(super) type Shared = Arc<Mutex<Nat>>;

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DataplaneError {
    error::kernel("changing the table of translated connections", source)
}

/// The clock of the program, in nanoseconds.
pub(super) fn now() -> Result<u64, DataplaneError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(io::Error::from);
    let now = Duration::from(now.map_err(failed)?);
    Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

impl Nat {
    pub(super) fn take(object: &mut Ebpf, room: u32) -> Result<Self, DataplaneError> {
        Ok(Self {
            entries: take(object, "gw_nat")?,
            backs: take(object, "gw_nat_back")?,
            begun: take(object, "gw_nat_begun")?,
            gone: take(object, "gw_nat_gone")?,
            refused: take(object, "gw_nat_refused")?,
            fragments: take(object, "gw_fragments")?,
            room,
            halves: Default::default(),
        })
    }

    /// Forgets what expired until `now`.
    pub(super) fn sweep(&mut self, now: u64) -> Result<(), DataplaneError> {
        self.remove_if(|_, value| !value.connection.is_live(now))
    }

    /// Forgets the connections of networks, by VNI, and of routers, by number, and the counters of the routers.
    pub(super) fn forget(
        &mut self,
        vnis: &BTreeSet<u32>,
        routers: &BTreeSet<u32>,
    ) -> Result<(), DataplaneError> {
        if vnis.is_empty() && routers.is_empty() {
            return Ok(());
        }
        self.remove_if(|key, value| vnis.contains(&key.vni) || routers.contains(&value.router))?;
        self.forget_fragments(vnis, routers)?;
        for number in routers {
            // Nothing, unless the program's count was wrong.
            self.count_gone(*number, self.held(*number)?)?;
            self.refused.set(*number, 0, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// Fragments expire by themselves, but numbers may have another owner before.
    fn forget_fragments(
        &mut self,
        vnis: &BTreeSet<u32>,
        routers: &BTreeSet<u32>,
    ) -> Result<(), DataplaneError> {
        let entries: Result<Vec<_>, _> = self.fragments.iter().collect();
        for (Plain(key), Plain(value)) in entries.map_err(failed)? {
            let is_gone =
                vnis.contains(&key.vni) || vnis.contains(&value.vni) || routers.contains(&value.router);
            if is_gone
                && let Err(source) = self.fragments.remove(&Plain(key))
                && !error::is_missing(&source)
            {
                return Err(failed(source));
            }
        }
        Ok(())
    }

    /// Connections of this number.
    fn held(&self, number: u32) -> Result<u64, DataplaneError> {
        let count = |counters: &Array<MapData, u64>| counters.get(&number, 0).map_err(failed);
        Ok(count(&self.begun)?.wrapping_sub(count(&self.gone)?))
    }

    /// Connections that there is room for.
    pub(super) fn free(&self) -> Result<u64, DataplaneError> {
        Ok(u64::from(self.room).saturating_sub(self.held(NAT_ALL)?))
    }

    /// Counts connections of a router that are gone.
    fn count_gone(&mut self, number: u32, connections: u64) -> Result<(), DataplaneError> {
        for number in [number, NAT_ALL] {
            let gone = self.gone.get(&number, 0).map_err(failed)?;
            let gone = gone.wrapping_add(connections);
            self.gone.set(number, gone, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// Connections of a router, and how many were refused so far.
    pub(super) fn counts(&self, number: u32) -> Result<(u64, u64), DataplaneError> {
        let refused = self.refused.get(&number, 0).map_err(failed)?;
        Ok((self.held(number)?, refused))
    }

    fn remove_if(&mut self, is_gone: impl Fn(&NatKey, &NatValue) -> bool) -> Result<(), DataplaneError> {
        let mut insides = Vec::new();
        let read = self.entries.read(|Plain(key), Plain(value)| {
            if is_gone(key, value) {
                insides.push(Plain(*key));
            }
        });
        read.map_err(failed)?;
        for inside in &insides {
            // Its beginner may have begun it anew meanwhile.
            let now = self.entries.get(inside).map_err(failed)?;
            let Some(Plain(value)) = now.filter(|Plain(value)| is_gone(&inside.0, value)) else {
                continue;
            };
            // The outside first: who takes that away, this side or the program, takes the inside away too and counts it.
            let outside = Plain(inside.0.outside(value.address, value.port));
            if self.backs.remove(&outside).map_err(failed)? {
                self.remove_inside(inside, value.router)?;
            }
        }
        Ok(())
    }

    fn remove_inside(&mut self, inside: &Plain<NatKey>, router: u32) -> Result<(), DataplaneError> {
        if self.entries.remove(inside).map_err(failed)? {
            self.count_gone(router, 1)?;
        }
        Ok(())
    }

    /// Removes entries whose other half is not there: a process or a processor was stopped between the two, or lost a race. Those are meant
    /// that were so the last time too: the program makes one after the other.
    pub(super) fn remove_halves(&mut self) -> Result<(), DataplaneError> {
        let (insides, outsides) = self.halves().map_err(failed)?;
        let (old_insides, old_outsides) = std::mem::take(&mut self.halves);
        for inside in insides.intersection(&old_insides).copied().map(Plain) {
            let value = self.entries.get(&inside).map_err(failed)?;
            if let Some(Plain(value)) = value {
                self.remove_inside(&inside, value.router)?;
            }
        }
        for outside in outsides.intersection(&old_outsides).copied().map(Plain) {
            self.backs.remove(&outside).map_err(failed)?;
        }
        self.halves = (insides, outsides);
        Ok(())
    }

    /// Insides without their outside, and outsides without their inside.
    fn halves(&self) -> io::Result<(BTreeSet<NatKey>, BTreeSet<NatKey>)> {
        let (mut insides, mut outsides) = (BTreeSet::new(), BTreeSet::new());
        let mut problem = None;
        self.entries.read(|Plain(inside), Plain(value)| {
            let outside = inside.outside(value.address, value.port);
            match self.backs.get(&Plain(outside)) {
                Ok(Some(Plain(back))) if outside.inside(&back) == *inside => {}
                Ok(_) => drop(insides.insert(*inside)),
                Err(error) => problem = Some(error),
            }
        })?;
        self.backs.read(|Plain(outside), Plain(back)| {
            match self.entries.get(&Plain(outside.inside(back))) {
                Ok(Some(Plain(value))) if (value.address, value.port) == (outside.own, outside.local) => {}
                Ok(_) => drop(outsides.insert(*outside)),
                Err(error) => problem = Some(error),
            }
        })?;
        problem.map_or(Ok((insides, outsides)), Err)
    }
}

/// The thread that sweeps. It ends when this is dropped.
pub(super) struct Sweeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    pub(super) fn start(nat: Shared) -> Result<Self, DataplaneError> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("alcor-nat".to_owned())
            .spawn(move || {
                let mut rest = SWEEP_INTERVAL;
                let mut sweeps = 0u32;
                while stopped.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
                    let began = Instant::now();
                    let mut swept = now().and_then(|now| lock(&nat).sweep(now));
                    sweeps = sweeps.wrapping_add(1);
                    if sweeps.is_multiple_of(PAIRS_EVERY) {
                        swept = swept.and_then(|()| lock(&nat).remove_halves());
                    }
                    if let Err(error) = swept {
                        tracing::warn!(%error, "expired connections stay for now");
                    }
                    rest = SWEEP_INTERVAL.max(began.elapsed() * REST);
                }
            })
            .map_err(|source| error::kernel("starting the thread that sweeps connections", source))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It only fails when the thread panicked, which has been told already.
            drop(thread.join());
        }
    }
}

/// The table, whoever had it before.
pub(super) fn lock(nat: &Shared) -> std::sync::MutexGuard<'_, Nat> {
    nat.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The table, if nobody has it now.
pub(super) fn try_lock(nat: &Shared) -> Option<std::sync::MutexGuard<'_, Nat>> {
    match nat.try_lock() {
        Ok(nat) => Some(nat),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
