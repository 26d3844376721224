//! The NCM role: an NCM that follows a controller in another process.

use std::sync::Arc;

use alcor_link::{
    directory,
    follow::{self, Controller},
};
use alcor_ncm::NcmHandle;
use alcor_tls::{Incoming, Role, Tls};
use anyhow::Context as _;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{listen_for_parts, until_stopped};
use crate::config::NcmConfig;

/// Starts all parts of an NCM. Agents are served from the first snapshot of the region on.
///
/// # Errors
/// When an address cannot be listened on, the controller's is none, or the certificate is not an NCM's.
pub async fn start(
    config: &NcmConfig,
    tls: Option<&Tls>,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    if let Some(tls) = tls {
        tls.must_have_role(&[Role::Ncm])
            .context("[tls] is not for an NCM")?;
    }
    let channel = follow::channel(&config.controller, tls, &[Role::Controller]).context("ncm.controller")?;
    let ncm = NcmHandle::start(config.options(), Arc::new(Controller::new(channel.clone())));
    let (southbound, agents_at) = listen_for_parts(config.listen, "ncm.listen", tls).await?;
    let (questions, asked_at) =
        listen_for_parts(config.directory_listen, "ncm.directory_listen", tls).await?;
    if let Some(address) = questions.exposed() {
        tracing::warn!(%address, "the directory is served without TLS; only controllers may reach this address");
    }
    tracing::info!(controller = config.controller, southbound = %agents_at, directory = %asked_at, "NCM listens");
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
    incoming: Incoming,
    ncm: NcmHandle,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if !loaded_before(ready, &stop).await {
        return Ok(());
    }
    let served = alcor_southbound::server::serve(incoming, ncm, stop.clone().cancelled_owned());
    until_stopped(served, &stop).await.context("serving agents")
}

/// Waits until the NCM knows the region; false when the process stops before.
async fn loaded_before(mut ready: watch::Receiver<bool>, stop: &CancellationToken) -> bool {
    let loaded = stop.run_until_cancelled(ready.wait_for(|loaded| *loaded)).await;
    matches!(loaded, Some(Ok(_)))
}
