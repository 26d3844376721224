//! Packets that wait until it is known where their destination is, by destination. Bounded in number and bytes, for each
//! port and in all, and in time. Values only: who releases them when is decided in [`crate::core`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use alcor_model::{Id, Network, Port};
use bytes::Bytes;

/// Most packets of one port that are held: a machine that talks to a few hundred others at once loses none.
pub const HELD_PER_PORT: usize = 256;
/// Most packets that are held on the host.
pub const HELD_MAX: usize = 4_096;
/// Most bytes of packets that are held on the host.
pub const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of the room that is left, a port may have one part in so many: however many ports fill theirs, another still finds
/// some.
pub const HELD_SHARE: usize = 4;
/// Longest time that a packet is held.
pub const HOLD_FOR: Duration = Duration::from_secs(2);

/// An address in a network.
pub(crate) type Key = (Id<Network>, IpAddr);

/// Frames with the ports that sent them.
pub(crate) type Frames = Vec<(Id<Port>, Bytes)>;

/// Why a packet to an address that no row tells is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// The network's addresses are not to be asked for, or the network is gone.
    NotOnDemand,
    /// The port has no row.
    UnknownPort,
    /// The port has [`HELD_PER_PORT`] packets waiting.
    PortLimit,
    /// The port has its share ([`HELD_SHARE`]) of what is left of [`HELD_MAX`] packets or [`HELD_BYTES_MAX`] waiting.
    HostLimit,
    /// The port asks for more new addresses than it may.
    AskedTooOften,
    /// The NCM says that nobody has the address, or that the host may not know.
    Unknown,
    /// No answer within [`HOLD_FOR`].
    TooLate,
    /// The data plane refused the neighbour, or the port has no device any more.
    Refused,
    /// The packet is longer than what the data plane hands up.
    TooLong,
}

impl Dropped {
    /// Stable text for counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotOnDemand => "not_on_demand",
            Self::UnknownPort => "unknown_port",
            Self::PortLimit => "port_limit",
            Self::HostLimit => "host_limit",
            Self::AskedTooOften => "asked_too_often",
            Self::Unknown => "unknown",
            Self::TooLate => "too_late",
            Self::Refused => "refused",
            Self::TooLong => "too_long",
        }
    }
}

/// Takes the next key whose time has come out of such a set.
pub(crate) fn pop_due(set: &mut BTreeSet<(Duration, Key)>, now: Duration) -> Option<Key> {
    let first = *set.first().filter(|(at, _)| *at <= now)?;
    set.remove(&first);
    Some(first.1)
}

#[derive(Debug)]
struct Packet {
    port: Id<Port>,
    frame: Bytes,
    until: Duration,
}

/// All packets that are held.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Never empty for a key; oldest first.
    packets: BTreeMap<Key, VecDeque<Packet>>,
    /// When the oldest packet of a key has waited long enough.
    deadlines: BTreeSet<(Duration, Key)>,
    of_port: BTreeMap<Id<Port>, Load>,
    all: Load,
}

/// How much is held.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    packets: usize,
    bytes: usize,
}

impl Load {
    const fn add(&mut self, frame: &Bytes) {
        self.packets += 1;
        self.bytes += frame.len();
    }

    const fn remove(&mut self, frame: &Bytes) {
        self.packets -= 1;
        self.bytes -= frame.len();
    }
}

impl Held {
    /// Whether one more packet of the port may be held.
    pub(crate) fn room(&self, port: Id<Port>, frame: &Bytes) -> Result<(), Dropped> {
        let own = self.of_port.get(&port).copied().unwrap_or_default();
        if own.packets >= HELD_PER_PORT {
            return Err(Dropped::PortLimit);
        }
        let packets = HELD_MAX.saturating_sub(self.all.packets) / HELD_SHARE;
        let bytes = HELD_BYTES_MAX.saturating_sub(self.all.bytes) / HELD_SHARE;
        if own.packets >= packets || own.bytes + frame.len() > bytes {
            return Err(Dropped::HostLimit);
        }
        Ok(())
    }

    /// Holds a packet that there is room for.
    pub(crate) fn hold(&mut self, now: Duration, key: Key, port: Id<Port>, frame: Bytes) {
        self.all.add(&frame);
        self.of_port.entry(port).or_default().add(&frame);
        let packets = self.packets.entry(key).or_default();
        let until = now + HOLD_FOR;
        if packets.is_empty() {
            self.deadlines.insert((until, key));
        }
        packets.push_back(Packet { port, frame, until });
    }

    /// Whether anything waits for this address.
    pub(crate) fn waits(&self, key: &Key) -> bool {
        self.packets.contains_key(key)
    }

    /// Everything that waits for this address, oldest first, and since when the oldest has waited.
    pub(crate) fn take(&mut self, key: &Key) -> Option<(Duration, Frames)> {
        let packets = self.packets.remove(key)?;
        let until = packets.front()?.until;
        self.deadlines.remove(&(until, *key));
        for packet in &packets {
            self.forget(packet);
        }
        let frames = packets.into_iter().map(|packet| (packet.port, packet.frame));
        Some((until.saturating_sub(HOLD_FOR), frames.collect()))
    }

    /// Drops what has waited long enough: how many packets, and the addresses that nothing waits for any more.
    pub(crate) fn expire(&mut self, now: Duration) -> (u64, Vec<Key>) {
        let (mut dropped, mut idle) = (0, Vec::new());
        while let Some(key) = pop_due(&mut self.deadlines, now) {
            let Some(packets) = self.packets.get_mut(&key) else {
                continue;
            };
            let mut late = Vec::new();
            while let Some(packet) = packets.pop_front_if(|packet| packet.until <= now) {
                late.push(packet);
            }
            match packets.front() {
                Some(packet) => _ = self.deadlines.insert((packet.until, key)),
                None => {
                    self.packets.remove(&key);
                    idle.push(key);
                }
            }
            dropped += late.len() as u64;
            for packet in &late {
                self.forget(packet);
            }
        }
        (dropped, idle)
    }

    /// A packet is not here any more.
    fn forget(&mut self, packet: &Packet) {
        self.all.remove(&packet.frame);
        if let Some(load) = self.of_port.get_mut(&packet.port) {
            load.remove(&packet.frame);
            if load.packets == 0 {
                self.of_port.remove(&packet.port);
            }
        }
    }

    /// When the next packet has waited long enough.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// The addresses that something waits for, with the port that has waited longest.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (Key, Id<Port>)> {
        let packets = self.packets.iter();
        packets.filter_map(|(key, packets)| Some((*key, packets.front()?.port)))
    }

    /// How many packets are held.
    pub(crate) const fn len(&self) -> usize {
        self.all.packets
    }
}
