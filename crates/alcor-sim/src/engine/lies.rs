//! Agents that lie: wrong hellos, copies of what real agents have said, receipts and reports about what never was, messages
//! that are too large, answers that are not read. What the NCM believes while the real host is away is not its to know; that it
//! takes none of it from others, and that all is right when the real host is back, is.

use std::{collections::VecDeque, net::Ipv4Addr};

use alcor_model::{Id, Port};
use alcor_proto::v1::{self, agent_message::Body, ncm_message};
use alcor_southbound::convert::{
    encode_id, encode_ip,
    resolve::{QUESTIONS_MAX, Question, encode_questions},
};
use bytes::Bytes;
use uuid::Uuid;

use super::{Event, Kind, Sim, wires::Up};
use crate::{clock::Us, host};

/// Bytes of a message that no NCM should take.
const HUGE_BYTES: usize = 32 * 1024 * 1024;
/// Networks that a liar says it holds.
const HELD_LIES: u64 = 200;
/// Messages that are kept of a stream, to be said again; the first ones.
const OVERHEARD_MAX: usize = 64;
/// Streams that are kept of a host.
const STREAMS_MAX: usize = 2;
/// How long a liar does not read.
const DEAF_US: Us = 60_000_000;

/// What a real agent has said in one session, as somebody else may say it again.
#[derive(Clone, Debug)]
pub(super) struct Overheard {
    hello: v1::Hello,
    bodies: Vec<Body>,
}

/// The newest streams of a host.
pub(super) type Streams = VecDeque<Overheard>;

impl Sim {
    /// Keeps what a real agent says, when somebody is there who would say it again.
    pub(super) fn overhear(&mut self, actor: u32, message: &Up) {
        let is_real = !matches!(self.actor(actor).kind, Kind::Liar(_));
        if !is_real || self.scenario.faults.liars == 0 {
            return;
        }
        let streams = self.overheard.entry(actor).or_default();
        match message {
            Up::Hello(hello) => {
                streams.truncate(STREAMS_MAX - 1);
                streams.push_front(Overheard {
                    hello: hello.clone(),
                    bodies: Vec::new(),
                });
            }
            Up::Body(body) => {
                if let Some(stream) = streams
                    .front_mut()
                    .filter(|stream| stream.bodies.len() < OVERHEARD_MAX)
                {
                    stream.bodies.push(body.clone());
                }
            }
        }
    }

    /// Says again what a real host said, from its hello on.
    fn replay(&mut self, actor: u32) {
        let foreign = self.any_actor();
        let streams = self.overheard.get(&foreign).map_or(0, VecDeque::len);
        let place = self.rng.place(streams);
        let stream = self
            .overheard
            .get(&foreign)
            .and_then(|streams| streams.get(place));
        let Some(Overheard { hello, bodies }) = stream.cloned() else {
            return;
        };
        self.figures.add("replays", 1);
        self.drop_session(actor);
        self.actor(actor).kind = Kind::Liar(Some(foreign));
        self.open(actor, hello);
        for body in bodies {
            self.send_up(actor, Up::Body(body));
        }
    }

    pub(super) fn next_lie(&mut self, actor: u32) {
        if let Some(wait) = self.rng.wait_us(self.scenario.faults.lies_per_s)
            && self.now + wait < self.busy_until
        {
            self.after(wait, Event::Lie { actor });
        }
    }

    /// An agent does what no agent should. It may have the name of a real host, with an older incarnation or a copy of its hello: an
    /// NCM that has a session of the real one refuses it. One that has not must believe it, for whose a name is, is not the NCM's to
    /// know; then all must be right again when the real host comes back.
    pub(super) fn lie(&mut self, actor: u32) {
        self.next_lie(actor);
        self.figures.add("lies", 1);
        if self.actor(actor).wire.session == 0 {
            return self.lying_hello(actor);
        }
        match self.rng.below(12) {
            0 => self.drop_session(actor),
            1 => self.lying_hello(actor),
            2 => self.send_up(actor, Up::Hello(v1::Hello::default())),
            3 => {
                let mut id = vec![0; HUGE_BYTES];
                id[0] = 1;
                let report = v1::PortReport {
                    port_id: Bytes::from(id),
                    ..v1::PortReport::default()
                };
                self.send_up(actor, Up::Body(Body::PortReport(report)));
            }
            4 => self.lying_receipt(actor),
            5 => self.lying_question(actor),
            6 if self.rng.chance(self.scenario.faults.impersonating_share) => self.replay(actor),
            7 => self.actor(actor).wire.stalled_until = self.now + DEAF_US,
            _ => self.lying_report(actor),
        }
    }

    fn lying_hello(&mut self, actor: u32) {
        self.drop_session(actor);
        let foreign = self.any_actor();
        let is_foreign = self.rng.chance(self.scenario.faults.impersonating_share);
        let held = (0..self.rng.below(HELD_LIES)).map(|_| {
            let known = self.rng.place(self.people.networks.len() * 2);
            let id = self.people.networks.get(known).map(|network| network.id);
            let id = id.unwrap_or_else(|| Id::from_uuid(Uuid::from_u128(u128::from(self.rng.next()))));
            v1::Held {
                network_id: encode_id(id),
                revision: self.rng.next() >> self.rng.below(64),
            }
        });
        let held = held.collect();
        self.actor(actor).kind = Kind::Liar(is_foreign.then_some(foreign));
        let hello = v1::Hello {
            host: self.session_name(actor),
            // A real host's incarnation is never 0, so this one is older.
            incarnation: if is_foreign { 0 } else { u64::from(u32::MAX) },
            tunnel_ip: encode_ip(host::tunnel_ip(actor)),
            held,
            dataplane: "lies".to_owned(),
            version: String::new(),
            filters: self.rng.chance(0.5),
            ..v1::Hello::default()
        };
        self.open(actor, hello);
    }

    /// The name that an actor says hello with.
    pub(super) fn session_name(&self, actor: u32) -> String {
        match self.actors[actor as usize].kind {
            Kind::Liar(None) => format!("liar{actor}"),
            Kind::Liar(Some(host)) => host::name(host),
            Kind::Full(_) | Kind::Light(_) => host::name(actor),
        }
    }

    /// Asks in networks in which it has no ports, sometimes more than anybody may.
    fn lying_question(&mut self, actor: u32) {
        let network = self.rng.place(self.people.networks.len());
        let network = self.people.networks[network].id;
        let count = if self.rng.chance(0.1) {
            QUESTIONS_MAX + 1
        } else {
            3
        };
        let ip = |number: usize| Ipv4Addr::from(0x0b00_0000 + u32::try_from(number).unwrap_or_default());
        let questions = (0..count).map(|number| Question {
            network,
            ip: ip(number).into(),
            port: None,
        });
        let message = encode_questions(self.rng.next(), &questions.collect::<Vec<_>>());
        self.send_up(actor, Up::Body(Body::Resolve(message)));
    }

    fn lying_receipt(&mut self, actor: u32) {
        let receipt = v1::Receipt {
            sequence: self.rng.next() >> self.rng.below(64),
            received_us: self.rng.next(),
            visible_us: self.rng.next(),
            refused: vec![
                v1::RowError {
                    row: u32::MAX,
                    reason: "x".repeat(10_000),
                };
                3
            ],
        };
        self.send_up(actor, Up::Body(Body::Receipt(receipt)));
    }

    /// A port that is on the host whose name a liar has, or any.
    fn some_port_for(&mut self, actor: u32) -> Option<Id<Port>> {
        let own: Vec<_> = match self.actor(actor).kind {
            Kind::Liar(Some(host)) => {
                let ports = self.cloud.state().ports_on(&host::name(host));
                ports.map(|port| port.id).collect()
            }
            _ => Vec::new(),
        };
        if !own.is_empty() && self.rng.chance(0.5) {
            return self.rng.pick(&own);
        }
        let network = self.rng.place(self.people.networks.len());
        self.rng.pick(&self.people.networks[network].ports)
    }

    /// About a port that may not be on this host, at a revision that may not be there yet.
    fn lying_report(&mut self, actor: u32) {
        let port = self.some_port_for(actor);
        let report = v1::PortReport {
            port_id: port.map(encode_id).unwrap_or_default(),
            revision: self.rng.next() >> self.rng.below(64),
            condition: v1::PortCondition::Wired.into(),
            reason: "\u{0}lie".to_owned(),
            visible_us: u64::MAX,
        };
        if let Kind::Liar(Some(host)) = self.actor(actor).kind {
            self.liar_says(host, &report);
        }
        self.send_up(actor, Up::Body(Body::PortReport(report)));
    }

    /// A liar is told something: nothing of any network, for it has no ports, unless it has the name of one that has.
    pub(super) fn liar_hears(&mut self, actor: u32, message: &v1::NcmMessage) {
        let has_none = matches!(self.actor(actor).kind, Kind::Liar(None));
        if let Some(ncm_message::Body::Resolved(resolved)) = &message.body
            && has_none
            && resolved.answers.iter().any(|answer| answer.row.is_some())
        {
            self.violate(format!("liar {actor} is told where ports of others are"));
        }
        if let Some(ncm_message::Body::Delta(delta)) = &message.body {
            if has_none && delta.snapshot() != v1::SnapshotPhase::Forget {
                self.violate(format!("liar {actor} is told rows: {} of them", delta.rows.len()));
            }
            // For what came, or for what never came; about rows that were not there.
            let ahead = if self.rng.chance(0.2) {
                self.rng.below(1_000)
            } else {
                0
            };
            if self.rng.chance(0.6) {
                let refused = v1::RowError {
                    row: u32::try_from(self.rng.below(8)).unwrap_or_default(),
                    reason: "lies".to_owned(),
                };
                let receipt = v1::Receipt {
                    sequence: delta.sequence.saturating_add(ahead),
                    received_us: u64::MAX,
                    visible_us: 0,
                    refused: self.rng.chance(0.2).then_some(refused).into_iter().collect(),
                };
                self.send_up(actor, Up::Body(Body::Receipt(receipt)));
            }
        }
    }
}
