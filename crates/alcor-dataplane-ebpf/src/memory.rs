//! What ports' filters remember: two maps of its own for each port that is filtered, so that no port can take the room of
//! another. They are there as long as the port's row.

use alcor_dataplane::{ConnectionEntry, DataplaneError, MAX_LISTED_CONNECTIONS};
use alcor_dataplane_abi::{
    connection::Connection,
    flow::Sides,
    layout::{ANSWERED_PER_PORT, ConnectionKey, KIND_CONNECTION, MAX_PORTS, PENDING_PER_PORT},
};
use aya::{
    Ebpf,
    maps::{HashMap, HashOfMaps, Map, MapData, MapError, MapType},
};

use crate::{
    error,
    kernel::take,
    layout::{Plain, ip},
};

type Outer = HashOfMaps<MapData, u32, MapData>;
type Inner = HashMap<MapData, Plain<ConnectionKey>, Plain<Connection>>;

/// The maps of all ports, by handle.
pub(crate) struct Memories {
    pending: Outer,
    answered: Outer,
}

fn refused(source: MapError) -> DataplaneError {
    error::map("filtered port", MAX_PORTS, source)
}

fn inner(entries: u32) -> Result<MapData, MapError> {
    let map = aya_obj::Map::new_from_params(
        MapType::LruHash as u32,
        size_of::<ConnectionKey>() as u32,
        size_of::<Connection>() as u32,
        entries,
        0,
    );
    MapData::create(map, "connections", None)
}

impl Memories {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            pending: take(object, "pending")?,
            answered: take(object, "answered")?,
        })
    }

    /// Makes the port's maps unless they are there.
    pub(crate) fn ensure(&mut self, port: u32) -> Result<(), DataplaneError> {
        for (outer, entries) in [
            (&mut self.pending, PENDING_PER_PORT),
            (&mut self.answered, ANSWERED_PER_PORT),
        ] {
            match outer.get(&port, 0) {
                Ok(_) => {}
                Err(source) if error::is_missing(&source) => {
                    let map = inner(entries).map_err(refused)?;
                    outer.insert(port, &map, 0).map_err(refused)?;
                }
                Err(source) => return Err(refused(source)),
            }
        }
        Ok(())
    }

    /// Forgets all that the port's filter remembers.
    pub(crate) fn release(&mut self, port: u32) -> Result<(), DataplaneError> {
        for outer in [&mut self.pending, &mut self.answered] {
            match outer.remove(&port) {
                Err(source) if !error::is_missing(&source) => return Err(refused(source)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets those of ports that are not there any more.
    pub(crate) fn retain(&mut self, is_port: impl Fn(u32) -> bool) -> Result<(), DataplaneError> {
        let mut gone = Vec::new();
        for outer in [&self.pending, &self.answered] {
            for port in outer.keys() {
                let port = port.map_err(refused)?;
                if !is_port(port) {
                    gone.push(port);
                }
            }
        }
        gone.into_iter().try_for_each(|port| self.release(port))
    }

    /// The connections of a port at this time of the programs' clock, sorted.
    pub(crate) fn connections(&self, port: u32, now: u64) -> Result<Vec<ConnectionEntry>, DataplaneError> {
        let mut entries = Vec::new();
        for outer in [&self.answered, &self.pending] {
            let map = match outer.get(&port, 0) {
                Ok(map) => map,
                Err(source) if error::is_missing(&source) => continue,
                Err(source) => return Err(refused(source)),
            };
            let map = Inner::try_from(Map::LruHashMap(map)).map_err(refused)?;
            for item in map.iter() {
                // An entry that goes while the map is read may end the reading early; it is a look, not an account.
                let Ok((Plain(key), Plain(connection))) = item else {
                    break;
                };
                if key.kind == KIND_CONNECTION && connection.is_live(now) {
                    entries.push(entry(&key, connection, now));
                }
                if entries.len() == MAX_LISTED_CONNECTIONS {
                    break;
                }
            }
        }
        entries.sort();
        Ok(entries)
    }
}

fn entry(key: &ConnectionKey, connection: Connection, now: u64) -> ConnectionEntry {
    let family = u32::from(key.family);
    let sides = Sides {
        local: key.local,
        remote: key.remote,
        protocol: key.protocol,
        asks: key.asks,
    };
    ConnectionEntry::new(ip(family, key.own), ip(family, key.other), sides, connection, now)
}
