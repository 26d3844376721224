//! The agent of a host or a gateway: takes its goal state from an NCM, brings it into force in a data plane, reports what
//! is in force and why not, finds the devices of ports, and answers what ports ask of the network (DHCP,
//! router solicitations, packets whose time is exceeded).
//!
//! Not here: what a host needs (the NCM decides), how packets are forwarded (any [`alcor_dataplane::Dataplane`]).
//!
//! [`core`] decides and does no I/O; [`run`] does what it says.

mod asking;
pub mod core;
pub mod delta;
pub mod devices;
mod driver;
mod held;
pub mod incarnation;
mod learned;
pub mod probe;
mod prober;
pub mod readout;
pub mod request;
pub mod responder;
pub mod run;
pub mod session;
pub mod socket;
mod table;
pub mod wire;

pub use run::{AgentConfig, AgentError, run};
