//! What an NCM says to a host, in the form in which it is put on the stream: the rows of a delta are shared by all hosts that are
//! told of them, and turned into bytes once for all of them. The bytes are those of the protocol; agents read them with the
//! generated code.

use std::sync::{Arc, OnceLock};

use alcor_dataplane::{Row, RowChange, RowKey};
use alcor_model::{Id, Network, Revision};
use alcor_proto::v1;
use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, EncodeError, Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;

use crate::convert::{encode_id, encode_row, encode_tombstone};

/// The number of `delta` in the protocol's `NcmMessage`.
const DELTA: u32 = 2;
/// What a stream has of memory for what it sends and what it hears while nothing is on its way; more is there when it is needed. An
/// NCM has 10,000 of them, and most deltas and receipts are smaller.
const BUFFER_BYTES: usize = 512;
/// So much may be gathered before it is handed to the connection.
const GATHERED_BYTES_MAX: usize = 32 * 1024;

/// A row, or the word that it is gone, for everybody who is told of it.
#[derive(Clone, Debug)]
pub struct SharedRow(Arc<Told>);

#[derive(Debug)]
struct Told {
    revision: Revision,
    change: RowChange,
    /// A delta with this row and nothing else; made when the first host is told.
    bytes: OnceLock<Bytes>,
}

impl SharedRow {
    /// A row that was last changed at a revision.
    pub fn put(revision: Revision, row: Row) -> Self {
        Self::new(revision, RowChange::Put(row))
    }

    /// A row that is gone since a revision.
    pub fn gone(revision: Revision, key: RowKey) -> Self {
        Self::new(revision, RowChange::Remove(key))
    }

    fn new(revision: Revision, change: RowChange) -> Self {
        Self(Arc::new(Told {
            revision,
            change,
            bytes: OnceLock::new(),
        }))
    }

    /// What is told.
    pub fn change(&self) -> &RowChange {
        &self.0.change
    }

    /// Makes the bytes, unless that was done before; says whether it was not.
    fn encode(&self) -> bool {
        let is_new = self.0.bytes.get().is_none();
        self.bytes();
        is_new
    }

    fn bytes(&self) -> &Bytes {
        self.0.bytes.get_or_init(|| {
            let row = match &self.0.change {
                RowChange::Put(row) => encode_row(self.0.revision, row),
                RowChange::Remove(key) => encode_tombstone(self.0.revision, key),
            };
            let delta = v1::Delta {
                rows: vec![row],
                ..v1::Delta::default()
            };
            delta.encode_to_vec().into()
        })
    }
}

/// Rows of one network for one host; the protocol's `Delta`.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Counts up by one within a session, from 1.
    pub sequence: u64,
    /// Which network.
    pub network: Id<Network>,
    /// What the host is complete to after it; zero: to nothing.
    pub revision: Revision,
    /// Whether it is part of a snapshot.
    pub phase: v1::SnapshotPhase,
    /// The rows.
    pub rows: Vec<SharedRow>,
    /// Microseconds since the Unix epoch.
    pub committed_us: u64,
    /// Microseconds since the Unix epoch.
    pub sent_us: u64,
}

impl Delta {
    /// The fields with numbers below that of the rows, and those above it.
    fn around(&self) -> [v1::Delta; 2] {
        let before = v1::Delta {
            sequence: self.sequence,
            network_id: encode_id(self.network),
            revision: self.revision.0,
            snapshot: self.phase.into(),
            ..v1::Delta::default()
        };
        let after = v1::Delta {
            committed_us: self.committed_us,
            sent_us: self.sent_us,
            ..v1::Delta::default()
        };
        [before, after]
    }

    /// Makes the bytes of those rows that nobody was told before; gives how many.
    pub fn encode_rows(&self) -> usize {
        self.rows.iter().filter(|row| row.encode()).count()
    }

    /// Bytes of the delta; makes those of its rows.
    pub fn encoded_len(&self) -> usize {
        self.len_with(&self.around())
    }

    fn len_with(&self, around: &[v1::Delta; 2]) -> usize {
        let rows = self.rows.iter().map(|row| row.bytes().len());
        let around = around.iter().map(v1::Delta::encoded_len);
        rows.sum::<usize>() + around.sum::<usize>()
    }
}

/// A message of an NCM; the protocol's `NcmMessage`.
#[derive(Clone, Debug)]
pub enum FromNcm {
    /// The first of a session.
    Welcome(v1::Welcome),
    /// Goal state.
    Delta(Delta),
    /// Answers to questions.
    Resolved(v1::Resolved),
}

impl FromNcm {
    /// The message as its receiver reads it.
    ///
    /// # Errors
    /// None: what is written can be read.
    pub fn read(self) -> Result<v1::NcmMessage, DecodeError> {
        let mut bytes = BytesMut::new();
        // A buffer that grows takes everything.
        let _ = self.encode(&mut bytes);
        v1::NcmMessage::decode(bytes.freeze())
    }

    /// Writes the message.
    ///
    /// # Errors
    /// When there is no room in the buffer.
    pub fn encode(self, buffer: &mut impl BufMut) -> Result<(), EncodeError> {
        use v1::ncm_message::Body;
        let body = match self {
            Self::Welcome(welcome) => Body::Welcome(welcome),
            Self::Resolved(resolved) => Body::Resolved(resolved),
            Self::Delta(delta) => {
                let around = delta.around();
                encode_key(DELTA, WireType::LengthDelimited, buffer);
                encode_varint(delta.len_with(&around) as u64, buffer);
                let [before, after] = around;
                before.encode(buffer)?;
                for row in &delta.rows {
                    buffer.put_slice(row.bytes());
                }
                return after.encode(buffer);
            }
        };
        v1::NcmMessage { body: Some(body) }.encode(buffer)
    }
}

/// The NCM's end of a session's stream, for gRPC.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = FromNcm;
    type Decode = v1::AgentMessage;
    type Encoder = Self;
    type Decoder = ProstDecoder<v1::AgentMessage>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(buffers())
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, GATHERED_BYTES_MAX)
}

impl Encoder for FrameCodec {
    type Item = FromNcm;
    type Error = Status;

    fn encode(&mut self, item: FromNcm, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        if let FromNcm::Delta(delta) = &item {
            buffer.reserve(delta.encoded_len());
        }
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alcor_dataplane::{FloatingIpRow, testing::Scenario};
    use proptest::prelude::*;

    use super::*;

    fn bytes(message: FromNcm) -> BytesMut {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes).unwrap();
        bytes
    }

    /// What the generated code makes of a delta.
    fn generated(delta: &Delta, rows: Vec<v1::Row>) -> v1::NcmMessage {
        let delta = v1::Delta {
            sequence: delta.sequence,
            network_id: encode_id(delta.network),
            revision: delta.revision.0,
            snapshot: delta.phase.into(),
            rows,
            committed_us: delta.committed_us,
            sent_us: delta.sent_us,
        };
        v1::NcmMessage {
            body: Some(v1::ncm_message::Body::Delta(delta)),
        }
    }

    /// Rows of a region, and one of the kind that no host has.
    fn rows(seed: u64) -> Vec<Row> {
        let mut rows = Scenario::with_gateways(seed).rows;
        let [a, b, c, d, ..] = seed.to_be_bytes();
        rows.push(Row::FloatingIp(FloatingIpRow {
            id: Id::from_uuid(uuid::Uuid::from_u128(seed.into())),
            network_id: rows[0].key().network_id(),
            router_id: Id::from_uuid(uuid::Uuid::from_u128(7)),
            floating_ip: [a, b, c, d].into(),
            fixed_ip: [d, c, b, a].into(),
            external_network_id: Id::from_uuid(uuid::Uuid::from_u128(8)),
            host: (a > 127).then_some([b, b, c, c].into()),
            cidr: None,
            nexthop: None,
        }));
        rows
    }

    #[test]
    fn the_rows_are_of_all_kinds() {
        let seeds = 0..64;
        let kinds: BTreeSet<_> = seeds.flat_map(rows).map(|row| kind(&row)).collect();
        assert_eq!(kinds.len(), 8, "{kinds:?}");
    }

    /// A kind that is not here is one that the rows above must have, too.
    fn kind(row: &Row) -> &'static str {
        match row {
            Row::Network(_) => "network",
            Row::Subnet(_) => "subnet",
            Row::Port(_) => "port",
            Row::Neighbour(_) => "neighbour",
            Row::Policy(_) => "policy",
            Row::Label(_) => "label",
            Row::Router(_) => "router",
            Row::FloatingIp(_) => "floating IP",
        }
    }

    proptest! {
        /// Rows of all kinds and their tombstones, told to two hosts: to the byte what the generated code writes.
        #[test]
        fn deltas_are_those_of_the_protocol(seed: u64, revision: u64, numbers: [u64; 4], are_there: bool) {
            let of_region = if are_there { rows(seed) } else { Vec::new() };
            let (mut shared, mut rows) = (Vec::new(), Vec::new());
            for row in of_region {
                let (revision, key) = (Revision(revision), row.key());
                rows.extend([encode_row(revision, &row), encode_tombstone(revision, &key)]);
                shared.extend([SharedRow::put(revision, row), SharedRow::gone(revision, key)]);
            }
            let [sequence, complete, committed_us, sent_us] = numbers;
            for (host, phase) in [(0, v1::SnapshotPhase::Delta), (1, v1::SnapshotPhase::Begin)] {
                let delta = Delta {
                    sequence: sequence.saturating_add(host),
                    network: Id::from_uuid(uuid::Uuid::from_u128(seed.into())),
                    revision: Revision(complete),
                    phase,
                    rows: shared.clone(),
                    committed_us,
                    sent_us,
                };
                prop_assert_eq!(delta.encode_rows(), if host == 0 { rows.len() } else { 0 });
                let expected = generated(&delta, rows.clone());
                let length = delta.encoded_len();
                let Some(v1::ncm_message::Body::Delta(inner)) = &expected.body else { unreachable!() };
                prop_assert_eq!(length, inner.encoded_len());
                let sent = bytes(FromNcm::Delta(delta));
                prop_assert_eq!(&sent[..], expected.encode_to_vec());
                prop_assert_eq!(v1::NcmMessage::decode(sent), Ok(expected));
            }
        }
    }

    #[test]
    fn other_messages_are_those_of_the_protocol() {
        use v1::ncm_message::Body;
        let welcome = v1::Welcome {
            session_id: 7,
            heartbeat_interval_ms: 2_000,
        };
        let resolved = v1::Resolved {
            id: 3,
            answers: vec![v1::Answer::default()],
        };
        for (message, body) in [
            (FromNcm::Welcome(welcome), Body::Welcome(welcome)),
            (FromNcm::Resolved(resolved.clone()), Body::Resolved(resolved)),
        ] {
            let expected = v1::NcmMessage { body: Some(body) };
            assert_eq!(message.read(), Ok(expected));
        }
    }
}
