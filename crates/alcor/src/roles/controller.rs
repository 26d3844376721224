//! The controller role: store, region, API; and the NCM, or the feed for one in another process.

use std::sync::Arc;

use alcor_api::ApiState;
use alcor_link::{directory::RemoteNcm, follow};
use alcor_model::Vni;
use alcor_ncm::NcmHandle;
use alcor_region::{Region, RegionConfig};
use alcor_store::SqliteEngine;
use anyhow::Context as _;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    directory::{Directory, Ncm},
    link::{self, Link, RegionSource},
    listen, ncm, nova, until_stopped,
};
use crate::config::{ControllerConfig, NcmConfig, NovaConfig};

/// The database's file in the data folder.
const DATABASE: &str = "alcor.sqlite";

/// Starts all parts of a controller. When it returns, its listeners accept.
///
/// # Errors
/// When the database cannot be opened or an address cannot be listened on.
pub async fn start(
    config: &ControllerConfig,
    nova_config: &NovaConfig,
    ncm_config: &NcmConfig,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let api_config = config.auth.api_config(&config.project_id)?;
    if api_config.authentication.is_noauth() {
        alcor_api::check_bind(config.api_listen)?;
    }
    let region = open_region(config)?;
    nova::start(nova_config, &config.auth, region.clone(), stop, parts)?;
    let ncm = match &config.ncm {
        None => Ncm::Here(start_ncm(config, ncm_config, &region, stop, parts).await?),
        Some(url) => {
            let ncm = RemoteNcm::new(follow::channel(url).context("controller.ncm")?);
            serve_feed(config, &region, stop, parts).await?;
            Ncm::There(ncm)
        }
    };
    let api = listen(config.api_listen, "controller.api_listen").await?;
    tracing::info!(api = %api.local_addr()?, "controller listens");
    let directory = Directory {
        ncm,
        region: region.clone(),
    };
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
    config: &ControllerConfig,
    ncm_config: &NcmConfig,
    region: &Region,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<NcmHandle> {
    let handle = NcmHandle::start(ncm_config.options(), Arc::new(Link(region.clone())));
    let southbound = listen(config.southbound_listen, "controller.southbound_listen").await?;
    tracing::info!(southbound = %southbound.local_addr()?, "NCM listens");
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
    region: &Region,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let listener = listen(config.feed_listen, "controller.feed_listen").await?;
    let address = listener.local_addr()?;
    tracing::info!(feed = %address, "NCMs may follow");
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the feed is served without TLS; only NCMs may reach this address");
    }
    let source = Arc::new(RegionSource(region.clone()));
    let back = Arc::new(Link(region.clone()));
    let stop = stop.clone();
    parts.spawn(async move {
        let options = alcor_link::serve::Options::default();
        let served = alcor_link::serve::serve(listener, source, back, options, stop.clone());
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
