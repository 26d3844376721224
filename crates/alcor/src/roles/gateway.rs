//! The gateway role: the agent's state machine above a data plane that forwards for hosts and to the outside.

use std::net::IpAddr;

use alcor_dataplane::{Dataplane, gateway::GatewayModel};
use alcor_dataplane_ebpf::{GatewayConfig as XdpConfig, XdpGateway};
use alcor_tls::{Role, Tls};
use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{agent::instance, certified};
use crate::config::{GatewayConfig, GatewayDataplane};

/// Starts the gateway.
///
/// # Errors
/// When the data plane cannot be opened, or the certificate is somebody else's.
pub fn start(
    config: &GatewayConfig,
    tls: Option<&Tls>,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    certified(tls, Role::Gateway, &config.name)?;
    let dataplane = open(config)?;
    let agent = alcor_agent::AgentConfig {
        host: config.name.clone(),
        tunnel_ip: config.tunnel_ip,
        ncm: config.ncm.clone(),
        tls: tls.cloned(),
        socket: config.socket.clone(),
        // A gateway has no ports.
        watch_links: false,
        gateway_set: Some(config.set.clone()),
        ..alcor_agent::AgentConfig::default()
    };
    tracing::info!(name = agent.host, set = config.set, tunnel_ip = %agent.tunnel_ip, ncm = agent.ncm, dataplane = dataplane.name(), "gateway starts");
    let stop = stop.clone();
    parts.spawn(async move {
        alcor_agent::run(agent, dataplane, stop.cancelled_owned())
            .await
            .context("the gateway stopped")
    });
    Ok(())
}

fn open(config: &GatewayConfig) -> anyhow::Result<Box<dyn Dataplane>> {
    let IpAddr::V4(tunnel_ip) = config.tunnel_ip else {
        anyhow::bail!(
            "gateway.tunnel_ip is {}; gateways have IPv4 underlays only",
            config.tunnel_ip
        );
    };
    if config.dataplane == GatewayDataplane::Model {
        return Ok(Box::new(GatewayModel::new(tunnel_ip, true)));
    }
    let wanted = XdpConfig {
        external_devices: config.external.clone(),
        max_neighbours: config.max_neighbours,
        ..XdpConfig::new(instance(&config.name), tunnel_ip, &config.underlay)
    };
    let gateway = XdpGateway::open(&wanted).context("opening the XDP data plane")?;
    for (device, attachment) in gateway.attachments() {
        tracing::info!(device, mode = %attachment, "XDP program attached");
    }
    Ok(Box::new(gateway))
}
