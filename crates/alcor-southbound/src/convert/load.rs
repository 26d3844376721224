//! What a gateway says of its load. Counters are only shown to people and programs, so what cannot be read is passed over and the
//! rest is taken; everything is cut to bounds, as it is kept.

use std::collections::BTreeMap;

use alcor_dataplane::{
    DropReason,
    gateway::{AttachMode, GatewayDevice, GatewayLoad, RouterNat},
};
use alcor_proto::v1;

use super::{decode_id, encode_id};

/// Most routers of which a word speaks one by one.
pub const ROUTERS_MAX: usize = 32;
/// Most devices in a word.
pub const DEVICES_MAX: usize = 16;
/// Most reasons that are looked at in a word.
const REASONS_MAX: usize = 64;
/// Longest name of a device in bytes, as in the kernel.
const DEVICE_BYTES_MAX: usize = 15;

/// What a gateway says of its load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadWord {
    /// When it was read: microseconds on a clock of the gateway's process that never goes back.
    pub taken_us: u64,
    /// What went through.
    pub load: GatewayLoad,
    /// What was dropped, by reason.
    pub drops: BTreeMap<DropReason, u64>,
    /// What was dropped for reasons that are not known here.
    pub other_drops: u64,
    /// Routers with source NAT, their connections, and those that were refused.
    pub nat: NatTotals,
    /// Some of these routers: at most [`ROUTERS_MAX`].
    pub busiest: Vec<RouterNat>,
    /// Neighbours that it holds rows of.
    pub neighbours: u64,
    /// Neighbours that there is room for, of each address family.
    pub neighbours_room: Option<u32>,
    /// At most [`DEVICES_MAX`].
    pub devices: Vec<GatewayDevice>,
    /// Number of the layout of its tables.
    pub layout: Option<u32>,
}

/// Source NAT of all routers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatTotals {
    /// Routers.
    pub routers: u64,
    /// Connections.
    pub connections: u64,
    /// Connections that were refused.
    pub refused: u64,
}

/// The word as a message.
pub fn encode_load(word: &LoadWord) -> v1::GatewayLoad {
    let passed = |packets, bytes| Some(v1::Passed { packets, bytes });
    let load = &word.load;
    let drops = word.drops.iter().map(|(reason, packets)| v1::ReasonDropped {
        reason: *reason as u32,
        packets: *packets,
    });
    let busiest = word.busiest.iter().take(ROUTERS_MAX).map(|nat| v1::RouterNat {
        router_id: encode_id(nat.router),
        connections: nat.connections,
        limit: nat.limit,
        refused: nat.refused,
    });
    let devices = word.devices.iter().take(DEVICES_MAX).map(|device| {
        let mode = match device.mode {
            AttachMode::Native => v1::AttachMode::Native,
            AttachMode::Generic => v1::AttachMode::Generic,
            AttachMode::Unknown => v1::AttachMode::Unspecified,
        };
        v1::GatewayDevice {
            name: device.device.clone(),
            mode: mode.into(),
        }
    });
    v1::GatewayLoad {
        taken_us: word.taken_us,
        east_west: passed(load.east_west_packets, load.east_west_bytes),
        north: passed(load.north_packets, load.north_bytes),
        south: passed(load.south_packets, load.south_bytes),
        replies: load.replies,
        probes: load.probes,
        drops: drops.collect(),
        nat: Some(v1::NatLoad {
            routers: word.nat.routers,
            connections: word.nat.connections,
            refused: word.nat.refused,
            busiest: busiest.collect(),
        }),
        neighbours: word.neighbours,
        neighbours_room: word.neighbours_room.unwrap_or_default().into(),
        devices: devices.collect(),
        layout: word.layout.unwrap_or_default(),
    }
}

/// The word of a message, as far as it can be read.
pub fn decode_load(message: &v1::GatewayLoad) -> LoadWord {
    let passed = |way: &Option<v1::Passed>| way.map_or((0, 0), |way| (way.packets, way.bytes));
    let (east_west_packets, east_west_bytes) = passed(&message.east_west);
    let (north_packets, north_bytes) = passed(&message.north);
    let (south_packets, south_bytes) = passed(&message.south);
    let (mut drops, mut other_drops) = (BTreeMap::new(), 0_u64);
    for dropped in message.drops.iter().take(REASONS_MAX) {
        match DropReason::from_u32(dropped.reason) {
            Some(reason) => _ = drops.insert(reason, dropped.packets),
            None => other_drops = other_drops.saturating_add(dropped.packets),
        }
    }
    let nat = message.nat.as_ref();
    let busiest = nat.into_iter().flat_map(|nat| &nat.busiest).take(ROUTERS_MAX);
    let busiest = busiest.filter_map(|nat| {
        Some(RouterNat {
            router: decode_id("router id", &nat.router_id).ok()?,
            connections: nat.connections,
            limit: nat.limit,
            refused: nat.refused,
        })
    });
    LoadWord {
        taken_us: message.taken_us,
        load: GatewayLoad {
            east_west_packets,
            east_west_bytes,
            north_packets,
            north_bytes,
            south_packets,
            south_bytes,
            replies: message.replies,
            probes: message.probes,
        },
        drops,
        other_drops,
        nat: nat.map_or_else(NatTotals::default, |nat| NatTotals {
            routers: nat.routers,
            connections: nat.connections,
            refused: nat.refused,
        }),
        busiest: busiest.collect(),
        neighbours: message.neighbours,
        neighbours_room: u32::try_from(message.neighbours_room)
            .ok()
            .filter(|room| *room > 0),
        devices: message
            .devices
            .iter()
            .take(DEVICES_MAX)
            .filter_map(decode_device)
            .collect(),
        layout: Some(message.layout).filter(|layout| *layout > 0),
    }
}

/// A device with a name that can be shown.
fn decode_device(device: &v1::GatewayDevice) -> Option<GatewayDevice> {
    let is_name = (1..=DEVICE_BYTES_MAX).contains(&device.name.len())
        && device
            .name
            .chars()
            .all(|letter| !letter.is_control() && !letter.is_whitespace());
    is_name.then(|| GatewayDevice {
        device: device.name.clone(),
        mode: match device.mode() {
            v1::AttachMode::Native => AttachMode::Native,
            v1::AttachMode::Generic => AttachMode::Generic,
            v1::AttachMode::Unspecified => AttachMode::Unknown,
        },
    })
}

#[cfg(test)]
mod tests {
    use alcor_model::Id;
    use uuid::Uuid;

    use super::*;

    fn word() -> LoadWord {
        LoadWord {
            taken_us: 5,
            load: GatewayLoad {
                east_west_packets: 1,
                east_west_bytes: 2,
                north_packets: 3,
                north_bytes: 4,
                south_packets: 5,
                south_bytes: 6,
                replies: 7,
                probes: 8,
            },
            drops: BTreeMap::from([(DropReason::NatPortsExhausted, 9)]),
            other_drops: 0,
            nat: NatTotals {
                routers: 2,
                connections: 10,
                refused: 11,
            },
            busiest: vec![RouterNat {
                router: Id::from_uuid(Uuid::from_u128(1)),
                connections: 10,
                limit: 64,
                refused: 11,
            }],
            neighbours: 12,
            neighbours_room: Some(13),
            devices: vec![GatewayDevice {
                device: "eth0".to_owned(),
                mode: AttachMode::Native,
            }],
            layout: Some(4),
        }
    }

    #[test]
    fn a_word_is_read_as_it_was_said() {
        for word in [word(), LoadWord::default()] {
            assert_eq!(decode_load(&encode_load(&word)), word);
        }
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_and_the_rest_is_cut_to_bounds() {
        let mut message = encode_load(&word());
        let unknown = |packets| v1::ReasonDropped { reason: 63, packets };
        message.drops.extend([unknown(1), unknown(u64::MAX)]);
        let nat = message.nat.as_mut().unwrap();
        nat.busiest[0].router_id = vec![1, 2, 3].into();
        nat.busiest.extend(vec![nat.busiest[0].clone(); 100]);
        let device = |name: &str, mode| v1::GatewayDevice {
            name: name.to_owned(),
            mode,
        };
        message.devices = vec![
            device("", 1),
            device("a\u{1b}[2J", 1),
            device("longer-than-in-the-kernel", 1),
            device("eth9", 77),
        ];
        message.devices.extend(vec![device("eth0", 2); 100]);
        message.neighbours_room = u64::MAX;
        let read = decode_load(&message);
        assert_eq!(read.other_drops, u64::MAX, "it does not wrap");
        assert_eq!(read.drops, word().drops);
        assert_eq!((read.busiest.len(), read.neighbours_room), (0, None));
        assert_eq!(read.devices.len(), DEVICES_MAX - 3);
        assert_eq!(read.devices[0].mode, AttachMode::Unknown);
        message.drops = (0..10_000)
            .map(|reason| v1::ReasonDropped {
                reason: reason + 1_000,
                packets: 1,
            })
            .collect();
        assert_eq!(decode_load(&message).other_drops, REASONS_MAX as u64);
    }
}
