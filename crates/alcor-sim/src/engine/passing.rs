//! Packets that are on their way while a port moves: the host that the port has left passes them on, and none of them is lost when
//! the new host has the port. Checked in scenarios in which nothing else goes wrong.
//!
//! Not here: packets that reach the new host before it has the port, or before the virtual machine has its device there. They are
//! counted: who moves a machine decides how long it is nowhere.

use alcor_dataplane::{DropReason, RowKey, Verdict};
use alcor_model::{Id, Network, Port};

use super::{Kind, Sim, traffic::InTunnel};
use crate::host;

/// What a rule, or somebody who took a port out of use, may do to any packet.
const fn is_forbidden(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::EgressDenied | DropReason::IngressDenied | DropReason::PortDown
    )
}

impl Sim {
    /// A packet came out of a tunnel at a host with a data plane, and this became of it.
    pub(super) fn check_passing(&mut self, at: u32, packet: &InTunnel, verdict: &Verdict) {
        let Some((to, network)) = self.addressee(packet.number()) else {
            return;
        };
        let Kind::Full(full) = &mut self.actor(at).kind else {
            return;
        };
        let has_port = full.has(&RowKey::Port(network, to));
        let is_here = has_port && full.has_device(to);
        if let Verdict::Tunnel { .. } = verdict {
            return self.figures.add("packets_forwarded", 1);
        }
        let Verdict::Drop(reason) = verdict else { return };
        let is_bound_here = self.bound_to(to) == Some(at);
        if is_bound_here && !is_here {
            return self.figures.add("packets_ahead_of_port", 1);
        }
        let is_lost = match packet.is_forwarded() {
            true => is_here && !is_forbidden(*reason),
            false => !has_port && self.has_left(at, to, network),
        };
        if !is_lost && !is_bound_here && !has_port {
            // Passed on to where the port is no more: it has moved twice while the packet was on its way.
            self.figures.add("packets_behind_port", 1);
        }
        if is_lost && self.scenario.faults.is_none() {
            let what = format!(
                "packet {} to port {to}, which has moved, is lost at {}: {}",
                packet.number(),
                host::name(at),
                reason.as_str()
            );
            self.violate(what);
        }
    }

    /// The host that the region has a port on.
    fn bound_to(&self, port: Id<Port>) -> Option<u32> {
        let row = self.cloud.state().ports().get(&port)?;
        row.binding.host().and_then(host::number)
    }

    /// Whether a port was on a host, as that host said, and is on another one that all know, since less than a lease.
    fn has_left(&self, at: u32, port: Id<Port>, network: Id<Network>) -> bool {
        let state = self.cloud.state();
        let Some(row) = state.ports().get(&port) else {
            return false;
        };
        let there = row.binding.host().filter(|there| *there != host::name(at));
        let is_known = there.is_some_and(|there| state.hosts().get(&there.to_owned()).is_some());
        let left = self.ledger.left(at, network);
        let lately = left.is_some_and(|left| self.now < left + self.ncm.lease_us());
        is_known && lately && self.ledger.said(port, at).is_some()
    }
}
