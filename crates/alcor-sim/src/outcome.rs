//! How far a run is, and what it came to, on whatever level it runs. Not here: how that is shown (`report`).

use serde::{Deserialize, Serialize};

use crate::{clock::Us, figures::Figures};

/// What of a region is real.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The deciders; time is virtual.
    #[default]
    VirtualTime,
    /// Processes, sockets and time; hosts have no data plane.
    Sockets,
}

/// What must hold does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The event after which it was seen.
    pub event: u64,
    /// Virtual or real time, in microseconds.
    pub at_us: Us,
    /// What is wrong.
    pub what: String,
    /// The last events, oldest first.
    pub before: Vec<String>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Virtual or real microseconds of the rounds that are over, and of the one that runs.
    pub at_us: Us,
    /// Events so far.
    pub events: u64,
    /// Ports there are.
    pub ports: u64,
    /// Hosts that have a session.
    pub sessions: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What was real.
    pub level: Level,
    /// What it was random by.
    pub seed: u64,
    /// How many events happened.
    pub events: u64,
    /// How much virtual or real time passed, in microseconds.
    pub virtual_us: Us,
    /// The last events, oldest first.
    pub last_events: Vec<String>,
    /// What was counted.
    pub figures: Figures,
    /// What did not hold.
    pub violations: Vec<Violation>,
}
