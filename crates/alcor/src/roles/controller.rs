//! The controller role: store, region, NCM, API, southbound server.

use std::sync::Arc;

use alcor_api::ApiState;
use alcor_model::Vni;
use alcor_ncm::NcmHandle;
use alcor_region::{Region, RegionConfig};
use alcor_store::SqliteEngine;
use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    link::{self, Directory, Link},
    nova,
};
use crate::config::{ControllerConfig, NcmConfig, NovaConfig};

/// The database's file in the data folder.
const DATABASE: &str = "alcor.sqlite";

/// Starts all parts of a controller. When it returns, both listeners accept.
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
    let ncm = NcmHandle::start(ncm_config.options(), Arc::new(Link(region.clone())));

    let southbound = listen(config.southbound_listen, "southbound_listen").await?;
    let api = listen(config.api_listen, "api_listen").await?;
    tracing::info!(api = %api.local_addr()?, southbound = %southbound.local_addr()?, "controller listens");

    let (feed_ncm, feed_region, feed_stop) = (ncm.clone(), region.clone(), stop.clone());
    parts.spawn(async move {
        link::feed(feed_region, feed_ncm, feed_stop).await;
        Ok(())
    });
    let (acceptor, southbound_stop) = (ncm.clone(), stop.clone());
    parts.spawn(async move {
        let served = alcor_southbound::server::serve(southbound, acceptor, southbound_stop.cancelled_owned());
        served.await.context("serving agents")
    });
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

async fn listen(address: std::net::SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} (controller.{key}); is another controller running?"))
}
