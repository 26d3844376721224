//! The whole system on one machine: a controller, two hosts with agents and kernel programs, VMs, real packets. Built
//! only with the feature `root-tests`, so that a missing right or command is a failure and not a skip.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod floating;
mod frr;
mod gateways;
mod packets;
mod region;
mod restarts;
mod routing;
mod security;
mod status;
