//! What Alcor counts and measures: one table of every metric ([`table`]), how a crate counts ([`Counter`], [`Gauge`],
//! [`Histogram`]), and the Prometheus endpoint ([`endpoint`]).
//!
//! Not here: what is worth counting (each crate counts its own work), dashboards (`docs/grafana`). Labels are words of a
//! fixed set or patterns of routes, never ids of resources, hosts or projects: the number of time series is bounded by
//! the code, not by what tenants make. Without [`endpoint::install`] counting costs next to nothing and goes nowhere.

pub mod endpoint;
mod metric;
pub mod table;

pub use metric::{Counter, Gauge, Histogram, Info, Type};
pub use table::*;
