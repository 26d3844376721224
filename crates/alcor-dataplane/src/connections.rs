//! Tracked connections, as people look at them.

use std::{net::IpAddr, time::Duration};

use alcor_dataplane_abi::{
    connection::{
        ANSWERED, BEGAN_LOCAL, Connection, FIN_ANSWERER, FIN_BEGINNER, IS_REVOKED, PICKED_UP, RESET,
    },
    flow::Sides,
    layout::{ANSWERED_PER_PORT, PENDING_PER_PORT},
};
use serde::{Deserialize, Serialize};

/// Connections that one call lists; a port of the kernel data plane has no more.
pub const MAX_LISTED_CONNECTIONS: usize = (ANSWERED_PER_PORT + PENDING_PER_PORT) as usize;

/// A connection of a port, seen from its side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionEntry {
    /// The port's address.
    pub own_ip: IpAddr,
    /// The other side's address.
    pub other_ip: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The port's port number; the identifier of an ICMP query.
    pub own_port: u16,
    /// The other side's port number; type (high byte) and code of an ICMP query.
    pub other_port: u16,
    /// True when the port's side began it.
    pub began_here: bool,
    /// Where it is in its life.
    pub state: ConnectionState,
    /// Label of the other side when rules last judged it; 0 is none.
    pub label: u16,
    /// Version of the port's rules that last judged it.
    pub epoch: u32,
    /// When it is forgotten, unless there is news of it.
    pub expires_in: Duration,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Not answered.
    Opening,
    /// TCP whose beginning nobody saw, not answered since.
    PickedUp,
    /// Answered.
    Established,
    /// TCP that one side has closed.
    Closing,
    /// TCP that both sides have closed.
    Closed,
    /// TCP that one side has reset.
    Reset,
    /// Allowed once, and not any more: its packets are dropped.
    Revoked,
}

impl ConnectionState {
    const fn of(connection: &Connection) -> Self {
        let flags = connection.flags;
        if flags & IS_REVOKED != 0 {
            Self::Revoked
        } else if flags & RESET != 0 {
            Self::Reset
        } else if flags & FIN_BEGINNER != 0 && flags & FIN_ANSWERER != 0 {
            Self::Closed
        } else if flags & (FIN_BEGINNER | FIN_ANSWERER) != 0 {
            Self::Closing
        } else if flags & ANSWERED != 0 {
            Self::Established
        } else if flags & PICKED_UP != 0 {
            Self::PickedUp
        } else {
            Self::Opening
        }
    }
}

impl ConnectionEntry {
    /// What a data plane keeps, at `now` of its clock (nanoseconds).
    pub fn new(own_ip: IpAddr, other_ip: IpAddr, sides: Sides, connection: Connection, now: u64) -> Self {
        Self {
            own_ip,
            other_ip,
            protocol: sides.protocol,
            own_port: sides.local,
            other_port: sides.remote,
            began_here: connection.flags & BEGAN_LOCAL != 0,
            state: ConnectionState::of(&connection),
            label: connection.label,
            epoch: connection.epoch,
            expires_in: Duration::from_nanos(connection.expires_ns.saturating_sub(now)),
        }
    }
}
