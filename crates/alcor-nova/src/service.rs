//! The shell: reads the region's feed, keeps the core's time, makes its calls. One request is under way at a time,
//! so that Nova sees the events in order.

use std::{collections::BTreeSet, future::Future, pin::Pin, time::Duration};

use alcor_model::{Change, Id, Port, ResourceKey};
use alcor_region::{Region, RegionState};
use alcor_store::{FeedReader, Snapshot};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{NovaClient, SendError},
    core::{Counters, Notifier, Observed, Pace},
};

/// What was counted, for whoever watches.
pub type Counted = watch::Sender<Counters>;

/// A request under way.
type Call = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send>>;

/// Tells Nova of changes after this call, until told to stop or the region is gone.
pub fn run(
    region: Region,
    nova: NovaClient,
    pace: Pace,
    counted: Counted,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let snapshot = region.snapshot();
    let reader = region.subscribe(snapshot.revision);
    let core = Notifier::new(all(&snapshot)).at(pace);
    follow(region, reader, core, nova, counted, stop)
}

async fn follow(
    region: Region,
    mut reader: FeedReader,
    mut core: Notifier,
    nova: NovaClient,
    counted: Counted,
    stop: CancellationToken,
) {
    let start = Instant::now();
    let mut call: Option<Call> = None;
    loop {
        if call.is_none()
            && let Some(batch) = core.next_batch(start.elapsed())
        {
            let nova = nova.clone();
            call = Some(Box::pin(async move { nova.send(&batch).await }));
        }
        let wake_at = core
            .wake_at()
            .map_or(Duration::MAX, |at| at.saturating_sub(start.elapsed()));
        tokio::select! {
            next = reader.next() => match next {
                Some(Ok(batch)) => {
                    let touched: BTreeSet<Id<Port>> = batch.changes.iter().filter_map(port_of).collect();
                    let snapshot = region.snapshot();
                    for id in touched {
                        core.observe(id, Observed::of(&snapshot.state, id));
                    }
                }
                Some(Err(lagged)) => {
                    tracing::warn!(%lagged, "the Nova notifier takes a snapshot of the region");
                    let snapshot = region.snapshot();
                    reader.restart_from(snapshot.revision);
                    core.observe_all(all(&snapshot));
                }
                None => return,
            },
            result = until(&mut call) => {
                call = None;
                core.ended(start.elapsed(), outcome(result));
                counted.send_replace(core.counters());
            }
            () = tokio::time::sleep(wake_at), if wake_at < Duration::MAX => {}
            () = stop.cancelled() => return,
        }
    }
}

fn outcome(result: Result<(), SendError>) -> crate::core::Outcome {
    match result {
        Ok(()) => crate::core::Outcome::Delivered,
        Err(error) => {
            tracing::warn!(%error, "events for Nova were not delivered");
            error.outcome()
        }
    }
}

/// The end of the request under way; never when there is none.
async fn until(call: &mut Option<Call>) -> Result<(), SendError> {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// The port that a change is about, whatever became of it: what it is now is read from the state.
fn port_of(change: &Change) -> Option<Id<Port>> {
    match change.key() {
        ResourceKey::Port(id) | ResourceKey::PortRuntime(id) => Some(id),
        _ => None,
    }
}

fn all(snapshot: &Snapshot<RegionState>) -> impl Iterator<Item = (Id<Port>, Observed)> {
    let state = &snapshot.state;
    state
        .ports()
        .iter()
        .filter_map(|port| Some((port.id, Observed::of_port(state, port)?)))
}
