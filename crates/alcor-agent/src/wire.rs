//! Reads the NCM's messages: protobuf to what the state machine takes. Rows are read by `alcor-southbound`.
//!
//! A row that cannot be read is refused alone, with the reason; a message that cannot be placed (no network, no
//! phase) breaks the protocol.

use std::time::Duration;

use alcor_model::Revision;
use alcor_proto::v1::{self, SnapshotPhase, ncm_message::Body};
use alcor_southbound::convert::{DecodeError, decode_id, decode_row};

use crate::delta::{Delta, FromNcm, Phase};

/// Reads one message.
///
/// # Errors
/// When it breaks the protocol as a whole; rows that cannot be read are in the delta.
pub fn read(message: v1::NcmMessage) -> Result<FromNcm, DecodeError> {
    match message.body.ok_or(DecodeError::Missing("the message"))? {
        Body::Welcome(welcome) => Ok(FromNcm::Welcome {
            heartbeat_interval: Duration::from_millis(u64::from(welcome.heartbeat_interval_ms)),
        }),
        Body::Delta(delta) => {
            let network = decode_id("the network id", &delta.network_id)?;
            let row = |row| decode_row(network, row).map_err(|error| error.to_string());
            Ok(FromNcm::Delta(Delta {
                sequence: delta.sequence,
                network,
                revision: Revision(delta.revision),
                phase: phase(delta.snapshot())?,
                rows: delta.rows.iter().map(row).collect(),
            }))
        }
        Body::Resolved(resolved) => Ok(FromNcm::Resolved(resolved)),
    }
}

const fn phase(phase: SnapshotPhase) -> Result<Phase, DecodeError> {
    Ok(match phase {
        SnapshotPhase::Unspecified => return Err(DecodeError::Missing("the snapshot phase")),
        SnapshotPhase::Delta => Phase::Delta,
        SnapshotPhase::Begin => Phase::Begin,
        SnapshotPhase::Part => Phase::Part,
        SnapshotPhase::End => Phase::End,
        SnapshotPhase::Whole => Phase::Whole,
        SnapshotPhase::Forget => Phase::Forget,
    })
}
