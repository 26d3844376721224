//! Who may do what: oslo.policy's rule language, Neutron's default rules, and overrides from a file.
//!
//! Pure: rules are read and linked once ([`Policy::load`]), after that a decision is a walk over a small tree with
//! the caller's [`Credentials`] and a [`Target`]. Whatever is in doubt is refused: an unknown rule, an attribute that
//! the target does not have, a rule that cannot be read (the whole file is refused then).
//!
//! Not here: where credentials come from (`alcor-identity`), which rules a request asks (`alcor-api`), HTTP.

mod credentials;
mod defaults;
mod parse;
mod policy;
mod rule;
mod target;

pub use credentials::Credentials;
pub use parse::{MAX_DEPTH, MAX_RULE_BYTES, ParseError};
pub use policy::{Action, Foreseen, MAX_FILE_BYTES, Policy, PolicyError, RuleId};
pub use target::{Target, Value};

#[cfg(test)]
mod tests;
