//! The region's rules: one module per resource, deciders as pure functions over the state, run by the store's
//! writer. No HTTP, no gRPC, no SQL.

pub mod command;
pub mod error;

pub use error::{ErrorClass, RegionError};
