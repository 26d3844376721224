//! The metrics of the process, whatever roles it plays.

use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::Roles;
use crate::config::MetricsConfig;

/// Counts from now on and answers who asks. Must come before what counts.
///
/// # Errors
/// When an address that somebody chose cannot be listened on.
pub async fn start(
    config: &MetricsConfig,
    roles: Roles,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    if !config.enabled {
        return Ok(());
    }
    let (address, chosen) = config.address(roles);
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) if !chosen => {
            tracing::warn!(%address, %error, "no metrics: set metrics.listen to an address that is free");
            return Ok(());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("listening on {address} (metrics.listen)"));
        }
    };
    let metrics = alcor_metrics::endpoint::install(env!("CARGO_PKG_VERSION"))?;
    tracing::info!(address = %listener.local_addr()?, "metrics at /metrics");
    let stop = stop.clone();
    parts.spawn(async move {
        let served = metrics.serve(listener, stop.cancelled_owned());
        served.await.context("serving metrics")
    });
    Ok(())
}
