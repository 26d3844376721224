//! The agent role: a data plane and the state machine above it.

use alcor_dataplane::{Dataplane, Uplinks, model::Model};
use alcor_dataplane_ebpf::{EbpfConfig, EbpfDataplane};
use alcor_tls::{Role, Tls};
use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::certified;
use crate::config::{AgentConfig, DataplaneKind};

/// Starts the agent.
///
/// # Errors
/// When the data plane cannot be opened, or the certificate is somebody else's.
pub fn start(
    config: &AgentConfig,
    tls: Option<&Tls>,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    certified(tls, Role::Host, &config.host)?;
    let uplinks = Uplinks {
        tunnel_ip: Some(config.tunnel_ip),
        devices: config.external_devices()?,
    };
    let external_networks = uplinks.devices.keys().copied().collect();
    let dataplane = open(config, uplinks)?;
    let agent = alcor_agent::AgentConfig {
        host: config.host.clone(),
        tunnel_ip: config.tunnel_ip,
        availability_zone: config.availability_zone.clone(),
        ncm: config.ncm.clone(),
        tls: tls.cloned(),
        socket: config.socket.clone(),
        external_networks,
        ..alcor_agent::AgentConfig::default()
    };
    tracing::info!(host = agent.host, tunnel_ip = %agent.tunnel_ip, ncm = agent.ncm, dataplane = dataplane.name(), "agent starts");
    let stop = stop.clone();
    parts.spawn(async move {
        alcor_agent::run(agent, dataplane, stop.cancelled_owned())
            .await
            .context("the agent stopped")
    });
    Ok(())
}

fn open(config: &AgentConfig, uplinks: Uplinks) -> anyhow::Result<Box<dyn Dataplane>> {
    match config.dataplane {
        DataplaneKind::Model => Ok(Box::new(Model::default().with_uplinks(uplinks))),
        DataplaneKind::Ebpf => {
            let config = EbpfConfig {
                max_neighbours: config.max_neighbours,
                uplinks,
                ..EbpfConfig::new(instance(&config.host))
            };
            Ok(Box::new(
                EbpfDataplane::open(&config).context("opening the eBPF data plane")?,
            ))
        }
    }
}

/// The host's name as a part of a path: what is neither letter nor digit becomes `-`.
pub(super) fn instance(host: &str) -> String {
    host.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}
