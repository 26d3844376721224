//! The writer: one thread that owns the working state and the database, and the handle that everybody else has.
//!
//! Commands wait in a bounded queue. The writer runs as many as fit a batch on its working state, commits them
//! together, publishes the new state, appends to the feed, and only then answers. When a commit fails, the
//! state is read again from the database, because only the database knows whether the batch is there.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use alcor_metrics::{
    STORE_BATCH_CHANGES, STORE_BATCH_COMMANDS, STORE_CHANGES, STORE_COMMIT_SECONDS, STORE_COMMITS,
    STORE_QUEUE_COMMANDS, STORE_REVISION,
};
use alcor_model::{Change, Resource, ResourceKey, Revision};
use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::{
    engine::{Batch, Engine, EngineError},
    feed::{Feed, FeedReader},
    tx::{State, Tx},
};

/// Bounds of a shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardOptions {
    /// Commands that may wait for the writer; a caller beyond it waits for room.
    pub queue_commands: usize,
    /// Commands in one batch.
    pub batch_commands: usize,
    /// Changes after which a batch takes no further command.
    pub batch_changes: usize,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            queue_commands: 1_024,
            batch_commands: 512,
            batch_changes: 4_096,
        }
    }
}

/// A consistent state and the revision that it is of.
#[derive(Clone, Debug, Default)]
pub struct Snapshot<S> {
    /// Everything up to this commit, and nothing after it.
    pub revision: Revision,
    /// The tables.
    pub state: S,
}

/// The store cannot write. Reads go on.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The database refused; the command is not there.
    #[error("{0}")]
    Commit(Arc<EngineError>),
    /// The database refused earlier and cannot be read again yet.
    #[error("the state could not be read again after a failed commit: {0}")]
    Reload(Arc<EngineError>),
    /// The command panicked; nothing of it is there.
    #[error("the command failed by a fault of alcor itself and changed nothing; the log has the details")]
    Panicked,
    /// Another controller has the shard, or the writer has ended.
    #[error("this controller no longer writes the shard{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    Stopped {
        /// Why, when it is known.
        reason: Option<Arc<EngineError>>,
    },
}

/// Why a write has not happened.
#[derive(Debug, Error)]
pub enum WriteError<E> {
    /// The command itself says no.
    #[error(transparent)]
    Refused(E),
    /// The store cannot.
    #[error(transparent)]
    Store(StoreError),
}

/// Runs a command inside the writer. Returns how to answer, to be called with the commit's outcome.
type Command<S> = Box<dyn FnOnce(&mut S, Revision) -> Ran + Send>;
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// What a command did.
struct Ran {
    changes: Vec<Change>,
    answer: Answer,
}

/// A handle to a shard; cheap to clone. The writer ends when all handles are gone.
#[derive(Debug)]
pub struct Shard<S> {
    commands: mpsc::Sender<Command<S>>,
    published: Arc<ArcSwap<Snapshot<S>>>,
    feed: Arc<Feed>,
    identity: u64,
}

impl<S> Clone for Shard<S> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            published: Arc::clone(&self.published),
            feed: Arc::clone(&self.feed),
            identity: self.identity,
        }
    }
}

impl<S: State> Shard<S> {
    /// Loads the state and starts the writer.
    ///
    /// # Errors
    /// When the database cannot be read, or no thread can be started.
    pub fn open(mut engine: Box<dyn Engine>, options: ShardOptions) -> Result<Self, EngineError> {
        let identity = engine.identity()?;
        let snapshot = load::<S>(engine.as_mut())?;
        let feed = Arc::new(load_feed(engine.as_mut(), &snapshot)?);
        let published = Arc::new(ArcSwap::from_pointee(snapshot.clone()));
        let (commands, queue) = mpsc::channel(options.queue_commands);
        let writer = Writer {
            engine,
            options,
            working: snapshot,
            stale: None,
            published: Arc::clone(&published),
            feed: Arc::clone(&feed),
        };
        thread::Builder::new()
            .name("alcor-shard".into())
            .spawn(move || writer.run(queue))
            .map_err(|error| EngineError::Database(Box::new(error)))?;
        Ok(Self {
            commands,
            published,
            feed,
            identity,
        })
    }

    /// The database's own number: see [`Engine::identity`].
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The newest durable state.
    pub fn snapshot(&self) -> Arc<Snapshot<S>> {
        self.published.load_full()
    }

    /// The changes after `from`.
    pub fn subscribe(&self, from: Revision) -> FeedReader {
        self.feed.reader(from)
    }

    /// Runs a command on the writer; returns after its commit. A command that writes nothing is answered with
    /// the batch it fell into, so that what it read is durable.
    ///
    /// # Errors
    /// [`WriteError::Refused`] with the command's own error, which undid all of its writes;
    /// [`WriteError::Store`] when the commit failed.
    pub async fn write<T, E, F>(&self, command: F) -> Result<T, WriteError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&mut Tx<'_, S>) -> Result<T, E> + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let run: Command<S> = Box::new(move |state, revision| {
            let mut tx = Tx::new(state, revision);
            // A command that panics must not take the only writer along: its writes are undone like a refusal's.
            let (changes, outcome) = match catch_unwind(AssertUnwindSafe(|| command(&mut tx))) {
                Ok(Ok(value)) => (tx.finish(), Ok(value)),
                Ok(Err(error)) => {
                    tx.undo();
                    (Vec::new(), Err(WriteError::Refused(error)))
                }
                Err(_) => {
                    tx.undo();
                    (Vec::new(), Err(WriteError::Store(StoreError::Panicked)))
                }
            };
            // The caller may have gone away; the write stands all the same.
            let answer: Answer = Box::new(move |committed| {
                let _ = send.send(match (outcome, committed) {
                    (Ok(value), Ok(())) => Ok(value),
                    (Err(error), Ok(())) => Err(error),
                    // A refusal too: what it was refused for may be a write of the batch that is not there.
                    (_, Err(error)) => Err(WriteError::Store(error)),
                });
            });
            Ran { changes, answer }
        });
        let stopped = || WriteError::Store(StoreError::Stopped { reason: None });
        self.commands.send(run).await.map_err(|_| stopped())?;
        receive.await.map_err(|_| stopped())?
    }
}

/// Reads everything.
fn load<S: State>(engine: &mut dyn Engine) -> Result<Snapshot<S>, EngineError> {
    let mut state = S::default();
    let revision = engine.load(&mut |row| {
        let resource = Resource::from_json(row.kind, &row.body).map_err(|error| EngineError::Corrupt {
            kind: row.kind.as_str().to_owned(),
            id: row.body.chars().take(80).collect(),
            reason: error.to_string(),
        })?;
        state.put(resource);
        Ok(())
    })?;
    Ok(Snapshot { revision, state })
}

/// Fills the ring from the durable feed, with today's bodies. An entry that a later one supersedes is left out:
/// the later one carries the row.
fn load_feed<S: State>(engine: &mut dyn Engine, snapshot: &Snapshot<S>) -> Result<Feed, EngineError> {
    let entries = engine.feed()?;
    let complete_after = match entries.first() {
        Some(first) => Revision(first.revision.0.saturating_sub(1)),
        None => snapshot.revision,
    };
    let mut newest_first = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for entry in entries.into_iter().rev() {
        let key = ResourceKey::parse(entry.kind, &entry.id).map_err(|error| EngineError::Corrupt {
            kind: entry.kind.as_str().to_owned(),
            id: entry.id.clone(),
            reason: error.to_string(),
        })?;
        if !seen.insert(key.clone()) {
            continue;
        }
        if entry.deleted {
            newest_first.push(Change::Delete {
                key,
                revision: entry.revision,
            });
        } else if let Some(row) = snapshot.state.get(&key) {
            newest_first.push(Change::Put(row));
        }
    }
    newest_first.reverse();
    Ok(Feed::new(newest_first, complete_after, snapshot.revision))
}

struct Writer<S> {
    engine: Box<dyn Engine>,
    options: ShardOptions,
    working: Snapshot<S>,
    /// After a failed commit, until the state has been read again.
    stale: Option<Arc<EngineError>>,
    published: Arc<ArcSwap<Snapshot<S>>>,
    feed: Arc<Feed>,
}

impl<S: State> Writer<S> {
    fn run(mut self, mut queue: mpsc::Receiver<Command<S>>) {
        while let Some(first) = queue.blocking_recv() {
            if self.stale.is_some() && !self.reload() {
                self.refuse(first);
                continue;
            }
            let (batch, answers) = self.run_batch(first, &mut queue);
            let outcome = self.commit(batch);
            let fenced = match &outcome {
                Err(StoreError::Stopped { reason }) => Some(reason.clone()),
                _ => None,
            };
            for answer in answers {
                answer(outcome.clone());
            }
            if let Some(reason) = fenced {
                tracing::error!(reason = ?reason, "the shard is another controller's now; this one stops writing");
                return;
            }
        }
    }

    /// Runs commands until the batch is full or none waits.
    fn run_batch(
        &mut self,
        first: Command<S>,
        queue: &mut mpsc::Receiver<Command<S>>,
    ) -> (Batch, Vec<Answer>) {
        let mut batch = Batch {
            changes: Vec::new(),
            revision: self.working.revision,
        };
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next {
            let revision = batch.revision.next();
            let ran = command(&mut self.working.state, revision);
            if !ran.changes.is_empty() {
                batch.revision = revision;
                batch.changes.extend(ran.changes);
            }
            answers.push(ran.answer);
            let full = answers.len() >= self.options.batch_commands
                || batch.changes.len() >= self.options.batch_changes;
            next = if full { None } else { queue.try_recv().ok() };
        }
        STORE_BATCH_COMMANDS.count([], answers.len());
        STORE_QUEUE_COMMANDS.set([], queue.len() as u64);
        (batch, answers)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        if batch.changes.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let error = match self.engine.commit(&batch) {
            Ok(()) => {
                STORE_COMMIT_SECONDS.seconds([], began.elapsed());
                self.publish(batch);
                return Ok(());
            }
            Err(error) => error,
        };
        STORE_COMMITS.add(["failed"], 1);
        let stopped = |error| {
            Err(StoreError::Stopped {
                reason: Some(Arc::new(error)),
            })
        };
        if matches!(error, EngineError::Fenced { .. }) {
            return stopped(error);
        }
        match self.engine.committed() {
            // The answer was lost, not the batch.
            Ok(durable) if durable == batch.revision => {
                tracing::warn!(%error, "a commit answered an error and is there all the same");
                self.publish(batch);
                return Ok(());
            }
            Err(fenced @ EngineError::Fenced { .. }) => return stopped(fenced),
            Ok(_) | Err(_) => {}
        }
        tracing::warn!(%error, changes = batch.changes.len(), "a commit failed; nothing of it is answered as done");
        let error = Arc::new(error);
        self.stale = Some(Arc::clone(&error));
        self.reload();
        Err(StoreError::Commit(error))
    }

    /// Shows a durable batch to readers.
    fn publish(&mut self, batch: Batch) {
        STORE_COMMITS.add(["done"], 1);
        STORE_CHANGES.add([], batch.changes.len() as u64);
        STORE_BATCH_CHANGES.count([], batch.changes.len());
        STORE_REVISION.set([], batch.revision.0);
        self.working.revision = batch.revision;
        self.published.store(Arc::new(self.working.clone()));
        self.feed.append(batch.changes, batch.revision, now_us());
    }

    /// Takes the database's word after a failed commit. True when the working state is right again.
    fn reload(&mut self) -> bool {
        let published = self.published.load_full();
        let known = match self.engine.committed() {
            // The usual case, for example a full disk: what readers have is what the database has.
            Ok(durable) if durable == published.revision => Ok(Snapshot::clone(&published)),
            Ok(_) => load::<S>(self.engine.as_mut()),
            Err(error) => Err(error),
        };
        match known {
            Ok(snapshot) => {
                self.working = snapshot;
                if self.working.revision != published.revision {
                    // A batch had become durable although its commit answered an error and could not be asked about.
                    self.published.store(Arc::new(self.working.clone()));
                    self.feed.reset(self.working.revision);
                }
                self.stale = None;
                true
            }
            Err(error) => {
                tracing::error!(%error, "the state cannot be read again; writes are refused until it can");
                self.stale = Some(Arc::new(error));
                false
            }
        }
    }

    /// Answers a command with the store's error. It runs on a copy that is thrown away, because the way to its
    /// caller is inside of it.
    fn refuse(&self, command: Command<S>) {
        let published = self.published.load();
        let mut scratch = published.state.clone();
        let ran = command(&mut scratch, published.revision.next());
        let reason = self
            .stale
            .clone()
            .unwrap_or_else(|| Arc::new(EngineError::DiskFull));
        (ran.answer)(Err(StoreError::Reload(reason)));
    }
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
