//! The agent's state for people, as the local socket shows it.

use std::net::IpAddr;

use alcor_dataplane::{Row, RowKey};
use alcor_model::{Id, Network};
use serde_json::{Value, json};

use super::{Agent, Session};
use crate::table::State;

impl Agent {
    /// The gateways that packets of a network may go by now.
    fn gateways_in_force(&self, network: Id<Network>) -> &[IpAddr] {
        let entry = self.table.entry(&RowKey::Network(network));
        match entry.map(|entry| (&entry.state, &entry.row)) {
            Some((State::InForce, Some(Row::Network(row)))) => &row.gateways,
            _ => &[],
        }
    }

    /// The whole state.
    pub(super) fn state(&self) -> Value {
        let networks = self.table.summary().into_iter().map(|(id, held, rows, refused)| {
            let gateways = self.gateways_in_force(id);
            json!({"id": id, "held_revision": held, "rows": rows, "refused": refused, "gateways": gateways})
        });
        let refusals = self
            .refusals
            .iter()
            .map(|(refusal, count)| (refusal.as_str().to_owned(), json!(count)));
        json!({
            "ok": true,
            "host": self.settings.host,
            "incarnation": self.settings.incarnation,
            "dataplane": self.settings.dataplane,
            "session": match self.session {
                Session::Waiting { .. } => "waiting",
                Session::Opening { .. } => "opening",
                Session::Open { .. } => "open",
            },
            "batches_in_flight": self.in_flight.len(),
            "networks": networks.collect::<Vec<_>>(),
            "ports": self.ports.keys().map(|port| self.port_state(*port)).collect::<Vec<_>>(),
            "learning": self.learn_state(),
            "gateway": self.gateway_state(),
            "punts_answered": self.answered,
            "punts_refused": refusals.collect::<serde_json::Map<_, _>>(),
        })
    }
}
