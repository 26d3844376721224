//! Wiring of the roles: which parts run, how they reach each other, and how they stop.
//!
//! Each part is given a token that tells it to stop; the first part that fails stops the others, and its error is the
//! process's.

mod agent;
mod controller;
mod directory;
mod gateway;
mod link;
mod metrics;
mod ncm;
mod nova;

use std::{net::SocketAddr, time::Duration};

use alcor_tls::{Identity, Incoming, Role, Tls};
use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The roles this process plays.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// API and store, and the NCM unless the configuration says that it is elsewhere.
    pub controller: bool,
    /// An NCM that follows a controller in another process.
    pub ncm: bool,
    /// The host's agent.
    pub agent: bool,
    /// A gateway.
    pub gateway: bool,
}

impl Roles {
    /// A gateway and nothing else.
    pub const GATEWAY: Self = Self {
        controller: false,
        ncm: false,
        agent: false,
        gateway: true,
    };

    /// Plays them until SIGINT or SIGTERM, or until one of them fails.
    ///
    /// # Errors
    /// What the failed part says.
    pub async fn run(self, config: Config) -> anyhow::Result<()> {
        let stop = CancellationToken::new();
        let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut parts = JoinSet::new();
        metrics::start(&config.metrics, self, &stop, &mut parts).await?;
        let files = config.tls.files()?;
        let tls = files.as_ref().map(Tls::load).transpose().context("[tls]")?;
        if self.controller {
            controller::start(&config, tls.as_ref(), &stop, &mut parts).await?;
        }
        if self.ncm {
            ncm::start(&config.ncm, tls.as_ref(), &stop, &mut parts).await?;
        }
        if self.agent {
            agent::start(&config.agent, tls.as_ref(), &stop, &mut parts)?;
        }
        if self.gateway {
            gateway::start(&config.gateway, tls.as_ref(), &stop, &mut parts)?;
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

/// Whether the process's certificate is the one of this host or gateway: an NCM would refuse it, and not say it to a person.
fn certified(tls: Option<&Tls>, role: Role, name: &str) -> anyhow::Result<()> {
    let Some(tls) = tls else { return Ok(()) };
    tls.must_name(&Identity::new(role, name)?)
        .with_context(|| format!("[tls] is not for this {role}"))
}

/// Listens for other parts of the platform.
async fn listen_for_parts(
    address: SocketAddr,
    key: &str,
    tls: Option<&Tls>,
) -> anyhow::Result<(Incoming, SocketAddr)> {
    let listener = listen(address, key).await?;
    let address = listener.local_addr()?;
    Ok((Incoming::new(listener, tls.cloned()), address))
}

/// Listens; `key` is what the configuration calls the address.
async fn listen(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} ({key}); is another alcor running?"))
}

/// How long a server that is told to stop may wait for its streams to end.
const GRACE: Duration = Duration::from_secs(1);

/// Runs a server until it is told to stop, and for [`GRACE`] after that: sessions of agents do not end by themselves.
async fn until_stopped<E: Into<anyhow::Error>>(
    served: impl Future<Output = Result<(), E>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = served => served.map_err(Into::into),
        () = late => Ok(()),
    }
}
