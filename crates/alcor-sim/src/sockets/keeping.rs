//! Agents over real sockets that keep what they are sent, as hosts of a simulation in virtual time do, and take orders. So whoever ordered
//! can compare what they have with what they must have. Not here: what that is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alcor_model::{Id, Port};
use alcor_proto::v1::{AgentMessage, Delta, Held, Resolve, Resolved, agent_message};
use alcor_southbound::convert::{encode_id, resolve::Question};
use tokio::sync::mpsc;

use super::{message, now_us, wired};
use crate::{clock::Us, host::light::Light};

/// What an agent is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Ask where somebody is, if nobody has asked yet.
    Ask(Question),
    /// End the session.
    Cut,
}

/// What all agents have, for those who compare.
#[derive(Debug)]
pub(crate) struct Kept {
    hosts: Vec<Mutex<Light>>,
    /// When the row of a port came to a host first, in microseconds since the epoch.
    came: Mutex<HashMap<(Id<Port>, u32), Us>>,
    /// How the NCM broke the protocol.
    broken: Mutex<Vec<String>>,
}

/// Whoever panicked with a lock in his hands has not left half of a change: the test of it all failed anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// So many hosts that have nothing.
    pub(crate) fn new(hosts: u32) -> Self {
        Self {
            hosts: (0..hosts).map(|_| Mutex::default()).collect(),
            came: Mutex::default(),
            broken: Mutex::default(),
        }
    }

    /// What a host has.
    pub(crate) fn host<T>(&self, host: u32, look: impl FnOnce(&Light) -> T) -> Option<T> {
        let host = self.hosts.get(usize::try_from(host).ok()?)?;
        Some(look(&lock(host)))
    }

    /// When the row of a port came to a host; it is not known any more afterwards.
    pub(crate) fn take_arrival(&self, port: Id<Port>, host: u32) -> Option<Us> {
        lock(&self.came).remove(&(port, host))
    }

    /// How the NCM has broken the protocol since this was asked last.
    pub(crate) fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.broken))
    }
}

/// One agent's part.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) kept: Arc<Kept>,
    pub(crate) host: u32,
    pub(crate) orders: mpsc::Receiver<Order>,
}

impl Keeper {
    fn light(&self) -> Option<MutexGuard<'_, Light>> {
        let host = usize::try_from(self.host).ok()?;
        self.kept.hosts.get(host).map(lock)
    }

    pub(super) fn hello(&self) -> Vec<Held> {
        self.light().map(|mut light| light.hello()).unwrap_or_default()
    }

    /// A session is open: what it says at first. The NCM may be a new one, or an old one whose word about ports never came to the region.
    pub(super) fn welcomed(&self) -> Vec<AgentMessage> {
        let ports = self.light().map(|mut light| {
            light.welcomed();
            light.ports()
        });
        let (ports, now) = (ports.unwrap_or_default().into_iter(), now_us());
        ports
            .map(|(port, revision)| wired(encode_id(port), revision.0, now))
            .collect()
    }

    pub(super) fn closed(&self) {
        if let Some(mut light) = self.light() {
            light.closed();
        }
    }

    pub(super) fn ask(&self, question: Question) -> Option<Resolve> {
        self.light()?.ask(question, 0)
    }

    /// What it says to a delta: a receipt, and that each port in it is there.
    ///
    /// # Errors
    /// How the delta breaks the protocol.
    pub(super) fn take(&self, delta: &Delta) -> Result<Vec<AgentMessage>, String> {
        let now = now_us();
        let Some(taken) = self.light().map(|mut light| light.take(delta, now, now)) else {
            return Ok(Vec::new());
        };
        let taken = self.noted(taken)?;
        let mut came = lock(&self.kept.came);
        for (port, _) in &taken.ports {
            came.entry((*port, self.host)).or_insert(now);
        }
        drop(came);
        let ports = taken.ports.iter();
        let reports = ports.map(|(port, revision)| wired(encode_id(*port), revision.0, now));
        let receipt = message(agent_message::Body::Receipt(taken.receipt));
        Ok(std::iter::once(receipt).chain(reports).collect())
    }

    /// Takes answers in.
    ///
    /// # Errors
    /// How they break the protocol.
    pub(super) fn answered(&self, resolved: &Resolved) -> Result<(), String> {
        let answered = self.light().map(|mut light| light.answered(resolved, now_us()));
        answered.map_or(Ok(()), |answered| self.noted(answered).map(drop))
    }

    fn noted<T>(&self, result: Result<T, String>) -> Result<T, String> {
        result.inspect_err(|what| lock(&self.kept.broken).push(format!("host {}: {what}", self.host)))
    }
}

/// The next order for an agent; never, if nobody orders it about.
pub(super) async fn order(keeper: &mut Option<Keeper>) -> Order {
    let order = match keeper {
        Some(keeper) => keeper.orders.recv().await,
        None => None,
    };
    match order {
        Some(order) => order,
        None => std::future::pending().await,
    }
}
