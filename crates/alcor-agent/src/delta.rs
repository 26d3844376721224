//! Messages of the NCM as the agent's state machine takes them: read, but not yet compared with what is known.

use std::time::Duration;

use alcor_dataplane::RowChange;
use alcor_model::{Id, Network, Revision};
use alcor_proto::v1;

/// A message of the NCM.
#[derive(Clone, Debug, PartialEq)]
pub enum FromNcm {
    /// The session is accepted.
    Welcome {
        /// How often the NCM wants to hear from the agent.
        heartbeat_interval: Duration,
    },
    /// Rows.
    Delta(Delta),
    /// Answers. They are read beside their questions, which say what they are about.
    Resolved(v1::Resolved),
}

/// Rows of one network (see `Delta` in `southbound.proto`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Counts up by one within a session, from 1.
    pub sequence: u64,
    /// The network that the rows lie in.
    pub network: Id<Network>,
    /// The network is complete to this revision after the delta.
    pub revision: Revision,
    /// Part of a snapshot, or a change.
    pub phase: Phase,
    /// The rows in the order of the message: revision and change, or why it cannot be read.
    pub rows: Vec<Result<(Revision, RowChange), String>>,
}

/// Where a delta stands in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A change to what the agent has.
    Delta,
    /// The first part of a snapshot.
    Begin,
    /// Another part.
    Part,
    /// The last part: what was not named and is not newer goes.
    End,
    /// A snapshot in one message.
    Whole,
    /// Remove all of the network.
    Forget,
}
