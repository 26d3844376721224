//! What goes into the core and what comes out of it.

use std::net::IpAddr;

use alcor_model::{
    Change, HostRuntime, Id, Label, Port, Resource, Revision,
    effective::Timing,
    resource::{FloatingIpWord, HostWord, PortStatus},
};
use alcor_proto::v1;
use alcor_southbound::frame::FromNcm;

/// Names one session of one agent.
pub type SessionId = u64;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The region changed, in commit order.
    Changes {
        /// The changes.
        changes: Vec<Change>,
        /// When the last of them became durable, microseconds since the Unix epoch; 0 when unknown.
        committed_us: u64,
    },
    /// All of the region: at start, or after the feed was lost.
    Snapshot {
        /// Everything up to this commit.
        revision: Revision,
        /// All rows, in an order in which they can be loaded.
        rows: Vec<Resource>,
    },
    /// An agent says hello.
    Hello {
        /// The number of its session.
        session: SessionId,
        /// What it says.
        hello: v1::Hello,
    },
    /// A message of a session other than its hello.
    Message {
        /// The session.
        session: SessionId,
        /// The message.
        body: v1::agent_message::Body,
    },
    /// A session is gone.
    Closed {
        /// The session.
        session: SessionId,
    },
    /// Time has passed.
    Tick,
    /// A little time has passed: who of the gateways is still there? Every [`super::PULSE`].
    Pulse,
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message.
    Send {
        /// The session.
        session: SessionId,
        /// The message.
        message: FromNcm,
    },
    /// End a session; no event about it is wanted any more.
    Close {
        /// The session.
        session: SessionId,
        /// Why, for people.
        reason: String,
    },
    /// Have the region register a host.
    RegisterHost {
        /// Its name.
        name: String,
        /// What it says of itself.
        word: HostWord,
    },
    /// Have the region register a gateway.
    RegisterGateway {
        /// Its name.
        name: String,
        /// The set that it is in.
        set: String,
        /// Its tunnel address.
        tunnel_ip: IpAddr,
    },
    /// Have the region take a report.
    ReportPort(PortReport),
    /// Have the region keep what is known of hosts.
    NoteHosts(Vec<HostRuntime>),
    /// Have the region keep whether floating IPs are in force.
    NoteFloatingIps(Vec<FloatingIpWord>),
    /// Every host has forgotten what these labels meant at these revisions: the region may give them a new meaning.
    ReleaseLabels(Vec<(Id<Label>, Revision)>),
}

/// What a host reported about a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortReport {
    /// The port.
    pub port_id: Id<Port>,
    /// The host.
    pub host: String,
    /// The port row's revision that it is about.
    pub applied_revision: Revision,
    /// The status that follows.
    pub status: PortStatus,
    /// Why, when it is not ACTIVE.
    pub reason: Option<String>,
}

/// What a step cost, so that tests can assert work instead of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Rows of views that were looked at to build deltas.
    pub rows_looked_at: u64,
    /// Rows put into deltas.
    pub rows_sent: u64,
    /// Rows that were turned into bytes for deltas: a row that many hosts are told of once.
    pub rows_encoded: u64,
    /// Deltas made.
    pub deltas: u64,
    /// Hosts that got a delta.
    pub hosts_touched: u64,
    /// Hosts that a change of a port was looked at for, whether or not they have a session.
    pub hosts_looked_at: u64,
    /// Hosts that were told of a change because they had learned of what changed.
    pub learners_told: u64,
    /// Networks that became learned or eager.
    pub switches: u64,
    /// Gateways that hosts may send by from now on, or no longer.
    pub gateways_turned: u64,
    /// Networks that were looked at to find out whom a change of rules, or a number that rests, concerns.
    pub networks_looked_at: u64,
    /// Encoded bytes of the deltas.
    pub bytes: u64,
    /// Full snapshots of a network for a host.
    pub resyncs: u64,
    /// Receipts taken.
    pub receipts: u64,
    /// Rows that they refused.
    pub refused: u64,
    /// How the delta travelled that the receipt is about; not for snapshots, which are not news.
    pub timing: Option<Timing>,
}

/// How full an NCM is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// Hosts that it knows.
    pub hosts: usize,
    /// Those that have a session.
    pub sessions: usize,
    /// Deltas and snapshots that wait for them.
    pub queued: usize,
    /// Gateways that are registered.
    pub gateways: usize,
    /// Those that hosts may send by.
    pub gateways_in_use: usize,
}
