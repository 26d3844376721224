//! A host in a network on demand, and an NCM that answers questions out of a list.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test file uses a part of it"
)]

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use alcor_agent::{
    core::Event,
    delta::{FromNcm, Phase},
};
use alcor_dataplane::{
    Dataplane, Event as FromDataplane, Ingress, NeighbourRow, NetworkRow, Row, RowChange, RowKey, Verdict,
    model::{Limits, Model},
};
use alcor_model::{Id, MacAddr, Port, Revision};
use alcor_southbound::convert::resolve::{
    Answer, Question, Verdict as Answered, decode_questions, encode_answers,
};
use tokio::sync::mpsc;

use crate::common::{Key, Rig, network_id, port_id, row};

pub const LEASE: Duration = Duration::from_secs(300);
pub const NEGATIVE: Duration = Duration::from_secs(1);

/// An address of the network.
pub fn ip(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + n).to_be_bytes())
}

pub fn host(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

pub fn mac(n: u32) -> MacAddr {
    let [a, b, c, d] = n.to_be_bytes();
    MacAddr([2, 1, a, b, c, d])
}

/// The neighbour `n` on a host.
pub fn neighbour(n: u32, on: u8) -> NeighbourRow {
    NeighbourRow {
        network_id: network_id(0),
        ip: ip(n),
        mac: mac(n),
        host: host(on),
        label: 0,
        forward: false,
    }
}

pub fn network(on_demand: bool, revision: u64) -> Result<(Revision, RowChange), String> {
    let Row::Network(row) = row(Key::Network(0), revision) else {
        panic!("not a network");
    };
    let row = NetworkRow { on_demand, ..row };
    Ok((Revision(revision), RowChange::Put(Row::Network(row))))
}

/// "Who has the address?" of a port, as it sends it.
pub fn arp(port: u8, target: IpAddr) -> Vec<u8> {
    let IpAddr::V4(target) = target else {
        panic!("ARP is for IPv4");
    };
    let own = [2, 0, 0, 1, 0, port];
    let kind = [0, 1, 8, 0, 6, 4, 0, 1];
    let target = target.octets();
    [
        &[0xff; 6][..],
        &own,
        &[8, 6],
        &kind,
        &own,
        &[10, 255, 0, port],
        &[0; 6],
        &target,
    ]
    .concat()
}

/// A packet of a port to a neighbour's MAC.
pub fn packet(port: u8, to: MacAddr, target: IpAddr) -> Vec<u8> {
    let IpAddr::V4(target) = target else {
        panic!("IPv4 only");
    };
    let ethernet = [&to.0[..], &[2, 0, 0, 1, 0, port], &[8, 0]].concat();
    let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 255, 0, port];
    [&ethernet[..], &header, &target.octets()].concat()
}

/// What the NCM answers when this is all that there is: revision and host of each address.
pub fn told(directory: &BTreeMap<u32, (u64, u8)>, lease: Duration, question: &Question) -> Answer {
    let IpAddr::V4(address) = question.ip else {
        panic!("IPv4 only");
    };
    let n = u32::from(address) - 0x0a00_0000;
    match directory.get(&n) {
        Some((revision, on)) => Answer {
            verdict: Answered::Route(Revision(*revision), neighbour(n, *on)),
            lease,
        },
        None => Answer {
            verdict: Answered::Unknown,
            lease: NEGATIVE,
        },
    }
}

pub struct World {
    pub rig: Rig,
    events: mpsc::Receiver<FromDataplane>,
    /// Who has an address: revision and host.
    pub directory: BTreeMap<u32, (u64, u8)>,
    /// For how long the NCM's answers hold.
    pub lease: Duration,
}

impl World {
    /// A host with these ports, connected, in a network on demand.
    pub fn new(ports: u8) -> Self {
        Self::of(Model::default(), ports)
    }

    pub fn with_limits(limits: Limits, ports: u8) -> Self {
        Self::of(Model::new(limits), ports)
    }

    fn of(mut model: Model, ports: u8) -> Self {
        let events = model.events().unwrap();
        let mut rig = Rig::new(model);
        rig.step(Event::Links(Vec::new()));
        rig.connect();
        let rows = (1..=ports).map(|p| Key::Port(0, p).change(1, true));
        rig.delta(
            0,
            Phase::Whole,
            1,
            std::iter::once(network(true, 1)).chain(rows).collect(),
        );
        rig.settle();
        for p in 1..=ports {
            rig.model.attach(port_id(0, p), &format!("veth{p}")).unwrap();
        }
        Self {
            rig,
            events,
            directory: BTreeMap::new(),
            lease: LEASE,
        }
    }

    /// The agent starts again over the same data plane.
    pub fn restart(mut self) -> Self {
        self.rig.settle();
        self.rig = self.rig.restart();
        self
    }

    /// A frame of a port; what the data plane hands up goes to the agent.
    pub fn send(&mut self, port: u8, frame: &[u8]) -> Verdict {
        let verdict = self.rig.model.process(Ingress::Port(port_id(0, port)), frame);
        while let Ok(event) = self.events.try_recv() {
            self.rig.step(Event::Dataplane(event));
        }
        verdict
    }

    /// A port asks who has an address.
    pub fn look_for(&mut self, port: u8, n: u32) -> Verdict {
        self.send(port, &arp(port, ip(n)))
    }

    /// The questions on their way, and their messages.
    pub fn questions(&self) -> Vec<Question> {
        let messages = self.rig.asked.iter();
        messages
            .flat_map(|message| decode_questions(message).unwrap())
            .collect()
    }

    pub fn is_asked(&self, n: u32) -> bool {
        self.questions().iter().any(|question| question.ip == ip(n))
    }

    /// Answers one message, the oldest.
    pub fn answer_with(&mut self, answer: impl Fn(&Question) -> Answer) -> usize {
        let message = self.rig.asked.remove(0);
        let questions = decode_questions(&message).unwrap();
        let answers: Vec<Answer> = questions.iter().map(answer).collect();
        self.rig
            .hear(FromNcm::Resolved(encode_answers(message.id, &answers)));
        questions.len()
    }

    /// Answers every message until there are no more; gives how many messages and questions there were.
    pub fn answer_all(&mut self) -> (usize, usize) {
        let (mut messages, mut questions) = (0, 0);
        loop {
            self.rig.settle();
            if self.rig.asked.is_empty() {
                return (messages, questions);
            }
            let (directory, lease) = (self.directory.clone(), self.lease);
            messages += 1;
            questions += self.answer_with(|question| told(&directory, lease, question));
        }
    }

    /// Time passes; the NCM answers as it comes.
    pub fn pass(&mut self, time: Duration) {
        let end = self.rig.now.since_start + time;
        while let Some(at) = self.rig.agent.deadline().filter(|at| *at <= end) {
            self.rig.now.since_start = self.rig.now.since_start.max(at);
            self.rig.step(Event::Tick);
            self.answer_all();
        }
        self.rig.now.since_start = self.rig.now.since_start.max(end);
        self.rig.step(Event::Tick);
        self.answer_all();
    }

    /// The neighbours in force.
    pub fn neighbours(&mut self) -> Vec<NeighbourRow> {
        let rows = self.rig.rows().into_iter();
        rows.filter_map(|row| match row {
            Row::Neighbour(row) => Some(row),
            _ => None,
        })
        .collect()
    }

    pub fn learned(&self) -> usize {
        self.rig.agent.learning_sizes().learned
    }

    /// What became of released frames.
    pub fn released(&mut self) -> Vec<(Id<Port>, Verdict)> {
        self.rig.settle();
        self.rig.model.take_released()
    }

    /// A change of a neighbour, told to the host.
    pub fn tell(&mut self, revision: u64, change: RowChange) {
        self.rig
            .delta(0, Phase::Delta, revision, vec![Ok((Revision(revision), change))]);
        self.rig.settle();
    }

    pub fn tell_gone(&mut self, n: u32, revision: u64) {
        self.tell(
            revision,
            RowChange::Remove(RowKey::Neighbour(network_id(0), ip(n))),
        );
    }
}
