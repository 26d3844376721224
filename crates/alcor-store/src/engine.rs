//! What a database must do for a shard: load all rows, and commit a batch atomically and durably while this
//! writer still holds the epoch.

use alcor_model::{Change, Kind, Revision};
use thiserror::Error;

/// A row as it lies in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Which table.
    pub kind: Kind,
    /// JSON.
    pub body: String,
}

/// An entry of the durable feed, without body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// The commit.
    pub revision: Revision,
    /// Which table.
    pub kind: Kind,
    /// Which row.
    pub id: String,
    /// Deleted rather than put.
    pub deleted: bool,
}

/// What is committed at once: the writes of several commands.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In commit order.
    pub changes: Vec<Change>,
    /// The revision after the batch.
    pub revision: Revision,
}

/// The durable side of a shard. One owner calls it; calls block.
pub trait Engine: Send + 'static {
    /// Gives every row, kinds in [`Kind::ALL`] order, and returns the revision of the last commit.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn load(
        &mut self,
        sink: &mut dyn FnMut(StoredRow) -> Result<(), EngineError>,
    ) -> Result<Revision, EngineError>;

    /// A number that the database was given when it was made: revisions of databases that differ in it cannot be compared.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn identity(&mut self) -> Result<u64, EngineError>;

    /// The revision of the last durable commit, without reading rows: what tells, after a failed commit, whether
    /// the batch is there.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] when another writer took the epoch; others when the database cannot be read.
    fn committed(&mut self) -> Result<Revision, EngineError>;

    /// The retained feed, oldest first. Holds whole commands only, and every one after the oldest.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn feed(&mut self) -> Result<Vec<FeedEntry>, EngineError>;

    /// Makes the batch durable, all or nothing.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] when another writer took the epoch. After any other error it is unknown whether
    /// the batch is there; [`Self::committed`] knows.
    fn commit(&mut self, batch: &Batch) -> Result<(), EngineError>;
}

/// Why a database refused.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Another writer took over; this one must never write again.
    #[error("another controller has taken this shard over (epoch {theirs}, ours was {ours})")]
    Fenced {
        /// The epoch in the database.
        theirs: u64,
        /// The epoch of this writer.
        ours: u64,
    },
    /// No space is left.
    #[error("the disk is full; free some space, the shard then writes again by itself")]
    DiskFull,
    /// The file is from another version.
    #[error("the database has schema version {found}, this alcor reads version {wanted}")]
    Schema {
        /// What the file has.
        found: i64,
        /// What is understood.
        wanted: i64,
    },
    /// A row cannot be read.
    #[error("row {kind} {id} cannot be read: {reason}")]
    Corrupt {
        /// Its kind.
        kind: String,
        /// Its id.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// Anything else that the database says.
    #[error("the database refused")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}
