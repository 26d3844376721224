//! The model data plane: plain Rust, packet bytes in, a verdict with packet bytes out. It is the reference
//! that every other data plane is compared with, and what tests and simulations run instead of a kernel.
//!
//! It follows [`crate::path`] stage by stage. Not here: any I/O; GSO packets (a frame is one packet).

mod arp;
mod ipv4;
mod ipv6;
mod path;
mod route;
mod send;
mod tables;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use alcor_model::{Id, Port};
use bytes::Bytes;
pub use tables::Limits;
use tokio::sync::mpsc;

use crate::{
    Dataplane, DataplaneError, DropReason, Drops, EVENT_QUEUE, Event, Ingress, RowChange, Snapshot, Verdict,
};

/// How many injected frames the model keeps for [`Model::take_injected`]; the oldest go first.
pub const INJECTED_FRAMES: usize = 4096;

/// The reference data plane. Its devices are names only: every name exists until
/// [`Model::set_device_present`] says otherwise.
#[derive(Debug)]
pub struct Model {
    tables: tables::Tables,
    devices: BTreeMap<Id<Port>, String>,
    missing_devices: BTreeSet<String>,
    drops: Drops,
    injected: VecDeque<(Id<Port>, Bytes)>,
    event_sender: mpsc::Sender<Event>,
    event_receiver: Option<mpsc::Receiver<Event>>,
    lost_events: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Model {
    /// An empty data plane.
    pub fn new(limits: Limits) -> Self {
        let (event_sender, event_receiver) = mpsc::channel(EVENT_QUEUE);
        Self {
            tables: tables::Tables::new(limits),
            devices: BTreeMap::new(),
            missing_devices: BTreeSet::new(),
            drops: Drops::new(),
            injected: VecDeque::new(),
            event_sender,
            event_receiver: Some(event_receiver),
            lost_events: 0,
        }
    }

    /// Takes one frame along the path: counts it when it is dropped, tells the agent when it must know.
    pub fn process(&mut self, ingress: Ingress, frame: &[u8]) -> Verdict {
        let ended = match ingress {
            Ingress::Port(port) => path::from_port(&self.tables, &self.devices, port, frame),
            Ingress::Tunnel { vni, .. } => path::from_tunnel(&self.tables, &self.devices, vni, frame),
        };
        if let Verdict::Drop(reason) = ended.verdict {
            *self.drops.entry((ended.drop_port, reason)).or_default() += 1;
        }
        if let Some(event) = ended.event
            && self.event_sender.try_send(event).is_err()
        {
            self.lost_events += 1;
        }
        ended.verdict
    }

    /// Events that found the channel full, or nobody at its other end.
    pub const fn lost_events(&self) -> u64 {
        self.lost_events
    }

    /// The frames injected since the last call, oldest first.
    pub fn take_injected(&mut self) -> Vec<(Id<Port>, Bytes)> {
        self.injected.drain(..).collect()
    }

    /// Makes a device appear or vanish. One that vanishes is untied from its port, as in a kernel; one that is
    /// not there cannot be attached.
    pub fn set_device_present(&mut self, device: &str, present: bool) {
        if present {
            self.missing_devices.remove(device);
        } else {
            self.missing_devices.insert(device.to_owned());
            self.devices.retain(|_, name| name != device);
        }
    }

    /// How often frames of this port (or of none) were dropped for this reason.
    pub fn drop_count(&self, port: Option<Id<Port>>, reason: DropReason) -> u64 {
        self.drops.get(&(port, reason)).copied().unwrap_or_default()
    }
}

impl Dataplane for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn apply(&mut self, changes: &[RowChange]) -> Vec<Result<(), DataplaneError>> {
        changes.iter().map(|change| self.tables.apply(change)).collect()
    }

    fn attach(&mut self, port: Id<Port>, device: &str) -> Result<(), DataplaneError> {
        let refuse = |reason| {
            Err(DataplaneError::Device {
                device: device.to_owned(),
                reason,
            })
        };
        self.devices.remove(&port);
        if self.missing_devices.contains(device) {
            return refuse("there is no such device".to_owned());
        }
        if let Some((owner, _)) = self.devices.iter().find(|(_, name)| *name == device) {
            return refuse(format!("it belongs to port {owner}; detach that first"));
        }
        self.devices.insert(port, device.to_owned());
        Ok(())
    }

    fn detach(&mut self, port: Id<Port>) -> Result<(), DataplaneError> {
        self.devices.remove(&port);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot, DataplaneError> {
        Ok(Snapshot {
            rows: self.tables.rows(),
            devices: self.devices.clone(),
        })
    }

    fn inject(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        if !self.devices.contains_key(&port) {
            return Err(DataplaneError::NoDevice(port));
        }
        if self.injected.len() == INJECTED_FRAMES {
            self.injected.pop_front();
        }
        self.injected.push_back((port, Bytes::copy_from_slice(frame)));
        Ok(())
    }

    fn events(&mut self) -> Option<mpsc::Receiver<Event>> {
        self.event_receiver.take()
    }

    fn drops(&mut self) -> Result<Drops, DataplaneError> {
        Ok(self.drops.clone())
    }
}
