//! Wiring of the roles: which parts run, how they reach each other, and how they stop.
//!
//! Each part is given a token that tells it to stop; the first part that fails stops the others, and its error is the
//! process's.

mod agent;
mod controller;
mod link;
mod metrics;
mod nova;

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The roles this process plays.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// API, store and NCM.
    pub controller: bool,
    /// The host's agent.
    pub agent: bool,
}

impl Roles {
    /// Plays them until SIGINT or SIGTERM, or until one of them fails.
    ///
    /// # Errors
    /// What the failed part says.
    pub async fn run(self, config: Config) -> anyhow::Result<()> {
        let stop = CancellationToken::new();
        let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut parts = JoinSet::new();
        metrics::start(&config.metrics, self.controller, &stop, &mut parts).await?;
        if self.controller {
            controller::start(&config.controller, &config.nova, &config.ncm, &stop, &mut parts).await?;
        }
        if self.agent {
            agent::start(&config.agent, &stop, &mut parts)?;
        }
        let mut outcome = Ok(());
        loop {
            let ended = tokio::select! {
                _ = interrupted.recv() => None,
                _ = terminated.recv() => None,
                ended = parts.join_next() => match ended {
                    Some(ended) => Some(ended),
                    None => break,
                },
            };
            if let Some(ended) = ended
                && let Err(error) = ended
                    .context("a part of the process panicked")
                    .and_then(|result| result)
                && outcome.is_ok()
            {
                outcome = Err(error);
            }
            if !stop.is_cancelled() {
                tracing::info!("stopping");
                stop.cancel();
            }
        }
        outcome
    }
}
