//! Tells Nova what became of the ports of its servers, through Nova's `os-server-external-events`.
//!
//! [`core`] decides, without I/O, which events follow from the state of the region's ports and when they are sent;
//! [`client`] is the HTTP call; [`service`] ties both to the region's feed. What a port's status is, is the region's
//! business; nothing here writes to the region.
//!
//! After a start nothing is sent for what is already so: only changes that are seen happen become events.

pub mod client;
pub mod core;
pub mod event;
pub mod service;

pub use crate::{
    client::{Access, BoxFuture, NovaAccess, NovaClient, SendError},
    core::{Notifier, Observed, Pace},
    event::{EventName, EventStatus, ServerEvent},
    service::{Counted, run},
};
