//! What goes back to the region: kept until the region has it, the newest word of each kind, tried again with patience.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use alcor_model::{
    FloatingIp, HostRuntime, Id, Label, Port, Revision,
    resource::{FloatingIpWord, HostWord},
};
use tokio::{
    sync::{Mutex, Notify},
    task::JoinSet,
};

use super::RegionLink;
use crate::core::PortReport;

/// Hosts that are registered at the same time, so that their commits are one.
const REGISTRATIONS_AT_ONCE: usize = 256;
/// Reports written by one command.
const REPORTS_AT_ONCE: usize = 1_000;
/// When a report that could not be stored is tried again, at first and at the longest.
const REPORT_RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What waits for the region: the newest report of each port, so it is bounded by the ports there are.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) waiting: Mutex<Waiting>,
    pub(super) filled: Notify,
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

impl Waiting {
    /// What is to be carried next.
    fn take(&mut self) -> Self {
        let rest = match self.reports.keys().nth(REPORTS_AT_ONCE).copied() {
            Some(key) => self.reports.split_off(&key),
            None => BTreeMap::new(),
        };
        let taken = std::mem::take(self);
        self.reports = rest;
        taken
    }

    fn is_empty(&self) -> bool {
        self.hosts.is_empty()
            && self.gateways.is_empty()
            && self.reports.is_empty()
            && self.labels.is_empty()
            && self.known.is_empty()
            && self.floating_ips.is_empty()
    }
}

/// Carries what waits to the region, until the core is gone and nothing waits.
pub(super) async fn deliver(outbox: Arc<Outbox>, region: Arc<dyn RegionLink>) {
    let mut retry = REPORT_RETRY.0;
    loop {
        let taken = outbox.waiting.lock().await.take();
        if taken.is_empty() {
            if Arc::strong_count(&outbox) == 1 {
                return;
            }
            outbox.filled.notified().await;
            continue;
        }
        retry = match carry(&outbox, &region, taken).await {
            false => {
                tokio::time::sleep(retry).await;
                (retry * 2).min(REPORT_RETRY.1)
            }
            true => REPORT_RETRY.0,
        };
    }
}

/// False when something has to be tried again.
async fn carry(outbox: &Outbox, region: &Arc<dyn RegionLink>, taken: Waiting) -> bool {
    let Waiting {
        hosts,
        gateways,
        reports,
        labels,
        known,
        floating_ips,
    } = taken;
    for (gateway, (set, tunnel_ip)) in gateways {
        // One that is refused delays nobody: the core asks again as long as it is here.
        if let Err(error) = region.register_gateway(gateway.clone(), set, tunnel_ip).await {
            tracing::warn!(gateway, error, "a gateway could not be registered");
        }
    }
    let mut done = register(outbox, region, hosts).await;
    if !reports.is_empty()
        && let Err(error) = region.report_ports(reports.values().cloned().collect()).await
    {
        tracing::warn!(
            reports = reports.len(),
            error,
            "reports could not be stored; trying again"
        );
        let mut waiting = outbox.waiting.lock().await;
        for (id, report) in reports {
            waiting.reports.entry(id).or_insert(report);
        }
        done = false;
    }
    if !labels.is_empty()
        && let Err(error) = region.release_labels(labels.into_iter().collect()).await
    {
        tracing::warn!(error, "labels could not be released; they are told again");
        done = false;
    }
    if !floating_ips.is_empty()
        && let Err(error) = region
            .note_floating_ips(floating_ips.into_values().collect())
            .await
    {
        tracing::warn!(
            error,
            "what is known of floating IPs could not be stored; it is told again"
        );
        done = false;
    }
    done & note_hosts(outbox, region.as_ref(), known).await
}

/// Has the region register hosts, several at a time. False when it could not register all of them.
async fn register(
    outbox: &Outbox,
    region: &Arc<dyn RegionLink>,
    mut hosts: BTreeMap<String, HostWord>,
) -> bool {
    let mut calls = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        // Once one has failed the others would too: they wait for the next time.
        while failures.is_empty()
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
            Some(Ok(Err(failure))) => failures.push(failure),
            Some(_) => {}
            None => break,
        }
    }
    let Some((host, _, error)) = failures.first() else {
        return true;
    };
    let waiting = failures.len() + hosts.len();
    tracing::warn!(
        host,
        error,
        waiting,
        "hosts could not be registered; trying again"
    );
    hosts.extend(failures.into_iter().map(|(name, host, _)| (name, host)));
    let mut waiting = outbox.waiting.lock().await;
    for (name, host) in hosts {
        waiting.hosts.entry(name).or_insert(host);
    }
    false
}

/// Has the region keep what is known of hosts. False when it could not; newer words about a host are not overwritten.
async fn note_hosts(outbox: &Outbox, region: &dyn RegionLink, known: BTreeMap<String, HostRuntime>) -> bool {
    if known.is_empty() {
        return true;
    }
    let Err(error) = region.note_hosts(known.values().cloned().collect()).await else {
        return true;
    };
    tracing::warn!(
        hosts = known.len(),
        error,
        "what is known of hosts could not be stored; trying again"
    );
    let mut waiting = outbox.waiting.lock().await;
    for (name, host) in known {
        waiting.known.entry(name).or_insert(host);
    }
    false
}
