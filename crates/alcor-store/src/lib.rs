//! A shard: typed tables in memory, one durable row per resource, one writer, group commit, and an ordered
//! change feed. It knows that rows have keys, owners and revisions, and no resource's rules.
//!
//! - [`table`]: primary maps and declared indexes out of persistent maps, so that a state is a cheap value.
//! - [`tx`]: what one command does to the state, with its undo.
//! - [`shard`]: the writer thread, the published snapshot, the handle.
//! - [`feed`]: what changed since a revision.
//! - [`engine`]: what a database must do; [`sqlite`] is the embedded one.

pub mod engine;
pub mod feed;
pub mod shard;
pub mod sqlite;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tx;

pub use engine::{Batch, Engine, EngineError, StoredRow};
pub use feed::{FEED_BATCH, FeedBatch, FeedReader, Lagged};
pub use shard::{Shard, ShardOptions, Snapshot, StoreError, WriteError};
pub use sqlite::SqliteEngine;
pub use table::{MultiIndex, Table, UniqueIndex};
pub use tx::{State, Tx};
