//! Rules in the form in which packets are judged: the cost of a lookup does not grow with the number of rules.
//!
//! All rules of a port's groups become one [`Compiled`] set, with one [`Table`] for each direction and family. A
//! table splits what packets can carry into *classes*: two packets are of one class when the same services of the
//! rules match both. Who the other side is gives a row of bits, one for each class that is allowed with it. So a
//! packet takes: protocol and point -> class; address -> bits by the longest prefix; label -> bits; allowed if one
//! of the two has the class's bit. Kernel programs have the same tables in maps.
//!
//! A reference is read, not fast: lookups here walk.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
};

use alcor_dataplane_abi::connection::Direction;
use alcor_model::Id;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    DataplaneError,
    security::{Family, LabelRow, PolicyRow, Remote, Rule, SecurityGroup, Service},
};

/// Classes of one table.
pub const MAX_CLASSES: usize = 2048;
/// Different services (protocol and range) of one table.
pub const MAX_SERVICES: usize = 4096;
/// Different prefixes of one table.
pub const MAX_PREFIXES: usize = 65_536;

/// A bit for each class.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, class: u16) {
        let (word, bit) = (usize::from(class / 64), class % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// Whether the class's bit is set.
    pub fn has(&self, class: u16) -> bool {
        let word = self.0.get(usize::from(class / 64)).copied().unwrap_or_default();
        word >> (class % 64) & 1 == 1
    }

    /// The words, lowest classes first; trailing zero words may be missing.
    pub fn words(&self) -> &[u64] {
        &self.0
    }
}

/// What is allowed in one direction and family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// By protocol: where a range of points begins, and its class. The first range begins at 0.
    pub services: BTreeMap<u8, Vec<(u16, u16)>>,
    /// The class of every protocol that is not in `services`.
    pub other: u16,
    /// How many classes there are.
    pub classes: u16,
    /// What is allowed with addresses; the longest prefix that has an address counts, and has the bits of all
    /// shorter ones too.
    pub prefixes: BTreeMap<IpNet, Bits>,
    /// What is allowed with labels; labels with nothing are missing.
    pub labels: BTreeMap<NonZeroU16, Bits>,
}

impl Table {
    /// The class of what a packet carries.
    pub fn class(&self, protocol: u8, point: u16) -> u16 {
        let ranges = self.services.get(&protocol);
        let range = ranges.and_then(|ranges| ranges.iter().rev().find(|(first, _)| *first <= point));
        range.map_or(self.other, |(_, class)| *class)
    }

    /// Whether a packet of this kind is allowed with this other side.
    pub fn allows(&self, ip: IpAddr, label: u16, protocol: u8, point: u16) -> bool {
        let class = self.class(protocol, point);
        let by_label = NonZeroU16::new(label).and_then(|label| self.labels.get(&label));
        let longest = self.prefixes.iter().filter(|(prefix, _)| prefix.contains(&ip));
        let by_prefix = longest.max_by_key(|(prefix, _)| prefix.prefix_len());
        by_label.is_some_and(|bits| bits.has(class)) || by_prefix.is_some_and(|(_, bits)| bits.has(class))
    }
}

/// All rules of one set of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Connections are tracked.
    pub stateful: bool,
    ingress: [Table; 2],
    egress: [Table; 2],
}

impl Compiled {
    /// The rules that are in force for ports with this label: those of its groups that have a policy row. A label
    /// without a row, and a group without one, allow nothing.
    ///
    /// # Errors
    /// [`DataplaneError::Full`] when the rules do not fit the limits above.
    pub fn new(
        label: u16,
        labels: &BTreeMap<NonZeroU16, LabelRow>,
        policies: &BTreeMap<Id<SecurityGroup>, PolicyRow>,
    ) -> Result<Self, DataplaneError> {
        let set = NonZeroU16::new(label).and_then(|label| labels.get(&label));
        let groups: BTreeSet<_> = set.map(|row| &row.groups).into_iter().flatten().collect();
        let rows: Vec<&PolicyRow> = groups
            .into_iter()
            .filter_map(|group| policies.get(group))
            .collect();
        let table = |rules: fn(&PolicyRow) -> &Vec<Rule>, family| {
            let rules = rows
                .iter()
                .flat_map(|row| rules(row))
                .filter(|rule| rule.family == family);
            compile(&rules.collect(), family, labels)
        };
        let both =
            |rules| Ok::<_, DataplaneError>([table(rules, Family::Ipv4)?, table(rules, Family::Ipv6)?]);
        Ok(Self {
            stateful: rows.iter().all(|row| row.stateful),
            ingress: both(|row| &row.ingress)?,
            egress: both(|row| &row.egress)?,
        })
    }

    /// The table that judges a direction and family.
    pub const fn table(&self, direction: Direction, family: Family) -> &Table {
        let [ipv4, ipv6] = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
    }
}

/// Classes while they are made.
#[derive(Default)]
struct Classes {
    /// The class of each set of services. A service is its place in the list of all; `None` of a rule is 0.
    numbers: BTreeMap<BTreeSet<usize>, u16>,
}

impl Classes {
    fn number(&mut self, services: BTreeSet<usize>) -> Result<u16, DataplaneError> {
        let next = self.numbers.len();
        if let Some(number) = self.numbers.get(&services) {
            return Ok(*number);
        }
        room("class of services in the rules of one set", next, MAX_CLASSES)?;
        self.numbers.insert(services, next as u16);
        Ok(next as u16)
    }

    /// For each service, the classes that it matches.
    fn of_services(&self, count: usize) -> Vec<Bits> {
        let mut bits = vec![Bits::default(); count];
        for (services, class) in &self.numbers {
            for service in services {
                if let Some(bits) = bits.get_mut(*service) {
                    bits.set(*class);
                }
            }
        }
        bits
    }
}

fn compile(
    rules: &BTreeSet<&Rule>,
    family: Family,
    labels: &BTreeMap<NonZeroU16, LabelRow>,
) -> Result<Table, DataplaneError> {
    // `None` sorts first, and is there always: the class of what only rules for anything match.
    let services: BTreeSet<Option<Service>> = rules.iter().map(|rule| rule.service).chain([None]).collect();
    let services: Vec<Option<Service>> = services.into_iter().collect();
    if services.len() > MAX_SERVICES {
        return room("service in the rules of one set", services.len(), MAX_SERVICES)
            .map(|()| Table::default());
    }
    let mut classes = Classes::default();
    let mut table = Table {
        other: classes.number(BTreeSet::from([0]))?,
        ..Table::default()
    };
    let protocols: BTreeSet<u8> = services
        .iter()
        .flatten()
        .map(|service| service.protocol)
        .collect();
    for protocol in protocols {
        let ranges = ranges(protocol, &services, &mut classes)?;
        table.services.insert(protocol, ranges);
    }
    table.classes = classes.numbers.len() as u16;
    let of_services = classes.of_services(services.len());

    let mut prefixes: BTreeMap<IpNet, Bits> = BTreeMap::new();
    let mut groups: BTreeMap<Id<SecurityGroup>, Bits> = BTreeMap::new();
    for rule in rules {
        let place = services.binary_search(&rule.service).unwrap_or_default();
        let Some(bits) = of_services.get(place) else {
            continue;
        };
        match &rule.remote {
            Remote::Any => prefixes.entry(everything(family)).or_default().add(bits),
            Remote::Prefixes(blocks) => {
                for block in blocks.iter().filter(|block| Family::of(block.addr()) == family) {
                    prefixes.entry(block.trunc()).or_default().add(bits);
                }
            }
            Remote::Group(group) => groups.entry(*group).or_default().add(bits),
        }
    }
    if prefixes.len() > MAX_PREFIXES {
        room("prefix in the rules of one set", prefixes.len(), MAX_PREFIXES)?;
    }
    table.prefixes = inherit(prefixes);
    table.labels = by_label(&groups, labels);
    Ok(table)
}

/// Splits the points of a protocol at the ends of its services' ranges.
fn ranges(
    protocol: u8,
    services: &[Option<Service>],
    classes: &mut Classes,
) -> Result<Vec<(u16, u16)>, DataplaneError> {
    let of_protocol: Vec<(usize, Service)> = services
        .iter()
        .enumerate()
        .filter_map(|(place, service)| Some((place, (*service)?)))
        .filter(|(_, service)| service.protocol == protocol && service.first <= service.last)
        .collect();
    let mut begin: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    let mut end: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (place, service) in of_protocol {
        begin.entry(service.first).or_default().push(place);
        if let Some(behind) = service.last.checked_add(1) {
            end.entry(behind).or_default().push(place);
        }
    }
    let mut inside = BTreeSet::from([0]);
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    let points: BTreeSet<u16> = begin.keys().chain(end.keys()).copied().chain([0]).collect();
    for point in points {
        for place in end.get(&point).into_iter().flatten() {
            inside.remove(place);
        }
        inside.extend(begin.get(&point).into_iter().flatten().copied());
        let class = classes.number(inside.clone())?;
        if ranges.last().is_none_or(|(_, last)| *last != class) {
            ranges.push((point, class));
        }
    }
    Ok(ranges)
}

/// Adds to each prefix the bits of the prefixes around it.
fn inherit(prefixes: BTreeMap<IpNet, Bits>) -> BTreeMap<IpNet, Bits> {
    // In the order of the map a prefix comes before those inside it, with nothing from outside in between.
    let mut around: Vec<(IpNet, Bits)> = Vec::new();
    let mut inherited = BTreeMap::new();
    for (prefix, mut bits) in prefixes {
        while around.last().is_some_and(|(outer, _)| !outer.contains(&prefix)) {
            around.pop();
        }
        if let Some((_, outer)) = around.last() {
            bits.add(outer);
        }
        around.push((prefix, bits.clone()));
        inherited.insert(prefix, bits);
    }
    inherited
}

fn by_label(
    groups: &BTreeMap<Id<SecurityGroup>, Bits>,
    labels: &BTreeMap<NonZeroU16, LabelRow>,
) -> BTreeMap<NonZeroU16, Bits> {
    if groups.is_empty() {
        return BTreeMap::new();
    }
    let bits_of = |row: &LabelRow| {
        let mut bits = Bits::default();
        for group in row.groups.iter().filter_map(|group| groups.get(group)) {
            bits.add(group);
        }
        bits
    };
    labels
        .iter()
        .map(|(label, row)| (*label, bits_of(row)))
        .filter(|(_, bits)| *bits != Bits::default())
        .collect()
}

/// The prefix of all addresses.
fn everything(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => IpNet::V4(Ipv4Net::default()),
        Family::Ipv6 => IpNet::V6(Ipv6Net::default()),
    }
}

fn room(what: &'static str, count: usize, limit: usize) -> Result<(), DataplaneError> {
    if count < limit {
        Ok(())
    } else {
        Err(DataplaneError::Full { what, limit })
    }
}
