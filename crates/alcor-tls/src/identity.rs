//! Names in certificates, and what follows from them.

use std::{fmt, net::SocketAddr, sync::Arc};

use alcor_metrics::TLS_REFUSED;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tonic::{Status, codegen::http::Extensions};

/// Longest name of a holder, in bytes: what hosts and gateways may have.
pub const NAME_BYTES_MAX: usize = 255;
/// URIs of one certificate that are looked at.
const IDENTITIES_MAX: usize = 16;
/// What all URIs of this platform begin with.
const SCHEME: &str = "alcor://";

/// What the holder of a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A controller.
    Controller,
    /// An NCM.
    Ncm,
    /// A gateway.
    Gateway,
    /// A host, which has an agent.
    Host,
}

impl Role {
    /// As in URIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Ncm => "ncm",
            Self::Gateway => "gateway",
            Self::Host => "host",
        }
    }

    /// Whether others connect to it.
    pub fn listens(self) -> bool {
        matches!(self, Self::Controller | Self::Ncm)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that no holder can have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the name of a {0} must have 1 to {NAME_BYTES_MAX} bytes")]
pub struct NameError(Role);

/// One name of a holder, as a URI: `alcor://ROLE/NAME`, with all but letters, digits, `-`, `.`, `_` and `~` of the name written
/// as `%` and two hexadecimal digits a byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    role: Role,
    uri: String,
}

impl Identity {
    /// The identity of this holder.
    ///
    /// # Errors
    /// When nobody can have the name.
    pub fn new(role: Role, name: &str) -> Result<Self, NameError> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(NameError(role));
        }
        Ok(Self {
            role,
            uri: format!("{SCHEME}{role}/{}", escaped(name)),
        })
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// As in certificates.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// As a part of file names: `host-node-1`.
    pub fn file_stem(&self) -> String {
        self.uri[SCHEME.len()..].replacen('/', "-", 1)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

/// A name as a part of a URI: two names never become one.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The URIs of this platform in a certificate. They say nothing before the certificate is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(Arc<[String]>);

impl Names {
    /// Those of the first certificate of a chain; none when there is no certificate.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Self {
        let Some(first) = chain.first() else {
            return Self::default();
        };
        let Ok(certificate) = webpki::EndEntityCert::try_from(first) else {
            return Self::default();
        };
        let uris = certificate.valid_uri_names();
        let ours = uris.filter(|uri| uri.starts_with(SCHEME)).take(IDENTITIES_MAX);
        Self(ours.map(str::to_owned).collect())
    }

    pub(crate) fn has(&self, identity: &Identity) -> bool {
        self.0.contains(&identity.uri)
    }

    pub(crate) fn has_role(&self, roles: &[Role]) -> bool {
        let begins = |uri: &String, role: &Role| {
            let rest = uri[SCHEME.len()..].strip_prefix(role.as_str());
            rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
        };
        self.0
            .iter()
            .any(|uri| roles.iter().any(|role| begins(uri, role)))
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => f.write_str("nobody"),
            false => f.write_str(&self.0.join(" and ")),
        }
    }
}

/// Somebody's certificate does not allow what is asked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the certificate of this connection names {named}; {wanted} is needed here")]
pub struct Refused {
    /// Whom it names.
    pub named: String,
    /// Who would be allowed.
    pub wanted: String,
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        Self::permission_denied(refused.to_string())
    }
}

/// Who is at the other end of a connection that was accepted. In the extensions of each of its requests.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// None: the listener is a plain one, on which everybody may claim everything.
    pub(crate) names: Option<Names>,
}

impl Peer {
    /// Who has sent a request.
    ///
    /// # Errors
    /// When it did not come over a connection of [`crate::Incoming`].
    pub fn of(extensions: &Extensions) -> Result<&Self, Status> {
        let unknown = || Status::internal("nobody knows whose connection this is");
        extensions.get().ok_or_else(unknown)
    }

    /// Whether it is this one. Refusals are counted.
    ///
    /// # Errors
    /// When its certificate names somebody else.
    pub fn must_be(&self, identity: &Identity) -> Result<(), Refused> {
        self.decide("name", |names| names.has(identity), || identity.to_string())
    }

    /// Whether it is one of these. Refusals are counted.
    ///
    /// # Errors
    /// When its certificate names others.
    pub fn must_have_role(&self, roles: &[Role]) -> Result<(), Refused> {
        self.decide("role", |names| names.has_role(roles), || one_of(roles))
    }

    fn decide(
        &self,
        reason: &'static str,
        allows: impl FnOnce(&Names) -> bool,
        wanted: impl FnOnce() -> String,
    ) -> Result<(), Refused> {
        let Some(names) = self.names.as_ref().filter(|names| !allows(names)) else {
            return Ok(());
        };
        let refused = Refused {
            named: names.to_string(),
            wanted: wanted(),
        };
        TLS_REFUSED.add([reason], 1);
        tracing::warn!(peer = %self, %refused, "refused");
        Err(refused)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("unknown address")?,
        }
        match &self.names {
            Some(names) => write!(f, " ({names})"),
            None => Ok(()),
        }
    }
}

/// Roles as the words of an error.
pub(crate) fn one_of(roles: &[Role]) -> String {
    let roles: Vec<String> = roles.iter().map(|role| format!("{SCHEME}{role}/NAME")).collect();
    roles.join(" or ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

    use super::*;

    fn uri(name: &str) -> String {
        Identity::new(Role::Host, name).unwrap().uri().to_owned()
    }

    #[test]
    fn two_names_are_two_uris() {
        assert_eq!(uri("node-1.example_~"), "alcor://host/node-1.example_~");
        assert_eq!(uri("a/b"), "alcor://host/a%2Fb");
        assert_eq!(uri("a%2Fb"), "alcor://host/a%252Fb");
        assert_eq!(uri("ä H"), "alcor://host/%C3%A4%20H");
        assert_ne!(uri("h1"), uri("H1"));
        let stem = Identity::new(Role::Ncm, "../x").unwrap().file_stem();
        assert_eq!(stem, "ncm-..%2Fx");
        for name in ["", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(Identity::new(Role::Ncm, name), Err(NameError(Role::Ncm)));
        }
    }

    #[test]
    fn a_role_is_a_whole_word_with_a_name() {
        let names = |uri: &str| Names(Arc::from([uri.to_owned()]));
        assert!(names("alcor://ncm/n1").has_role(&[Role::Controller, Role::Ncm]));
        for wrong in [
            "alcor://ncm/",
            "alcor://ncm",
            "alcor://ncmx/n1",
            "alcor://host/ncm",
        ] {
            assert!(!names(wrong).has_role(&[Role::Ncm]), "{wrong}");
        }
        assert!(!Names::default().has_role(&[Role::Ncm]));
    }

    #[test]
    fn a_plain_connection_may_claim_everything() {
        let plain = Peer {
            address: None,
            names: None,
        };
        plain.must_have_role(&[Role::Ncm]).unwrap();
        let nobody = Peer {
            names: Some(Names::default()),
            ..plain
        };
        let refused = nobody.must_have_role(&[Role::Ncm]).unwrap_err();
        let words = "the certificate of this connection names nobody; alcor://ncm/NAME is needed here";
        assert_eq!(refused.to_string(), words);
    }
}
