//! The handle: runs deciders on the shard's writer and gives snapshots and the feed. No rule is here.

use std::{sync::Arc, time::Duration};

use alcor_model::{
    GatewayNode, Host, HostRuntime, Id, Label, Revision,
    resource::{FloatingIpWord, HostWord},
};
use alcor_store::{
    Engine, EngineError, FeedReader, Shard, ShardOptions, Snapshot, StoreError, Tx, WriteError,
};

use crate::{
    Env, RegionConfig, RegionError, RegionState,
    command::{Caller, PortReport},
    env::{Source, SystemSource},
    floating_ip,
    gateway::{self, GatewayRegistration},
    host, host_runtime, label,
    managed::Managed,
    once::{self, Once, OnceError, Reply},
    port_runtime, quota,
};

/// When a client may ask again after the store could not write.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A region of one shard; cheap to clone.
#[derive(Clone)]
pub struct Region {
    shard: Shard<RegionState>,
    env: Env,
}

fn unavailable(error: StoreError) -> RegionError {
    RegionError::StoreUnavailable {
        reason: error.to_string(),
        retry_after: RETRY_AFTER,
    }
}

/// Makes rows and checks quotas with each of them there.
fn create_all<R: Managed>(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    creates: Vec<R::Create>,
) -> Result<Vec<Arc<R>>, RegionError> {
    R::check_together(&creates)?;
    creates
        .into_iter()
        .map(|create| {
            let mark = tx.mark();
            let row = R::create(tx, env, caller, create)?;
            quota::check_new(tx, env, &*row, mark)?;
            Ok(row)
        })
        .collect()
}

impl Region {
    /// Opens a region on a database, with the machine's clock.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn open(engine: Box<dyn Engine>, config: RegionConfig) -> Result<Self, EngineError> {
        Self::open_with(engine, config, Arc::new(SystemSource))
    }

    /// Opens a region with its time and random numbers from `source`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn open_with(
        engine: Box<dyn Engine>,
        config: RegionConfig,
        source: Arc<dyn Source>,
    ) -> Result<Self, EngineError> {
        let shard = Shard::open(engine, ShardOptions::default())?;
        Ok(Self {
            shard,
            env: Env {
                config: Arc::new(config),
                source,
            },
        })
    }

    /// Bounds and defaults.
    pub fn config(&self) -> &Arc<RegionConfig> {
        &self.env.config
    }

    /// The number of the region's database: revisions of regions that differ in it cannot be compared.
    pub fn identity(&self) -> u64 {
        self.shard.identity()
    }

    /// The newest durable state.
    pub fn snapshot(&self) -> Arc<Snapshot<RegionState>> {
        self.shard.snapshot()
    }

    /// The changes after a revision.
    pub fn subscribe(&self, from: Revision) -> FeedReader {
        self.shard.subscribe(from)
    }

    /// Runs a decider that is none of a resource's usual ones (an action such as adding a router's interface).
    ///
    /// # Errors
    /// The refusal, or [`RegionError::StoreUnavailable`].
    pub async fn write<T, F>(&self, decide: F) -> Result<T, RegionError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_, RegionState>, &Env) -> Result<T, RegionError> + Send + 'static,
    {
        let env = self.env.clone();
        self.shard
            .write(move |tx| decide(tx, &env))
            .await
            .map_err(|error| match error {
                WriteError::Refused(refusal) => refusal,
                WriteError::Store(error) => unavailable(error),
            })
    }

    /// Makes rows, all or none. Quotas are checked with all of them there.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn create<R: Managed>(
        &self,
        caller: &Caller,
        creates: Vec<R::Create>,
    ) -> Result<Vec<Arc<R>>, RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| create_all::<R>(tx, env, &caller, creates))
            .await
    }

    /// Makes rows, all or none, and keeps the reply that `render` makes of them; a repeat of the request gets that reply.
    ///
    /// # Errors
    /// The first refusal; a key that was used for another request.
    pub async fn create_once<R, F>(
        &self,
        caller: &Caller,
        creates: Vec<R::Create>,
        asked: Once,
        render: F,
    ) -> Result<Reply, RegionError>
    where
        R: Managed,
        F: FnOnce(Vec<Arc<R>>, Arc<Snapshot<RegionState>>) -> Result<(u16, String), OnceError>
            + Send
            + 'static,
    {
        let caller = caller.clone();
        self.write(move |tx, env| {
            once::once(tx, env, asked, |tx, env| {
                let rows = create_all::<R>(tx, env, &caller, creates)?;
                let state = tx.state().clone();
                let revision = tx.revision();
                Ok(render(rows, Arc::new(Snapshot { revision, state }))?)
            })
        })
        .await
    }

    /// Changes a row.
    ///
    /// # Errors
    /// The refusal.
    pub async fn update<R: Managed>(
        &self,
        caller: &Caller,
        key: R::Key,
        update: R::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<R>, RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| R::update(tx, env, &caller, &key, update, if_match))
            .await
    }

    /// Deletes a row.
    ///
    /// # Errors
    /// The refusal.
    pub async fn delete<R: Managed>(
        &self,
        caller: &Caller,
        key: R::Key,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| R::delete(tx, env, &caller, &key, if_match))
            .await
    }

    /// Registers a host, or what its agent says anew.
    ///
    /// # Errors
    /// See [`host::register`].
    pub async fn register_host(&self, name: &str, word: HostWord) -> Result<Arc<Host>, RegionError> {
        let name = name.to_owned();
        self.write(move |tx, env| host::register(tx, env, &name, word))
            .await
    }

    /// Registers a gateway, or its new set or tunnel address.
    ///
    /// # Errors
    /// See [`gateway::register`].
    pub async fn register_gateway(&self, said: GatewayRegistration) -> Result<Arc<GatewayNode>, RegionError> {
        self.write(move |tx, env| gateway::register(tx, env, said)).await
    }

    /// Takes what hosts report about ports. Gives how many reports changed something.
    ///
    /// # Errors
    /// [`RegionError::StoreUnavailable`] only.
    pub async fn report_ports(&self, reports: Vec<PortReport>) -> Result<usize, RegionError> {
        self.write(move |tx, env| match port_runtime::report(tx, env, reports) {
            Ok(changed) => Ok(changed),
            Err(never) => match never {},
        })
        .await
    }

    /// Keeps what an NCM knows of hosts. Gives how many rows changed.
    ///
    /// # Errors
    /// [`RegionError::StoreUnavailable`] only.
    pub async fn note_hosts(&self, hosts: Vec<HostRuntime>) -> Result<usize, RegionError> {
        self.write(move |tx, _| match host_runtime::note(tx, hosts) {
            Ok(changed) => Ok(changed),
            Err(never) => match never {},
        })
        .await
    }

    /// Lets labels have new meanings that no host knows any more. Gives how many; see [`label::release`].
    ///
    /// # Errors
    /// [`RegionError::StoreUnavailable`] only.
    pub async fn release_labels(&self, labels: Vec<(Id<Label>, Revision)>) -> Result<usize, RegionError> {
        self.write(move |tx, _| Ok(label::release(tx, &labels))).await
    }

    /// Keeps what an NCM knows of floating IPs. Gives how many were news; see [`floating_ip::note`].
    ///
    /// # Errors
    /// [`RegionError::StoreUnavailable`] only.
    pub async fn note_floating_ips(&self, words: Vec<FloatingIpWord>) -> Result<usize, RegionError> {
        self.write(move |tx, _| Ok(floating_ip::note(tx, &words))).await
    }
}
