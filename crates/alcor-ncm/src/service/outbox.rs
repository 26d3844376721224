//! What goes back to the region: kept until the region has it, the newest word of each kind. Each kind is carried for itself and
//! tried again with a patience of its own; what the region refuses for ever is dropped, and delays nothing.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use alcor_model::{
    FloatingIp, HostRuntime, Id, Label, Port, Revision,
    resource::{FloatingIpWord, HostWord},
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};

use super::{NotTaken, RegionLink};
use crate::core::PortReport;

/// Hosts that are registered at the same time, so that their commits are one.
const REGISTRATIONS_AT_ONCE: usize = 256;
/// Words of one kind that are carried by one command.
const WORDS_AT_ONCE: usize = 1_000;
/// When something that could not be carried is tried again, at first and at the longest.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What waits for the region: the newest word about each port, host and label, so it is bounded by those there are.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) waiting: Mutex<Waiting>,
    /// Changes when something waits; true when nothing will any more.
    closed: watch::Sender<bool>,
}

#[derive(Default)]
pub(super) struct Waiting {
    pub(super) hosts: BTreeMap<String, HostWord>,
    /// Sets and addresses of gateways, by name.
    pub(super) gateways: BTreeMap<String, (String, IpAddr)>,
    pub(super) reports: BTreeMap<Id<Port>, PortReport>,
    pub(super) labels: BTreeMap<Id<Label>, Revision>,
    pub(super) known: BTreeMap<String, HostRuntime>,
    pub(super) floating_ips: BTreeMap<Id<FloatingIp>, FloatingIpWord>,
}

impl Outbox {
    /// Something waits.
    pub(super) fn wake(&self) {
        self.closed.send_modify(|_| {});
    }

    /// The core is gone.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }
}

/// Carries what waits to the region, until the core is gone and nothing waits.
pub(super) async fn deliver(
    outbox: Arc<Outbox>,
    region: Arc<dyn RegionLink>,
    patience: (Duration, Duration),
) {
    let (outbox, region) = (outbox.as_ref(), &region);
    tokio::join!(
        deliver_words(outbox, region.as_ref(), patience),
        carry(
            outbox,
            patience,
            |waiting| &mut waiting.hosts,
            |hosts| register(region, hosts)
        ),
        carry(
            outbox,
            patience,
            |waiting| &mut waiting.gateways,
            |gateways| register_gateways(region.as_ref(), gateways)
        ),
    );
}

/// What many are told of at once.
async fn deliver_words(outbox: &Outbox, region: &dyn RegionLink, patience: (Duration, Duration)) {
    tokio::join!(
        carry(
            outbox,
            patience,
            |waiting| &mut waiting.reports,
            |reports| {
                tell("reports", reports, |part| {
                    region.report_ports(part.values().cloned().collect())
                })
            }
        ),
        carry(
            outbox,
            patience,
            |waiting| &mut waiting.labels,
            |labels| {
                tell("labels", labels, |part| {
                    let labels = part.iter().map(|(id, revision)| (*id, *revision));
                    region.release_labels(labels.collect())
                })
            }
        ),
        carry(
            outbox,
            patience,
            |waiting| &mut waiting.known,
            |known| {
                tell("what is known of hosts", known, |part| {
                    region.note_hosts(part.values().cloned().collect())
                })
            }
        ),
        carry(
            outbox,
            patience,
            |waiting| &mut waiting.floating_ips,
            |words| {
                tell("what is known of floating IPs", words, |part| {
                    region.note_floating_ips(part.values().cloned().collect())
                })
            }
        ),
    );
}

/// Carries one kind of words. `told` gives back what is to be told again; newer words about the same are not overwritten.
async fn carry<K: Ord + Clone, V, F>(
    outbox: &Outbox,
    (least, most): (Duration, Duration),
    of: impl Fn(&mut Waiting) -> &mut BTreeMap<K, V>,
    told: impl Fn(BTreeMap<K, V>) -> F,
) where
    F: Future<Output = BTreeMap<K, V>>,
{
    let mut filled = outbox.closed.subscribe();
    let mut retry = least;
    loop {
        // Before it looks: nothing is put in after that was true.
        let is_closed = *filled.borrow_and_update();
        let taken = take(of(&mut *outbox.waiting.lock().await));
        if taken.is_empty() {
            if is_closed || filled.changed().await.is_err() {
                return;
            }
            continue;
        }
        let again = told(taken).await;
        if again.is_empty() {
            retry = least;
            continue;
        }
        let mut waiting = outbox.waiting.lock().await;
        let waiting_too = of(&mut waiting);
        for (key, word) in again {
            waiting_too.entry(key).or_insert(word);
        }
        drop(waiting);
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(most);
    }
}

/// The first words of a kind, as many as are carried at once.
fn take<K: Ord + Clone, V>(waiting: &mut BTreeMap<K, V>) -> BTreeMap<K, V> {
    let rest = match waiting.keys().nth(WORDS_AT_ONCE).cloned() {
        Some(key) => waiting.split_off(&key),
        None => BTreeMap::new(),
    };
    std::mem::replace(waiting, rest)
}

/// Tells words by one command, or when they are refused for ever by several, until only those are left out that are refused by
/// themselves. Gives back what is to be told again.
async fn tell<K: Ord + Clone, V, F>(
    what: &str,
    words: BTreeMap<K, V>,
    tell: impl Fn(&BTreeMap<K, V>) -> F,
) -> BTreeMap<K, V>
where
    F: Future<Output = Result<(), NotTaken>>,
{
    let mut parts = vec![words];
    while let Some(mut part) = parts.pop() {
        match tell(&part).await {
            Ok(()) => {}
            Err(NotTaken::Never(error)) => match part.keys().nth(part.len() / 2).cloned() {
                Some(half) if part.len() > 1 => {
                    let second = part.split_off(&half);
                    parts.extend([second, part]);
                }
                _ => tracing::error!(
                    what,
                    error,
                    "the region refuses one of these for ever; it is dropped"
                ),
            },
            Err(NotTaken::Later(error)) => {
                part.extend(parts.into_iter().flatten());
                let waiting = part.len();
                tracing::warn!(what, waiting, error, "could not be stored; trying again");
                return part;
            }
        }
    }
    BTreeMap::new()
}

/// Has the region register gateways, one after the other.
async fn register_gateways(
    region: &dyn RegionLink,
    gateways: BTreeMap<String, (String, IpAddr)>,
) -> BTreeMap<String, (String, IpAddr)> {
    for (gateway, (set, tunnel_ip)) in gateways {
        // One that is refused delays nobody: the core asks again as long as it is here.
        if let Err(error) = region.register_gateway(gateway.clone(), set, tunnel_ip).await {
            tracing::warn!(gateway, %error, "a gateway could not be registered");
        }
    }
    BTreeMap::new()
}

/// Has the region register hosts, several at a time. Gives back those that it could not register now.
async fn register(
    region: &Arc<dyn RegionLink>,
    mut hosts: BTreeMap<String, HostWord>,
) -> BTreeMap<String, HostWord> {
    let mut calls = JoinSet::new();
    let mut again = BTreeMap::new();
    let mut reason = None;
    loop {
        // Once the region could not take one it could not take the others either: they wait for the next time.
        while reason.is_none()
            && calls.len() < REGISTRATIONS_AT_ONCE
            && let Some((name, word)) = hosts.pop_first()
        {
            let region = Arc::clone(region);
            calls.spawn(async move {
                let registered = region.register_host(name.clone(), word.clone()).await;
                registered.map_err(|error| (name, word, error))
            });
        }
        match calls.join_next().await {
            Some(Ok(Err((host, _, NotTaken::Never(error))))) => {
                tracing::error!(host, error, "the region refuses to register a host");
            }
            Some(Ok(Err((host, word, NotTaken::Later(error))))) => {
                again.insert(host, word);
                reason = Some(error);
            }
            Some(_) => {}
            None => break,
        }
    }
    again.append(&mut hosts);
    if let Some(error) = reason {
        let waiting = again.len();
        tracing::warn!(waiting, error, "hosts could not be registered; trying again");
    }
    again
}

#[cfg(test)]
mod tests;
