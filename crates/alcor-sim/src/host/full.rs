//! A host or a gateway with a real agent and a model data plane. What the agent's shell does (work for the data plane one after
//! another, links, the clock) is done here by hand; messages are the engine's.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use alcor_agent::{
    core::{Action, Agent, Event, Now, Settings},
    devices::Link,
    incarnation,
    probe::Probe,
};
use alcor_dataplane::{
    DataplaneError, DropReason, Event as Told, Ingress, Row, RowKey, Verdict, gateway::GatewayModel,
    model::Model,
};
use alcor_model::{Id, Network, Port};
use tokio::sync::mpsc;

use super::{Carried, name, plane::Plane, tunnel_ip};
use crate::clock::Us;

/// The set that all gateways of a simulation are in.
pub(crate) const GATEWAY_SET: &str = "default";
/// How long DHCP leases are; nobody waits for their end.
const LEASE: Duration = Duration::from_secs(86_400);

/// The host.
pub(crate) struct Full {
    host: u32,
    /// Of the agent that runs; the file in which it keeps that is lost with the host.
    incarnation: u64,
    agent: Agent,
    plane: Plane,
    is_gateway: bool,
    events: Option<mpsc::Receiver<Told>>,
    /// Work that the data plane has not done yet, in order.
    backlog: VecDeque<Action>,
    /// The devices of virtual machines, with their interface index.
    links: BTreeMap<Id<Port>, u32>,
    indexes: u32,
    started_at: Us,
    /// When it was last told of the time.
    model_at: Us,
    /// When it wants to be woken, if that is arranged.
    pub(crate) wake_at: Option<Us>,
    /// The agent's number of the session that runs or is being opened.
    pub(crate) session: u64,
    /// How far its clock is from the true time, in microseconds.
    pub(crate) clock_off_us: i64,
}

/// What the engine has to do for a host.
pub(crate) enum Wants {
    /// Open a session.
    Connect(alcor_proto::v1::Hello),
    /// Ask another gateway's data plane whether it is there.
    Probe(Probe),
    /// Send a message on it.
    Send(alcor_proto::v1::agent_message::Body),
    /// End it; why is not said.
    Close,
    /// Have the data plane work after a while.
    Work,
}

fn settings(host: u32, incarnation: u64, is_gateway: bool) -> Settings {
    Settings {
        host: name(host),
        incarnation,
        tunnel_ip: tunnel_ip(host),
        availability_zone: "nova".to_owned(),
        dataplane: "model".to_owned(),
        filters: !is_gateway,
        lease: LEASE,
        gateway_set: is_gateway.then(|| GATEWAY_SET.to_owned()),
        external_networks: BTreeSet::new(),
    }
}

impl Full {
    /// A host or a gateway that was just switched on.
    pub(crate) fn new(host: u32, is_gateway: bool, now: Us, unix_us: u64) -> Self {
        let mut plane = match tunnel_ip(host) {
            IpAddr::V4(ip) if is_gateway => Plane::Gateway(Box::new(GatewayModel::new(ip, true)), ip),
            _ => Plane::Host(Box::default()),
        };
        let events = plane.all().events();
        let settings = settings(host, unix_us, is_gateway);
        Self {
            host,
            incarnation: unix_us,
            agent: Agent::new(settings, alcor_dataplane::Snapshot::default()),
            plane,
            is_gateway,
            events,
            backlog: VecDeque::new(),
            links: BTreeMap::new(),
            indexes: 0,
            started_at: now,
            model_at: now,
            wake_at: None,
            session: 0,
            clock_off_us: 0,
        }
    }

    pub(crate) const fn is_gateway(&self) -> bool {
        self.is_gateway
    }

    /// The agent dies and a new one adopts what the data plane has.
    pub(crate) fn restart_agent(&mut self, now: Us, unix_us: u64) {
        let snapshot = self.plane.all().snapshot().unwrap_or_default();
        self.incarnation = incarnation::next(Some(self.incarnation), unix_us);
        self.agent = Agent::new(settings(self.host, self.incarnation, self.is_gateway), snapshot);
        self.backlog.clear();
        (self.started_at, self.wake_at, self.session) = (now, None, 0);
    }

    /// All devices that there are, as the agent is told at its start.
    pub(crate) fn all_links(&self) -> Event {
        let links = self.links.iter().map(|(port, index)| Link {
            index: *index,
            name: Port::device_name(*port),
            up: true,
        });
        Event::Links(links.collect())
    }

    /// A device comes.
    pub(crate) fn plug(&mut self, port: Id<Port>) -> Event {
        self.indexes += 1;
        self.links.insert(port, self.indexes);
        let name = Port::device_name(port);
        self.set_device_present(&name, true);
        Event::Link(Link {
            index: self.indexes,
            name,
            up: true,
        })
    }

    /// A device goes; nothing when there is none.
    pub(crate) fn unplug(&mut self, port: Id<Port>) -> Option<Event> {
        self.links.remove(&port)?;
        let name = Port::device_name(port);
        self.set_device_present(&name, false);
        Some(Event::LinkGone(name))
    }

    fn set_device_present(&mut self, name: &str, present: bool) {
        if let Some(model) = self.plane.host() {
            model.set_device_present(name, present);
        }
    }

    pub(crate) fn has_device(&self, port: Id<Port>) -> bool {
        self.links.contains_key(&port)
    }

    fn now(&self, now: Us, unix_us: u64) -> Now {
        Now {
            since_start: Duration::from_micros(now.saturating_sub(self.started_at)),
            unix_us: unix_us.saturating_add_signed(self.clock_off_us),
        }
    }

    /// The agent takes an event.
    pub(crate) fn step(&mut self, now: Us, unix_us: u64, event: Event) -> Vec<Wants> {
        let at = self.now(now, unix_us);
        let mut wants = Vec::new();
        for action in self.agent.step(at, event) {
            match action {
                Action::Connect { session, hello } => {
                    self.session = session;
                    wants.push(Wants::Connect(hello));
                }
                Action::Probe(probe) => wants.push(Wants::Probe(probe)),
                Action::Close { session } if session == self.session => wants.push(Wants::Close),
                Action::Send { session, message } if session == self.session => {
                    wants.extend(message.body.map(Wants::Send));
                }
                Action::Close { .. }
                | Action::Send { .. }
                | Action::Answer { .. }
                | Action::ReadLoad
                | Action::LinkUp { .. } => {}
                work => {
                    if self.backlog.is_empty() {
                        wants.push(Wants::Work);
                    }
                    self.backlog.push_back(work);
                }
            }
        }
        wants
    }

    /// The data plane does the oldest piece of work; gives what the agent is told of it.
    pub(crate) fn work(&mut self, unix_us: u64) -> Option<Event> {
        let visible_us = unix_us.saturating_add_signed(self.clock_off_us);
        let text = |outcome: Result<(), DataplaneError>| outcome.map_err(|error| error.to_string());
        let plane = self.plane.all();
        match self.backlog.pop_front()? {
            Action::Apply { batch, changes } => Some(Event::Applied {
                batch,
                visible_us,
                outcomes: plane.apply(&changes).into_iter().map(text).collect(),
            }),
            Action::Attach { port, token, device } => Some(Event::Attached {
                port,
                token,
                visible_us,
                outcome: text(plane.attach(port, &device)),
            }),
            Action::Detach { port, token } => Some(Event::Detached {
                port,
                token,
                outcome: text(plane.detach(port)),
            }),
            Action::Inject { port, frame } => {
                let refused = plane.inject(port, &frame).is_err();
                refused.then_some(Event::InjectRefused)
            }
            Action::Release { frames } => {
                let refused = frames
                    .iter()
                    .filter(|(port, frame)| plane.release(*port, frame).is_err());
                let refused = refused.count();
                Some(Event::Released {
                    sent: (frames.len() - refused) as u64,
                    refused: refused as u64,
                })
            }
            Action::TakeUsed { keys } => {
                let outcome = plane.take_used(&keys).map_err(|error| error.to_string());
                Some(Event::Used { keys, outcome })
            }
            _ => None,
        }
    }

    /// What became of frames that were held and sent on since the last call.
    pub(crate) fn released(&mut self) -> Vec<(Id<Port>, Verdict)> {
        self.plane.host().map(Model::take_released).unwrap_or_default()
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// When the agent wants to be told of the time.
    pub(crate) fn deadline(&self) -> Option<Us> {
        let at = self.agent.deadline()?;
        Some(self.started_at + u64::try_from(at.as_micros()).unwrap_or(u64::MAX / 2))
    }

    pub(crate) fn is_welcome(&self) -> bool {
        self.agent.has_session()
    }

    /// A frame takes its way through the data plane of a host.
    pub(crate) fn process(&mut self, now: Us, ingress: Ingress, frame: &[u8]) -> Verdict {
        let passed = now.saturating_sub(self.model_at);
        self.model_at = now;
        let Some(model) = self.plane.host() else {
            return Verdict::Drop(DropReason::NoLocalPort);
        };
        model.advance(Duration::from_micros(passed));
        model.process(ingress, frame)
    }

    /// A gateway takes a packet out of a tunnel: to whom it goes on, or why not.
    pub(crate) fn forward(&mut self, source: IpAddr, carried: &Carried) -> Result<(IpAddr, Carried), String> {
        self.plane.forward(source, carried)
    }

    /// What the data plane has told since the last call.
    pub(crate) fn told(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(event) = self.events.as_mut().and_then(|events| events.try_recv().ok()) {
            told.push(event);
        }
        told
    }

    /// Whether a row is in force.
    pub(crate) fn has(&mut self, key: &RowKey) -> bool {
        self.rows().iter().any(|row| row.key() == *key)
    }

    /// The rows in force.
    pub(crate) fn rows(&mut self) -> Vec<Row> {
        self.plane
            .all()
            .snapshot()
            .map(|snapshot| snapshot.rows)
            .unwrap_or_default()
    }

    /// The rows of a network that are in force.
    pub(crate) fn rows_of(&mut self, network: Id<Network>) -> Vec<Row> {
        let mut rows = self.rows();
        rows.retain(|row| row.key().network_id() == network);
        rows
    }
}
