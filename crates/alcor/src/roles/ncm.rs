//! The NCM role: an NCM that follows a controller in another process.

use std::sync::Arc;

use alcor_link::{
    directory,
    follow::{self, Controller},
};
use alcor_ncm::NcmHandle;
use anyhow::Context as _;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{listen, until_stopped};
use crate::config::NcmConfig;

/// Starts all parts of an NCM. Agents are served from the first snapshot of the region on.
///
/// # Errors
/// When an address cannot be listened on, or the controller's is none.
pub async fn start(
    config: &NcmConfig,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let channel = follow::channel(&config.controller).context("ncm.controller")?;
    let ncm = NcmHandle::start(config.options(), Arc::new(Controller::new(channel.clone())));
    let southbound = listen(config.listen, "ncm.listen").await?;
    let questions = listen(config.directory_listen, "ncm.directory_listen").await?;
    tracing::info!(controller = config.controller, southbound = %southbound.local_addr()?, directory = %questions.local_addr()?, "NCM listens");
    let (loaded, ready) = watch::channel(false);
    let following = follow::follow(channel, ncm.clone(), loaded, stop.clone());
    parts.spawn(async move {
        following.await;
        Ok(())
    });
    parts.spawn(serve_agents(southbound, ncm.clone(), ready.clone(), stop.clone()));
    let stop = stop.clone();
    parts.spawn(async move {
        if !loaded_before(ready, &stop).await {
            return Ok(());
        }
        let served = directory::serve(questions, ncm, stop.clone().cancelled_owned());
        until_stopped(served, &stop)
            .await
            .context("answering controllers")
    });
    Ok(())
}

/// Serves agents as soon as the NCM knows the region: before that it would tell hosts that they need nothing.
pub async fn serve_agents(
    listener: TcpListener,
    ncm: NcmHandle,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if !loaded_before(ready, &stop).await {
        return Ok(());
    }
    let served = alcor_southbound::server::serve(listener, ncm, stop.clone().cancelled_owned());
    until_stopped(served, &stop).await.context("serving agents")
}

/// Waits until the NCM knows the region; false when the process stops before.
async fn loaded_before(mut ready: watch::Receiver<bool>, stop: &CancellationToken) -> bool {
    let loaded = stop.run_until_cancelled(ready.wait_for(|loaded| *loaded)).await;
    matches!(loaded, Some(Ok(_)))
}
