//! Rows in the kernel, for the agent that starts again. They are written before what follows from them and
//! removed after it, so what a crash leaves half done is completed when the maps are opened again, and the
//! rows found are the rows in force.

use alcor_dataplane::{DataplaneError, NetworkRow, PortRow, Row, RowKey, SubnetRow};
use alcor_dataplane_abi::layout::{KeptKey, KeptValue, MAX_ROWS, ROW_BYTES};

use crate::{error, kernel::Hash, layout::Plain};

const NETWORK: u32 = 1;
const SUBNET: u32 = 2;
const PORT: u32 = 3;

type Kept = Hash<Plain<KeptKey>, Plain<KeptValue>>;

fn key(of: &RowKey) -> Option<Plain<KeptKey>> {
    let (kind, uuid) = match of {
        RowKey::Network(id) => (NETWORK, id.uuid()),
        RowKey::Subnet(_, id) => (SUBNET, id.uuid()),
        RowKey::Port(_, id) => (PORT, id.uuid()),
        RowKey::Neighbour(..) | RowKey::Policy(..) | RowKey::Label(..) => return None,
    };
    Some(Plain(KeptKey {
        kind,
        id: uuid.into_bytes(),
    }))
}

/// Writes a row with the handle of its network or port.
pub(crate) fn put(kept: &mut Kept, row: &Row, handle: u32) -> Result<(), DataplaneError> {
    let (Some(key), Some(text)) = (key(&row.key()), encode(row)?) else {
        return Ok(());
    };
    let mut value = KeptValue {
        handle,
        len: text.len() as u32,
        bytes: [0; ROW_BYTES],
    };
    let Some(room) = value.bytes.get_mut(..text.len()) else {
        return Err(DataplaneError::Full {
            what: "byte of a row",
            limit: ROW_BYTES,
        });
    };
    room.copy_from_slice(&text);
    kept.insert(key, Plain(value), 0)
        .map_err(|source| error::map("row", MAX_ROWS, source))
}

/// Removes a row.
pub(crate) fn remove(kept: &mut Kept, of: &RowKey) -> Result<(), DataplaneError> {
    let Some(key) = key(of) else { return Ok(()) };
    match kept.remove(&key) {
        Err(source) if !error::is_missing(&source) => Err(error::map("row", MAX_ROWS, source)),
        _ => Ok(()),
    }
}

/// All rows with their handles, networks first.
pub(crate) fn read(kept: &Kept) -> Result<Vec<(Row, u32)>, DataplaneError> {
    let mut rows = Vec::new();
    for item in kept.iter() {
        let (Plain(key), Plain(value)) = item.map_err(|source| error::map("row", MAX_ROWS, source))?;
        let text = value.bytes.get(..value.len as usize).unwrap_or_default();
        match decode(key.kind, text) {
            Ok(Some(row)) => rows.push((row, value.handle)),
            Ok(None) => tracing::warn!(kind = key.kind, "a kept row of an unknown kind"),
            Err(error) => tracing::warn!(%error, "a kept row cannot be read"),
        }
    }
    rows.sort_by_key(|(row, _)| row.key());
    Ok(rows)
}

fn encode(row: &Row) -> Result<Option<Vec<u8>>, DataplaneError> {
    let text = match row {
        Row::Network(row) => serde_json::to_vec(row),
        Row::Subnet(row) => serde_json::to_vec(row),
        Row::Port(row) => serde_json::to_vec(row),
        Row::Neighbour(_) | Row::Policy(_) | Row::Label(_) => return Ok(None),
    };
    text.map(Some)
        .map_err(|source| error::kernel("writing a row down", source))
}

fn decode(kind: u32, text: &[u8]) -> serde_json::Result<Option<Row>> {
    Ok(match kind {
        NETWORK => Some(Row::Network(serde_json::from_slice::<NetworkRow>(text)?)),
        SUBNET => Some(Row::Subnet(serde_json::from_slice::<SubnetRow>(text)?)),
        PORT => Some(Row::Port(serde_json::from_slice::<PortRow>(text)?)),
        _ => None,
    })
}
