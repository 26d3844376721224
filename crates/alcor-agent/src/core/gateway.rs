//! What a gateway's agent does besides: it says that it is one, probes the other members of its set, and names those that do
//! not answer.

use std::{net::IpAddr, time::Duration};

use alcor_dataplane::RowChange;
use alcor_proto::v1;
use serde_json::{Value, json};

use super::{Action, Agent, Now, Settings, ip_bytes};
use crate::{probe::Prober, table::Planned};

impl Agent {
    /// The probes of a gateway; a host has none.
    pub(super) fn prober(settings: &Settings, rows: &[alcor_dataplane::Row]) -> Option<Prober> {
        settings.gateway_set.as_ref()?;
        let mut prober = Prober::new(settings.tunnel_ip, settings.incarnation);
        for row in rows {
            prober.note(&RowChange::Put(row.clone()));
        }
        Some(prober)
    }

    /// Rows change whom the probes are for.
    pub(super) fn note_members(&mut self, changes: &[Planned]) {
        if let Some(prober) = &mut self.prober {
            for planned in changes {
                prober.note(&planned.change);
            }
        }
    }

    pub(super) fn send_probes(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(prober) = &mut self.prober {
            out.extend(prober.tick(now.since_start).into_iter().map(Action::Probe));
        }
    }

    pub(super) fn probe_answered(&mut self, from: IpAddr, bytes: &[u8]) {
        if let Some(prober) = &mut self.prober {
            prober.answer(from, bytes);
        }
    }

    pub(super) fn probe_deadline(&self) -> Option<Duration> {
        self.prober.as_ref()?.deadline()
    }

    /// The sign of life; a gateway says too whom it does not reach.
    pub(super) fn heartbeat(&self) -> v1::AgentMessage {
        let unreachable = self.prober.iter().flat_map(Prober::unreachable);
        let body = v1::agent_message::Body::Heartbeat(v1::Heartbeat {
            unreachable: unreachable.map(|ip| ip_bytes(ip).into()).collect(),
        });
        v1::AgentMessage { body: Some(body) }
    }

    /// For people.
    pub(super) fn gateway_state(&self) -> Value {
        let Some((prober, set)) = self.prober.as_ref().zip(self.settings.gateway_set.as_ref()) else {
            return Value::Null;
        };
        let members = prober
            .members()
            .map(|(ip, misses)| json!({"tunnel_ip": ip, "unanswered": misses}));
        json!({"set": set, "members": members.collect::<Vec<_>>()})
    }
}
