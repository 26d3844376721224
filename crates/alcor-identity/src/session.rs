//! Alcor as a client of other services: its own token, and where the catalogue says that they are.

use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;

use crate::{
    keystone::{Keystone, KeystoneConfig, KeystoneError},
    secret::Secret,
    verifier::Clock,
};

/// A service as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its type (`compute`).
    pub service_type: String,
    /// For whom: `public`, `internal` or `admin`.
    pub interface: String,
    /// The region by its id; any when none is named.
    pub region: Option<String>,
}

/// What opens a service's door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccess {
    /// Its address as in the catalogue.
    pub endpoint: String,
    /// Alcor's own token.
    pub token: Secret,
}

/// Alcor's own login, kept for as long as its token lasts. Cheap to clone.
#[derive(Clone)]
pub struct Session(Arc<Keystone>);

impl Session {
    /// A login that is made when it is needed.
    ///
    /// # Errors
    /// When the address or the certificates are of no use. Keystone is not asked yet.
    pub fn new(config: KeystoneConfig) -> Result<Self, KeystoneError> {
        Self::with_clock(config, Arc::new(Timestamp::now))
    }

    /// As [`Session::new`], with a clock.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn with_clock(config: KeystoneConfig, clock: Clock) -> Result<Self, KeystoneError> {
        Ok(Self(Arc::new(Keystone::new(config, clock, true)?)))
    }

    /// Alcor's own token.
    ///
    /// # Errors
    /// Why there is none, for people. Trying again later may help.
    pub async fn token(&self) -> Result<Secret, String> {
        Ok(secret(&self.0.login_or_known().await?.header))
    }

    /// Alcor's own token, and where a service is.
    ///
    /// # Errors
    /// Why there is none, for people. Trying again later may help.
    pub async fn access(&self, wanted: &Wanted) -> Result<ServiceAccess, String> {
        let own = self.0.login_or_known().await?;
        let endpoint = own.catalogue.endpoint(wanted).ok_or_else(|| {
            let region = wanted.region.as_deref().unwrap_or("any");
            format!(
                "Keystone's catalogue has no {} endpoint of a service of type '{}' in region {region}",
                wanted.interface, wanted.service_type
            )
        })?;
        Ok(ServiceAccess {
            endpoint: endpoint.to_owned(),
            token: secret(&own.header),
        })
    }

    /// A service did not accept the token: the next one is new.
    pub async fn forget(&self, token: &Secret) {
        if let Ok(header) = HeaderValue::from_str(token.reveal()) {
            self.0.forget(&header).await;
        }
    }
}

fn secret(header: &HeaderValue) -> Secret {
    Secret::new(header.to_str().unwrap_or_default())
}
