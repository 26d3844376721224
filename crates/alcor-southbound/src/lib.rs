//! The channel between an NCM and its agents: protobuf to rows and back, and the gRPC stream at both ends.
//!
//! It carries what others decide: which rows a host needs is `alcor-ncm`'s, when to reconnect is the agent's.

pub mod client;
pub mod convert;
pub mod frame;
pub mod server;

/// Largest message either side takes, in bytes. A full snapshot part is well below.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
