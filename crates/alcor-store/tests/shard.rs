//! The shard on SQLite: answered is durable, refused leaves nothing, a failing disk stops writes and nothing else,
//! and two controllers never write the same shard.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use alcor_model::Revision;
use alcor_store::{
    Batch, Engine, EngineError, Shard, ShardOptions, SqliteEngine, StoreError, StoredRow, WriteError,
    engine::FeedEntry,
    testing::{Fault, FaultSwitch, FaultyEngine, Rows, named, numbered},
};

type Outcome = Result<(), WriteError<&'static str>>;

fn open(path: &Path) -> Shard<Rows> {
    Shard::open(
        Box::new(SqliteEngine::open(path).unwrap()),
        ShardOptions::default(),
    )
    .unwrap()
}

fn open_faulty(path: &Path) -> (Shard<Rows>, FaultSwitch) {
    let switch = FaultSwitch::default();
    let engine = FaultyEngine::new(Box::new(SqliteEngine::open(path).unwrap()), switch.clone());
    (
        Shard::open(Box::new(engine), ShardOptions::default()).unwrap(),
        switch,
    )
}

async fn put(shard: &Shard<Rows>, name: &str, number: u32) -> Outcome {
    let row = numbered(name, number);
    shard
        .write(move |tx| {
            tx.put(row);
            Ok(())
        })
        .await
}

fn has(shard: &Shard<Rows>, name: &str) -> bool {
    shard.snapshot().state.rows.contains_key(&named(name))
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.sqlite");
    let shard = open(&path);
    for number in 0..10 {
        put(&shard, &format!("h{number}"), number).await.unwrap();
    }
    shard
        .write(|tx| {
            tx.delete(named("h3"));
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    let before = shard.snapshot();
    assert_eq!(before.revision, Revision(11));
    drop(shard);

    let after = open(&path).snapshot();
    assert_eq!(after.revision, before.revision);
    assert_eq!(after.state, before.state);
}

#[tokio::test]
async fn a_refused_command_leaves_nothing_and_takes_no_revision() {
    let dir = tempfile::tempdir().unwrap();
    let shard = open(&dir.path().join("shard.sqlite"));
    put(&shard, "a", 1).await.unwrap();
    let before = shard.snapshot();
    let refused: Outcome = shard
        .write(|tx| {
            tx.put(numbered("a", 2));
            tx.put(numbered("b", 2));
            tx.delete(named("a"));
            Err("no")
        })
        .await;
    assert!(matches!(refused, Err(WriteError::Refused("no"))), "{refused:?}");
    assert_eq!(shard.snapshot().revision, before.revision);
    assert_eq!(shard.snapshot().state, before.state);
    put(&shard, "b", 3).await.unwrap();
    assert_eq!(shard.snapshot().revision, Revision(2));
}

#[tokio::test]
async fn a_command_that_panics_leaves_nothing_and_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let shard = open(&dir.path().join("shard.sqlite"));
    put(&shard, "a", 1).await.unwrap();
    let before = shard.snapshot();
    let outcome: Outcome = shard
        .write(|tx| {
            tx.put(numbered("a", 2));
            tx.put(numbered("b", 2));
            panic!("a fault of the program, made by this test");
        })
        .await;
    assert!(
        matches!(outcome, Err(WriteError::Store(StoreError::Panicked))),
        "{outcome:?}"
    );
    put(&shard, "c", 3).await.unwrap();
    assert!(has(&shard, "a") && !has(&shard, "b") && has(&shard, "c"));
    assert_eq!(
        shard.snapshot().state.rows.get(&named("a")),
        before.state.rows.get(&named("a"))
    );
}

#[tokio::test]
async fn a_full_disk_refuses_writes_keeps_reads_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.sqlite");
    let (shard, switch) = open_faulty(&path);
    put(&shard, "before", 1).await.unwrap();
    switch.set(Fault::DiskFull);
    for _ in 0..3 {
        let refused = put(&shard, "during", 2).await;
        let Err(WriteError::Store(StoreError::Commit(reason))) = &refused else {
            panic!("{refused:?}");
        };
        assert!(matches!(**reason, EngineError::DiskFull), "{reason}");
        assert!(has(&shard, "before") && !has(&shard, "during"));
    }
    switch.set(Fault::None);
    put(&shard, "after", 3).await.unwrap();
    assert!(has(&shard, "before") && !has(&shard, "during") && has(&shard, "after"));
    assert_eq!(
        shard.snapshot().revision,
        Revision(2),
        "failed commits take no revision"
    );
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_answered_as_done() {
    let dir = tempfile::tempdir().unwrap();
    let (shard, switch) = open_faulty(&dir.path().join("shard.sqlite"));
    let mut reader = shard.subscribe(Revision::ZERO);
    switch.set(Fault::LostAnswer);
    put(&shard, "a", 1).await.unwrap();
    assert!(has(&shard, "a"));
    assert_eq!(reader.next().await.unwrap().unwrap().changes.len(), 1);
}

#[tokio::test]
async fn a_database_that_cannot_be_read_stops_writes_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let (shard, switch) = open_faulty(&dir.path().join("shard.sqlite"));
    put(&shard, "a", 1).await.unwrap();
    let mut reader = shard.subscribe(shard.snapshot().revision);
    // Durable, but nobody can know yet.
    switch.set(Fault::Silent);
    let refused = put(&shard, "b", 2).await;
    assert!(
        matches!(refused, Err(WriteError::Store(StoreError::Commit(_)))),
        "{refused:?}"
    );
    let refused = put(&shard, "c", 3).await;
    assert!(
        matches!(refused, Err(WriteError::Store(StoreError::Reload(_)))),
        "{refused:?}"
    );
    assert!(has(&shard, "a") && !has(&shard, "b"));

    switch.set(Fault::None);
    put(&shard, "d", 4).await.unwrap();
    assert!(has(&shard, "b") && !has(&shard, "c") && has(&shard, "d"));
    // The reader is told that it cannot have seen everything.
    let lagged = reader.next().await.unwrap().unwrap_err();
    assert_eq!(lagged.from, Revision(1));
    reader.restart_from(shard.snapshot().revision);
    put(&shard, "e", 5).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().revision, Revision(4));
}

#[tokio::test]
async fn the_second_controller_fences_the_first_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.sqlite");
    let first = open(&path);
    put(&first, "first", 1).await.unwrap();
    let second = open(&path);
    put(&second, "second", 2).await.unwrap();
    for _ in 0..2 {
        let refused = put(&first, "late", 3).await;
        assert!(
            matches!(refused, Err(WriteError::Store(StoreError::Stopped { .. }))),
            "{refused:?}"
        );
    }
    assert!(has(&first, "first"), "reads go on");
    put(&second, "more", 4).await.unwrap();
    drop(second);
    let third = open(&path);
    assert!(has(&third, "first") && has(&third, "second") && has(&third, "more") && !has(&third, "late"));
}

#[tokio::test]
async fn a_database_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.sqlite");
    drop(SqliteEngine::open(&path).unwrap());
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE meta SET value = 99 WHERE key = 'schema'", [])
        .unwrap();
    drop(db);
    let error = SqliteEngine::open(&path).err().unwrap();
    assert!(matches!(error, EngineError::Schema { found: 99, .. }), "{error}");
}

/// SQLite with a cap of pages that the test moves.
struct Capped {
    inner: SqliteEngine,
    pages: Arc<AtomicU32>,
}

impl Engine for Capped {
    fn load(
        &mut self,
        sink: &mut dyn FnMut(StoredRow) -> Result<(), EngineError>,
    ) -> Result<Revision, EngineError> {
        self.inner.load(sink)
    }
    fn identity(&mut self) -> Result<u64, EngineError> {
        self.inner.identity()
    }
    fn committed(&mut self) -> Result<Revision, EngineError> {
        self.inner.committed()
    }
    fn feed(&mut self) -> Result<Vec<FeedEntry>, EngineError> {
        self.inner.feed()
    }
    fn commit(&mut self, batch: &Batch) -> Result<(), EngineError> {
        self.inner.limit_pages(self.pages.load(Ordering::SeqCst))?;
        self.inner.commit(batch)
    }
}

/// Writes until the store refuses; gives how many were answered.
async fn fill(shard: &Shard<Rows>) -> (u32, StoreError) {
    for number in 0..1_000_000 {
        let rows: Vec<_> = (0..50)
            .map(|i| numbered(&format!("{}-{number}-{i}", "x".repeat(200)), number))
            .collect();
        let outcome: Outcome = shard
            .write(move |tx| {
                rows.into_iter().for_each(|row| tx.put(row));
                Ok(())
            })
            .await;
        match outcome {
            Ok(()) => {}
            Err(WriteError::Store(error)) => return (number, error),
            Err(refused) => panic!("{refused:?}"),
        }
    }
    panic!("the disk is never full")
}

#[tokio::test]
async fn sqlite_without_room_says_so_loses_nothing_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.sqlite");
    let pages = Arc::new(AtomicU32::new(200));
    let engine = Capped {
        inner: SqliteEngine::open(&path).unwrap(),
        pages: Arc::clone(&pages),
    };
    let shard: Shard<Rows> = Shard::open(Box::new(engine), ShardOptions::default()).unwrap();
    let (answered, error) = fill(&shard).await;
    assert!(error.to_string().contains("disk is full"), "{error}");
    let full = shard.snapshot();
    assert_eq!(
        full.state.rows.len(),
        answered as usize * 50,
        "every answered command, and nothing of the refused one"
    );
    pages.store(100_000, Ordering::SeqCst);
    put(&shard, "room again", 1).await.unwrap();
    let last = shard.snapshot();
    drop(shard);
    assert_eq!(open(&path).snapshot().state, last.state);
}

/// The same on a real file system that is full.
#[tokio::test]
#[cfg_attr(not(feature = "root-tests"), ignore = "needs root: mounts a small tmpfs")]
async fn a_full_file_system_says_so_loses_nothing_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let run = |program: &str, args: &[&str]| {
        let status = std::process::Command::new(program)
            .args(args)
            .arg(&mount)
            .status()
            .unwrap();
        assert!(status.success(), "{program} {args:?}");
    };
    run("mount", &["-t", "tmpfs", "-o", "size=2m", "tmpfs"]);
    let path = mount.join("shard.sqlite");
    let shard = open(&path);
    let (answered, error) = fill(&shard).await;
    assert_eq!(shard.snapshot().state.rows.len(), answered as usize * 50);
    run("mount", &["-o", "remount,size=32m"]);
    put(&shard, "room again", 1).await.unwrap();
    let last = shard.snapshot();
    drop(shard);
    let reopened = open(&path).snapshot();
    run("umount", &["-l"]);
    assert!(error.to_string().contains("disk is full"), "{error}");
    assert_eq!(reopened.state, last.state);
}
