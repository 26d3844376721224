//! Discrete events in virtual time: one region, one NCM, many hosts, and what goes wrong between them. The same scenario and
//! seed give the same events, one after another, on every machine.
//!
//! The deciders are the real ones; what their shells do (channels, sockets, disks, clocks) is done here, with delays
//! that the seed draws. What must hold is in [`check`]; what is counted is in [`crate::figures`].

mod check;
mod churn;
mod faults;
mod feed;
mod gateways;
mod lies;
mod ncm;
mod outage;
mod partial;
mod passing;
mod region;
mod routers;
mod traffic;
mod wires;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use alcor_model::{Id, Port};

use self::{churn::People, ncm::NcmActor, region::Ledger, traffic::Wayfarers, wires::Wire};
use crate::{
    clock::{BEGIN_UNIX_US, Us},
    cloud::Cloud,
    figures::Figures,
    host::{full::Full, light::Light},
    outcome::{Level, Outcome, Progress, Violation},
    rng::{Rng, to_us},
    scenario::Scenario,
};

/// Events that are remembered for the report of a violation.
const REMEMBERED: usize = 40;
/// After so many violations a run ends.
const VIOLATIONS_MAX: usize = 10;
/// Heartbeats of hosts without an agent are sent in so many groups an interval.
const BEAT_GROUPS: u64 = 32;
/// How often somebody who watches is told how far it is, in events.
const TELL_EVERY: u64 = 4_096;

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    /// The region's commit is durable.
    Commit {
        life: u32,
    },
    /// The next changes reach the NCM.
    Feed {
        epoch: u32,
    },
    /// What the NCM has for the region reaches it.
    Outbox {
        epoch: u32,
    },
    /// The NCM is told that time has passed.
    Tick {
        epoch: u32,
    },
    /// The NCM looks which gateways are there.
    Pulse {
        epoch: u32,
    },
    /// A gateway's probe is answered by another one.
    ProbeAnswer {
        actor: u32,
        life: u32,
        probe: alcor_agent::probe::Probe,
    },
    /// It is looked to whom hosts send.
    Look,
    /// The NCM's process runs.
    NcmStarts {
        epoch: u32,
    },
    /// The NCM asks for all of the region.
    Subscribe {
        epoch: u32,
    },
    /// A host without an agent opens a session.
    Connect {
        actor: u32,
    },
    /// The next message of a session reaches the NCM.
    ToNcm {
        actor: u32,
        session: u64,
    },
    /// The next message of a session reaches its host.
    ToHost {
        actor: u32,
        session: u64,
    },
    /// The NCM hears that a session is over.
    NcmClosed {
        session: u64,
    },
    /// A host hears that its session is over.
    HostClosed {
        actor: u32,
        session: u64,
    },
    /// A host has heard nothing from its session for long.
    Silence {
        actor: u32,
        session: u64,
    },
    /// An agent's deadline.
    Wake {
        actor: u32,
        life: u32,
    },
    /// A data plane has done a piece of work.
    Work {
        actor: u32,
        life: u32,
    },
    /// A group of hosts without agents says that it is there.
    Beats {
        group: u64,
    },
    /// A virtual machine's device comes or goes.
    Plug {
        port: Id<Port>,
        host: u32,
    },
    Unplug {
        port: Id<Port>,
        host: u32,
    },
    /// More of the ports that there are at the beginning.
    Load,
    /// Somebody does something, and the next of its kind is arranged.
    Churn(churn::Kind),
    /// A packet is sent.
    Pair,
    /// A packet comes out of a tunnel.
    Packet {
        host: u32,
        packet: Box<traffic::InTunnel>,
    },
    /// Something goes wrong.
    Fault(faults::Fault),
    /// A host is switched on again.
    HostReturns {
        actor: u32,
    },
    /// An agent's process runs again.
    AgentReturns {
        actor: u32,
        life: u32,
    },
    /// The controller's process runs again.
    ControllerReturns,
    /// An agent that lies does.
    Lie {
        actor: u32,
    },
}

#[derive(Debug)]
struct Scheduled {
    at: Us,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A host of either kind, or somebody who pretends to be one.
enum Kind {
    Full(Box<Full>),
    Light(Light),
    /// Whose name it has, when it has a real host's.
    Liar(Option<u32>),
}

/// Somebody who has sessions with the NCM.
struct Actor {
    kind: Kind,
    wire: Wire,
    /// Counts deaths, so that what was arranged before is known to be old.
    life: u32,
    is_on: bool,
}

/// A run.
pub struct Sim {
    scenario: Scenario,
    rng: Rng,
    now: Us,
    queue: BinaryHeap<Reverse<Scheduled>>,
    /// Events that were arranged.
    arranged: u64,
    /// Events that happened.
    happened: u64,
    /// The last events with their numbers and times; made text of when somebody wants to read them.
    remembered: VecDeque<(u64, Us, Event)>,
    /// Only the events up to this one are wanted.
    until: Option<u64>,
    cloud: Cloud,
    ledger: Ledger,
    ncm: NcmActor,
    actors: Vec<Actor>,
    people: People,
    wayfarers: Wayfarers,
    /// What liars have heard of real hosts.
    overheard: BTreeMap<u32, lies::Streams>,
    /// Snapshots that hosts have some parts of.
    partials: partial::Partials,
    gateways: gateways::Gateways,
    /// Churn, traffic and faults go on until then.
    busy_until: Us,
    figures: Figures,
    violations: Vec<Violation>,
}

impl Sim {
    /// A run of a scenario; nothing has happened yet.
    pub fn new(scenario: Scenario) -> Self {
        let mut rng = Rng::new(scenario.seed);
        let hosts = scenario.hosts.count;
        let full = |host| Kind::Full(Box::new(Full::new(host, host >= hosts, 0, BEGIN_UNIX_US)));
        let kinds = (0..hosts).map(|host| match host < scenario.hosts.full {
            true => full(host),
            false => Kind::Light(Light::default()),
        });
        let liars = (0..scenario.faults.liars).map(|_| Kind::Liar(None));
        let gateways = hosts + scenario.faults.liars..hosts + scenario.faults.liars + scenario.gateways.count;
        let actors = kinds
            .chain(liars)
            .chain(gateways.clone().map(full))
            .map(|kind| Actor {
                kind,
                wire: Wire::default(),
                life: 0,
                is_on: true,
            });
        Self {
            cloud: Cloud::new(rng.next()),
            ncm: NcmActor::new(&scenario.ncm),
            people: People::new(&scenario),
            actors: actors.collect(),
            ledger: Ledger::default(),
            wayfarers: Wayfarers::default(),
            overheard: BTreeMap::new(),
            partials: partial::Partials::default(),
            gateways: gateways::Gateways::new(gateways),
            now: 0,
            queue: BinaryHeap::new(),
            arranged: 0,
            happened: 0,
            remembered: VecDeque::with_capacity(REMEMBERED),
            until: None,
            busy_until: 0,
            figures: Figures::default(),
            violations: Vec::new(),
            rng,
            scenario,
        }
    }

    /// Ends the run after this event, as if it were a violation: to look at what led to it.
    pub const fn stop_after(&mut self, event: u64) {
        self.until = Some(event);
    }

    /// Runs to the end, or to the first violations. `tell` is told from time to time how far it is.
    pub fn run(mut self, tell: &mut dyn FnMut(Progress)) -> Outcome {
        self.begin();
        for _ in 0..self.scenario.rounds {
            self.round(tell);
            if self.is_over() {
                break;
            }
        }
        self.finish_figures();
        Outcome {
            level: Level::VirtualTime,
            seed: self.scenario.seed,
            events: self.happened,
            virtual_us: self.now,
            last_events: self.last_events(),
            figures: self.figures,
            violations: self.violations,
        }
    }

    fn is_over(&self) -> bool {
        self.violations.len() >= VIOLATIONS_MAX || self.until.is_some_and(|until| self.happened >= until)
    }

    /// Everything starts; hosts say hello, then ports come.
    fn begin(&mut self) {
        if let Err(refusal) = self.cloud.begin() {
            self.violate(format!("the region does not begin: {refusal}"));
        }
        self.ncm_starts_soon();
        let ramp = to_us(self.scenario.hosts.ramp_s).max(1);
        for actor in 0..self.scenario.hosts.count {
            let at = self.rng.below(ramp);
            self.first_hello(actor, at);
        }
        for actor in self.gateways.actors() {
            let at = self.rng.below(ramp);
            self.first_hello(actor, at);
        }
        if !self.gateways.are_none() {
            self.at(ramp, Event::Look);
        }
        for group in 0..BEAT_GROUPS {
            let at = self.ncm.heartbeat_us() * group / BEAT_GROUPS;
            self.at(at, Event::Beats { group });
        }
        self.make_projects();
        self.at(ramp, Event::Load);
    }

    /// A round: the ports of the beginning (in the first one), churn and faults, rest, and the checks at rest.
    fn round(&mut self, tell: &mut dyn FnMut(Progress)) {
        while self.people.is_loading() && !self.is_over() {
            self.advance(self.now + 100_000, tell);
        }
        self.settle("after the beginning", tell);
        self.busy_until = self.now + to_us(self.scenario.duration_s);
        self.arrange_churn();
        self.arrange_faults();
        self.arrange_traffic();
        self.advance(self.busy_until, tell);
        self.heal();
        self.settle("after churn and faults", tell);
        self.outage(tell);
    }

    /// Lets time pass until all is at rest, and checks what must hold then.
    fn settle(&mut self, when: &str, tell: &mut dyn FnMut(Progress)) {
        let end = self.now + to_us(self.scenario.settle_s);
        let mut rest = 0;
        while self.now < end && !self.is_over() {
            self.advance((self.now + 500_000).min(end), tell);
            rest = match self.restless() {
                None => rest + 1,
                Some(_) => 0,
            };
            if rest >= 3 {
                break;
            }
        }
        if self.is_over() {
            return;
        }
        if let Some(why) = self.restless() {
            self.violate(format!(
                "{when}: not at rest after {} s: {why}",
                self.scenario.settle_s
            ));
        }
        self.check_at_rest(when);
        self.probe(when, tell);
    }

    /// Everything up to a moment happens.
    fn advance(&mut self, until: Us, tell: &mut dyn FnMut(Progress)) {
        while let Some(Reverse(next)) = self.queue.peek()
            && next.at <= until
            && !self.is_over()
        {
            let Some(Reverse(next)) = self.queue.pop() else {
                break;
            };
            self.now = next.at;
            self.cloud.set_clock(self.unix_us());
            self.happened += 1;
            self.remember(&next.event);
            self.happen(next.event);
            if self.happened.is_multiple_of(TELL_EVERY) {
                tell(self.progress());
            }
        }
        self.now = self.now.max(until);
    }

    fn remember(&mut self, event: &Event) {
        if matches!(event, Event::Beats { .. }) {
            return;
        }
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        let event = (self.happened, self.now, event.clone());
        self.remembered.push_back(event);
    }

    fn progress(&self) -> Progress {
        Progress {
            at_us: self.now,
            events: self.happened,
            ports: self.cloud.state().ports().len() as u64,
            sessions: self.ncm.sessions() as u64,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Commit { life } => self.commit(life),
            Event::Feed { epoch } => self.feed(epoch),
            Event::Outbox { epoch } => self.outbox(epoch),
            Event::Tick { epoch } => self.tick(epoch),
            Event::Pulse { epoch } => self.pulse(epoch),
            Event::ProbeAnswer { actor, life, probe } => self.probe_answered(actor, life, probe),
            Event::Look => self.look(),
            Event::NcmStarts { epoch } => self.ncm_starts(epoch),
            Event::Subscribe { epoch } => self.subscribe(epoch),
            Event::Connect { actor } => self.connect_light(actor),
            Event::ToNcm { actor, session } => self.reaches_ncm(actor, session),
            Event::ToHost { actor, session } => self.reaches_host(actor, session),
            Event::NcmClosed { session } => self.ncm_closed(session),
            Event::HostClosed { actor, session } => self.host_closed(actor, session),
            Event::Silence { actor, session } => self.silence(actor, session),
            Event::Wake { actor, life } => self.wake(actor, life),
            Event::Work { actor, life } => self.work(actor, life),
            Event::Beats { group } => self.beats(group),
            Event::Plug { port, host } => self.plug(port, host),
            Event::Unplug { port, host } => self.unplug(port, host),
            Event::Load => self.load(),
            Event::Churn(kind) => self.churn(kind),
            Event::Pair => self.pair(),
            Event::Packet { host, packet } => self.packet(host, &packet),
            Event::Fault(fault) => self.fault(fault),
            Event::HostReturns { actor } => self.host_returns(actor),
            Event::AgentReturns { actor, life } => self.agent_returns(actor, life),
            Event::ControllerReturns => self.controller_returns(),
            Event::Lie { actor } => self.lie(actor),
        }
    }

    /// Arranges an event after a delay.
    fn after(&mut self, delay: Us, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Us, event: Event) {
        self.arranged += 1;
        self.queue.push(Reverse(Scheduled {
            at: at.max(self.now),
            number: self.arranged,
            event,
        }));
    }

    /// True time, in microseconds since the Unix epoch.
    const fn unix_us(&self) -> u64 {
        BEGIN_UNIX_US + self.now
    }

    fn message_delay(&mut self) -> Us {
        let delays = &self.scenario.delays;
        let (usual, slow, share) = (delays.message_us, delays.slow_us, delays.slow_share);
        // When faults rest, the way is good.
        match share > 0.0 && self.now < self.busy_until && self.rng.chance(share) {
            true => self.rng.between(slow),
            false => self.rng.between(usual),
        }
    }

    fn last_events(&self) -> Vec<String> {
        let events = self.remembered.iter();
        let text = events.map(|(number, at, event)| format!("{number} at {at} us: {event:?}"));
        text.collect()
    }

    fn violate(&mut self, what: String) {
        let before = self.last_events();
        self.violations.push(Violation {
            event: self.happened,
            at_us: self.now,
            what,
            before,
        });
    }

    fn actor(&mut self, actor: u32) -> &mut Actor {
        &mut self.actors[actor as usize]
    }
}

impl Sim {
    /// What is known only at the end.
    fn finish_figures(&mut self) {
        let state = self.cloud.state();
        let (ports, hosts) = (state.ports().len() as u64, state.hosts().len() as u64);
        self.figures.set("ports", ports);
        self.figures.set("hosts", hosts);
    }
}
