//! Questions of simulated hosts: about random addresses of one network, as many as the NCM answers.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU64, Ordering},
};

use alcor_proto::v1::{AgentMessage, Question, Resolve, Resolved, Verdict, agent_message};
use alcor_southbound::convert::encode_ip;
use bytes::Bytes;

use crate::rng::Rng;

/// Questions of one message.
const QUESTIONS: u32 = 256;
/// Messages of one host that are not answered yet.
const IN_FLIGHT: u64 = 4;

/// What is asked for, and by whom.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The network's id, 16 bytes.
    pub network: Bytes,
    /// The port that asks, 16 bytes; empty: the host itself, as when it renews leases.
    pub port: Bytes,
    /// The first of the addresses.
    pub first: Ipv4Addr,
    /// How many there are.
    pub addresses: u32,
    /// The first so many hosts ask; the others do not.
    pub hosts: u32,
}

/// What came of it, of all hosts together.
#[derive(Debug, Default)]
pub struct Answers {
    /// Answers.
    pub all: AtomicU64,
    /// Those that say where.
    pub routes: AtomicU64,
    /// Those that say "ask later".
    pub busy: AtomicU64,
}

/// The questions of one host.
#[derive(Debug)]
pub(super) struct Asker {
    asking: Asking,
    id: u64,
    rng: Rng,
}

impl Asker {
    pub(super) const fn new(asking: Asking, index: u32) -> Self {
        Self {
            asking,
            id: 0,
            rng: Rng::new(index as u64),
        }
    }

    /// What is sent at first.
    pub(super) fn begin(&mut self) -> Vec<AgentMessage> {
        (0..IN_FLIGHT).map(|_| self.next()).collect()
    }

    /// The next message, for each that is answered.
    pub(super) fn next(&mut self) -> AgentMessage {
        self.id += 1;
        let questions = (0..QUESTIONS).map(|_| Question {
            ip: encode_ip(self.address()),
            network_id: self.asking.network.clone(),
            port_id: self.asking.port.clone(),
        });
        let questions = questions.collect();
        let resolve = Resolve {
            id: self.id,
            questions,
        };
        AgentMessage {
            body: Some(agent_message::Body::Resolve(resolve)),
        }
    }

    /// A random one.
    fn address(&mut self) -> IpAddr {
        let place = self.rng.below(self.asking.addresses.into());
        let place = u32::try_from(place).unwrap_or_default();
        Ipv4Addr::from(u32::from(self.asking.first).wrapping_add(place)).into()
    }
}

impl Answers {
    pub(super) fn note(&self, resolved: &Resolved) {
        let of = |verdict: Verdict| {
            let answers = resolved.answers.iter();
            answers.filter(|answer| answer.verdict() == verdict).count() as u64
        };
        self.all
            .fetch_add(resolved.answers.len() as u64, Ordering::Relaxed);
        self.routes.fetch_add(of(Verdict::Route), Ordering::Relaxed);
        self.busy.fetch_add(of(Verdict::Busy), Ordering::Relaxed);
    }
}
