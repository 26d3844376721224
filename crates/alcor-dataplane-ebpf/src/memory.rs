//! What ports' filters remember: two maps of its own for each port that is filtered, so that no port can take the room of
//! another. They are there as long as the port's row.

use std::collections::HashSet;

use alcor_dataplane::{ConnectionEntry, DataplaneError, MAX_LISTED_CONNECTIONS};
use alcor_dataplane_abi::{
    connection::Connection,
    flow::Sides,
    layout::{ANSWERED_PER_PORT, ConnectionKey, KIND_CONNECTION, MAX_PORTS, PENDING_PER_PORT},
};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError, MapType},
};

use crate::{
    error,
    kernel::take,
    layout::{Plain, ip},
    syscall::Places,
};

type Inner = HashMap<MapData, Plain<ConnectionKey>, Plain<Connection>>;

/// One map for each port, by handle.
struct Outer(Places);

impl Outer {
    fn get(&self, port: u32) -> Result<Option<MapData>, DataplaneError> {
        match self.0.get(port) {
            Ok(map) => Ok(Some(map)),
            Err(source) if error::is_missing(&source) => Ok(None),
            Err(source) => Err(refused(source)),
        }
    }

    fn set(&mut self, port: u32, map: &MapData) -> Result<(), DataplaneError> {
        self.0.set(port, map).map_err(refused)
    }

    fn clear(&mut self, port: u32) -> Result<(), DataplaneError> {
        let cleared = self.0.clear(port);
        cleared
            .map(drop)
            .map_err(|source| error::kernel("removing what a port's filter remembers", source))
    }
}

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
            pending: Outer(take(object, "pending")?),
            answered: Outer(take(object, "answered")?),
        })
    }

    /// Makes the port's maps unless they are there.
    pub(crate) fn ensure(&mut self, port: u32) -> Result<(), DataplaneError> {
        for (outer, entries) in [
            (&mut self.pending, PENDING_PER_PORT),
            (&mut self.answered, ANSWERED_PER_PORT),
        ] {
            if outer.get(port)?.is_none() {
                outer.set(port, &inner(entries).map_err(refused)?)?;
            }
        }
        Ok(())
    }

    /// Forgets all that the port's filter remembers.
    pub(crate) fn release(&mut self, port: u32) -> Result<(), DataplaneError> {
        self.pending.clear(port)?;
        self.answered.clear(port)
    }

    /// Forgets those of ports that are not there any more.
    pub(crate) fn retain(&mut self, is_port: impl Fn(u32) -> bool) -> Result<(), DataplaneError> {
        let gone = (0..=MAX_PORTS).filter(|port| !is_port(*port));
        gone.into_iter().try_for_each(|port| self.release(port))
    }

    /// The connections of a port at this time of the programs' clock, sorted.
    pub(crate) fn connections(&self, port: u32, now: u64) -> Result<Vec<ConnectionEntry>, DataplaneError> {
        let mut entries = Vec::new();
        // What lies in both is what the first one says.
        let mut seen = HashSet::new();
        for outer in [&self.answered, &self.pending] {
            let Some(map) = outer.get(port)? else { continue };
            let map = Inner::try_from(Map::LruHashMap(map)).map_err(refused)?;
            for item in map.iter() {
                // An entry that goes while the map is read may end the reading early; it is a look, not an account.
                let Ok((Plain(key), Plain(connection))) = item else {
                    break;
                };
                let is_first = key.kind == KIND_CONNECTION && seen.insert(key);
                if is_first && connection.is_live(now) {
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
