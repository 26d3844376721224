//! What would become of a packet, stage by stage, as the API and the command line show it.
//!
//! These are answers for people and programs (`GET /alcor/v1/trace`), not rows of the store. Who computes them says from
//! what: see [`TracedHost`].

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Id, Network, Port, Revision,
    resource::{SecurityGroup, SecurityGroupRule},
};

/// Which packet: the first one of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceQuestion {
    /// The port that would send it.
    pub from: Id<Port>,
    /// To which address.
    pub to: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port, of protocols that have ports.
    pub source_port: u16,
    /// Destination port, of protocols that have ports; of ICMP and ICMPv6 type * 256 + code.
    pub point: u16,
}

/// What would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The packet.
    pub question: TraceQuestion,
    /// The address that it would be sent from; none when the port has none of the family.
    pub source: Option<IpAddr>,
    /// The network.
    pub network_id: Id<Network>,
    /// The stages that it would pass, in order; the last one says how it ends.
    pub stages: Vec<TraceStage>,
    /// It would reach a port.
    pub delivered_to: Option<Id<Port>>,
    /// The reason under which it would be counted, if it would be dropped.
    pub dropped: Option<String>,
    /// The hosts whose rows this was computed from: the sender's, and the receiver's if it is another one.
    pub hosts: Vec<TracedHost>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStage {
    /// On which host.
    pub host: String,
    /// Its name, for example `egress rules`.
    pub stage: String,
    /// The packet goes on.
    pub passes: bool,
    /// What happens, in words.
    pub detail: String,
    /// The security group whose rule allows it.
    pub security_group_id: Option<Id<SecurityGroup>>,
    /// The rule that allows it.
    pub rule_id: Option<Id<SecurityGroupRule>>,
}

/// How far a host is with what the answer was computed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedHost {
    /// Its name.
    pub name: String,
    /// It answers.
    pub alive: bool,
    /// Its data plane filters by security groups, as its agent last said.
    pub filters: bool,
    /// The newest revision of the rows that the answer needs.
    pub intended_revision: Revision,
    /// The revision to which the host has applied the network.
    pub applied_revision: Option<Revision>,
    /// The host has all rows of the answer in force.
    pub in_force: bool,
    /// Rows of the answer that it refused: kind, id and reason.
    pub refused: Vec<String>,
}

/// Why a packet cannot be traced.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceError {
    /// There is no such port.
    #[error("Port {0} could not be found.")]
    UnknownPort(Id<Port>),
    /// The port lies nowhere.
    #[error("Port {0} is bound to no host, so no host would do anything with its packets.")]
    NotBound(Id<Port>),
    /// Nobody is there who knows what hosts must have.
    #[error("The NCM, which has the rows of all hosts, does not answer; try again.")]
    NoNcm,
}
