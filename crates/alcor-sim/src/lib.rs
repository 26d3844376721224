//! The simulator: many hosts without hosts.
//!
//! [`engine`] runs the real deciders of controller, NCM and agents in one process and virtual time, from a scenario and
//! a seed, and checks what must always hold (level a). [`region`] runs the same scenarios with real processes and sockets: [`sockets`] are
//! simulated agents over the real protocol (level b).
//!
//! The simulated regions have networks, ports, security groups, routers between networks, and gateways between hosts, and no
//! way to the outside: floating IPs and what gateways translate have tests of their own in the crates that decide about them.
//!
//! Not here: what a scenario is (`alcor-scenario`); real packets (level c: `cargo xtask sim --namespaces`, of the same
//! scenarios).

pub mod clock;
mod cloud;
pub mod engine;
pub mod figures;
mod host;
pub mod outcome;
pub mod region;
pub mod report;
pub mod sockets;

pub use alcor_scenario::{rng, scenario};
