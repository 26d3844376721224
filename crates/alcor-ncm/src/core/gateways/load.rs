//! What gateways say of their load, for people and programs that ask: nothing is decided by it. The newest word of each gateway's
//! present session is in memory, with the one before it for rates; both are cut to bounds where they are read.

use std::time::Duration;

use alcor_dataplane::DropReason;
use alcor_model::effective::{
    DeviceLoad, DropLoad, GatewayLine, GatewayLoad, LoadLine, NatLoad, RouterLoad, WayLoad,
};
use alcor_southbound::convert::load::LoadWord;

use super::{
    super::{Ncm, Now, readout::timestamp},
    Fleet,
};

/// After how long the rates of the last word say nothing any more: gateways say it every second.
pub const LOAD_FRESH: Duration = Duration::from_secs(5);

/// What a gateway said in its present session.
#[derive(Debug)]
pub(super) struct Heard {
    /// When it first said it, and last: microseconds since the Unix epoch.
    since_us: u64,
    said_us: u64,
    /// When it said it last, on the NCM's own clock.
    at: Duration,
    word: LoadWord,
    before: Option<LoadWord>,
}

/// The way from one word to the next.
struct Interval<'a> {
    before: &'a LoadWord,
    us: u64,
}

impl Interval<'_> {
    /// How much a counter grew in a second.
    fn rate(&self, now: &LoadWord, counter: impl Fn(&LoadWord) -> u64) -> Option<u64> {
        let grown = counter(now).checked_sub(counter(self.before))?;
        u64::try_from(u128::from(grown) * 1_000_000 / u128::from(self.us)).ok()
    }
}

type Counter = fn(&LoadWord) -> u64;

/// The ways, and where their packets and bytes are counted.
const WAYS: [(&str, Counter, Counter); 3] = [
    (
        "east_west",
        |word| word.load.east_west_packets,
        |word| word.load.east_west_bytes,
    ),
    (
        "north",
        |word| word.load.north_packets,
        |word| word.load.north_bytes,
    ),
    (
        "south",
        |word| word.load.south_packets,
        |word| word.load.south_bytes,
    ),
];

/// The sum of counters, which a gateway may have said anything of.
fn total(counters: impl Iterator<Item = u64>) -> u64 {
    counters.fold(0, u64::saturating_add)
}

fn packets(word: &LoadWord) -> u64 {
    total(WAYS.iter().map(|(_, packets, _)| packets(word)))
}

fn bytes(word: &LoadWord) -> u64 {
    total(WAYS.iter().map(|(.., bytes)| bytes(word)))
}

fn dropped(word: &LoadWord) -> u64 {
    total(word.drops.values().copied().chain([word.other_drops]))
}

fn dropped_for(reason: DropReason) -> impl Fn(&LoadWord) -> u64 {
    move |word| word.drops.get(&reason).copied().unwrap_or_default()
}

impl Heard {
    /// The interval that rates are of, while they say something of the present.
    fn interval(&self, now: Duration) -> Option<Interval<'_>> {
        let before = self.before.as_ref()?;
        let us = self
            .word
            .taken_us
            .checked_sub(before.taken_us)
            .filter(|us| *us > 0)?;
        (now.saturating_sub(self.at) <= LOAD_FRESH).then_some(Interval { before, us })
    }

    fn line(&self, now: Duration) -> LoadLine {
        let interval = self.interval(now);
        let rate = |counter: Counter| {
            interval
                .as_ref()
                .and_then(|interval| interval.rate(&self.word, counter))
        };
        LoadLine {
            packets_per_s: rate(packets),
            bytes_per_s: rate(bytes),
            dropped: dropped(&self.word),
            drops_per_s: rate(dropped),
            nat_refused: self.word.nat.refused,
        }
    }

    fn all(&self, now: Duration) -> Option<GatewayLoad> {
        let word = &self.word;
        let interval = self.interval(now);
        let rate = |counter: &dyn Fn(&LoadWord) -> u64| interval.as_ref()?.rate(word, counter);
        let passed = WAYS.iter().map(|(way, packets, bytes)| WayLoad {
            way: (*way).to_owned(),
            packets: packets(word),
            bytes: bytes(word),
            packets_per_s: rate(packets),
            bytes_per_s: rate(bytes),
        });
        let drops = word.drops.iter().map(|(reason, packets)| DropLoad {
            reason: reason.as_str().to_owned(),
            packets: *packets,
            packets_per_s: rate(&dropped_for(*reason)),
        });
        let others = (word.other_drops > 0).then(|| DropLoad {
            reason: "other".to_owned(),
            packets: word.other_drops,
            packets_per_s: rate(&|word: &LoadWord| word.other_drops),
        });
        let devices = word.devices.iter().map(|device| DeviceLoad {
            device: device.device.clone(),
            mode: device.mode.as_str().to_owned(),
        });
        Some(GatewayLoad {
            said_at: timestamp(self.said_us)?,
            heard_since: timestamp(self.since_us)?,
            interval_ms: interval.as_ref().map(|interval| interval.us / 1_000),
            passed: passed.collect(),
            drops: drops.chain(others).collect(),
            replies: word.load.replies,
            probes: word.load.probes,
            nat: nat(word),
            neighbours: word.neighbours,
            neighbours_room: word.neighbours_room.map(u64::from),
            devices: devices.collect(),
            layout: word.layout,
        })
    }
}

fn nat(word: &LoadWord) -> NatLoad {
    let busiest = word.busiest.iter().map(|nat| RouterLoad {
        router_id: nat.router,
        connections: nat.connections,
        limit: nat.limit,
        refused: nat.refused,
    });
    NatLoad {
        routers: word.nat.routers,
        connections: word.nat.connections,
        refused: word.nat.refused,
        busiest: busiest.collect(),
    }
}

impl Fleet {
    /// A gateway says how much goes through it.
    pub(in crate::core) fn hears_load(&mut self, name: &str, now: Now, word: LoadWord) {
        let member = self.member(name);
        let old = member.load.take();
        member.load = Some(Heard {
            since_us: old.as_ref().map_or(now.unix_us, |old| old.since_us),
            said_us: now.unix_us,
            at: now.since_start,
            word,
            before: old.map(|old| old.word),
        });
    }

    /// What a gateway said last.
    pub(in crate::core) fn load(&self, name: &str, now: Duration) -> Option<GatewayLoad> {
        self.members.get(name)?.load.as_ref()?.all(now)
    }
}

impl Ncm {
    /// All gateways that are registered or have been here, by name.
    pub fn gateway_lines(&self) -> Vec<GatewayLine> {
        let members = self.fleet.members.iter();
        let line = |(name, member): (&String, &super::Member)| GatewayLine {
            name: name.clone(),
            alive: self.fleet.is_alive(name),
            in_use: self.fleet.in_use(name),
            last_seen_at: self.last_seen(name),
            networks: member.networks.len(),
            load: member.load.as_ref().map(|heard| heard.line(self.clock)),
        };
        members.map(line).collect()
    }
}
