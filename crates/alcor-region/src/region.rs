//! The handle: runs deciders on the shard's writer and gives snapshots and the feed. No rule is here.

use std::{net::IpAddr, sync::Arc, time::Duration};

use alcor_model::{Host, Id, Network, Port, Revision, Subnet};
use alcor_store::{
    Engine, EngineError, FeedReader, Shard, ShardOptions, Snapshot, StoreError, Tx, WriteError,
};

use crate::{
    Env, RegionConfig, RegionError, RegionState,
    command::{
        Caller, NetworkCreate, NetworkUpdate, PortCreate, PortReport, PortUpdate, SubnetCreate, SubnetUpdate,
    },
    env::{Source, SystemSource},
    host, network, port, port_runtime, subnet,
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

    /// The newest durable state.
    pub fn snapshot(&self) -> Arc<Snapshot<RegionState>> {
        self.shard.snapshot()
    }

    /// The changes after a revision.
    pub fn subscribe(&self, from: Revision) -> FeedReader {
        self.shard.subscribe(from)
    }

    async fn write<T, F>(&self, decide: F) -> Result<T, RegionError>
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

    /// Makes networks, all or none.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn create_networks(
        &self,
        caller: &Caller,
        creates: Vec<NetworkCreate>,
    ) -> Result<Vec<Arc<Network>>, RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| {
            creates
                .into_iter()
                .map(|create| network::create(tx, env, &caller, create))
                .collect()
        })
        .await
    }

    /// Changes a network.
    ///
    /// # Errors
    /// See [`network::update`].
    pub async fn update_network(
        &self,
        caller: &Caller,
        id: Id<Network>,
        update: NetworkUpdate,
        if_match: Option<u64>,
    ) -> Result<Arc<Network>, RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| network::update(tx, env, &caller, id, update, if_match))
            .await
    }

    /// Deletes a network and its subnets.
    ///
    /// # Errors
    /// See [`network::delete`].
    pub async fn delete_network(
        &self,
        caller: &Caller,
        id: Id<Network>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let caller = caller.clone();
        self.write(move |tx, _| network::delete(tx, &caller, id, if_match))
            .await
    }

    /// Makes subnets, all or none.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn create_subnets(
        &self,
        caller: &Caller,
        creates: Vec<SubnetCreate>,
    ) -> Result<Vec<Arc<Subnet>>, RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| {
            creates
                .into_iter()
                .map(|create| subnet::create(tx, env, &caller, create))
                .collect()
        })
        .await
    }

    /// Changes a subnet.
    ///
    /// # Errors
    /// See [`subnet::update`].
    pub async fn update_subnet(
        &self,
        caller: &Caller,
        id: Id<Subnet>,
        update: SubnetUpdate,
        if_match: Option<u64>,
    ) -> Result<Arc<Subnet>, RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| subnet::update(tx, env, &caller, id, update, if_match))
            .await
    }

    /// Deletes a subnet.
    ///
    /// # Errors
    /// See [`subnet::delete`].
    pub async fn delete_subnet(
        &self,
        caller: &Caller,
        id: Id<Subnet>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| subnet::delete(tx, env, &caller, id, if_match))
            .await
    }

    /// Makes ports, all or none.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn create_ports(
        &self,
        caller: &Caller,
        creates: Vec<PortCreate>,
    ) -> Result<Vec<Arc<Port>>, RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| {
            creates
                .into_iter()
                .map(|create| port::create(tx, env, &caller, create))
                .collect()
        })
        .await
    }

    /// Changes a port.
    ///
    /// # Errors
    /// See [`port::update`].
    pub async fn update_port(
        &self,
        caller: &Caller,
        id: Id<Port>,
        update: PortUpdate,
        if_match: Option<u64>,
    ) -> Result<Arc<Port>, RegionError> {
        let caller = caller.clone();
        self.write(move |tx, env| port::update(tx, env, &caller, id, update, if_match))
            .await
    }

    /// Deletes a port.
    ///
    /// # Errors
    /// See [`port::delete`].
    pub async fn delete_port(
        &self,
        caller: &Caller,
        id: Id<Port>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let caller = caller.clone();
        self.write(move |tx, _| port::delete(tx, &caller, id, if_match))
            .await
    }

    /// Registers a host or its new tunnel address.
    ///
    /// # Errors
    /// See [`host::register`].
    pub async fn register_host(&self, name: &str, tunnel_ip: IpAddr) -> Result<Arc<Host>, RegionError> {
        let name = name.to_owned();
        self.write(move |tx, env| host::register(tx, env, &name, tunnel_ip))
            .await
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
}
