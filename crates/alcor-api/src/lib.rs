//! Alcor's northbound API: Neutron v2.0 over HTTP, and Alcor's own read-only routes under `/alcor/v1`.
//!
//! A resource is declared once, as a table of attributes ([`attributes`]) and a few functions
//! ([`resources::Resource`]); parsing, views, filters, sorting, paging and routes are written once for all. Rules that
//! need the state of the region are the region's; nothing here knows how anything is stored. Who asks is found out
//! before a handler runs ([`auth`]), and what they may do is asked of the policy in one place ([`authorize`]).

pub mod admin;
pub mod attributes;
pub mod auth;
pub mod authorize;
mod body;
pub mod discovery;
pub mod error;
pub mod extensions;
pub mod field;
pub mod openapi;
pub mod parse;
pub mod query;
pub mod resources;
mod router;
pub mod server;
pub mod state;
mod trace;
mod wait;

pub use admin::{BoxFuture, HostDirectory, NoHosts};
pub use auth::Authentication;
pub use router::{Collection, Route, collections, route_table, router};
pub use server::{check_bind, serve};
pub use state::{ApiConfig, ApiState};
