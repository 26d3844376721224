//! The region's rules: one module per resource, deciders as pure functions over the state, run by the store's
//! writer. No HTTP, no gRPC, no SQL.
//!
//! A decider takes the transaction, the environment ([`env::Env`]: configuration, time, random numbers), the caller and
//! a command, and either writes rows or refuses and leaves nothing. What a resource of the API can do is one
//! implementation of [`Managed`]; [`Region`] is the handle that runs it.

pub mod address_group;
pub mod address_scope;
pub mod alloc;
pub mod auto_topology;
pub mod command;
pub mod env;
pub mod error;
mod external;
pub mod floating_ip;
pub mod gateway;
pub mod host;
pub mod host_runtime;
pub mod label;
mod managed;
pub mod network;
pub mod once;
pub mod port;
pub mod port_runtime;
mod prefixes;
pub mod quota;
pub mod rbac;
mod region;
pub mod router;
pub mod security_group;
pub mod segment;
pub mod segment_range;
pub mod state;
pub mod subnet;
pub mod subnet_pool;
#[cfg(test)]
mod tests;

pub use env::{Env, RegionConfig};
pub use error::{ErrorClass, Refusal, RegionError};
pub use managed::Managed;
pub use region::Region;
pub use state::RegionState;
