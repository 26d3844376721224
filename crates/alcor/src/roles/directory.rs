//! Effective state as the API asks for it: from the NCM, in this process or another one; while that one is away, from what the
//! region keeps, and marked as stale.

use alcor_api::BoxFuture;
use std::sync::atomic::{AtomicBool, Ordering};

use alcor_link::directory::{NoAnswer, RemoteNcm};
use alcor_model::{
    GatewayNode, Host, HostRuntime, Id, Network, Port, Revision,
    effective::{GatewayLine, GatewayUse, HostState, HostSummary, PortState, ResourceState},
    trace::{Trace, TraceError, TraceQuestion},
};
use alcor_ncm::NcmHandle;
use alcor_region::{Region, RegionState};
use jiff::Timestamp;

/// Where the NCM is.
pub enum Ncm {
    /// In this process.
    Here(NcmHandle),
    /// In another one.
    There(RemoteNcm),
}

/// Answers the API.
pub struct Directory {
    /// The NCM, which knows.
    pub ncm: Ncm,
    /// The region, which has a port's last known status also while its host is silent after a restart, and what was last kept
    /// of hosts.
    pub region: Region,
    /// The NCM is there and has refused a question since it answered one last: it was said.
    refused: AtomicBool,
}

impl Directory {
    /// Answers from `ncm`, and while that is away from `region`.
    pub const fn new(ncm: Ncm, region: Region) -> Self {
        Self {
            ncm,
            region,
            refused: AtomicBool::new(false),
        }
    }

    /// The NCM's answer, or what the region has. That an NCM is away is no fault of either; that it refuses to answer is said once.
    fn or_kept<T>(&self, answer: Result<T, NoAnswer>, kept: impl FnOnce() -> T) -> T {
        let reason = match answer {
            Ok(answer) => {
                self.refused.store(false, Ordering::Relaxed);
                return answer;
            }
            Err(reason) => reason,
        };
        match &reason {
            NoAnswer::Refused(_) if !self.refused.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%reason, "answering from what was last kept");
            }
            _ => tracing::debug!(%reason, "answering from what was last kept"),
        }
        kept()
    }
}

impl alcor_api::HostDirectory for Directory {
    fn hosts(&self) -> BoxFuture<'_, Vec<HostSummary>> {
        Box::pin(async move {
            match &self.ncm {
                Ncm::Here(ncm) => ncm.hosts().await,
                Ncm::There(ncm) => self.or_kept(ncm.hosts().await, || {
                    let snapshot = self.region.snapshot();
                    let hosts = snapshot.state.hosts().iter();
                    hosts
                        .map(|host| kept_host(&snapshot.state, host).summary)
                        .collect()
                }),
            }
        })
    }

    fn host<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<HostState>> {
        Box::pin(async move {
            match &self.ncm {
                Ncm::Here(ncm) => ncm.host(name).await,
                Ncm::There(ncm) => self.or_kept(ncm.host(name).await, || {
                    let snapshot = self.region.snapshot();
                    let host = snapshot.state.hosts().get(&name.to_owned());
                    let gateway = snapshot.state.gateway_named(name);
                    let host = host.map(|host| kept_host(&snapshot.state, host));
                    host.or_else(|| gateway.map(|row| kept_gateway(row)))
                }),
            }
        })
    }

    fn gateways(&self) -> BoxFuture<'_, Option<Vec<GatewayLine>>> {
        Box::pin(async move {
            match &self.ncm {
                Ncm::Here(ncm) => Some(ncm.gateways().await),
                Ncm::There(ncm) => self.or_kept(ncm.gateways().await.map(Some), || None),
            }
        })
    }

    fn port(&self, id: Id<Port>) -> BoxFuture<'_, Option<PortState>> {
        Box::pin(async move {
            let said = match &self.ncm {
                Ncm::Here(ncm) => ncm.port(id).await,
                Ncm::There(ncm) => {
                    let said = ncm.port(id).await;
                    self.or_kept(said, || kept_port(&self.region.snapshot().state, id))
                }
            };
            let mut state = said?;
            let snapshot = self.region.snapshot();
            if let Some(port) = snapshot.state.ports().get(&id) {
                (state.status, state.reason) = snapshot.state.port_status(port);
            }
            Some(state)
        })
    }

    fn trace(&self, question: TraceQuestion) -> BoxFuture<'_, Result<Trace, TraceError>> {
        Box::pin(async move {
            match &self.ncm {
                Ncm::Here(ncm) => ncm.trace(question).await,
                Ncm::There(ncm) => self.or_kept(ncm.trace(question).await, || Err(TraceError::NoNcm)),
            }
        })
    }
}

/// What was last kept of a host, against what it must have now: its networks, subnets and ports. Policies and neighbours are
/// the NCM's to work out.
fn kept_host(state: &RegionState, host: &Host) -> HostState {
    let kept = state.host_runtimes().get(&host.name);
    let mut resources = Vec::new();
    let mut network = None;
    let mut ports: Vec<_> = state.ports_on(&host.name).collect();
    ports.sort_unstable_by_key(|port| (port.network_id, port.id));
    for port in &ports {
        if network.replace(port.network_id) != Some(port.network_id) {
            resources.extend(kept_network(state, kept.map(AsRef::as_ref), port.network_id));
        }
        let known = kept.map(AsRef::as_ref);
        resources.push(kept_row(
            known,
            port.network_id,
            "port",
            port.id.to_string(),
            port.revision,
        ));
    }
    let behind = |row: &&ResourceState| row.error.is_none() && row.applied_revision.is_none();
    let summary = HostSummary {
        name: host.name.clone(),
        tunnel_ip: Some(host.tunnel_ip),
        alive: false,
        last_seen_at: kept.and_then(|kept| timestamp(kept.last_seen_us)),
        started_at: kept.and_then(|kept| timestamp(kept.incarnation)),
        dataplane: kept.and_then(|kept| kept.dataplane.clone()),
        ports: ports.len(),
        pending: resources.iter().filter(behind).count(),
        errors: resources.iter().filter(|row| row.error.is_some()).count(),
        stale: true,
    };
    HostState {
        summary,
        incarnation: kept.map(|kept| kept.incarnation),
        queued: 0,
        resyncs: kept.map_or(0, |kept| kept.resyncs),
        resources,
        neighbours: Vec::new(),
        gateway: None,
    }
}

/// Of a gateway nothing is kept but its row.
fn kept_gateway(row: &GatewayNode) -> HostState {
    HostState {
        summary: HostSummary {
            name: row.name.clone(),
            tunnel_ip: Some(row.tunnel_ip),
            alive: false,
            last_seen_at: None,
            started_at: None,
            dataplane: None,
            ports: 0,
            pending: 0,
            errors: 0,
            stale: true,
        },
        incarnation: None,
        queued: 0,
        resyncs: 0,
        resources: Vec::new(),
        neighbours: Vec::new(),
        gateway: Some(GatewayUse {
            reason: Some("the NCM does not answer".to_owned()),
            ..GatewayUse::default()
        }),
    }
}

fn kept_network(state: &RegionState, kept: Option<&HostRuntime>, id: Id<Network>) -> Vec<ResourceState> {
    let network = state.networks().get(&id).into_iter();
    let network = network.map(|row| kept_row(kept, id, "network", id.to_string(), row.revision));
    let subnets = state.subnets_of(id);
    let subnets = subnets.map(|row| kept_row(kept, id, "subnet", row.id.to_string(), row.revision));
    network.chain(subnets).collect()
}

fn kept_row(
    kept: Option<&HostRuntime>,
    network: Id<Network>,
    kind: &str,
    id: String,
    intended_revision: Revision,
) -> ResourceState {
    let known = kept.map(|kept| kept.known(network, kind, &id, intended_revision));
    let known = known.unwrap_or_default();
    ResourceState {
        kind: kind.to_owned(),
        id,
        intended_revision,
        applied_revision: known.revision,
        error: known.error,
        timing: known.timing,
    }
}

/// What was last kept of a port; its status is added by who asked.
fn kept_port(state: &RegionState, id: Id<Port>) -> Option<PortState> {
    let port = state.ports().get(&id)?;
    let (status, reason) = state.port_status(port);
    let host = port.is_bound().then(|| port.binding.host_id.clone());
    let kept = host.as_ref().and_then(|host| state.host_runtimes().get(host));
    let row = kept_row(
        kept.map(AsRef::as_ref),
        port.network_id,
        "port",
        id.to_string(),
        port.revision,
    );
    Some(PortState {
        port_id: id,
        host,
        status,
        reason,
        host_alive: false,
        intended_revision: row.intended_revision,
        applied_revision: row.applied_revision,
        timing: row.timing,
        stale: true,
    })
}

/// Microseconds since the Unix epoch; none for never.
fn timestamp(us: u64) -> Option<Timestamp> {
    let us = i64::try_from(us).ok().filter(|us| *us > 0)?;
    Timestamp::from_microsecond(us).ok()
}
