//! Between the region and the NCM when both are in one process: the feed one way, reports the other way.

use std::net::IpAddr;

use alcor_model::{
    HostRuntime, Id, Label, Port, Resource, Revision,
    effective::{HostState, HostSummary, PortState},
    trace::{Trace, TraceError, TraceQuestion},
};
use alcor_ncm::{NcmHandle, RegionLink, core::PortReport, service::BoxFuture};
use alcor_region::{Region, RegionState};
use alcor_store::Snapshot;
use tokio_util::sync::CancellationToken;

/// The NCM's way back to the region.
pub struct Link(pub Region);

impl RegionLink for Link {
    fn register_host(
        &self,
        name: String,
        tunnel_ip: IpAddr,
        zone: String,
    ) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.0
                .register_host(&name, tunnel_ip, &zone)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
    }

    fn report_ports(&self, reports: Vec<PortReport>) -> BoxFuture<'_, Result<(), String>> {
        let reports = reports
            .into_iter()
            .map(|report| alcor_region::command::PortReport {
                port_id: report.port_id,
                host_id: report.host,
                applied_revision: report.applied_revision,
                status: report.status,
                reason: report.reason,
            })
            .collect();
        Box::pin(async move {
            self.0
                .report_ports(reports)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
    }

    fn note_hosts(&self, hosts: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.0
                .note_hosts(hosts)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
    }

    fn release_labels(&self, labels: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.0
                .release_labels(labels)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
    }
}

/// Carries the region's changes into the NCM until told to stop: a snapshot first, then the feed from there.
pub async fn feed(region: Region, ncm: NcmHandle, stop: CancellationToken) {
    let snapshot = region.snapshot();
    let mut reader = region.subscribe(snapshot.revision);
    ncm.snapshot(snapshot.revision, rows(&snapshot)).await;
    drop(snapshot);
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = stop.cancelled() => return,
        };
        match next {
            Some(Ok(batch)) => ncm.changes(batch.changes, batch.committed_us).await,
            Some(Err(lagged)) => {
                tracing::warn!(%lagged, "the NCM takes a snapshot of the region");
                let snapshot = region.snapshot();
                reader.restart_from(snapshot.revision);
                ncm.snapshot(snapshot.revision, rows(&snapshot)).await;
            }
            None => return,
        }
    }
}

/// What the NCM needs of a region, in an order in which it can be loaded.
fn rows(snapshot: &Snapshot<RegionState>) -> Vec<Resource> {
    let state = &snapshot.state;
    let hosts = state.hosts().iter().cloned().map(Resource::Host);
    let known = state.host_runtimes().iter().cloned().map(Resource::HostRuntime);
    let networks = state.networks().iter().cloned().map(Resource::Network);
    let subnets = state.subnets().iter().cloned().map(Resource::Subnet);
    let address_groups = state.address_groups().iter().cloned().map(Resource::AddressGroup);
    let groups = state
        .security_groups()
        .iter()
        .cloned()
        .map(Resource::SecurityGroup);
    let rules = state
        .security_group_rules()
        .iter()
        .cloned()
        .map(Resource::SecurityGroupRule);
    let labels = state.labels().iter().cloned().map(Resource::Label);
    let ports = state.ports().iter().cloned().map(Resource::Port);
    hosts
        .chain(known)
        .chain(networks)
        .chain(subnets)
        .chain(address_groups)
        .chain(groups)
        .chain(rules)
        .chain(labels)
        .chain(ports)
        .collect()
}

/// Effective state as the API asks for it.
pub struct Directory {
    /// The NCM, which knows.
    pub ncm: NcmHandle,
    /// The region, which has a port's last known status also while its host is silent after a restart.
    pub region: Region,
}

impl alcor_api::HostDirectory for Directory {
    fn hosts(&self) -> alcor_api::BoxFuture<'_, Vec<HostSummary>> {
        Box::pin(self.ncm.hosts())
    }

    fn host<'a>(&'a self, name: &'a str) -> alcor_api::BoxFuture<'a, Option<HostState>> {
        Box::pin(self.ncm.host(name))
    }

    fn port(&self, id: Id<Port>) -> alcor_api::BoxFuture<'_, Option<PortState>> {
        Box::pin(async move {
            let mut state = self.ncm.port(id).await?;
            let snapshot = self.region.snapshot();
            if let Some(port) = snapshot.state.ports().get(&id) {
                (state.status, state.reason) = snapshot.state.port_status(port);
            }
            Some(state)
        })
    }

    fn trace(&self, question: TraceQuestion) -> alcor_api::BoxFuture<'_, Result<Trace, TraceError>> {
        Box::pin(self.ncm.trace(question))
    }
}
