//! The kernel's small tables: reads them all, brings a difference into force.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use alcor_dataplane::DataplaneError;
use alcor_dataplane_abi::layout::{
    BitsKey, Counters, FilterValue, FloatingIn, FloatingKey, FloatingOut, GatewaySet, IpKey, LabelKey,
    LocalIp, LocalMac, MAX_BITS, MAX_FIXED_IPS, MAX_FLOATING_IPS, MAX_GATEWAY_SETS, MAX_LABELS, MAX_NETWORKS,
    MAX_PAIRS, MAX_PORTS, MAX_PREFIXES, MAX_ROUTES, MAX_SERVICES, MAX_SUBNETS, MAX_TRANSLATIONS,
    MAX_UNDERLAY, MacKey, NetworkValue, PairKey, PortValue, PrefixKey, RouteValue, ServiceKey,
    TranslationKey, WayOut,
};
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key as TrieKey},
};

use crate::{
    entry::{Entries, Key, Value},
    error,
    kept::Kept,
    layout::Plain,
    lists::{self, List},
    memory::Memories,
};

pub(crate) type Hash<K, V> = HashMap<MapData, K, V>;
type Trie<K> = LpmTrie<MapData, Plain<K>, u32>;

/// Maps that are pinned. The others (events, meters, globals) live and die with the programs.
pub(crate) const PINNED: &[&str] = &[
    "ports",
    "vnis",
    "networks",
    "local_macs",
    "local_ips",
    "fixed_ips",
    "pairs",
    "pair_macs",
    "gateways",
    "routed",
    "ways_out",
    "floating_out",
    "floating_in",
    "subnets",
    "gateway_sets",
    "translations",
    "neighbours",
    "remote_macs",
    "kept",
    "drops",
    "underlay",
    "filters",
    "services",
    "prefixes",
    "labels",
    "bits",
    "epochs",
    "pending",
    "answered",
    "use_time",
];

/// The present value of entries that have none.
const PRESENT: u32 = 1;

/// How long a packet may take through the programs: microseconds, if nothing stops the processor.
const GRACE: Duration = Duration::from_millis(100);

pub(crate) struct KernelTables {
    ports: Hash<u32, Plain<PortValue>>,
    vnis: Hash<u32, u32>,
    networks: Hash<u32, Plain<NetworkValue>>,
    local_macs: Hash<Plain<MacKey>, Plain<LocalMac>>,
    local_ips: Hash<Plain<IpKey>, Plain<LocalIp>>,
    fixed_ips: Hash<Plain<IpKey>, u32>,
    pairs: Trie<PairKey>,
    pair_macs: Hash<Plain<MacKey>, u32>,
    gateways: Hash<Plain<IpKey>, u32>,
    routed: LpmTrie<MapData, Plain<IpKey>, Plain<RouteValue>>,
    ways_out: LpmTrie<MapData, Plain<IpKey>, Plain<WayOut>>,
    floating_out: Hash<Plain<IpKey>, Plain<FloatingOut>>,
    floating_in: Hash<Plain<FloatingKey>, Plain<FloatingIn>>,
    subnets: Trie<IpKey>,
    gateway_sets: Hash<u32, Plain<GatewaySet>>,
    translations: Hash<Plain<TranslationKey>, u32>,
    underlay: Trie<IpKey>,
    filters: Hash<u32, Plain<FilterValue>>,
    services: Trie<ServiceKey>,
    prefixes: Trie<PrefixKey>,
    labels: Hash<Plain<LabelKey>, u32>,
    bits: Hash<Plain<BitsKey>, u64>,
    epochs: Array<MapData, u32>,
    /// Entries of sets of rules that nothing names any more, and since when.
    retired: BTreeMap<Instant, BTreeSet<Key>>,
    /// What ports' filters remember.
    pub(crate) memories: Memories,
    /// Rows for the agent that starts again.
    pub(crate) kept: Kept,
    /// Drops by port handle.
    pub(crate) drops: PerCpuArray<MapData, Plain<Counters>>,
}

/// Takes a map out of the loaded object.
pub(crate) fn take_map(object: &mut Ebpf, name: &str) -> Result<Map, DataplaneError> {
    object
        .take_map(name)
        .ok_or_else(|| error::kernel(format!("looking for map {name}"), "the programs do not have it"))
}

/// Takes a map of a known kind out of the loaded object.
pub(crate) fn take<T>(object: &mut Ebpf, name: &str) -> Result<T, DataplaneError>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(take_map(object, name)?)
        .map_err(|source| error::kernel(format!("opening map {name}"), source))
}

impl KernelTables {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            ports: take(object, "ports")?,
            vnis: take(object, "vnis")?,
            networks: take(object, "networks")?,
            local_macs: take(object, "local_macs")?,
            local_ips: take(object, "local_ips")?,
            fixed_ips: take(object, "fixed_ips")?,
            pairs: take(object, "pairs")?,
            pair_macs: take(object, "pair_macs")?,
            gateways: take(object, "gateways")?,
            routed: take(object, "routed")?,
            ways_out: take(object, "ways_out")?,
            floating_out: take(object, "floating_out")?,
            floating_in: take(object, "floating_in")?,
            subnets: take(object, "subnets")?,
            gateway_sets: take(object, "gateway_sets")?,
            translations: take(object, "translations")?,
            underlay: take(object, "underlay")?,
            filters: take(object, "filters")?,
            services: take(object, "services")?,
            prefixes: take(object, "prefixes")?,
            labels: take(object, "labels")?,
            bits: take(object, "bits")?,
            epochs: take(object, "epochs")?,
            retired: BTreeMap::new(),
            memories: Memories::take(object)?,
            kept: Kept::new(take(object, "kept")?),
            drops: take(object, "drops")?,
        })
    }

    /// The lists of gateways in the kernel, with their numbers.
    pub(crate) fn gateway_lists(&self) -> Result<Vec<(u32, List)>, DataplaneError> {
        let sets = self.gateway_sets.iter().map(|item| {
            let (number, Plain(set)) =
                item.map_err(|source| error::kernel("reading the kernel's sets of gateways", source))?;
            Ok((number, lists::decode(&set)))
        });
        sets.collect()
    }

    /// All entries in the kernel.
    pub(crate) fn read(&self) -> Result<Entries, DataplaneError> {
        let mut entries = Entries::new();
        read(&mut entries, self.ports.iter(), |key, value| {
            (Key::Port(key), Value::Port(value.0))
        })?;
        read(&mut entries, self.vnis.iter(), |key, value| {
            (Key::Vni(key), Value::Vni(value))
        })?;
        read(&mut entries, self.networks.iter(), |key, value| {
            (Key::Network(key), Value::Network(value.0))
        })?;
        read(&mut entries, self.local_macs.iter(), |key, value| {
            (Key::LocalMac(key.0), Value::LocalMac(value.0))
        })?;
        read(&mut entries, self.local_ips.iter(), |key, value| {
            (Key::LocalIp(key.0), Value::LocalIp(value.0))
        })?;
        read(&mut entries, self.fixed_ips.iter(), |key, _| {
            (Key::FixedIp(key.0), Value::Present)
        })?;
        read(&mut entries, self.pairs.iter(), |key, _| {
            (Key::Pair(key.prefix_len(), key.data().0), Value::Present)
        })?;
        read(&mut entries, self.pair_macs.iter(), |key, _| {
            (Key::PairMac(key.0), Value::Present)
        })?;
        read(&mut entries, self.gateways.iter(), |key, _| {
            (Key::Gateway(key.0), Value::Present)
        })?;
        read(&mut entries, self.routed.iter(), |key, value| {
            let route = Value::Route(value.0);
            (Key::Routed(key.prefix_len(), key.data().0), route)
        })?;
        read(&mut entries, self.ways_out.iter(), |key, value| {
            let way = Value::WayOut(value.0);
            (Key::WayOut(key.prefix_len(), key.data().0), way)
        })?;
        read(&mut entries, self.floating_out.iter(), |key, value| {
            (Key::FloatingOut(key.0), Value::FloatingOut(value.0))
        })?;
        read(&mut entries, self.floating_in.iter(), |key, value| {
            (Key::FloatingIn(key.0), Value::FloatingIn(value.0))
        })?;
        read(&mut entries, self.subnets.iter(), |key, _| {
            (Key::Subnet(key.prefix_len(), key.data().0), Value::Present)
        })?;
        read(&mut entries, self.gateway_sets.iter(), |number, set| {
            (Key::Gateways(number), Value::Gateways(Box::new(set.0)))
        })?;
        read(&mut entries, self.translations.iter(), |key, label| {
            (Key::Translation(key.0), Value::Number(label))
        })?;
        read(&mut entries, self.underlay.iter(), |key, _| {
            (Key::Underlay(key.prefix_len(), key.data().0), Value::Present)
        })?;
        read(&mut entries, self.filters.iter(), |key, value| {
            (Key::Filter(key), Value::Filter(value.0))
        })?;
        read(&mut entries, self.services.iter(), |key, class| {
            (Key::Service(key.prefix_len(), key.data().0), Value::Number(class))
        })?;
        read(&mut entries, self.prefixes.iter(), |key, row| {
            (Key::Prefix(key.prefix_len(), key.data().0), Value::Number(row))
        })?;
        read(&mut entries, self.labels.iter(), |key, row| {
            (Key::Label(key.0), Value::Number(row))
        })?;
        read(&mut entries, self.bits.iter(), |key, word| {
            (Key::Bits(key.0), Value::Word(word))
        })?;
        Ok(entries)
    }

    /// The last epoch that was given out.
    pub(crate) fn last_epoch(&self) -> Result<u32, DataplaneError> {
        let last = self.epochs.get(&0, 0);
        last.map_err(|source| error::kernel("reading the last epoch", source))
    }

    /// Writes the last epoch down, before anything has it.
    pub(crate) fn set_last_epoch(&mut self, epoch: u32) -> Result<(), DataplaneError> {
        let set = self.epochs.set(0, epoch, 0);
        set.map_err(|source| error::kernel("writing the last epoch", source))
    }

    /// Brings the kernel from `before` to `after`: new and changed entries first, then removals. Entries of sets of rules
    /// that nothing names any more are removed later: a packet that is on its way through the programs may have
    /// begun to ask them.
    ///
    /// Stops at the first failure; entries put until then stay.
    pub(crate) fn replace(&mut self, before: &Entries, after: &Entries) -> Result<(), DataplaneError> {
        self.remove_retired(Instant::now().checked_sub(GRACE))?;
        for (key, value) in after {
            if before.get(key) == Some(value) {
                continue;
            }
            self.retired.values_mut().for_each(|keys| {
                keys.remove(key);
            });
            match self.put(key, value) {
                Err(DataplaneError::Full { .. }) if !self.retired.is_empty() => {
                    thread::sleep(GRACE);
                    self.remove_retired(Some(Instant::now()))?;
                    self.put(key, value)?;
                }
                done => done?,
            }
        }
        let mut retired = BTreeSet::new();
        for key in before.keys().rev() {
            if after.contains_key(key) {
                continue;
            }
            if key.is_of_set() {
                retired.insert(*key);
            } else {
                self.remove(key)?;
            }
        }
        if !retired.is_empty() {
            self.retired.entry(Instant::now()).or_default().extend(retired);
        }
        Ok(())
    }

    /// Removes entries of sets that were retired until `then`.
    fn remove_retired(&mut self, then: Option<Instant>) -> Result<(), DataplaneError> {
        while let Some(oldest) = self.retired.first_entry()
            && then.is_some_and(|then| *oldest.key() <= then)
        {
            for key in oldest.remove().iter().rev() {
                self.remove(key)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &Key, value: &Value) -> Result<(), DataplaneError> {
        if let Key::Filter(port) = key {
            self.memories.ensure(*port)?;
        }
        let done = match (*key, value.clone()) {
            (Key::Port(key), Value::Port(value)) => self.ports.insert(key, Plain(value), 0),
            (Key::Vni(key), Value::Vni(value)) => self.vnis.insert(key, value, 0),
            (Key::Network(key), Value::Network(value)) => self.networks.insert(key, Plain(value), 0),
            (Key::LocalMac(key), Value::LocalMac(value)) => {
                self.local_macs.insert(Plain(key), Plain(value), 0)
            }
            (Key::LocalIp(key), Value::LocalIp(value)) => self.local_ips.insert(Plain(key), Plain(value), 0),
            (Key::FixedIp(key), _) => self.fixed_ips.insert(Plain(key), PRESENT, 0),
            (Key::Pair(bits, key), _) => self.pairs.insert(&TrieKey::new(bits, Plain(key)), PRESENT, 0),
            (Key::PairMac(key), _) => self.pair_macs.insert(Plain(key), PRESENT, 0),
            (Key::Gateway(key), _) => self.gateways.insert(Plain(key), PRESENT, 0),
            (Key::Routed(bits, key), Value::Route(value)) => {
                self.routed
                    .insert(&TrieKey::new(bits, Plain(key)), Plain(value), 0)
            }
            (Key::WayOut(bits, key), Value::WayOut(value)) => {
                self.ways_out
                    .insert(&TrieKey::new(bits, Plain(key)), Plain(value), 0)
            }
            (Key::FloatingOut(key), Value::FloatingOut(value)) => {
                self.floating_out.insert(Plain(key), Plain(value), 0)
            }
            (Key::FloatingIn(key), Value::FloatingIn(value)) => {
                self.floating_in.insert(Plain(key), Plain(value), 0)
            }
            (Key::Subnet(bits, key), _) => self.subnets.insert(&TrieKey::new(bits, Plain(key)), PRESENT, 0),
            (Key::Gateways(number), Value::Gateways(set)) => self.gateway_sets.insert(number, Plain(*set), 0),
            (Key::Translation(key), Value::Number(label)) => self.translations.insert(Plain(key), label, 0),
            (Key::Underlay(bits, key), _) => {
                self.underlay.insert(&TrieKey::new(bits, Plain(key)), PRESENT, 0)
            }
            (Key::Filter(port), Value::Filter(value)) => self.filters.insert(port, Plain(value), 0),
            (Key::Service(bits, key), Value::Number(class)) => {
                self.services.insert(&TrieKey::new(bits, Plain(key)), class, 0)
            }
            (Key::Prefix(bits, key), Value::Number(row)) => {
                self.prefixes.insert(&TrieKey::new(bits, Plain(key)), row, 0)
            }
            (Key::Label(key), Value::Number(row)) => self.labels.insert(Plain(key), row, 0),
            (Key::Bits(key), Value::Word(word)) => self.bits.insert(Plain(key), word, 0),
            // Keys and values are made in pairs; a pair that does not match has nothing to put.
            _ => Ok(()),
        };
        done.map_err(|source| refused(key, source))
    }

    fn remove(&mut self, key: &Key) -> Result<(), DataplaneError> {
        let done = match *key {
            Key::Port(key) => self.ports.remove(&key),
            Key::Vni(key) => self.vnis.remove(&key),
            Key::Network(key) => self.networks.remove(&key),
            Key::LocalMac(key) => self.local_macs.remove(&Plain(key)),
            Key::LocalIp(key) => self.local_ips.remove(&Plain(key)),
            Key::FixedIp(key) => self.fixed_ips.remove(&Plain(key)),
            Key::Pair(bits, key) => self.pairs.remove(&TrieKey::new(bits, Plain(key))),
            Key::PairMac(key) => self.pair_macs.remove(&Plain(key)),
            Key::Gateway(key) => self.gateways.remove(&Plain(key)),
            Key::Routed(bits, key) => self.routed.remove(&TrieKey::new(bits, Plain(key))),
            Key::WayOut(bits, key) => self.ways_out.remove(&TrieKey::new(bits, Plain(key))),
            Key::FloatingOut(key) => self.floating_out.remove(&Plain(key)),
            Key::FloatingIn(key) => self.floating_in.remove(&Plain(key)),
            Key::Subnet(bits, key) => self.subnets.remove(&TrieKey::new(bits, Plain(key))),
            Key::Gateways(number) => self.gateway_sets.remove(&number),
            Key::Translation(key) => self.translations.remove(&Plain(key)),
            Key::Underlay(bits, key) => self.underlay.remove(&TrieKey::new(bits, Plain(key))),
            Key::Filter(port) => self.filters.remove(&port),
            Key::Service(bits, key) => self.services.remove(&TrieKey::new(bits, Plain(key))),
            Key::Prefix(bits, key) => self.prefixes.remove(&TrieKey::new(bits, Plain(key))),
            Key::Label(key) => self.labels.remove(&Plain(key)),
            Key::Bits(key) => self.bits.remove(&Plain(key)),
        };
        match done {
            Err(source) if !error::is_missing(&source) => Err(refused(key, source)),
            _ => Ok(()),
        }
    }
}

fn refused(key: &Key, source: MapError) -> DataplaneError {
    let (what, limit) = match key {
        Key::FixedIp(_) | Key::LocalIp(_) => ("fixed IP", MAX_FIXED_IPS),
        Key::Pair(..) | Key::PairMac(_) => ("allowed address pair", MAX_PAIRS),
        Key::Gateway(_) | Key::Routed(..) | Key::WayOut(..) => ("subnet or route", MAX_ROUTES),
        Key::FloatingOut(_) | Key::FloatingIn(_) => ("floating IP", MAX_FLOATING_IPS),
        Key::Subnet(..) => ("subnet", MAX_SUBNETS),
        Key::Gateways(_) => ("set of gateways", MAX_GATEWAY_SETS),
        Key::Translation(_) => ("label of another network", MAX_TRANSLATIONS),
        Key::Network(_) | Key::Vni(_) => ("network", MAX_NETWORKS),
        Key::LocalMac(_) | Key::Port(_) | Key::Filter(_) => ("port", MAX_PORTS),
        Key::Underlay(..) => ("block of tunnel addresses", MAX_UNDERLAY),
        Key::Service(..) => ("service in rules", MAX_SERVICES),
        Key::Prefix(..) => ("prefix in rules", MAX_PREFIXES),
        Key::Label(_) => ("label in rules", MAX_LABELS),
        Key::Bits(_) => ("word of rules", MAX_BITS),
    };
    error::map(what, limit, source)
}

fn read<K: Pod, V: Pod>(
    entries: &mut Entries,
    map: impl Iterator<Item = Result<(K, V), MapError>>,
    entry: impl Fn(K, V) -> (Key, Value),
) -> Result<(), DataplaneError> {
    for item in map {
        let (key, value) = item.map_err(|source| error::kernel("reading the kernel's tables", source))?;
        entries.extend([entry(key, value)]);
    }
    Ok(())
}
