//! Who sends a request: checks Keystone v3 tokens and says what they prove ([`alcor_policy::Credentials`]). And who
//! Alcor is to other services: [`Session`].
//!
//! The cache and its decisions ([`cache`]) do no I/O and read no clock; [`Verifier`] is the thin shell with HTTP,
//! tasks and time. A token that Keystone has not confirmed within the revocation bound proves nothing: when Keystone
//! cannot be asked, the answer is [`IdentityError::Unavailable`], never a pass. Tokens and passwords are not logged
//! and not kept: the cache knows tokens by their hash.
//!
//! Not here: what somebody may do (`alcor-policy`), HTTP headers and bodies of refusals (`alcor-api`).

pub mod cache;
pub mod http;
mod keystone;
mod secret;
mod session;
mod token;
mod verifier;

pub use keystone::{KeystoneConfig, KeystoneError};
pub use secret::Secret;
pub use session::{ServiceAccess, Session, Wanted};
pub use token::Verified;
pub use verifier::{IdentityError, MAX_TOKEN_BYTES, Stats, Verifier, VerifierConfig};
