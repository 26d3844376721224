//! Local ports: which device each has, which condition follows from row and device, who waits for it.

use std::{collections::BTreeMap, time::Duration};

use alcor_model::{Id, Port, Revision};
use alcor_proto::v1::{self, PortCondition};
use serde_json::{Value, json};

use super::{Action, Agent, MAX_PORTS, Now, punts::Bucket};
use crate::{
    devices::Link,
    readout::Reading,
    request::{Attach, MAX_DEVICE_NAME, MAX_WAIT_MS, Request, is_device_name},
    table::State,
};

/// Most clients that may wait for an answer.
pub const MAX_WAITERS: usize = 256;

/// What the agent keeps of a local port besides its row.
#[derive(Debug)]
pub(super) struct PortState {
    /// The name by which its device is found.
    name: String,
    /// The device that a client of the local socket gave it.
    requested: Option<String>,
    /// A client took its device away: the one found by name is not taken back until it is a new one.
    suppressed: bool,
    device: Device,
    /// Why its link cannot be set up.
    link_error: Option<String>,
    /// What the NCM was told last in this session.
    pub(super) reported: Option<Condition>,
    /// When its row or device last came into force, microseconds since the Unix epoch.
    pub(super) visible_us: u64,
    /// When the next unsolicited router advertisement is due.
    pub(super) advertise_at: Option<Duration>,
    /// Limits ICMP errors.
    pub(super) errors: Bucket,
    /// Limits what it makes the agent ask.
    pub(super) questions: Bucket,
}

impl PortState {
    const fn new(name: String) -> Self {
        Self {
            name,
            requested: None,
            suppressed: false,
            device: Device::None,
            link_error: None,
            reported: None,
            visible_us: 0,
            advertise_at: None,
            errors: Bucket::errors(),
            questions: Bucket::questions(),
        }
    }
}

/// What the data plane said about a port's device.
#[derive(Debug, Default, PartialEq, Eq)]
enum Device {
    #[default]
    None,
    Attaching {
        name: String,
        token: u64,
    },
    Attached {
        name: String,
    },
    Failed {
        name: String,
        reason: String,
    },
}

impl Device {
    fn name(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Attaching { name, .. } | Self::Attached { name } | Self::Failed { name, .. } => Some(name),
        }
    }
}

/// Condition of a port: what the NCM and clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    revision: Revision,
    condition: PortCondition,
    reason: String,
}

/// A client that waits for a port.
#[derive(Debug)]
pub(super) struct Waiter {
    port: Id<Port>,
    /// The detach it waits for; else it waits for the port to be wired or refused.
    detach: Option<u64>,
    pub(super) deadline: Duration,
}

impl Agent {
    pub(super) fn adopt_ports(&mut self, devices: BTreeMap<Id<Port>, String>) {
        for port in self.table.ports().collect::<Vec<_>>() {
            self.port_entry(port);
        }
        for (port, name) in devices {
            let state = self.port_entry(port);
            if name != state.name {
                state.requested = Some(name.clone());
            }
            state.device = Device::Attached { name };
        }
    }

    fn port_entry(&mut self, port: Id<Port>) -> &mut PortState {
        let new = || PortState::new(Port::device_name(port));
        self.ports.entry(port).or_insert_with(new)
    }

    /// A port's row is wanted: it may have a device.
    pub(super) fn port_wanted(&mut self, now: Now, port: Id<Port>, out: &mut Vec<Action>) {
        self.port_entry(port);
        self.settle(now, port, out);
    }

    /// A port's row is gone: so is its device.
    pub(super) fn port_removed(&mut self, now: Now, port: Id<Port>, out: &mut Vec<Action>) {
        let Some(state) = self.ports.remove(&port) else {
            return;
        };
        if state.device.name().is_some() {
            self.tokens += 1;
            out.push(Action::Detach {
                port,
                token: self.tokens,
            });
        }
        let gone: Vec<u64> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| waiter.port == port)
            .map(|(client, _)| *client)
            .collect();
        for client in gone {
            self.answer(client, error("the port was taken from this host"), out);
        }
        // Another port may have waited for the name.
        self.settle_named(now, &state.name, out);
    }

    fn settle_named(&mut self, now: Now, name: &str, out: &mut Vec<Action>) {
        let ports = self.ports.iter().filter(|(_, state)| {
            state.name == name
                || state.requested.as_deref() == Some(name)
                || state.device.name() == Some(name)
        });
        for port in ports.map(|(port, _)| *port).collect::<Vec<_>>() {
            self.settle(now, port, out);
        }
    }

    /// The device that the port should have now.
    fn wanted_device(&self, port: Id<Port>) -> Option<String> {
        let state = self.ports.get(&port)?;
        if let Some(requested) = &state.requested {
            return Some(requested.clone());
        }
        let there = match &self.links {
            Some(links) => links.contains_key(&state.name),
            // Not looked yet: what was attached before the restart stays.
            None => state.device.name() == Some(&state.name),
        };
        let has = state.device.name() == Some(&state.name);
        let wanted = there
            && !state.suppressed
            && self.table.port(port).is_some()
            && !self.in_use(port, &state.name)
            && (has || self.same_name(port).is_none());
        wanted.then(|| state.name.clone())
    }

    /// Whether another port has the device.
    fn in_use(&self, port: Id<Port>, device: &str) -> bool {
        self.ports.iter().any(|(other, state)| {
            *other != port
                && (state.requested.as_deref() == Some(device) || state.device.name() == Some(device))
        })
    }

    /// Another wanted port whose device would have the same name: ids that are the same in 11 characters.
    fn same_name(&self, port: Id<Port>) -> Option<Id<Port>> {
        let name = &self.ports.get(&port)?.name;
        let mut others = self.ports.iter().filter(|(other, state)| {
            **other != port && state.name == *name && self.table.port(**other).is_some()
        });
        others.next().map(|(other, _)| *other)
    }

    /// Brings the port's device to what it should be, and tells who wants to know.
    fn settle(&mut self, now: Now, port: Id<Port>, out: &mut Vec<Action>) {
        let wanted = self.wanted_device(port);
        let Some(state) = self.ports.get_mut(&port) else {
            return;
        };
        if wanted.as_deref() != state.device.name() {
            self.tokens += 1;
            state.link_error = None;
            match &wanted {
                Some(device) => {
                    state.device = Device::Attaching {
                        name: device.clone(),
                        token: self.tokens,
                    };
                    out.push(Action::Attach {
                        port,
                        token: self.tokens,
                        device: device.clone(),
                    });
                }
                None => {
                    state.device = Device::None;
                    out.push(Action::Detach {
                        port,
                        token: self.tokens,
                    });
                }
            }
        }
        if let Some(link) = wanted.and_then(|name| self.links.as_ref()?.get(&name))
            && !link.up
            && self
                .ports
                .get(&port)
                .is_some_and(|state| state.link_error.is_none())
        {
            out.push(Action::LinkUp {
                index: link.index,
                name: link.name.clone(),
            });
        }
        self.refresh(now, port, false, out);
    }

    pub(super) fn attached(
        &mut self,
        now: Now,
        port: Id<Port>,
        token: u64,
        visible_us: u64,
        outcome: Result<(), String>,
        out: &mut Vec<Action>,
    ) {
        let Some(state) = self.ports.get_mut(&port) else {
            return;
        };
        let Device::Attaching {
            name,
            token: expected,
        } = &state.device
        else {
            return;
        };
        if *expected != token {
            return;
        }
        let name = name.clone();
        state.visible_us = visible_us;
        if let Err(reason) = &outcome {
            tracing::warn!(%port, device = name, reason, "device not attached");
        }
        state.device = match outcome {
            Ok(()) => Device::Attached { name },
            Err(reason) => Device::Failed { name, reason },
        };
        if matches!(state.device, Device::Failed { .. }) {
            self.retry_later(now);
        }
        self.refresh(now, port, false, out);
    }

    pub(super) fn detached(
        &mut self,
        now: Now,
        port: Id<Port>,
        token: u64,
        outcome: Result<(), String>,
        out: &mut Vec<Action>,
    ) {
        if let Err(reason) = &outcome {
            tracing::warn!(%port, reason, "device not detached; it may still carry packets");
        }
        let waiting = self
            .waiters
            .iter()
            .find(|(_, waiter)| waiter.detach == Some(token));
        if let Some(client) = waiting.map(|(client, _)| *client) {
            let body = match outcome {
                Ok(()) => json!({"ok": true, "port_id": port}),
                Err(reason) => error(&reason),
            };
            self.answer(client, body, out);
        }
        self.refresh(now, port, false, out);
    }

    /// Tries failed devices again.
    pub(super) fn retry_devices(&mut self, now: Now, out: &mut Vec<Action>) {
        let failed = self
            .ports
            .iter_mut()
            .filter_map(|(port, state)| match state.device {
                Device::Failed { .. } => {
                    state.device = Device::None;
                    Some(*port)
                }
                _ => None,
            });
        for port in failed.collect::<Vec<_>>() {
            self.settle(now, port, out);
        }
        // The error stays said until the link is up: its condition must not flap with each try.
        for state in self.ports.values().filter(|state| state.link_error.is_some()) {
            let link = state
                .device
                .name()
                .and_then(|name| self.links.as_ref()?.get(name));
            if let Some(link) = link.filter(|link| !link.up) {
                out.push(Action::LinkUp {
                    index: link.index,
                    name: link.name.clone(),
                });
            }
        }
    }

    pub(super) fn all_links(&mut self, now: Now, links: Vec<Link>, out: &mut Vec<Action>) {
        let fresh: BTreeMap<String, Link> = links.into_iter().map(|link| (link.name.clone(), link)).collect();
        let mut gone: Vec<String> = match self.links.take() {
            Some(known) => known
                .into_keys()
                .filter(|name| !fresh.contains_key(name))
                .collect(),
            // First look: what was adopted may have gone while nobody looked.
            None => self
                .ports
                .values()
                .filter_map(|state| state.device.name())
                .map(str::to_owned)
                .collect(),
        };
        gone.retain(|name| !fresh.contains_key(name));
        self.links = Some(fresh);
        for name in gone {
            self.link_gone(now, &name, out);
        }
        for port in self.ports.keys().copied().collect::<Vec<_>>() {
            self.settle(now, port, out);
        }
    }

    pub(super) fn link(&mut self, now: Now, link: Link, out: &mut Vec<Action>) {
        let name = link.name.clone();
        let known = self.links.as_ref().and_then(|links| links.get(&name));
        if known == Some(&link) {
            return;
        }
        // A new device under a known name: the old one went and nobody said so.
        if known.is_some_and(|known| known.index != link.index) {
            self.link_gone(now, &name, out);
        }
        self.links.get_or_insert_default().insert(name.clone(), link);
        for state in self
            .ports
            .values_mut()
            .filter(|state| state.device.name() == Some(&name))
        {
            state.link_error = None;
        }
        self.settle_named(now, &name, out);
    }

    pub(super) fn link_gone(&mut self, now: Now, name: &str, out: &mut Vec<Action>) {
        if let Some(links) = &mut self.links {
            links.remove(name);
        }
        for state in self.ports.values_mut() {
            // The name may come back as somebody else's device: a client has to ask again.
            if state.requested.as_deref() == Some(name) {
                state.requested = None;
            }
            if state.name == name {
                state.suppressed = false;
            }
        }
        self.settle_named(now, name, out);
        // Ports that only a client knew of need no memory without their device.
        let table = &self.table;
        self.ports.retain(|port, state| {
            table.port(*port).is_some() || state.requested.is_some() || state.device != Device::None
        });
    }

    pub(super) fn link_refused(&mut self, now: Now, name: &str, reason: &str, out: &mut Vec<Action>) {
        let ports = self
            .ports
            .iter_mut()
            .filter(|(_, state)| state.device.name() == Some(name));
        let ports: Vec<Id<Port>> = ports
            .map(|(port, state)| {
                state.link_error = Some(reason.to_owned());
                *port
            })
            .collect();
        if !ports.is_empty() {
            self.retry_later(now);
        }
        for port in ports {
            self.refresh(now, port, false, out);
        }
    }

    /// The port's condition; `None` while an answer of the data plane is due or nothing is known.
    fn condition(&self, port: Id<Port>) -> Option<Condition> {
        let entry = self.table.port_entry(port)?;
        let state = self.ports.get(&port)?;
        let (condition, reason) = match (&entry.state, &state.device) {
            (State::Pending, _) | (State::InForce, Device::Attaching { .. }) => return None,
            (State::Refused(reason), _) => (PortCondition::Failed, reason.clone()),
            (State::InForce, Device::Failed { reason, .. }) => (PortCondition::Failed, reason.clone()),
            (State::InForce, Device::Attached { name }) => self.link_condition(name, state),
            (State::InForce, Device::None) => match self.same_name(port) {
                Some(other) => (
                    PortCondition::Failed,
                    format!(
                        "port {other} has a device of the same name, {}; attach both through the agent's socket",
                        state.name
                    ),
                ),
                None if state.suppressed => (
                    PortCondition::NoDevice,
                    "its device was taken away through the agent's socket".to_owned(),
                ),
                None => (
                    PortCondition::NoDevice,
                    format!("no device {} on this host", state.name),
                ),
            },
        };
        Some(Condition {
            revision: entry.revision.unwrap_or_default(),
            condition,
            reason,
        })
    }

    fn link_condition(&self, name: &str, state: &PortState) -> (PortCondition, String) {
        match (
            &state.link_error,
            self.links.as_ref().and_then(|links| links.get(name)),
        ) {
            (Some(reason), _) => (
                PortCondition::Failed,
                format!("device {name} cannot be set up: {reason}"),
            ),
            (None, Some(link)) if !link.up => (PortCondition::NoDevice, format!("device {name} is down")),
            (None, _) => (PortCondition::Wired, String::new()),
        }
    }

    /// Tells the NCM and waiting clients when the port's condition is another one (or always, with `force`).
    pub(super) fn refresh(&mut self, now: Now, port: Id<Port>, force: bool, out: &mut Vec<Action>) {
        let Some(condition) = self.condition(port) else {
            return;
        };
        let session = self.open_session();
        let Some(state) = self.ports.get_mut(&port) else {
            return;
        };
        let wired = condition.condition == PortCondition::Wired;
        if wired && state.advertise_at.is_none() {
            state.advertise_at = Some(now.since_start);
            self.advertise_due(now, out);
        } else if !wired {
            state.advertise_at = None;
        }
        let Some(state) = self.ports.get_mut(&port) else {
            return;
        };
        // An adopted row has no revision yet; the snapshot brings it.
        if let Some(session) = session
            && condition.revision != Revision::ZERO
            && (force || state.reported.as_ref() != Some(&condition))
        {
            state.reported = Some(condition.clone());
            let body = v1::agent_message::Body::PortReport(v1::PortReport {
                port_id: port.uuid().as_bytes().to_vec().into(),
                revision: condition.revision.0,
                condition: condition.condition.into(),
                reason: condition.reason.clone(),
                visible_us: state.visible_us,
            });
            out.push(Action::Send {
                session,
                message: v1::AgentMessage { body: Some(body) },
            });
        }
        if condition.condition != PortCondition::NoDevice {
            self.answer_waiters(port, out);
        }
    }

    fn answer_waiters(&mut self, port: Id<Port>, out: &mut Vec<Action>) {
        let ready: Vec<u64> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| waiter.port == port && waiter.detach.is_none())
            .map(|(client, _)| *client)
            .collect();
        for client in ready {
            let body = self.attach_answer(port);
            self.answer(client, body, out);
        }
    }

    fn attach_answer(&self, port: Id<Port>) -> Value {
        match self.condition(port) {
            Some(Condition {
                condition: PortCondition::Failed,
                reason,
                ..
            }) => error(&reason),
            _ => {
                let mut body = self.port_state(port);
                body["ok"] = json!(true);
                body
            }
        }
    }

    pub(super) fn waiters_due(&mut self, now: Now, out: &mut Vec<Action>) {
        let due = self
            .waiters
            .iter()
            .filter(|(_, waiter)| waiter.deadline <= now.since_start);
        let due = due.map(|(client, waiter)| (*client, waiter.port, waiter.detach.is_some()));
        for (client, port, detach) in due.collect::<Vec<_>>() {
            let body = match detach {
                true => error("the data plane has not answered in time"),
                false => self.attach_answer(port),
            };
            self.answer(client, body, out);
        }
    }

    fn answer(&mut self, client: u64, body: Value, out: &mut Vec<Action>) {
        self.waiters.remove(&client);
        out.push(Action::Answer { client, body });
    }

    pub(super) fn request(&mut self, now: Now, client: u64, request: Request, out: &mut Vec<Action>) {
        match request {
            Request::State(_) => {
                let body = self.state();
                self.answer(client, body, out);
            }
            Request::Attach(attach) => {
                if let Err(reason) = self.attach(now, client, attach, out) {
                    self.answer(client, error(&reason), out);
                }
            }
            Request::Drops(_) => out.push(Action::Read {
                client,
                reading: Reading::Drops,
            }),
            Request::Connections(of) => out.push(Action::Read {
                client,
                reading: Reading::Connections(of.port_id),
            }),
            Request::Gateway(_) => out.push(Action::Read {
                client,
                reading: Reading::Gateway,
            }),
            Request::Detach(detach) => self.detach(now, client, detach.port_id, out),
        }
    }

    fn attach(&mut self, now: Now, client: u64, attach: Attach, out: &mut Vec<Action>) -> Result<(), String> {
        let Attach {
            port_id: port,
            device,
            wait_ms,
        } = attach;
        if !is_device_name(&device) {
            return Err(format!(
                "'{device}' is not the name of a device: 1 to {MAX_DEVICE_NAME} bytes without '/', ':' and blanks"
            ));
        }
        if wait_ms > MAX_WAIT_MS {
            return Err(format!("wait_ms is {wait_ms}; it must be at most {MAX_WAIT_MS}"));
        }
        if self.ports.len() >= MAX_PORTS && !self.ports.contains_key(&port) {
            return Err(format!(
                "this host has {MAX_PORTS} ports already; detach one first"
            ));
        }
        if self.waiters.len() >= MAX_WAITERS {
            return Err(format!("{MAX_WAITERS} clients wait already; ask again later"));
        }
        self.take_device_from_others(now, port, &device, out);
        let state = self.port_entry(port);
        (state.requested, state.suppressed) = (Some(device), false);
        // An earlier refusal is not the answer to this request.
        if matches!(state.device, Device::Failed { .. }) {
            state.device = Device::None;
        }
        let deadline = now.since_start + Duration::from_millis(u64::from(wait_ms));
        self.waiters.insert(
            client,
            Waiter {
                port,
                detach: None,
                deadline,
            },
        );
        self.settle(now, port, out);
        Ok(())
    }

    /// A device has one port: the one that a client gave it to last.
    fn take_device_from_others(&mut self, now: Now, port: Id<Port>, device: &str, out: &mut Vec<Action>) {
        let others = self.ports.iter_mut().filter(|(other, state)| {
            **other != port
                && (state.requested.as_deref() == Some(device) || state.device.name() == Some(device))
        });
        let others: Vec<Id<Port>> = others
            .map(|(other, state)| {
                (state.requested, state.suppressed) = (None, true);
                *other
            })
            .collect();
        for other in others {
            self.settle(now, other, out);
        }
    }

    fn detach(&mut self, now: Now, client: u64, port: Id<Port>, out: &mut Vec<Action>) {
        let Some(state) = self.ports.get_mut(&port) else {
            return self.answer(client, json!({"ok": true, "port_id": port}), out);
        };
        (state.requested, state.suppressed) = (None, true);
        if state.device.name().is_none() {
            self.answer(client, json!({"ok": true, "port_id": port}), out);
        } else if self.waiters.len() >= MAX_WAITERS {
            self.answer(
                client,
                error("too many clients wait already; ask again later"),
                out,
            );
        } else {
            self.settle(now, port, out);
            let deadline = now.since_start + Duration::from_millis(u64::from(MAX_WAIT_MS));
            self.waiters.insert(
                client,
                Waiter {
                    port,
                    detach: Some(self.tokens),
                    deadline,
                },
            );
        }
        // A port that only a client knew of needs no memory.
        if self.table.port(port).is_none() {
            self.ports.remove(&port);
        }
    }

    /// One port for people.
    pub(super) fn port_state(&self, port: Id<Port>) -> Value {
        let condition = self.condition(port);
        let text = match condition.as_ref().map(|condition| condition.condition) {
            Some(PortCondition::Wired) => "wired",
            Some(PortCondition::NoDevice) => "no_device",
            Some(PortCondition::Failed) => "failed",
            _ => "pending",
        };
        let reason = match &condition {
            Some(condition) => condition.reason.clone(),
            None if self.table.port(port).is_none() => "the NCM has not told of this port yet".to_owned(),
            None => "the data plane has not answered yet".to_owned(),
        };
        let device = self.ports.get(&port).and_then(|state| state.device.name());
        json!({
            "port_id": port,
            "device": device,
            "condition": text,
            "revision": condition.map(|condition| condition.revision),
            "reason": reason,
        })
    }
}

fn error(reason: &str) -> Value {
    json!({"error": reason})
}
