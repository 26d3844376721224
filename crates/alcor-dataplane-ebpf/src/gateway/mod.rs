//! The gateway's data plane: an XDP program on the devices of a gateway, its maps in step with the rows.
//!
//! Maps and links are pinned, so packets go on while nobody runs this code; [`XdpGateway::open`] finds them again. The path of a
//! packet is [`alcor_dataplane::gateway::path`]. Not here: which networks a gateway serves, or whether it is alive.

mod attach;
mod derived;
mod nat;
mod object;
mod peers;
mod presence;
mod tables;
#[cfg(feature = "tracing-run")]
mod trace;

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use alcor_dataplane::{
    Dataplane, DataplaneError, DropReason, Drops, Row, RowChange, RowKey, Snapshot,
    gateway::{AttachMode, GatewayDevice, GatewayReport, NatLimits, RouterNat, Rows},
};
/// The usual [`GatewayConfig::max_neighbours`].
pub use alcor_dataplane_abi::gateway_layout::MAX_GATEWAY_NEIGHBOURS;
use alcor_dataplane_abi::{
    gateway_layout::{DEVICE_EXTERNAL, DEVICE_UNDERLAY, DeviceValue, GATEWAY_LAYOUT, Load, nat_limit},
    layout::Counters,
};
use alcor_model::{Id, MacAddr, Network, Router};
pub use attach::Attachment;
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use derived::{Handles, Key};
use nat::{Nat, Sweeper};
use peers::Peers;
use presence::Presence;
pub use presence::{ROUTE_METRIC, ROUTE_PROTOCOL};
use tables::Tables;

use crate::{
    device, error,
    kept::Kept,
    kernel::{Hash, take},
    layout::Plain,
    pins::Pins,
};

/// The name of this data plane, in refusals too.
const NAME: &str = "xdp";
/// The folder of gateways on the BPF file system.
const FAMILY: &str = "alcor-gateway";

/// Where a gateway's data plane lives.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Name that tells this gateway's maps from those of others on the same kernel; letters, digits and `-`.
    pub instance: String,
    /// Where the BPF file system is or will be mounted. A gateway must see the same mount when it starts again.
    pub bpffs: PathBuf,
    /// The gateway's tunnel address, which is on the underlay device.
    pub tunnel_ip: Ipv4Addr,
    /// The device that leads to the hosts.
    pub underlay_device: String,
    /// The devices that lead to the outside; the underlay device may be one of them.
    pub external_devices: Vec<String>,
    /// Send probes back.
    pub probes: bool,
    /// Neighbours that there is room for, all networks together and for each family. Tables that are found keep their size.
    pub max_neighbours: u32,
    /// How much source NAT may take. Tables that are found keep their size.
    pub nat: NatLimits,
    /// How the program is put on devices; `None`: native where the driver can and needs no help from the other end, else generic.
    pub attachment: Option<Attachment>,
    /// For tests: the program tells its verdict, is on no device, and sends nothing.
    pub trace: bool,
}

impl GatewayConfig {
    /// The usual places; no external devices.
    pub fn new(instance: impl Into<String>, tunnel_ip: Ipv4Addr, underlay_device: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            tunnel_ip,
            underlay_device: underlay_device.into(),
            external_devices: Vec::new(),
            probes: true,
            max_neighbours: MAX_GATEWAY_NEIGHBOURS,
            nat: NatLimits::default(),
            attachment: None,
            trace: false,
        }
    }

    fn pins(&self) -> Result<Pins, DataplaneError> {
        Pins::open_in(FAMILY, &self.instance, &self.bpffs, GATEWAY_LAYOUT)
    }
}

/// What rows do not have any more, and large tables still have.
#[derive(Default)]
struct Gone {
    networks: BTreeSet<Id<Network>>,
    vnis: BTreeSet<u32>,
    routers: BTreeSet<Id<Router>>,
}

/// The gateway in the kernel. Dropping it leaves everything in force.
pub struct XdpGateway {
    ebpf: Ebpf,
    rows: Rows,
    handles: Handles,
    tables: Tables,
    peers: Peers,
    kept: Kept,
    devices: Hash<u32, Plain<DeviceValue>>,
    drops: PerCpuArray<MapData, Plain<Counters>>,
    load: PerCpuArray<MapData, Plain<Load>>,
    attached: Vec<(String, Attachment)>,
    gone: Gone,
    /// None where nothing is sent.
    presence: Option<Presence>,
    /// Which addresses this gateway owns may be others than it has told of.
    is_news: bool,
    tunnel_ip: Ipv4Addr,
    nat: nat::Shared,
    /// Source NAT as it was told last.
    told_nat: Option<Vec<RouterNat>>,
    /// Most connections of a router.
    nat_most: u64,
    /// The clock of traced frames, in nanoseconds; `None`: the kernel's.
    clock_ns: Option<u64>,
    /// Ends with the gateway; none where the test says when to sweep.
    _sweeper: Option<Sweeper>,
    /// Held as long as the instance is open.
    _pins: Pins,
}

impl XdpGateway {
    /// Loads the program and puts it on the devices; finds what an earlier process left in force and carries on from there
    /// without a gap for packets. Opens devices of, and must be used in, the network namespace of the calling thread. Needs root.
    /// Sets what the node's own stack needs to forward for a gateway: `ip_forward`, and of the devices `rp_filter`, `accept_local`,
    /// `accept_source_route` and `send_redirects`.
    ///
    /// # Errors
    /// When this build has no kernel programs, a device is not there, the kernel refuses, or another process has the instance
    /// open.
    pub fn open(config: &GatewayConfig) -> Result<Self, DataplaneError> {
        let pins = config.pins()?;
        let nat_room = object::nat_room(&pins, config)?;
        let mut ebpf = object::load(&pins, config, nat_room)?;
        let nat = Arc::new(Mutex::new(Nat::take(&mut ebpf, nat_room)?));
        let sweeper = (!config.trace).then(|| Sweeper::start(Arc::clone(&nat)));
        let mut gateway = Self {
            _sweeper: sweeper.transpose()?,
            nat,
            told_nat: None,
            nat_most: config.nat.connections_per_router,
            clock_ns: config.trace.then_some(0),
            rows: Rows::default(),
            handles: Handles::new(config.tunnel_ip),
            tables: Tables::take(&mut ebpf)?,
            peers: Peers::take(&mut ebpf)?,
            kept: Kept::new(take(&mut ebpf, "gw_kept")?),
            devices: take(&mut ebpf, "gw_devices")?,
            drops: take(&mut ebpf, "gw_drops")?,
            load: take(&mut ebpf, "gw_load")?,
            attached: Vec::new(),
            gone: Gone::default(),
            presence: None,
            is_news: true,
            tunnel_ip: config.tunnel_ip,
            ebpf,
            _pins: pins,
        };
        gateway.find_rows()?;
        if !config.trace {
            gateway.attach_all(config)?;
            gateway.be_present();
        }
        Ok(gateway)
    }

    /// Takes everything of an instance out of the kernel: the program and its tables. Call it in the network namespace of the
    /// instance.
    ///
    /// # Errors
    /// When the instance is open in another process or the kernel refuses.
    pub fn purge(config: &GatewayConfig) -> Result<(), DataplaneError> {
        let pins = config.pins()?;
        attach::detach_all(&pins)?;
        let presence = Presence::open(Vec::new());
        let presence = presence.map_err(|source| error::kernel("looking for routes of ours", source));
        presence?.bring(&BTreeSet::new());
        pins.remove_all()
    }

    /// The devices that the program is on, and how.
    pub fn attachments(&self) -> &[(String, Attachment)] {
        &self.attached
    }

    /// What went through so far.
    ///
    /// # Errors
    /// When the counters in the kernel cannot be read.
    pub fn load(&self) -> Result<Load, DataplaneError> {
        let counters = self.load.get(&0, 0);
        let counters = counters.map_err(|source| error::kernel("reading the gateway's load", source))?;
        let sum = |field: fn(&Load) -> u64| counters.iter().map(|Plain(cpu)| field(cpu)).sum();
        Ok(Load {
            east_west_packets: sum(|load| load.east_west_packets),
            east_west_bytes: sum(|load| load.east_west_bytes),
            north_packets: sum(|load| load.north_packets),
            north_bytes: sum(|load| load.north_bytes),
            south_packets: sum(|load| load.south_packets),
            south_bytes: sum(|load| load.south_bytes),
            replies: sum(|load| load.replies),
            probes: sum(|load| load.probes),
        })
    }

    /// How much source NAT remembers for each router that rows name, sorted by id.
    ///
    /// # Errors
    /// When the counters in the kernel cannot be read.
    pub fn nat(&self) -> Result<Vec<RouterNat>, DataplaneError> {
        self.count_nat(&nat::lock(&self.nat))
    }

    fn count_nat(&self, nat: &Nat) -> Result<Vec<RouterNat>, DataplaneError> {
        let limit = nat_limit(self.nat_most, nat.free()?);
        let routers = self.handles.routers().map(|(router, number)| {
            let (connections, refused) = nat.counts(number)?;
            Ok(RouterNat {
                router,
                connections,
                limit,
                refused,
            })
        });
        routers.collect()
    }

    /// Forgets translated connections that expired. Happens by itself too, about once a second.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self) -> Result<(), DataplaneError> {
        let now = self.clock_ns.map_or_else(nat::now, Ok)?;
        nat::lock(&self.nat).sweep(now)
    }

    /// Takes over the rows that are kept, and brings the small tables in step with them.
    fn find_rows(&mut self) -> Result<(), DataplaneError> {
        for (row, number) in self.kept.read()? {
            if self.rows.check(NAME, &row).is_ok() {
                self.handles.restore(&row, number);
                self.rows.put(row);
            }
        }
        let wanted = derived::all(&self.rows, &self.handles);
        for key in self.tables.keys()?.iter().rev() {
            if !wanted.contains_key(key) {
                self.tables.remove(key)?;
            }
        }
        for (key, value) in &wanted {
            self.tables.put(key, value)?;
        }
        let handles = &self.handles;
        self.peers.retain(|handle| handles.id(handle).is_some())
    }

    fn attach_all(&mut self, config: &GatewayConfig) -> Result<(), DataplaneError> {
        let mut values: Vec<(u32, String, DeviceValue)> = Vec::new();
        let roles = [(&config.underlay_device, DEVICE_UNDERLAY)]
            .into_iter()
            .chain(config.external_devices.iter().map(|name| (name, DEVICE_EXTERNAL)));
        for (name, role) in roles {
            let device = device::look(name)?;
            match values.iter_mut().find(|(ifindex, ..)| *ifindex == device.ifindex) {
                Some((.., value)) => value.flags |= role,
                None => {
                    let value = DeviceValue {
                        flags: role,
                        mac: device.mac,
                        pad: [0; 2],
                    };
                    values.push((device.ifindex, device.name, value));
                }
            }
        }
        let refused = |source| error::kernel("changing the gateway's devices", source);
        let old: Vec<u32> = self.devices.keys().collect::<Result<_, _>>().map_err(refused)?;
        for (ifindex, _, value) in &values {
            self.devices.insert(ifindex, Plain(*value), 0).map_err(refused)?;
        }
        let outside = values
            .iter()
            .filter(|(.., value)| value.flags & DEVICE_EXTERNAL != 0)
            .map(|(ifindex, _, value)| (*ifindex, MacAddr(value.mac)))
            .collect();
        let stack: Vec<(String, DeviceValue)> = values
            .iter()
            .map(|(_, name, value)| (name.clone(), *value))
            .collect();
        let devices: Vec<(u32, String)> = values
            .into_iter()
            .map(|(ifindex, name, _)| (ifindex, name))
            .collect();
        for ifindex in old {
            if !devices.iter().any(|(kept, _)| *kept == ifindex) {
                self.devices.remove(&ifindex).map_err(refused)?;
            }
        }
        attach::prepare_stack(&stack)?;
        let presence = Presence::open(outside);
        let presence = presence.map_err(|source| error::kernel("looking for routes of ours", source));
        self.presence = Some(presence?);
        let program = object::program(&mut self.ebpf)?;
        self.attached = attach::attach(&self._pins, program, config, &devices)?;
        Ok(())
    }

    /// Lets the outside know of the addresses that this gateway owns, when they may be others now.
    fn be_present(&mut self) {
        let Some(presence) = self.presence.as_mut().filter(|_| self.is_news) else {
            return;
        };
        let is_owned = |address: &Ipv4Addr| {
            let router = self.rows.external(*address).map(|external| external.router());
            router.is_some_and(|router| self.rows.is_owned(router, self.tunnel_ip))
        };
        presence.bring(&self.rows.external_addresses().filter(is_owned).collect());
        self.is_news = false;
    }

    /// Brings the entries that a change touched in step with the rows.
    fn bring(&mut self, keys: &BTreeSet<Key>) -> Result<(), DataplaneError> {
        self.is_news |= keys
            .iter()
            .any(|key| matches!(key, Key::Router(_) | Key::External(_)));
        for key in keys {
            if let Some(value) = derived::value(key, &self.rows, &self.handles) {
                self.tables.put(key, &value)?;
            }
        }
        for key in keys.iter().rev() {
            if derived::value(key, &self.rows, &self.handles).is_none() {
                self.tables.remove(key)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, row: &Row) -> Result<(), DataplaneError> {
        self.rows.check(NAME, row)?;
        let key = row.key();
        if self.rows.get(&key) == Some(row) {
            return Ok(());
        }
        // What takes the place of something has none of it.
        self.clear_gone()?;
        let old = self.rows.get(&key).cloned();
        let mut keys = self.touched(old.as_ref());
        let number = self.handles.give(row)?;
        self.rows.put(row.clone());
        keys.extend(self.touched(Some(row)));
        let done = self.kept.put(row, number).and_then(|()| self.bring(&keys));
        if done.is_err() {
            self.undo(&key, old, number, &keys);
            return done;
        }
        self.forget(old.as_ref());
        Ok(())
    }

    fn touched(&self, row: Option<&Row>) -> BTreeSet<Key> {
        let touched = row.map(|row| derived::touched(row, &self.rows, &self.handles));
        touched.unwrap_or_default()
    }

    /// Notes what goes with a row that was there.
    fn forget(&mut self, old: Option<&Row>) {
        if let Some(Row::Network(old)) = old
            && self.rows.network_of_vni(old.vni.get()).is_none()
        {
            self.gone.vnis.insert(old.vni.get());
        }
        let router = old.and_then(derived::named_router);
        let gone = router.filter(|router| !self.rows.is_named(*router));
        self.gone.routers.extend(gone);
    }

    /// Takes what is gone out of the large tables, each of which is walked once, whatever went. Only then its numbers are free.
    fn clear_gone(&mut self) -> Result<(), DataplaneError> {
        let handles = |id: &Id<Network>| self.handles.network(*id);
        let networks: BTreeSet<u32> = self.gone.networks.iter().filter_map(handles).collect();
        if !networks.is_empty() {
            self.peers.retain(|handle| !networks.contains(&handle))?;
        }
        for id in std::mem::take(&mut self.gone.networks) {
            self.handles.free_network(id);
        }
        let numbers = |id: &Id<Router>| self.handles.router(*id);
        let routers: BTreeSet<u32> = self.gone.routers.iter().filter_map(numbers).collect();
        nat::lock(&self.nat).forget(&self.gone.vnis, &routers)?;
        for id in std::mem::take(&mut self.gone.routers) {
            self.handles.free_router(id);
        }
        self.gone.vnis.clear();
        Ok(())
    }

    /// Puts back what was in force before a row that the kernel refused. Best effort: the refusal is what the caller hears of.
    fn undo(&mut self, key: &RowKey, old: Option<Row>, number: u32, keys: &BTreeSet<Key>) {
        let kept = match old {
            Some(old) => {
                let kept = self.kept.put(&old, number);
                self.rows.put(old);
                kept
            }
            None => {
                self.rows.remove(key);
                self.kept.remove(key)
            }
        };
        let back = kept.and_then(|()| self.bring(keys));
        match key {
            RowKey::Network(id) if self.rows.network(*id).is_none() => self.handles.free_network(*id),
            _ => {}
        }
        if let Err(error) = back {
            tracing::error!(%error, kind = key.kind(), "a row that the kernel refused cannot be taken back");
        }
    }

    fn remove(&mut self, key: &RowKey) -> Result<(), DataplaneError> {
        let Some(old) = self.rows.get(key).cloned() else {
            return Ok(());
        };
        let mut keys = self.touched(Some(&old));
        self.rows.remove(key);
        keys.extend(self.touched(Some(&old)));
        if let Err(error) = self.bring(&keys) {
            // Still in force as far as anybody knows: it can be removed again.
            self.rows.put(old);
            return Err(error);
        }
        self.kept.remove(key)?;
        self.forget(Some(&old));
        Ok(())
    }

    fn remove_network(&mut self, id: Id<Network>) -> Result<(), DataplaneError> {
        for key in self.rows.contents(id) {
            self.remove(&key)?;
            self.gone.networks.insert(id);
        }
        Ok(())
    }

    fn apply_one(&mut self, change: &RowChange) -> Result<(), DataplaneError> {
        match change {
            RowChange::Put(row) => self.put(row),
            RowChange::Remove(RowKey::Network(id)) => self.remove_network(*id),
            RowChange::Remove(key) => self.remove(key),
        }
    }

    /// Brings changes of neighbours into force.
    fn apply_neighbours(&self, changes: &[RowChange], outcomes: &mut Vec<Result<(), DataplaneError>>) {
        let begin = outcomes.len();
        let mut wanted = Vec::with_capacity(changes.len());
        for (at, change) in changes.iter().enumerate() {
            let RowKey::Neighbour(network, ip) = change.key() else {
                continue;
            };
            let value = match change {
                RowChange::Put(row) => self.neighbour(row).map(Some),
                RowChange::Remove(_) => Ok(None),
            };
            match (value, self.handles.network(network)) {
                (Ok(value), Some(handle)) => {
                    wanted.push((begin + at, handle, ip, value));
                    outcomes.push(Ok(()));
                }
                // Nothing lies in a network that is not there.
                (Ok(_), None) => outcomes.push(Ok(())),
                (Err(refusal), _) => outcomes.push(Err(refusal)),
            }
        }
        self.peers.change(wanted.into_iter(), outcomes);
    }

    fn neighbour(&self, row: &Row) -> Result<alcor_dataplane_abi::gateway_layout::PeerValue, DataplaneError> {
        self.rows.check(NAME, row)?;
        let value = match row {
            Row::Neighbour(row) => peers::value(row),
            _ => None,
        };
        value.ok_or(DataplaneError::Unsupported {
            dataplane: NAME,
            what: "such neighbours",
        })
    }
}

const fn is_neighbour(change: &RowChange) -> bool {
    matches!(
        change,
        RowChange::Put(Row::Neighbour(_)) | RowChange::Remove(RowKey::Neighbour(..))
    )
}

impl Dataplane for XdpGateway {
    fn name(&self) -> &'static str {
        NAME
    }

    fn filters(&self) -> bool {
        false
    }

    fn apply(&mut self, changes: &[RowChange]) -> Vec<Result<(), DataplaneError>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for run in changes.chunk_by(|one, next| is_neighbour(one) == is_neighbour(next)) {
            if run.first().is_some_and(is_neighbour) {
                self.apply_neighbours(run, &mut outcomes);
            } else {
                outcomes.extend(run.iter().map(|change| self.apply_one(change)));
            }
        }
        if let Err(error) = self.clear_gone() {
            // Packets find nothing of it any more; it is tried again with the next changes.
            tracing::warn!(%error, "what is gone still has room in the kernel");
        }
        self.be_present();
        outcomes
    }

    fn snapshot(&mut self) -> Result<Snapshot, DataplaneError> {
        let mut rows: Vec<Row> = self.rows.all().cloned().collect();
        let neighbours = self.peers.rows(|handle| self.handles.id(handle))?;
        rows.extend(neighbours.into_iter().map(Row::Neighbour));
        rows.sort_by_key(Row::key);
        Ok(Snapshot {
            rows,
            ..Snapshot::default()
        })
    }

    fn gateway(&mut self) -> Result<Option<GatewayReport>, DataplaneError> {
        let device = |(device, attachment): &(String, Attachment)| GatewayDevice {
            device: device.clone(),
            mode: match attachment {
                Attachment::Native => AttachMode::Native,
                Attachment::Generic => AttachMode::Generic,
            },
        };
        // The sweeper has it for as long as it looks through all connections, and rows do not wait for that.
        match nat::try_lock(&self.nat) {
            Some(nat) => self.told_nat = Some(self.count_nat(&nat)?),
            None if self.told_nat.is_none() => self.told_nat = Some(self.nat()?),
            None => {}
        }
        Ok(Some(GatewayReport {
            devices: self.attached.iter().map(device).collect(),
            load: self.load()?.into(),
            nat: self.told_nat.clone().unwrap_or_default(),
            neighbours_room: Some(self.peers.room()),
            layout: Some(GATEWAY_LAYOUT),
        }))
    }

    fn drops(&mut self) -> Result<Drops, DataplaneError> {
        let counters = self.drops.get(&0, 0);
        let counters = counters.map_err(|source| error::kernel("reading the gateway's drops", source))?;
        let count = |reason: DropReason| {
            let cpus = counters.iter();
            cpus.filter_map(|Plain(cpu)| cpu.by_reason.get(reason as usize))
                .sum::<u64>()
        };
        let drops = DropReason::ALL
            .iter()
            .map(|reason| ((None, *reason), count(*reason)));
        Ok(drops.filter(|(_, count)| *count > 0).collect())
    }
}
