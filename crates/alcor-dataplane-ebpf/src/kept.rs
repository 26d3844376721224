//! Rows in the kernel, for the agent that starts again. They are written before what follows from them and
//! removed after it, so what a crash leaves half done is completed when the maps are opened again, and the
//! rows found are the rows in force.
//!
//! A row lies there in parts. A row that changes is written anew beside the old one, its first part last; then the old
//! parts go. So of each row one writing is whole at any time.

use std::collections::{BTreeMap, HashMap};

use alcor_dataplane::{DataplaneError, Row, RowKey};
use alcor_dataplane_abi::layout::{KeptKey, KeptValue, MAX_PARTS_PER_ROW, MAX_ROW_PARTS, PART_BYTES};

use crate::{error, kernel::Hash, layout::Plain};

const NETWORK: u32 = 1;
const SUBNET: u32 = 2;
const PORT: u32 = 3;
const POLICY: u32 = 4;
const LABEL: u32 = 5;
const ROUTER: u32 = 6;
const FLOATING_IP: u32 = 7;

type Parts = Hash<Plain<KeptKey>, Plain<KeptValue>>;

/// Which row: kind, network, id.
type RowId = (u32, [u8; 16], [u8; 16]);

/// Where a row lies.
#[derive(Clone, Copy, Default)]
struct Written {
    version: u32,
    parts: u32,
}

/// The rows in the kernel.
pub(crate) struct Kept {
    parts: Parts,
    rows: HashMap<RowId, Written>,
}

fn row_id(of: &RowKey) -> Option<RowId> {
    let network = of.network_id().uuid().into_bytes();
    let (kind, id) = match of {
        RowKey::Network(id) => (NETWORK, id.uuid().into_bytes()),
        RowKey::Subnet(_, id) => (SUBNET, id.uuid().into_bytes()),
        RowKey::Router(_, id) => (ROUTER, id.uuid().into_bytes()),
        RowKey::Port(_, id) => (PORT, id.uuid().into_bytes()),
        RowKey::Policy(_, id) => (POLICY, id.uuid().into_bytes()),
        RowKey::Label(_, label) => (LABEL, u128::from(label.get()).to_be_bytes()),
        RowKey::FloatingIp(_, id) => (FLOATING_IP, id.uuid().into_bytes()),
        RowKey::Neighbour(..) => return None,
    };
    Some((kind, network, id))
}

const fn part_key((kind, network, id): RowId, version: u32, part: u32) -> Plain<KeptKey> {
    Plain(KeptKey {
        kind,
        network,
        id,
        version,
        part,
    })
}

fn refused(source: aya::maps::MapError) -> DataplaneError {
    error::map("part of a row", MAX_ROW_PARTS, source)
}

impl Kept {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            rows: HashMap::new(),
        }
    }

    /// Writes a row with the handle of its network or port.
    pub(crate) fn put(&mut self, row: &Row, handle: u32) -> Result<(), DataplaneError> {
        let (Some(id), Some(text)) = (row_id(&row.key()), encode(row)?) else {
            return Ok(());
        };
        let count = text.len().div_ceil(PART_BYTES).max(1);
        if count > MAX_PARTS_PER_ROW as usize {
            return Err(DataplaneError::Full {
                what: "part of this row",
                limit: MAX_PARTS_PER_ROW as usize,
            });
        }
        let old = self.rows.get(&id).copied();
        let new = Written {
            version: old.map_or(0, |old| old.version.wrapping_add(1)),
            parts: count as u32,
        };
        for (part, bytes) in text.chunks(PART_BYTES).enumerate().rev() {
            let mut value = KeptValue {
                handle,
                len: text.len() as u32,
                bytes: [0; PART_BYTES],
            };
            if let Some(room) = value.bytes.get_mut(..bytes.len()) {
                room.copy_from_slice(bytes);
            }
            let key = part_key(id, new.version, part as u32);
            if let Err(source) = self.parts.insert(key, Plain(value), 0) {
                self.erase(id, new)?;
                return Err(refused(source));
            }
        }
        self.rows.insert(id, new);
        old.map_or(Ok(()), |old| self.erase(id, old))
    }

    /// Removes a row.
    pub(crate) fn remove(&mut self, of: &RowKey) -> Result<(), DataplaneError> {
        let Some(id) = row_id(of) else { return Ok(()) };
        match self.rows.remove(&id) {
            Some(written) => self.erase(id, written),
            None => Ok(()),
        }
    }

    fn erase(&mut self, id: RowId, written: Written) -> Result<(), DataplaneError> {
        for part in 0..written.parts {
            match self.parts.remove(&part_key(id, written.version, part)) {
                Err(source) if !error::is_missing(&source) => return Err(refused(source)),
                _ => {}
            }
        }
        Ok(())
    }

    /// All rows with their handles, networks first. What is not whole, or cannot be read, is removed.
    pub(crate) fn read(&mut self) -> Result<Vec<(Row, u32)>, DataplaneError> {
        let mut writings: BTreeMap<(RowId, u32), BTreeMap<u32, KeptValue>> = BTreeMap::new();
        for item in self.parts.iter() {
            let (Plain(key), Plain(value)) = item.map_err(refused)?;
            let id = (key.kind, key.network, key.id);
            let writing = writings.entry((id, key.version)).or_default();
            writing.insert(key.part, value);
        }
        let mut found: BTreeMap<RowId, (Written, Row, u32)> = BTreeMap::new();
        let mut useless = Vec::new();
        for ((id, version), parts) in writings {
            let last = parts.keys().next_back().map_or(0, |last| last + 1);
            let written = Written { version, parts: last };
            let Some((row, handle)) = whole(id.0, &parts) else {
                useless.push((id, written));
                continue;
            };
            if let Some((older, ..)) = found.insert(id, (written, row, handle)) {
                useless.push((id, older));
            }
        }
        for (id, written) in useless {
            self.erase(id, written)?;
        }
        let mut rows = Vec::with_capacity(found.len());
        for (id, (written, row, handle)) in found {
            self.rows.insert(id, written);
            rows.push((row, handle));
        }
        rows.sort_by_key(|(row, _)| row.key());
        Ok(rows)
    }
}

/// The row that these parts are, if they are all.
fn whole(kind: u32, parts: &BTreeMap<u32, KeptValue>) -> Option<(Row, u32)> {
    let first = parts.get(&0)?;
    let len = first.len as usize;
    if parts.len() != len.div_ceil(PART_BYTES).max(1) || parts.keys().next_back()? + 1 != parts.len() as u32 {
        return None;
    }
    let text: Vec<u8> = parts.values().flat_map(|part| part.bytes).take(len).collect();
    match decode(kind, &text) {
        Ok(row) => Some((row?, first.handle)),
        Err(error) => {
            tracing::warn!(%error, kind, "a kept row cannot be read");
            None
        }
    }
}

fn encode(row: &Row) -> Result<Option<Vec<u8>>, DataplaneError> {
    let text = match row {
        Row::Network(row) => serde_json::to_vec(row),
        Row::Subnet(row) => serde_json::to_vec(row),
        Row::Router(row) => serde_json::to_vec(row),
        Row::Port(row) => serde_json::to_vec(row),
        Row::Policy(row) => serde_json::to_vec(row),
        Row::Label(row) => serde_json::to_vec(row),
        Row::FloatingIp(row) => serde_json::to_vec(row),
        Row::Neighbour(_) => return Ok(None),
    };
    text.map(Some)
        .map_err(|source| error::kernel("writing a row down", source))
}

fn decode(kind: u32, text: &[u8]) -> serde_json::Result<Option<Row>> {
    Ok(match kind {
        NETWORK => Some(Row::Network(serde_json::from_slice(text)?)),
        SUBNET => Some(Row::Subnet(serde_json::from_slice(text)?)),
        ROUTER => Some(Row::Router(serde_json::from_slice(text)?)),
        FLOATING_IP => Some(Row::FloatingIp(serde_json::from_slice(text)?)),
        PORT => Some(Row::Port(serde_json::from_slice(text)?)),
        POLICY => Some(Row::Policy(serde_json::from_slice(text)?)),
        LABEL => Some(Row::Label(serde_json::from_slice(text)?)),
        _ => None,
    })
}
