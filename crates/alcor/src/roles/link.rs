//! Between the region and NCMs: what a region tells them, and the way back. An NCM in the same process is fed here; others
//! follow through `alcor-link`.

use std::{net::IpAddr, sync::Arc};

use alcor_link::source::{Changes, Rows, Source};
use alcor_model::{
    HostRuntime, Id, Label, Resource, Revision,
    resource::{FloatingIpWord, HostWord},
};
use alcor_ncm::{
    NcmHandle, RegionLink,
    core::{KINDS, PortReport},
    service::{BoxFuture, NotTaken},
};
use alcor_region::{ErrorClass, Region, RegionError, RegionState, gateway::GatewayRegistration};
use alcor_store::Snapshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The NCM's way back to the region.
pub struct Link(pub Region);

/// Waits for a command, and tells a refusal from a region that can take nothing now.
async fn done<T>(command: impl Future<Output = Result<T, RegionError>>) -> Result<(), NotTaken> {
    command.await.map(drop).map_err(|error| match error.class() {
        ErrorClass::Unavailable => NotTaken::Later(error.to_string()),
        ErrorClass::BadRequest
        | ErrorClass::Forbidden
        | ErrorClass::NotFound
        | ErrorClass::Conflict
        | ErrorClass::PreconditionFailed => NotTaken::Never(error.to_string()),
    })
}

impl RegionLink for Link {
    fn register_host(&self, name: String, word: HostWord) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async move { done(self.0.register_host(&name, word)).await })
    }

    fn register_gateway(
        &self,
        name: String,
        set: String,
        tunnel_ip: IpAddr,
    ) -> BoxFuture<'_, Result<(), NotTaken>> {
        let said = GatewayRegistration { name, set, tunnel_ip };
        Box::pin(async move { done(self.0.register_gateway(said)).await })
    }

    fn report_ports(&self, reports: Vec<PortReport>) -> BoxFuture<'_, Result<(), NotTaken>> {
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
        Box::pin(async move { done(self.0.report_ports(reports)).await })
    }

    fn note_hosts(&self, hosts: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async move { done(self.0.note_hosts(hosts)).await })
    }

    fn release_labels(&self, labels: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async move { done(self.0.release_labels(labels)).await })
    }

    fn note_floating_ips(&self, words: Vec<FloatingIpWord>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async move { done(self.0.note_floating_ips(words)).await })
    }
}

/// Carries the region's changes into the NCM of this process until told to stop: a snapshot first, which makes `loaded` true,
/// then the feed from there.
pub async fn feed(region: Region, ncm: NcmHandle, loaded: watch::Sender<bool>, stop: CancellationToken) {
    let snapshot = region.snapshot();
    let mut reader = region.subscribe(snapshot.revision);
    ncm.snapshot(snapshot.revision, rows(&snapshot).collect()).await;
    loaded.send_replace(true);
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
                ncm.snapshot(snapshot.revision, rows(&snapshot).collect()).await;
            }
            None => return,
        }
    }
}

/// What an NCM needs of a region, in an order in which it can be loaded.
fn rows(snapshot: &Snapshot<RegionState>) -> impl Iterator<Item = Resource> + Send + '_ {
    KINDS.iter().flat_map(|kind| snapshot.state.rows(*kind))
}

/// The region as NCMs in other processes follow it.
pub struct RegionSource(pub Region);

struct RegionRows(Arc<Snapshot<RegionState>>);

impl Source for RegionSource {
    fn region(&self) -> u64 {
        self.0.identity()
    }

    fn snapshot(&self) -> Box<dyn Rows> {
        Box::new(RegionRows(self.0.snapshot()))
    }

    fn changes(&self, from: Revision) -> Box<dyn Changes> {
        Box::new(self.0.subscribe(from))
    }
}

impl Rows for RegionRows {
    fn revision(&self) -> Revision {
        self.0.revision
    }

    fn rows(&self) -> Box<dyn Iterator<Item = Resource> + Send + '_> {
        Box::new(rows(&self.0))
    }
}
