//! Security groups and connections, case by case, on one host and on two. Stations with odd numbers are on the
//! first host, with even numbers on the second.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/secured.rs"]
mod secured;
mod rules {
    pub use super::{common::*, secured::*};
}
#[path = "filter/limits.rs"]
mod limits;
#[path = "filter/semantics.rs"]
mod semantics;
#[path = "filter/state.rs"]
mod state;
