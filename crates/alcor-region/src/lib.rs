//! The region's rules: one module per resource, deciders as pure functions over the state, run by the store's
//! writer. No HTTP, no gRPC, no SQL.
//!
//! A decider takes the transaction, the environment ([`env::Env`]: configuration, time, random numbers), the caller and
//! a command, and either writes rows or refuses and leaves nothing. [`Region`] is the handle that runs them.

pub mod alloc;
pub mod command;
pub mod env;
pub mod error;
pub mod host;
pub mod network;
pub mod port;
pub mod port_runtime;
mod region;
pub mod state;
pub mod subnet;
#[cfg(test)]
mod tests;

pub use env::{Env, RegionConfig};
pub use error::{ErrorClass, RegionError};
pub use region::Region;
pub use state::RegionState;
