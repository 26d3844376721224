//! What hosts may ask for: the forwarding state of all networks in a compact form, who has ports where, and who has
//! learned what. Any thread may ask ([`Directory::resolve`]) while the core, the only writer ([`Writer`]), changes it.
//!
//! **Why locks, and why they do not hurt.** Rows and their learners lie in [`SHARDS`] hash tables, each behind a mutex,
//! spread by a keyed hash of (network, address), so that the addresses of one large network are all over them. Nobody
//! holds the mutex of a shard for more than one look-up and one insertion, so the writer waits for at most one of these, and
//! for none in most cases: with 16 threads that do nothing but ask, a writer meets one of them in its shard about once
//! in a hundred writes. What a lock-free map would give is a row without waiting; what is needed is a row *and* its
//! learner in one step, which a lock-free map cannot give.
//!
//! **No change is missed.** Who asks is noted as a learner and then gets the row; the writer writes the row and then looks
//! for learners. Both do so under the mutex of one shard: whoever comes first, the learner has the new row or is told of it. The
//! tunnel addresses of hosts lie elsewhere, and keep the same order: written before the learners are looked for, read
//! after the learner is noted.
//!
//! Locks are taken in one order: a host's, then a shard's.

mod hosts;
mod meter;
mod resolve;
mod shard;
mod writer;

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alcor_model::{MacAddr, Revision};
use parking_lot::Mutex;

use self::{
    hosts::Hosts,
    shard::{Place, Shard},
};
pub use self::{
    resolve::{Asked, Asker},
    writer::{Entry, Known, Writer},
};

/// Hash tables that rows are spread over.
const SHARDS: usize = 1_024;

/// One port may cause this part of what its host may learn.
const PORT_SHARE: usize = 4;

/// What hosts may ask, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a host may use an answer without asking again.
    pub lease: Duration,
    /// How long a host does not ask again for an address that nobody has.
    pub negative_lease: Duration,
    /// Addresses that one host may have learned. Twice what an agent keeps, because what it drops or what is gone counts until
    /// the lease is over.
    pub learned_max: usize,
    /// Questions of one port a second; a burst has twice as many.
    pub port_questions: u32,
    /// Questions of one host a second.
    pub host_questions: u32,
    /// Questions that one host may ask at once: all that an agent has learned, after it was away.
    pub host_burst: u32,
}

impl Limits {
    /// New addresses that one port may take of what its host may learn, a second and at once: a part of it, so that a port that scans
    /// leaves room for the others.
    fn port_new(&self) -> (u32, u32) {
        let share = u32::try_from(self.learned_max / PORT_SHARE)
            .unwrap_or(u32::MAX)
            .max(1);
        let lease_s = u32::try_from(self.lease.as_secs()).unwrap_or(u32::MAX).max(1);
        ((share / lease_s).max(1), share)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(300),
            negative_lease: Duration::from_secs(1),
            learned_max: 131_072,
            port_questions: 2_000,
            host_questions: 20_000,
            host_burst: 65_536,
        }
    }
}

impl Limits {
    /// How long a learner is kept after its question: longer than the host uses the answer.
    pub fn kept(&self) -> Duration {
        self.lease + self.lease / 4
    }
}

/// A network, for as long as the NCM runs: numbers are not used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkIndex(u32);

impl NetworkIndex {
    /// Networks that one run of an NCM can number.
    const MAX: u32 = u32::MAX >> 1;
}

/// A host, until nothing names it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostIndex(u32);

impl HostIndex {
    /// Hosts that one run of an NCM can number.
    const MAX: u32 = u32::MAX - 2;
    /// No host.
    const NONE: Self = Self(u32::MAX);
    /// More than one host.
    const SEVERAL: Self = Self(u32::MAX - 1);
}

/// An address in a network, in 20 bytes: the network's number, its highest bit set for IPv6, and the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key([u32; 5]);

impl Key {
    const V6: u32 = 1 << 31;

    fn new(network: NetworkIndex, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self([network.0, ip.to_bits(), 0, 0, 0]),
            IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                let part = |shift: u32| (bits >> shift) as u32;
                Self([network.0 | Self::V6, part(96), part(64), part(32), part(0)])
            }
        }
    }

    fn network(&self) -> NetworkIndex {
        NetworkIndex(self.0[0] & !Self::V6)
    }

    fn ip(&self) -> IpAddr {
        let [network, parts @ ..] = self.0;
        match network & Self::V6 {
            0 => Ipv4Addr::from_bits(parts[0]).into(),
            _ => {
                let join = |bits: u128, part: u32| bits << 32 | u128::from(part);
                Ipv6Addr::from_bits(parts.into_iter().fold(0, join)).into()
            }
        }
    }
}

/// An address's row, in 20 bytes.
#[derive(Clone, Copy, Debug)]
struct Stored {
    host: HostIndex,
    /// High and low half: a whole number would be padded.
    revision: [u32; 2],
    mac: MacAddr,
    label: u16,
}

impl Stored {
    /// No row.
    const NONE: Self = Self {
        host: HostIndex::NONE,
        revision: [0; 2],
        mac: MacAddr([0; 6]),
        label: 0,
    };

    fn revision(&self) -> Revision {
        Revision(u64::from(self.revision[0]) << 32 | u64::from(self.revision[1]))
    }
}

/// Tenths of a second since the NCM started, rounded up: enough for 13 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u32);

impl Moment {
    fn of(since_start: Duration) -> Self {
        Self(u32::try_from(since_start.as_millis().div_ceil(100)).unwrap_or(u32::MAX))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Directory {
    limits: Limits,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    hosts: Hosts,
    /// While a whole new state is written nobody gets an answer from half of it.
    loading: AtomicBool,
}

impl Directory {
    /// An empty directory, and its writer.
    pub fn new(limits: Limits) -> (Arc<Self>, Writer) {
        let directory = Arc::new(Self {
            limits,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hosts: Hosts::default(),
            loading: AtomicBool::new(false),
        });
        (Arc::clone(&directory), Writer::new(directory))
    }

    /// What hosts may ask.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Rows that there are; looks at every shard.
    pub fn rows(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().rows()).sum()
    }

    fn place(&self, key: Key) -> Place<'_> {
        let hash = self.hasher.hash_one(key);
        // Bits that do not find the place in the table: its keys would all begin at few places.
        let number = (hash >> 40) as usize % SHARDS;
        Place {
            shard: self.shards[number].lock(),
            hasher: &self.hasher,
            hash,
            key,
        }
    }

    fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
