//! The network configuration manager: which host needs which rows, how they get there, and what each has.
//!
//! [`core`] decides and does no I/O; [`service`] is one task around it. It learns of resources from a region's change
//! feed, and gives port reports and host registrations back. It knows neither HTTP nor SQL.

pub mod core;
mod counts;
pub mod directory;
pub mod service;

pub use core::{Action, Depths, Event, Ncm, Now, Options, Work};
pub use directory::{Directory, Limits};
pub use service::{NcmHandle, RegionLink};
