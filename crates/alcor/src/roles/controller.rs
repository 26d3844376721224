//! The controller role: store, region, API; and the NCM, or the feed for one in another process.

use std::sync::Arc;

use alcor_api::ApiState;
use alcor_link::{directory::RemoteNcm, follow};
use alcor_model::Vni;
use alcor_ncm::NcmHandle;
use alcor_region::{Region, RegionConfig};
use alcor_store::SqliteEngine;
use alcor_tls::{Role, Tls};
use anyhow::Context as _;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    directory::{Directory, Ncm},
    link::{self, Link, RegionSource},
    listen, listen_for_parts, ncm, nova, until_stopped,
};
use crate::config::{Config, ControllerConfig};

/// The database's file in the data folder.
const DATABASE: &str = "alcor.sqlite";

/// Starts all parts of a controller. When it returns, its listeners accept.
///
/// # Errors
/// When the database cannot be opened, an address cannot be listened on, or the certificate is not a controller's.
pub async fn start(
    all: &Config,
    tls: Option<&Tls>,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    if let Some(tls) = tls {
        tls.must_have_role(&[Role::Controller])
            .context("[tls] is not for a controller")?;
    }
    let config = &all.controller;
    let api_config = config.auth.api_config(&config.project_id)?;
    if api_config.authentication.is_noauth() {
        alcor_api::check_bind(config.api_listen)?;
    }
    let region = open_region(config)?;
    nova::start(&all.nova, &config.auth, region.clone(), stop, parts)?;
    let ncm = match &config.ncm {
        None => Ncm::Here(start_ncm(all, tls, &region, stop, parts).await?),
        Some(url) => {
            let channel = follow::channel(url, tls, &[Role::Ncm]).context("controller.ncm")?;
            let ncm = RemoteNcm::new(channel);
            serve_feed(config, tls, &region, stop, parts).await?;
            Ncm::There(ncm)
        }
    };
    let api = listen(config.api_listen, "controller.api_listen").await?;
    tracing::info!(api = %api.local_addr()?, "controller listens");
    let directory = Directory::new(ncm, region.clone());
    let state = ApiState::new(region, Arc::new(directory), api_config);
    let api_stop = stop.clone();
    parts.spawn(async move {
        alcor_api::serve(api, state, api_stop.cancelled_owned())
            .await
            .context("serving the API")
    });
    Ok(())
}

/// Starts the NCM of this process and serves its agents.
async fn start_ncm(
    all: &Config,
    tls: Option<&Tls>,
    region: &Region,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<NcmHandle> {
    let handle = NcmHandle::start(all.ncm.options(), Arc::new(Link(region.clone())));
    let address = all.controller.southbound_listen;
    let (southbound, address) = listen_for_parts(address, "controller.southbound_listen", tls).await?;
    tracing::info!(southbound = %address, "NCM listens");
    let (loaded, ready) = watch::channel(false);
    let feed = link::feed(region.clone(), handle.clone(), loaded, stop.clone());
    parts.spawn(async move {
        feed.await;
        Ok(())
    });
    parts.spawn(ncm::serve_agents(southbound, handle.clone(), ready, stop.clone()));
    Ok(handle)
}

/// Lets NCMs in other processes follow.
async fn serve_feed(
    config: &ControllerConfig,
    tls: Option<&Tls>,
    region: &Region,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let (incoming, address) = listen_for_parts(config.feed_listen, "controller.feed_listen", tls).await?;
    tracing::info!(feed = %address, "NCMs may follow");
    if let Some(address) = incoming.exposed() {
        tracing::warn!(%address, "the feed is served without TLS; only NCMs may reach this address");
    }
    let source = Arc::new(RegionSource(region.clone()));
    let back = Arc::new(Link(region.clone()));
    let stop = stop.clone();
    parts.spawn(async move {
        let options = alcor_link::serve::Options::default();
        let served = alcor_link::serve::serve(incoming, source, back, options, stop.clone());
        until_stopped(served, &stop).await.context("serving NCMs")
    });
    Ok(())
}

fn open_region(config: &ControllerConfig) -> anyhow::Result<Region> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("making controller.data_dir {}", config.data_dir.display()))?;
    let path = config.data_dir.join(DATABASE);
    let engine =
        SqliteEngine::open(&path).with_context(|| format!("opening the database {}", path.display()))?;
    let region = RegionConfig {
        underlay_mtu: config.underlay_mtu,
        vni_first: Vni::try_from(config.vni_first)?,
        vni_last: Vni::try_from(config.vni_last)?,
        quotas: config.quota_limits()?,
        ..RegionConfig::default()
    };
    Region::open(Box::new(engine), region)
        .with_context(|| format!("loading the region from {}", path.display()))
}
