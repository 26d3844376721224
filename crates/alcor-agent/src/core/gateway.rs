//! What a gateway's agent does besides: it says that it is one, probes the other members of its set, names those that do
//! not answer, and says how much goes through.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, time::Duration};

use alcor_dataplane::{DropReason, Drops, GatewayReport, RowChange, gateway::RouterNat};
use alcor_proto::v1;
use alcor_southbound::convert::load::{LoadWord, NatTotals, ROUTERS_MAX, encode_load};
use serde_json::{Value, json};

use super::{Action, Agent, Now, Settings, ip_bytes};
use crate::{probe::Prober, table::Planned};

/// How often a gateway says how much goes through it.
pub const LOAD_EVERY: Duration = Duration::from_secs(1);

/// What a gateway says of its load, and when.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// When it is to be read next.
    due: Duration,
    /// The data plane has been asked and has not answered.
    is_asked: bool,
    /// What is to be said with the next heartbeat.
    word: Option<v1::GatewayLoad>,
}

/// What was read from a gateway's data plane at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRead {
    /// Microseconds on a clock that never goes back.
    pub taken_us: u64,
    /// What it says of itself; none: it cannot tell.
    pub report: Option<GatewayReport>,
    /// What it has dropped.
    pub drops: Drops,
}

/// The word of what was read.
fn load_word(read: LoadRead, neighbours: usize) -> Option<LoadWord> {
    let report = read.report?;
    let mut drops: BTreeMap<DropReason, u64> = BTreeMap::new();
    for ((_, reason), packets) in read.drops {
        *drops.entry(reason).or_default() += packets;
    }
    let sum = |field: fn(&RouterNat) -> u64| report.nat.iter().map(field).sum();
    let nat = NatTotals {
        routers: report.nat.len() as u64,
        connections: sum(|nat| nat.connections),
        refused: sum(|nat| nat.refused),
    };
    let mut busiest = report.nat;
    busiest.retain(|nat| nat.connections > 0 || nat.refused > 0);
    // All have the same limit at one time.
    busiest.sort_unstable_by_key(|nat| Reverse((nat.refused, nat.connections, nat.router)));
    busiest.truncate(ROUTERS_MAX);
    Some(LoadWord {
        taken_us: read.taken_us,
        load: report.load,
        drops,
        other_drops: 0,
        nat,
        busiest,
        neighbours: neighbours as u64,
        neighbours_room: report.neighbours_room,
        devices: report.devices,
        layout: report.layout,
    })
}

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

    /// Has the load read for a heartbeat after this one, when it is time.
    pub(super) fn read_load(&mut self, now: Now, out: &mut Vec<Action>) {
        let telling = &mut self.telling;
        if self.prober.is_some() && !telling.is_asked && telling.due <= now.since_start {
            (telling.due, telling.is_asked) = (now.since_start + LOAD_EVERY, true);
            out.push(Action::ReadLoad);
        }
    }

    /// The data plane has told its load, or not: what is not known is not said.
    pub(super) fn load_read(&mut self, outcome: Result<LoadRead, String>) {
        self.telling.is_asked = false;
        let word = match outcome {
            Ok(read) => load_word(read, self.table.count_neighbours()),
            Err(reason) => {
                tracing::debug!(reason, "the load could not be read");
                None
            }
        };
        self.telling.word = word.as_ref().map(encode_load);
    }

    /// The sign of life; a gateway says too whom it does not reach, and now and then how much goes through it.
    pub(super) fn heartbeat(&mut self) -> v1::AgentMessage {
        let load = self.telling.word.take();
        let unreachable = self.prober.iter().flat_map(Prober::unreachable);
        let body = v1::agent_message::Body::Heartbeat(v1::Heartbeat {
            unreachable: unreachable.map(|ip| ip_bytes(ip).into()).collect(),
            load,
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
