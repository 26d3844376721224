//! Between a controller and an NCM in two processes: the region's feed one way, reports the other way, and questions about
//! hosts.
//!
//! It carries and checks; which rows a host needs is `alcor-ncm`'s, and what a region keeps is `alcor-region`'s. The protocol
//! is in `alcor-proto`, `link.proto`. With TLS only an NCM may follow and report, and only a controller may ask. Without, both ends
//! belong on loopback or on a network of the platform's own.

pub mod convert;
pub mod directory;
pub mod follow;
pub mod intake;
mod meanwhile;
pub mod serve;
pub mod source;

/// Largest message of a feed, in bytes. Parts are cut far below it; only a single row could come near.
pub const FEED_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest call of an NCM and largest answer about a host, in bytes.
pub const CALL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of rows after which a message is sent.
pub const PART_BYTES: usize = 256 * 1024;
