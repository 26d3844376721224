//! Readers of the feed see every change once and in order, whatever is written in between, however far behind
//! they fall, and over restarts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

use std::collections::BTreeSet;

use alcor_model::{Change, Revision};
use alcor_store::{
    Engine as _, FeedReader, Shard, ShardOptions, SqliteEngine, State as _,
    feed::FEED_RING,
    sqlite::FEED_RETAINED,
    testing::{Rows, named, numbered},
};
use proptest::prelude::*;

fn open(dir: &tempfile::TempDir) -> Shard<Rows> {
    let engine = SqliteEngine::open(&dir.path().join("shard.sqlite")).unwrap();
    Shard::open(Box::new(engine), ShardOptions::default()).unwrap()
}

fn apply(state: &mut Rows, change: Change) {
    match change {
        Change::Put(row) => {
            state.put(row);
        }
        Change::Delete { key, .. } => {
            state.remove(&key);
        }
    }
}

/// Reads up to `until`; asserts order; takes a snapshot when told to.
async fn follow(
    shard: &Shard<Rows>,
    reader: &mut FeedReader,
    state: &mut Rows,
    until: Revision,
) -> Vec<Revision> {
    let mut seen = Vec::new();
    while reader.revision() < until {
        let before = reader.revision();
        match reader.next().await.unwrap() {
            Ok(batch) => {
                assert!(batch.revision > before);
                for change in batch.changes {
                    assert!(change.revision() > before && change.revision() <= batch.revision);
                    seen.push(change.revision());
                    apply(state, change);
                }
            }
            Err(lagged) => {
                assert_eq!(lagged.from, before);
                let snapshot = shard.snapshot();
                *state = snapshot.state.clone();
                reader.restart_from(snapshot.revision);
            }
        }
    }
    seen
}

/// A command: rows to put (by number) and whether to delete instead.
type Step = Vec<(u8, bool)>;

async fn write(shard: &Shard<Rows>, step: Step, number: u32) {
    shard
        .write(move |tx| {
            for (row, delete) in step {
                if delete {
                    tx.delete(named(&format!("r{row}")));
                } else {
                    tx.put(numbered(&format!("r{row}"), number));
                }
            }
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A reader that starts at any revision, and one that reads after a restart, reach the shard's state.
    #[test]
    fn a_reader_from_any_revision_reaches_the_state(
        steps in prop::collection::vec(prop::collection::vec((0u8..12, any::<bool>()), 0..4), 1..30),
        start in 0usize..30,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            let dir = tempfile::tempdir().unwrap();
            let shard = open(&dir);
            let mut early = shard.subscribe(Revision::ZERO);
            let mut seen = Rows::default();
            let mut revisions = Vec::new();
            let mut at_start = shard.snapshot();
            for (number, step) in steps.into_iter().enumerate() {
                if number == start {
                    at_start = shard.snapshot();
                }
                write(&shard, step, u32::try_from(number).unwrap()).await;
                if number % 3 == 0 {
                    let until = shard.snapshot().revision;
                    revisions.extend(follow(&shard, &mut early, &mut seen, until).await);
                }
            }
            let end = shard.snapshot();
            revisions.extend(follow(&shard, &mut early, &mut seen, end.revision).await);
            assert_eq!(seen, end.state);
            // Every revision is there, none came back.
            assert!(revisions.is_sorted());
            let all: BTreeSet<_> = revisions.iter().copied().collect();
            assert_eq!(all, (1..=end.revision.0).map(Revision).collect());

            let mut late = shard.subscribe(at_start.revision);
            let mut state = at_start.state.clone();
            follow(&shard, &mut late, &mut state, end.revision).await;
            assert_eq!(state, end.state);

            drop((shard, early, late));
            let shard = open(&dir);
            for from in [Snapshot::zero(), Snapshot(at_start.revision, at_start.state.clone())] {
                let mut reader = shard.subscribe(from.0);
                let mut state = from.1;
                let seen = follow(&shard, &mut reader, &mut state, end.revision).await;
                assert_eq!(state, end.state, "after a restart, from {}", from.0);
                assert!(seen.is_sorted());
            }
        });
    }
}

/// Where a reader starts.
struct Snapshot(Revision, Rows);

impl Snapshot {
    fn zero() -> Self {
        Self(Revision::ZERO, Rows::default())
    }
}

/// Readers that run while eight writers write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_readers_see_every_change_once_and_in_order() {
    const WRITERS: u32 = 8;
    const WRITES: u32 = 100;
    let dir = tempfile::tempdir().unwrap();
    let shard = open(&dir);
    let end = Revision(u64::from(WRITERS * WRITES));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let shard = shard.clone();
            tokio::spawn(async move {
                let mut reader = shard.subscribe(Revision::ZERO);
                let mut state = Rows::default();
                (follow(&shard, &mut reader, &mut state, end).await, state)
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let shard = shard.clone();
            tokio::spawn(async move {
                for number in 0..WRITES {
                    let row = u8::try_from((writer * 31 + number) % 200).unwrap();
                    write(&shard, vec![(row, false)], number).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for reader in readers {
        let (seen, state) = reader.await.unwrap();
        assert_eq!(seen, (1..=end.0).map(Revision).collect::<Vec<_>>());
        assert_eq!(state, shard.snapshot().state);
    }
}

/// More changes than the ring holds: the reader is told, takes a snapshot, and goes on.
#[tokio::test]
async fn a_reader_behind_the_ring_goes_on_from_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let shard = open(&dir);
    let mut reader = shard.subscribe(Revision::ZERO);
    let per_command = 10_000;
    for command in 0..=FEED_RING / per_command {
        shard
            .write(move |tx| {
                for row in 0..per_command {
                    tx.put(numbered(&format!("r{row}"), u32::try_from(command).unwrap()));
                }
                Ok::<_, ()>(())
            })
            .await
            .unwrap();
    }
    let lagged = reader.next().await.unwrap().unwrap_err();
    assert_eq!(lagged.from, Revision::ZERO);
    assert!(lagged.oldest > Revision::ZERO);
    let mut state = Rows::default();
    let end = shard.snapshot().revision;
    follow(&shard, &mut reader, &mut state, end).await;
    assert_eq!(state, shard.snapshot().state);
    // From the oldest that is retained no snapshot is needed, and no command comes in two halves.
    let mut retained = shard.subscribe(lagged.oldest);
    let batch = retained.next().await.unwrap().unwrap();
    assert_eq!(batch.changes.len(), per_command);
    assert!(
        batch
            .changes
            .iter()
            .all(|change| change.revision() == lagged.oldest.next())
    );
}

#[tokio::test]
async fn an_idle_reader_wakes_and_ends_with_the_shard() {
    let dir = tempfile::tempdir().unwrap();
    let shard = open(&dir);
    let mut reader = shard.subscribe(Revision::ZERO);
    let waiting = tokio::spawn(async move {
        let first = reader.next().await.map(|batch| batch.unwrap().revision);
        (first, reader.next().await.is_none())
    });
    tokio::task::yield_now().await;
    write(&shard, vec![(1, false)], 1).await;
    drop(shard);
    assert_eq!(waiting.await.unwrap(), (Some(Revision(1)), true));
}

/// The durable feed is bounded, and what is retained is whole commands without a gap.
#[tokio::test]
async fn the_durable_feed_is_pruned_in_whole_commands() {
    const PER_COMMAND: usize = 7_000;
    let dir = tempfile::tempdir().unwrap();
    let shard = open(&dir);
    let commands = FEED_RETAINED as usize / PER_COMMAND * 2;
    for command in 0..commands {
        shard
            .write(move |tx| {
                for row in 0..PER_COMMAND {
                    tx.put(numbered(&format!("r{row}"), u32::try_from(command).unwrap()));
                }
                Ok::<_, ()>(())
            })
            .await
            .unwrap();
    }
    let newest = shard.snapshot().revision;
    drop(shard);
    let mut engine = SqliteEngine::open(&dir.path().join("shard.sqlite")).unwrap();
    let entries = engine.feed().unwrap();
    assert!(entries.len() >= FEED_RETAINED as usize);
    assert!(
        entries.len() < FEED_RETAINED as usize + 4 * PER_COMMAND,
        "{}",
        entries.len()
    );
    let expected: Vec<_> = (entries[0].revision.0..=newest.0)
        .flat_map(|revision| [Revision(revision); PER_COMMAND])
        .collect();
    assert!(entries.iter().map(|entry| entry.revision).eq(expected));
}
