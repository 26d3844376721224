//! Who is at the other end: TLS 1.3 with certificates on both sides, between controllers, NCMs, agents and gateways, and the
//! names that are in these certificates. A development CA too ([`issue`]).
//!
//! A certificate names its holder in URIs such as `alcor://host/node-1` ([`Identity`]). This crate says whose the certificate at
//! the other end is ([`Peer`]) and refuses what is not certified; what a holder may do is decided where the request is.
//! It has nothing to do with the API, whose callers have tokens (`alcor-identity`).

mod accept;
mod dial;
mod files;
mod identity;
pub mod issue;

pub use accept::{Connection, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, Incoming};
pub use dial::{DialError, connect, connect_lazy};
pub use files::{Tls, TlsError, TlsFiles};
pub use identity::{Identity, NAME_BYTES_MAX, NameError, Peer, Refused, Role};
