//! The simulator: many hosts without hosts.
//!
//! [`sockets`] runs simulated agents over the real protocol against real processes (level b).
//!
//! Not here: real packets; those need the namespaces of `alcor-lab`.

pub mod sockets;
