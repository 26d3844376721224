//! The embedded engine: one SQLite file in WAL mode with `synchronous=FULL`, so that a commit is on the disk
//! when it returns.

use std::path::Path;

use alcor_model::{Change, Kind, Revision};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use crate::engine::{Batch, Engine, EngineError, FeedEntry, StoredRow};

const SCHEMA_VERSION: i64 = 1;
/// Feed entries kept in the database; older ones are removed, and readers behind them take a snapshot.
pub const FEED_RETAINED: u64 = 100_000;
/// New feed entries after which old ones are removed: the table never holds more than [`FEED_RETAINED`], this
/// many, and one batch.
const PRUNE_AFTER: usize = 10_000;
/// Pages of 4 KiB in the write-ahead log after which SQLite copies them into the file. A batch of ports is a few
/// thousand pages, and a copy costs two more fsyncs.
const CHECKPOINT_PAGES: u32 = 8_000;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS resource (
    kind TEXT NOT NULL, id TEXT NOT NULL, project_id TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS feed (
    seq INTEGER PRIMARY KEY, revision INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, deleted INTEGER NOT NULL);
";

/// A shard's database in a SQLite file.
pub struct SqliteEngine {
    db: Connection,
    epoch: u64,
    /// Feed entries written since old ones were removed.
    unpruned: usize,
}

fn database(error: rusqlite::Error) -> EngineError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => EngineError::DiskFull,
        _ => EngineError::Database(Box::new(error)),
    }
}

impl SqliteEngine {
    /// Opens or makes the file and takes the shard over by raising its epoch.
    ///
    /// # Errors
    /// When the file cannot be opened, is no database, or is from another version.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let mut db = Connection::open(path).map_err(database)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(database)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(database)?;
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
            .map_err(database)?;
        db.busy_timeout(std::time::Duration::from_secs(5))
            .map_err(database)?;
        db.set_prepared_statement_cache_capacity(32);
        let tx = db
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(database)?;
        tx.execute_batch(SCHEMA).map_err(database)?;
        tx.execute(
            "INSERT OR IGNORE INTO meta VALUES ('schema', ?1), ('epoch', 0), ('revision', 0), ('identity', random())",
            [SCHEMA_VERSION],
        )
        .map_err(database)?;
        let found = meta(&tx, "schema")?;
        if found != SCHEMA_VERSION {
            return Err(EngineError::Schema {
                found,
                wanted: SCHEMA_VERSION,
            });
        }
        tx.execute("UPDATE meta SET value = value + 1 WHERE key = 'epoch'", [])
            .map_err(database)?;
        let epoch = meta(&tx, "epoch")?.unsigned_abs();
        tx.commit().map_err(database)?;
        Ok(Self {
            db,
            epoch,
            unpruned: PRUNE_AFTER,
        })
    }

    /// Caps the file's size, in pages of 4 KiB. For tests of a full disk.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn limit_pages(&mut self, pages: u32) -> Result<(), EngineError> {
        self.db
            .pragma_update(None, "max_page_count", pages)
            .map_err(database)
    }
}

fn meta(db: &Connection, key: &str) -> Result<i64, EngineError> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
        .map_err(database)
}

fn sql_revision(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn kind_of(text: &str, id: &str) -> Result<Kind, EngineError> {
    Kind::parse(text).ok_or_else(|| EngineError::Corrupt {
        kind: text.to_owned(),
        id: id.to_owned(),
        reason: "unknown kind; was the file written by a newer alcor?".to_owned(),
    })
}

impl Engine for SqliteEngine {
    fn load(
        &mut self,
        sink: &mut dyn FnMut(StoredRow) -> Result<(), EngineError>,
    ) -> Result<Revision, EngineError> {
        let tx = self.db.transaction().map_err(database)?;
        let strange: Option<(String, String)> = {
            let known: Vec<_> = Kind::ALL
                .iter()
                .map(|kind| format!("'{}'", kind.as_str()))
                .collect();
            let sql = format!(
                "SELECT kind, id FROM resource WHERE kind NOT IN ({}) LIMIT 1",
                known.join(",")
            );
            tx.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
                .map_err(database)?
        };
        if let Some((kind, id)) = strange {
            kind_of(&kind, &id)?;
        }
        for kind in Kind::ALL.iter().copied() {
            let mut statement = tx
                .prepare_cached("SELECT body FROM resource WHERE kind = ?1 ORDER BY id")
                .map_err(database)?;
            let mut rows = statement.query([kind.as_str()]).map_err(database)?;
            while let Some(row) = rows.next().map_err(database)? {
                sink(StoredRow {
                    kind,
                    body: row.get(0).map_err(database)?,
                })?;
            }
        }
        Ok(Revision(meta(&tx, "revision")?.unsigned_abs()))
    }

    fn identity(&mut self) -> Result<u64, EngineError> {
        Ok(meta(&self.db, "identity")?.cast_unsigned())
    }

    fn feed(&mut self) -> Result<Vec<FeedEntry>, EngineError> {
        let mut statement = self
            .db
            .prepare_cached("SELECT revision, kind, id, deleted FROM feed ORDER BY seq")
            .map_err(database)?;
        let mut rows = statement.query([]).map_err(database)?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next().map_err(database)? {
            let (kind, id): (String, String) = (row.get(1).map_err(database)?, row.get(2).map_err(database)?);
            entries.push(FeedEntry {
                revision: Revision(row.get::<_, i64>(0).map_err(database)?.unsigned_abs()),
                kind: kind_of(&kind, &id)?,
                deleted: row.get(3).map_err(database)?,
                id,
            });
        }
        Ok(entries)
    }

    fn committed(&mut self) -> Result<Revision, EngineError> {
        let tx = self.db.transaction().map_err(database)?;
        check_epoch(&tx, self.epoch)?;
        Ok(Revision(meta(&tx, "revision")?.unsigned_abs()))
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), EngineError> {
        let tx = self
            .db
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(database)?;
        check_epoch(&tx, self.epoch)?;
        write_changes(&tx, &batch.changes)?;
        tx.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'revision'")
            .map_err(database)?
            .execute([sql_revision(batch.revision)])
            .map_err(database)?;
        let prune = self.unpruned >= PRUNE_AFTER;
        if prune {
            prune_feed(&tx)?;
        }
        tx.commit().map_err(database)?;
        self.unpruned = batch.changes.len() + if prune { 0 } else { self.unpruned };
        Ok(())
    }
}

fn check_epoch(db: &Connection, ours: u64) -> Result<(), EngineError> {
    match meta(db, "epoch")?.unsigned_abs() {
        theirs if theirs == ours => Ok(()),
        theirs => Err(EngineError::Fenced { theirs, ours }),
    }
}

/// Writes rows and their feed entries.
fn write_changes(db: &Connection, changes: &[Change]) -> Result<(), EngineError> {
    let prepare = |sql| db.prepare_cached(sql).map_err(database);
    let mut put = prepare("INSERT OR REPLACE INTO resource VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut delete = prepare("DELETE FROM resource WHERE kind = ?1 AND id = ?2")?;
    let mut feed = prepare("INSERT INTO feed (revision, kind, id, deleted) VALUES (?1, ?2, ?3, ?4)")?;
    for change in changes {
        let key = change.key();
        let (kind, id, revision) = (
            key.kind().as_str(),
            key.id_text(),
            sql_revision(change.revision()),
        );
        match change {
            Change::Put(row) => {
                let body = row
                    .to_json()
                    .map_err(|error| EngineError::Database(Box::new(error)))?;
                put.execute(params![kind, id, row.project_id(), revision, body])
                    .map_err(database)?;
            }
            Change::Delete { .. } => {
                delete.execute(params![kind, id]).map_err(database)?;
            }
        }
        let deleted = matches!(change, Change::Delete { .. });
        feed.execute(params![revision, kind, id, deleted])
            .map_err(database)?;
    }
    Ok(())
}

/// Removes the oldest feed entries, whole commands only, so that the feed is complete after its first.
fn prune_feed(db: &Connection) -> Result<(), EngineError> {
    db.execute(
        "DELETE FROM feed WHERE seq <= (SELECT max(seq) FROM feed) - ?1
            AND revision < (SELECT revision FROM feed WHERE seq = (SELECT max(seq) FROM feed) - ?1)",
        [i64::try_from(FEED_RETAINED).unwrap_or(i64::MAX)],
    )
    .map_err(database)?;
    Ok(())
}
