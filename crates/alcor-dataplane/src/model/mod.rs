//! The model data plane: plain Rust, packet bytes in, a verdict with packet bytes out. It is the reference
//! that every other data plane is compared with, and what tests and simulations run instead of a kernel.
//!
//! It follows [`crate::path`] stage by stage. Not here: any I/O; GSO packets (a frame is one packet).

mod arp;
mod floating;
mod flow;
mod ipv4;
mod ipv6;
mod path;
mod route;
mod tables;
mod track;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use alcor_dataplane_abi::gateway_layout::IcmpMeter;
use alcor_model::{Id, Network, Port};
use bytes::Bytes;
pub use tables::Limits;
use tokio::sync::mpsc;

use crate::{
    ConnectionEntry, Dataplane, DataplaneError, DropReason, Drops, EVENT_QUEUE, Event, Ingress,
    MAX_LISTED_CONNECTIONS, RowChange, Snapshot, Uplinks, Verdict,
};

/// How many injected frames the model keeps for [`Model::take_injected`]; the oldest go first.
pub const INJECTED_FRAMES: usize = 4096;
/// How many verdicts the model keeps for [`Model::take_released`]; the oldest go first.
pub const RELEASED_FRAMES: usize = 4096;

/// The reference data plane. Its devices are names only: every name exists until
/// [`Model::set_device_present`] says otherwise.
#[derive(Debug)]
pub struct Model {
    tables: tables::Tables,
    devices: BTreeMap<Id<Port>, String>,
    missing_devices: BTreeSet<String>,
    drops: Drops,
    trackers: BTreeMap<Id<Port>, track::Tracker>,
    now: Duration,
    injected: VecDeque<(Id<Port>, Bytes)>,
    released: VecDeque<(Id<Port>, Verdict)>,
    /// Neighbours used since somebody asked.
    used: BTreeSet<(Id<Network>, IpAddr)>,
    /// How many ICMP errors were sent to the outside lately.
    icmp: IcmpMeter,
    /// MTUs of devices to the outside that have one.
    mtus: BTreeMap<String, u16>,
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
            trackers: BTreeMap::new(),
            now: Duration::ZERO,
            injected: VecDeque::new(),
            released: VecDeque::new(),
            used: BTreeSet::new(),
            icmp: IcmpMeter { last_ns: 0, count: 0 },
            mtus: BTreeMap::new(),
            event_sender,
            event_receiver: Some(event_receiver),
            lost_events: 0,
        }
    }

    /// The same, of a host that reaches external networks by itself.
    #[must_use]
    pub fn with_uplinks(mut self, uplinks: Uplinks) -> Self {
        self.tables.set_uplinks(uplinks);
        self
    }

    /// Sets the MTU of a device that leads to an external network; it takes any packet at first.
    pub fn set_uplink_mtu(&mut self, device: &str, mtu: u16) {
        self.mtus.insert(device.to_owned(), mtu);
    }

    /// The external networks that the host reaches by itself.
    pub const fn uplinks(&self) -> &Uplinks {
        self.tables.uplinks()
    }

    /// Takes one frame along the path: counts it when it is dropped, tells the agent when it must know.
    pub fn process(&mut self, ingress: Ingress, frame: &[u8]) -> Verdict {
        self.walk(ingress, frame, false)
    }

    fn walk(&mut self, ingress: Ingress, frame: &[u8], was_held: bool) -> Verdict {
        let mut path = path::Path {
            tables: &self.tables,
            devices: &self.devices,
            trackers: &mut self.trackers,
            used: &mut self.used,
            icmp: &mut self.icmp,
            mtus: &self.mtus,
            was_held,
            now: u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX),
        };
        let ended = match ingress {
            Ingress::External { device, mac } => path.of_external(&device, mac, frame),
            Ingress::Port(port) => path.of_port(port, frame),
            Ingress::Tunnel {
                source,
                vni,
                label,
                forwarded,
            } => path.of_tunnel(source, vni, (label, forwarded), frame),
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

    /// Where a packet to the gateway of a network goes: the network that it leaves by, and the address looked for there.
    pub(crate) fn route(&self, network: Id<Network>, ip: IpAddr) -> Option<(Id<Network>, IpAddr)> {
        self.tables.network(network)?.route(ip)
    }

    /// What a label of a network is in another one.
    pub(crate) fn translate(&self, from: Id<Network>, to: Id<Network>, label: u16) -> u16 {
        let networks = (self.tables.network(from), self.tables.network(to));
        let (Some(from), Some(to)) = networks else {
            return 0;
        };
        tables::translate(from, to, label)
    }

    /// Moves the model's clock, which stands still otherwise: connections are forgotten when their time is over.
    pub const fn advance(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
    }

    /// Events that found the channel full, or nobody at its other end.
    pub const fn lost_events(&self) -> u64 {
        self.lost_events
    }

    /// The frames injected since the last call, oldest first.
    pub fn take_injected(&mut self) -> Vec<(Id<Port>, Bytes)> {
        self.injected.drain(..).collect()
    }

    /// What became of the frames released since the last call, oldest first.
    pub fn take_released(&mut self) -> Vec<(Id<Port>, Verdict)> {
        self.released.drain(..).collect()
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
    fn filters(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "model"
    }

    fn apply(&mut self, changes: &[RowChange]) -> Vec<Result<(), DataplaneError>> {
        let outcomes = changes.iter().map(|change| self.tables.apply(change)).collect();
        self.trackers.retain(|port, _| self.tables.port(*port).is_some());
        self.used
            .retain(|(network, ip)| self.tables.has_neighbour(*network, *ip));
        outcomes
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

    fn release(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        if !self.devices.contains_key(&port) {
            return Err(DataplaneError::NoDevice(port));
        }
        let verdict = self.walk(Ingress::Port(port), frame, true);
        if self.released.len() == RELEASED_FRAMES {
            self.released.pop_front();
        }
        self.released.push_back((port, verdict));
        Ok(())
    }

    fn take_used(&mut self, keys: &[(Id<Network>, IpAddr)]) -> Result<Vec<bool>, DataplaneError> {
        Ok(keys.iter().map(|key| self.used.remove(key)).collect())
    }

    fn events(&mut self) -> Option<mpsc::Receiver<Event>> {
        self.event_receiver.take()
    }

    fn connections(&mut self, port: Id<Port>) -> Result<Vec<ConnectionEntry>, DataplaneError> {
        let now = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        let tracker = self.trackers.get(&port);
        let live = tracker.into_iter().flat_map(|tracker| tracker.live(now));
        let mut entries: Vec<ConnectionEntry> = live
            .take(MAX_LISTED_CONNECTIONS)
            .map(|((own, other, sides), connection)| {
                ConnectionEntry::new(*own, *other, *sides, *connection, now)
            })
            .collect();
        entries.sort();
        Ok(entries)
    }

    fn drops(&mut self) -> Result<Drops, DataplaneError> {
        Ok(self.drops.clone())
    }
}
