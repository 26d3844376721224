//! `Prefer: wait=N` (RFC 7240): a reply that comes when the hosts of what was committed have reported it, or when the
//! time is over. Nothing is polled: one task follows the region's feed and wakes those whose ports it tells of.
//!
//! Not here: what a host has to say for a port to be in force (the NCM writes that into the region's rows).

use std::{collections::HashMap, sync::Arc, time::Duration};

use alcor_metrics::API_WAITS;
use alcor_model::{Change, Id, Port, ResourceKey, Revision};
use alcor_region::{Region, RegionState};
use alcor_store::FeedReader;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::state::ApiState;

/// What a client would like.
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Which of it was done.
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The seconds that a client would like to wait; `None` when it does not say, or not as the RFC wants it: a preference
/// that is not understood is passed over. The first one counts.
fn preferred(headers: &HeaderMap) -> Option<u32> {
    let lines = headers.get_all(PREFER).into_iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .find_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("wait")
                .then(|| value.trim().trim_matches('"').parse().ok())
        })
        .flatten()
}

/// A request that would like to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    seconds: u32,
}

impl Wait {
    /// What the headers of a request ask for.
    pub(crate) fn asked(headers: &HeaderMap) -> Option<Self> {
        preferred(headers).map(|seconds| Self { seconds })
    }

    /// Returns when the hosts of these ports have reported them at these revisions or newer, or when the time is over.
    /// True when there was something to wait for and all of it came.
    pub(crate) async fn settle(self, api: &ApiState, ports: Vec<(Id<Port>, Revision)>) -> bool {
        let longest = Duration::from_secs(u64::from(self.seconds)).min(api.config().max_wait);
        let mut reported = 0;
        let waiting = api.waits().all_reported(api.region(), ports, &mut reported);
        let settled = tokio::time::timeout(longest, waiting).await.is_ok();
        let outcome = match (settled, reported) {
            (false, _) => "late",
            (true, 0) => "nothing",
            (true, _) => "reported",
        };
        API_WAITS.add([outcome], 1);
        settled && reported > 0
    }

    /// Says in the reply that the wish was granted.
    pub(crate) fn granted(self, response: &mut Response) {
        let text = format!("wait={}", self.seconds);
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(PREFERENCE_APPLIED, value);
        }
    }
}

/// Where a port stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its host has not reported the revision yet.
    Pending,
    /// It has: in force, or refused with a reason.
    Reported,
    /// No host has to have it: it is gone or bound to none.
    Nowhere,
}

fn standing(state: &RegionState, port: Id<Port>, revision: Revision) -> Standing {
    let Some(row) = state.ports().get(&port).filter(|row| row.is_bound()) else {
        return Standing::Nowhere;
    };
    match state.runtimes().get(&port) {
        Some(runtime) if runtime.host_id == row.binding.host_id && runtime.applied_revision >= revision => {
            Standing::Reported
        }
        _ => Standing::Pending,
    }
}

/// Who waits for which ports. Bounded by the requests in progress and the ports that one of them may name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    by_port: HashMap<Id<Port>, Vec<(u64, Arc<Notify>)>>,
    tickets: u64,
    /// A task follows the feed.
    followed: bool,
}

/// One who waits, until dropped.
struct Ticket {
    waits: Waits,
    number: u64,
    ports: Vec<Id<Port>>,
    woken: Arc<Notify>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.waits.0.lock();
        for port in &self.ports {
            if let Some(tickets) = waiting.by_port.get_mut(port) {
                tickets.retain(|(number, _)| *number != self.number);
                if tickets.is_empty() {
                    waiting.by_port.remove(port);
                }
            }
        }
    }
}

impl Waits {
    /// Returns when no port is pending; counts those that were reported.
    async fn all_reported(&self, region: &Region, ports: Vec<(Id<Port>, Revision)>, reported: &mut usize) {
        let mut pending = ports;
        let mut look = |pending: &mut Vec<(Id<Port>, Revision)>| {
            let snapshot = region.snapshot();
            pending.retain(|(port, revision)| {
                let standing = standing(&snapshot.state, *port, *revision);
                *reported += usize::from(standing == Standing::Reported);
                standing == Standing::Pending
            });
            !pending.is_empty()
        };
        if !look(&mut pending) {
            return;
        }
        // First the ticket, then another look: what is reported in between is not missed.
        let ticket = self.ticket(region, pending.iter().map(|(port, _)| *port).collect());
        while look(&mut pending) {
            ticket.woken.notified().await;
        }
    }

    fn ticket(&self, region: &Region, ports: Vec<Id<Port>>) -> Ticket {
        let mut waiting = self.0.lock();
        waiting.tickets += 1;
        let number = waiting.tickets;
        let woken = Arc::new(Notify::new());
        for port in &ports {
            let tickets = waiting.by_port.entry(*port).or_default();
            tickets.push((number, Arc::clone(&woken)));
        }
        if !waiting.followed {
            waiting.followed = true;
            let reader = region.subscribe(region.snapshot().revision);
            tokio::spawn(self.clone().follow(reader));
        }
        drop(waiting);
        Ticket {
            waits: self.clone(),
            number,
            ports,
            woken,
        }
    }

    /// Wakes who waits for what the feed tells of, as long as anybody waits.
    async fn follow(self, mut reader: FeedReader) {
        while let Some(next) = reader.next().await {
            let mut waiting = self.0.lock();
            match next {
                Ok(batch) => {
                    let woken = batch.changes.iter().filter_map(port_of);
                    for (_, ticket) in woken.filter_map(|port| waiting.by_port.get(&port)).flatten() {
                        ticket.notify_one();
                    }
                }
                Err(lagged) => {
                    // The feed has run ahead: everybody looks for himself.
                    reader.restart_from(lagged.oldest);
                    for (_, ticket) in waiting.by_port.values().flatten() {
                        ticket.notify_one();
                    }
                }
            }
            if waiting.by_port.is_empty() {
                waiting.followed = false;
                return;
            }
        }
        self.0.lock().followed = false;
    }
}

/// The port whose standing a change may move.
fn port_of(change: &Change) -> Option<Id<Port>> {
    match change.key() {
        ResourceKey::Port(id) | ResourceKey::PortRuntime(id) => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wished(lines: &[&'static str]) -> Option<u32> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, HeaderValue::from_static(line));
        }
        preferred(&headers)
    }

    #[test]
    fn the_wish_is_read_as_the_rfc_has_it() {
        assert_eq!(wished(&[]), None);
        assert_eq!(wished(&["wait=5"]), Some(5));
        assert_eq!(wished(&["respond-async, Wait = \"10\" ; x=y"]), Some(10));
        assert_eq!(wished(&["return=minimal", "wait=3, wait=9"]), Some(3));
        assert_eq!(wished(&["wait"]), None);
        assert_eq!(wished(&["wait=-1"]), None);
        assert_eq!(wished(&["wait=soon"]), None);
        assert_eq!(wished(&["await=5"]), None);
    }
}
