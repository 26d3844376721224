//! [`EbpfDataplane`]: the trait on top of the kernel's tables.

use std::{collections::BTreeMap, net::IpAddr, sync::PoisonError};

use alcor_dataplane::{
    ConnectionEntry, Dataplane, DataplaneError, DropReason, Drops, EVENT_QUEUE, Event, NeighbourRow, Row,
    RowChange, RowKey, Snapshot,
    rules::{InForce, Sets},
    uplinks::MAX_UPLINKS,
};
use alcor_dataplane_abi::{DROP_REASONS, layout::Counters};
use alcor_model::{Id, MacAddr, Network, Port};
use aya::{
    Ebpf,
    maps::{PerCpuValues, RingBuf},
};
use tokio::sync::mpsc;

use crate::{
    EbpfConfig,
    announce::Announcer,
    device::{self, Device},
    entry::{Entries, Key, Value},
    error,
    events::{Handles, Reader},
    inject::Injector,
    kernel::{KernelTables, take},
    layout::{self, Plain},
    neighbours::Neighbours,
    object::{self, FROM_EXTERNAL, FROM_PORT, FROM_TUNNEL},
    pins::{Owner, Pins},
    release, sets,
    tables::{Devices, Scope, Tables},
};

/// The data plane in the kernel. Dropping it leaves everything in force.
pub struct EbpfDataplane {
    pub(crate) ebpf: Ebpf,
    pins: Pins,
    kernel: KernelTables,
    neighbours: Neighbours,
    tables: Tables,
    pub(crate) devices: Devices,
    handles: Handles,
    injector: Injector,
    /// None where nothing is sent.
    announcer: Option<Announcer>,
    events: Option<mpsc::Receiver<Event>>,
    /// The clock of traced packets, in nanoseconds; `None`: the kernel's.
    pub(crate) clock_ns: Option<u64>,
    /// Ends with the data plane.
    _reader: Reader,
}

impl EbpfDataplane {
    /// Loads the programs; finds what an earlier process left in force and carries on from there without a gap
    /// for packets. Opens devices of, and must be used in, the network namespace of the calling thread. Needs root.
    ///
    /// # Errors
    /// When this build has no kernel programs, the kernel refuses, or another process has the instance open.
    pub fn open(config: &EbpfConfig) -> Result<Self, DataplaneError> {
        let pins = Pins::open(config)?;
        let externals = external_devices(config)?;
        let tunnel_ifindex = device::tunnel(&config.tunnel_device)?;
        let mut ebpf = object::load(&pins, tunnel_ifindex, config)?;
        let mut kernel = KernelTables::take(&mut ebpf)?;
        let tables = found_tables(&mut kernel, config, externals)?;
        let neighbours = Neighbours::take(&mut ebpf, |handle| tables.network_of_handle(handle).is_some())?;
        let ring: RingBuf<_> = take(&mut ebpf, "events")?;
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        let handles = Handles::default();
        let mut dataplane = Self {
            _reader: Reader::start(ring, Handles::clone(&handles), sender)?,
            injector: Injector::open().map_err(|source| error::kernel("opening a packet socket", source))?,
            announcer: announcer(config)?,
            ebpf,
            pins,
            kernel,
            neighbours,
            tables,
            devices: Devices::new(),
            handles,
            events: Some(receiver),
            clock_ns: config.trace.then_some(0),
        };
        dataplane.tell_handles();
        dataplane.adopt(&config.tunnel_device, tunnel_ifindex)?;
        Ok(dataplane)
    }

    /// Takes everything of an instance out of the kernel: programs, tables, the tunnel device. The ports'
    /// devices stay. Call it in the network namespace of the instance.
    ///
    /// # Errors
    /// When the instance is open in another process or the kernel refuses.
    pub fn purge(config: &EbpfConfig) -> Result<(), DataplaneError> {
        let pins = Pins::open(config)?;
        for (owner, ifindex) in pins.links()? {
            pins.remove(owner, ifindex)?;
        }
        pins.remove_all()?;
        device::delete(&config.tunnel_device)
    }

    /// Brings the kernel's tables in step with the rows found, then this build's programs onto the links found.
    fn adopt(&mut self, tunnel_device: &str, tunnel_ifindex: u32) -> Result<(), DataplaneError> {
        let links = self.pins.links()?;
        for (owner, ifindex) in &links {
            if let (Owner::Port(port), Some(device)) = (owner, device::look_at_index(*ifindex)) {
                self.devices.insert(*port, device);
            }
        }
        let found = self.kernel.read()?;
        adopt_epochs(&mut self.tables, &found);
        self.kernel.set_last_epoch(self.tables.last_epoch())?;
        let mut wanted = Entries::new();
        for scope in self.tables.all_scopes() {
            wanted.extend(self.tables.entries(&scope, &self.devices));
        }
        for network in self.tables.networks() {
            for in_force in self.tables.sets(network).values() {
                sets::entries(in_force, &mut wanted);
            }
        }
        self.kernel.replace(&found, &wanted)?;
        self.tell_neighbours(&found, &wanted);
        let handles = self.tables.port_handles();
        self.kernel
            .memories
            .retain(|handle| handles.contains_key(&handle))?;

        self.adopt_links(links, tunnel_device, tunnel_ifindex)
    }

    /// Brings this build's programs onto the links found, and makes those that are missing.
    fn adopt_links(
        &mut self,
        links: Vec<(Owner, u32)>,
        tunnel_device: &str,
        tunnel_ifindex: u32,
    ) -> Result<(), DataplaneError> {
        let mut missing: BTreeMap<u32, String> = BTreeMap::new();
        for device in self.tables.external_devices() {
            missing.insert(device.ifindex, device.name.clone());
        }
        let mut has_tunnel = false;
        for (owner, ifindex) in links {
            match owner {
                Owner::External if !missing.contains_key(&ifindex) => self.pins.remove(owner, ifindex)?,
                Owner::External => {
                    let program = object::program(&mut self.ebpf, FROM_EXTERNAL)?;
                    if self.pins.adopt(program, owner, ifindex)? {
                        missing.remove(&ifindex);
                    }
                }
                Owner::Tunnel => {
                    let program = object::program(&mut self.ebpf, FROM_TUNNEL)?;
                    let adopted = self.pins.adopt(program, owner, ifindex)?;
                    has_tunnel |= adopted && ifindex == tunnel_ifindex;
                }
                Owner::Port(port) => {
                    let program = object::program(&mut self.ebpf, FROM_PORT)?;
                    if !self.pins.adopt(program, owner, ifindex)? {
                        self.set_device(port, None)?;
                    }
                }
            }
        }
        if !has_tunnel {
            let program = object::program(&mut self.ebpf, FROM_TUNNEL)?;
            self.pins
                .attach(program, Owner::Tunnel, tunnel_device, tunnel_ifindex)?;
        }
        for (ifindex, name) in missing {
            let program = object::program(&mut self.ebpf, FROM_EXTERNAL)?;
            self.pins.attach(program, Owner::External, &name, ifindex)?;
        }
        Ok(())
    }

    fn apply_one(&mut self, change: &RowChange) -> Result<(), DataplaneError> {
        match change {
            RowChange::Put(row) => self.put(row),
            RowChange::Remove(RowKey::Network(id)) => self.remove_network(*id),
            RowChange::Remove(RowKey::Neighbour(network, ip)) => match self.tables.network_handle(*network) {
                Some(handle) => self.neighbours.remove(handle, *ip),
                None => Ok(()),
            },
            RowChange::Remove(key) => self.remove(key),
        }
    }

    /// Puts rows of neighbours, in order.
    fn put_neighbours<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a NeighbourRow>,
    ) -> Vec<Result<(), DataplaneError>> {
        let (mut outcomes, mut known) = (Vec::new(), Vec::new());
        for row in rows {
            let handle = self.tables.network_handle(row.network_id);
            known.extend(handle.map(|handle| (handle, row)));
            outcomes.push(match handle {
                Some(_) => Ok(()),
                None => Err(DataplaneError::UnknownNetwork(row.network_id)),
            });
        }
        let accepted = outcomes.iter_mut().filter(|outcome| outcome.is_ok());
        for (place, outcome) in accepted.zip(self.neighbours.put_all(&known)) {
            *place = outcome;
        }
        outcomes
    }

    fn put(&mut self, row: &Row) -> Result<(), DataplaneError> {
        self.tables.check(row)?;
        // A port or subnet lies in one network at a time: a row in another network moves it.
        let moved_from = match row {
            Row::Port(row) => self.tables.home(row.id).map(|home| RowKey::Port(home, row.id)),
            Row::Subnet(row) => self
                .tables
                .subnet_home(row.id)
                .map(|home| RowKey::Subnet(home, row.id)),
            Row::Network(_)
            | Row::Neighbour(_)
            | Row::Router(_)
            | Row::FloatingIp(_)
            | Row::Policy(_)
            | Row::Label(_) => None,
        };
        let key = row.key();
        if let Some(from) = moved_from.filter(|from| *from != key) {
            self.remove(&from)?;
        }
        let old = self.tables.row(&key);
        if old.as_ref() == Some(row) {
            return Ok(());
        }
        let scope = self.tables.scope(&key, Some(row));
        let before = self.look(&scope);
        let handle = self.tables.handle_for(&key);
        if old.is_none() && matches!(key, RowKey::Port(..)) {
            self.clear_drops(handle)?;
            self.kernel.memories.release(handle)?;
        }
        self.tables.put(row.clone(), handle)?;
        if let RowKey::Network(id) = key {
            self.handles
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(handle, id);
        }
        let after = self.look(&scope);
        let kept = self.kernel.kept.put(row, handle);
        let done = kept.and_then(|()| self.bring(before, &after));
        if done.is_err() {
            self.undo(&key, old, handle, &scope, after);
        }
        done
    }

    /// What a scope amounts to in the kernel.
    fn look(&self, scope: &Scope) -> Look {
        Look {
            entries: self.tables.entries(scope, &self.devices),
            sets: scope
                .network()
                .map(|network| self.tables.sets(network))
                .unwrap_or_default(),
        }
    }

    /// Brings the kernel from one look to the next. Sets of rules that are the same in both are not looked into.
    fn bring(&mut self, before: Look, after: &Look) -> Result<(), DataplaneError> {
        let mut old = before.entries;
        let mut new = after.entries.clone();
        for (sets, others, entries) in [
            (&before.sets, &after.sets, &mut old),
            (&after.sets, &before.sets, &mut new),
        ] {
            for (label, in_force) in sets {
                let other = others.get(label);
                if other.is_none_or(|other| other.epoch != in_force.epoch) {
                    sets::entries(in_force, entries);
                }
            }
        }
        if self.kernel.last_epoch()? < self.tables.last_epoch() {
            self.kernel.set_last_epoch(self.tables.last_epoch())?;
        }
        self.kernel.replace(&old, &new)?;
        self.tell_neighbours(&old, &new);
        Ok(())
    }

    /// Tells external networks of the floating IPs that became this host's, and of those that are not any more nothing.
    fn tell_neighbours(&self, before: &Entries, after: &Entries) {
        let Some(announcer) = &self.announcer else { return };
        let floating = |(key, value): (&Key, &Value)| match (key, value) {
            (Key::FloatingIn(key), Value::FloatingIn(value)) => Some((*key, value.mac)),
            _ => None,
        };
        for (key, _) in before.iter().filter_map(floating) {
            if !after.contains_key(&Key::FloatingIn(key)) {
                announcer.cease(key.ifindex, key.address.into());
            }
        }
        for (key, mac) in after.iter().filter_map(floating) {
            if !before.contains_key(&Key::FloatingIn(key)) {
                announcer.announce(key.ifindex, MacAddr(mac), key.address.into());
            }
        }
    }

    /// Puts back what was in force before a row that the kernel refused. Best effort: the refusal is what the
    /// caller hears of; entries that are left over are removed when the maps are opened again.
    fn undo(&mut self, key: &RowKey, old: Option<Row>, handle: u32, scope: &Scope, after: Look) {
        let written = match old {
            Some(old) => {
                let written = self.kernel.kept.put(&old, handle);
                written.and_then(|()| self.tables.put(old, handle))
            }
            None => {
                self.tables.remove(key);
                self.kernel.kept.remove(key)
            }
        };
        let before = self.look(scope);
        if let Err(error) = written.and_then(|()| self.bring(after, &before)) {
            tracing::error!(%error, kind = key.kind(), "a row that the kernel refused cannot be taken back");
        }
    }

    fn remove(&mut self, key: &RowKey) -> Result<(), DataplaneError> {
        let Some(old) = self.tables.row(key) else {
            return Ok(());
        };
        let handle = self.tables.handle_for(key);
        let scope = self.tables.scope(key, None);
        let before = self.look(&scope);
        self.tables.remove(key);
        let after = self.look(&scope);
        if let Err(error) = self.bring(before, &after) {
            // Still in force as far as anybody knows: it can be removed again.
            self.tables.put(old, handle)?;
            return Err(error);
        }
        if matches!(key, RowKey::Port(..)) {
            self.kernel.memories.release(handle)?;
        }
        self.kernel.kept.remove(key)
    }

    fn remove_network(&mut self, id: Id<Network>) -> Result<(), DataplaneError> {
        let Some(handle) = self.tables.network_handle(id) else {
            return Ok(());
        };
        for key in self.tables.contents(id) {
            if matches!(key, RowKey::Network(_)) {
                self.neighbours.remove_network(handle)?;
            }
            self.remove(&key)?;
        }
        self.handles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&handle);
        Ok(())
    }

    fn tell_handles(&self) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        for row in self.tables.rows() {
            if let Row::Network(row) = row
                && let Some(handle) = self.tables.network_handle(row.id)
            {
                handles.insert(handle, row.id);
            }
        }
    }

    /// Ties or unties a device in the tables.
    fn set_device(&mut self, port: Id<Port>, device: Option<Device>) -> Result<(), DataplaneError> {
        let scope = self.tables.port_scope(port);
        let before = self.tables.entries(&scope, &self.devices);
        match device {
            Some(device) => self.devices.insert(port, device),
            None => self.devices.remove(&port),
        };
        let after = self.tables.entries(&scope, &self.devices);
        self.kernel.replace(&before, &after)
    }

    fn untie(&mut self, port: Id<Port>) -> Result<(), DataplaneError> {
        let Some(device) = self.devices.get(&port).cloned() else {
            return Ok(());
        };
        self.set_device(port, None)?;
        self.pins.remove(Owner::Port(port), device.ifindex)
    }

    fn tie(&mut self, port: Id<Port>, device: Device) -> Result<(), DataplaneError> {
        device::bring_up(&device.name)?;
        let (name, ifindex) = (device.name.clone(), device.ifindex);
        self.set_device(port, Some(device))?;
        let program = object::program(&mut self.ebpf, FROM_PORT)?;
        let attached = self.pins.attach(program, Owner::Port(port), &name, ifindex);
        if attached.is_err() {
            self.set_device(port, None)?;
        }
        attached
    }

    fn clear_drops(&mut self, handle: u32) -> Result<(), DataplaneError> {
        const ACTION: &str = "clearing a port's counters";
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| error::kernel(ACTION, source))?;
        let zero = vec![
            Plain(Counters {
                by_reason: [0; DROP_REASONS]
            });
            cpus
        ];
        let values = PerCpuValues::try_from(zero).map_err(|source| error::kernel(ACTION, source))?;
        let cleared = self.kernel.drops.set(handle, values, 0);
        cleared.map_err(|source| error::kernel(ACTION, source))
    }
}

/// The row of a neighbour that comes or changes.
const fn neighbour(change: &RowChange) -> Option<&NeighbourRow> {
    match change {
        RowChange::Put(Row::Neighbour(row)) => Some(row),
        _ => None,
    }
}

/// Who tells external networks; nobody where there are none, or nothing is sent.
fn announcer(config: &EbpfConfig) -> Result<Option<Announcer>, DataplaneError> {
    if config.trace || config.uplinks.devices.is_empty() {
        return Ok(None);
    }
    let announcer = Injector::open().and_then(Announcer::start);
    announcer
        .map(Some)
        .map_err(|source| error::kernel("starting to announce addresses", source))
}

/// The clock of the programs, in nanoseconds.
fn kernel_clock() -> Result<u64, DataplaneError> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_err(|source| error::kernel("reading the clock", source))?;
    let now = std::time::Duration::from(now);
    Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// A part of what is in force: entries, and the sets of rules of a network.
struct Look {
    entries: Entries,
    sets: Sets,
}

/// The devices that lead to external networks, by name.
fn external_devices(config: &EbpfConfig) -> Result<BTreeMap<String, Device>, DataplaneError> {
    let names = &config.uplinks.devices;
    if names.len() > MAX_UPLINKS {
        return Err(DataplaneError::Full {
            what: "external network",
            limit: MAX_UPLINKS,
        });
    }
    let mut devices = BTreeMap::new();
    for name in names.values() {
        let device = device::look(name)?;
        if device.mac == [0; 6] {
            return Err(error::device(
                name,
                "it has no MAC, so nobody can ask for an address there",
            ));
        }
        if !device::has_ipv4(name)? {
            tracing::warn!(
                device = name,
                "without an IPv4 address of its own, it asks for MACs from another one of this node: not all answer that"
            );
        }
        devices.insert(name.clone(), device);
    }
    Ok(devices)
}

/// The rows that an earlier process left.
fn found_tables(
    kernel: &mut KernelTables,
    config: &EbpfConfig,
    externals: BTreeMap<String, Device>,
) -> Result<Tables, DataplaneError> {
    let mut tables = Tables::default();
    tables.set_uplinks(config.uplinks.clone(), externals);
    tables.set_last_epoch(kernel.last_epoch()?);
    for (number, list) in kernel.gateway_lists()? {
        tables.lists_mut().adopt(number, list);
    }
    for (row, handle) in kernel.kept.read()? {
        let key = row.key();
        if let Err(error) = tables.check(&row).and_then(|()| tables.put(row, handle)) {
            // Half of a removal: the rest goes too.
            tracing::warn!(%error, kind = key.kind(), "a kept row is not for this host any more");
            kernel.kept.remove(&key)?;
        }
    }
    tables.lists_mut().settle();
    Ok(tables)
}

/// Sets of rules that are in the kernel as they are wanted keep their epochs: connections need not be judged again.
fn adopt_epochs(tables: &mut Tables, found: &Entries) {
    let mut sets: BTreeMap<u32, Entries> = BTreeMap::new();
    for (key, value) in found {
        let epoch = match key {
            Key::Bits(key) => key.epoch,
            Key::Label(key) => key.epoch,
            Key::Prefix(_, key) => key.epoch,
            Key::Service(_, key) => key.epoch,
            _ => continue,
        };
        sets.entry(epoch).or_default().insert(*key, value.clone());
    }
    tables.adopt_epochs(|port, label, in_force| {
        let Some(Value::Filter(filter)) = found.get(&Key::Filter(port)) else {
            return None;
        };
        let mut wanted = Entries::new();
        let known = InForce {
            epoch: filter.epoch,
            set: in_force.set.clone(),
        };
        sets::entries(&known, &mut wanted);
        let same = filter.label == label && sets.get(&filter.epoch) == Some(&wanted);
        same.then_some(filter.epoch)
    });
}

impl Dataplane for EbpfDataplane {
    fn filters(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "ebpf"
    }

    fn apply(&mut self, changes: &[RowChange]) -> Vec<Result<(), DataplaneError>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut rest = changes;
        while let Some(first) = rest.first() {
            // Neighbours come in great numbers: those that follow each other go together.
            let neighbours = rest.iter().map_while(neighbour).count();
            if neighbours == 0 {
                outcomes.push(self.apply_one(first));
            } else {
                outcomes.extend(self.put_neighbours(rest.iter().map_while(neighbour)));
            }
            rest = rest.get(neighbours.max(1)..).unwrap_or_default();
        }
        outcomes
    }

    fn attach(&mut self, port: Id<Port>, name: &str) -> Result<(), DataplaneError> {
        let tied = self.devices.get(&port).map(|device| device.ifindex);
        if tied.is_some() && tied == device::ifindex(name) {
            // Untied and tied again it would lose packets in between.
            return Ok(());
        }
        self.untie(port)?;
        let device = device::look(name)?;
        let owner = self
            .devices
            .iter()
            .find(|(_, other)| other.ifindex == device.ifindex);
        if let Some((&owner, _)) = owner {
            return Err(error::device(
                name,
                format!("it belongs to port {owner}; detach that first"),
            ));
        }
        self.tie(port, device)
    }

    fn detach(&mut self, port: Id<Port>) -> Result<(), DataplaneError> {
        self.untie(port)
    }

    fn snapshot(&mut self) -> Result<Snapshot, DataplaneError> {
        let mut rows = self.tables.rows();
        let neighbours = self
            .neighbours
            .rows(|handle| self.tables.network_of_handle(handle))?;
        rows.extend(neighbours.into_iter().map(Row::Neighbour));
        rows.sort_by_key(Row::key);
        let devices = self.devices.iter();
        Ok(Snapshot {
            rows,
            devices: devices
                .map(|(port, device)| (*port, device.name.clone()))
                .collect(),
        })
    }

    fn inject(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        let device = self.devices.get(&port).ok_or(DataplaneError::NoDevice(port))?;
        self.injector
            .send(device.ifindex, frame)
            .map_err(|source| error::kernel(format!("sending a frame to {}", device.name), source))
    }

    fn release(&mut self, port: Id<Port>, frame: &[u8]) -> Result<(), DataplaneError> {
        let device = self.devices.get(&port).ok_or(DataplaneError::NoDevice(port))?;
        release::release(&mut self.ebpf, device.ifindex, frame)
    }

    fn take_used(&mut self, keys: &[(Id<Network>, IpAddr)]) -> Result<Vec<bool>, DataplaneError> {
        let handles = keys.iter().map(|(network, ip)| {
            let handle = self.tables.network_handle(*network);
            handle.map(|handle| layout::ip_key(handle, *ip))
        });
        self.neighbours.take_used(handles)
    }

    fn events(&mut self) -> Option<mpsc::Receiver<Event>> {
        self.events.take()
    }

    fn connections(&mut self, port: Id<Port>) -> Result<Vec<ConnectionEntry>, DataplaneError> {
        let now = match self.clock_ns {
            Some(now) => now,
            None => kernel_clock()?,
        };
        let mut handles = self.tables.port_handles().iter();
        match handles.find(|(_, id)| **id == port) {
            Some((handle, _)) => self.kernel.memories.connections(*handle, now),
            None => Ok(Vec::new()),
        }
    }

    fn drops(&mut self) -> Result<Drops, DataplaneError> {
        let mut drops = BTreeMap::new();
        let ports = self
            .tables
            .port_handles()
            .iter()
            .map(|(handle, port)| (*handle, Some(*port)));
        for (handle, port) in ports.chain([(0, None)]) {
            let counters = self.kernel.drops.get(&handle, 0);
            let counters = counters.map_err(|source| error::kernel("reading drop counters", source))?;
            for reason in DropReason::ALL {
                let on = |Plain(cpu): &Plain<Counters>| {
                    cpu.by_reason.get(*reason as usize).copied().unwrap_or_default()
                };
                let count: u64 = counters.iter().map(on).sum();
                if count > 0 {
                    drops.insert((port, *reason), count);
                }
            }
        }
        Ok(drops)
    }
}
