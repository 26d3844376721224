//! The notifier of Nova: where Nova is and what opens its door come from the configuration and from Keystone.

use std::sync::Arc;

use alcor_identity::{Session, Wanted, http::HttpClient};
use alcor_nova::{Access, BoxFuture, NovaAccess, NovaClient, core::Counters};
use alcor_region::Region;
use anyhow::Context as _;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{AuthConfig, NovaConfig};

/// Nova's type in the catalogue.
const SERVICE_TYPE: &str = "compute";

/// Starts to tell Nova, if it is to be told.
///
/// # Errors
/// When something is missing, or Keystone's address, the password or the certificates are of no use. Neither Keystone nor Nova is asked yet: a
/// controller starts without them.
pub fn start(
    config: &NovaConfig,
    auth: &AuthConfig,
    region: Region,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    if !config.enabled {
        return Ok(());
    }
    config.check(auth)?;
    let access = access(config, auth)?;
    let http = HttpClient::new(config.authorities(auth), config.timeout()).context("nova")?;
    let (counter, mut counted) = watch::channel(Counters::default());
    let told = alcor_nova::run(
        region,
        NovaClient::new(http, access),
        config.pace(),
        counter,
        stop.clone(),
    );
    parts.spawn(async move {
        told.await;
        Ok(())
    });
    let place = if config.url.is_empty() {
        "in Keystone's catalogue"
    } else {
        &config.url
    };
    tracing::info!(nova = place, "Nova is told of its servers' ports");
    let stop = stop.clone();
    parts.spawn(async move {
        let mut given_up = 0;
        while let Some(Ok(())) = stop.run_until_cancelled(counted.changed()).await {
            let now = *counted.borrow_and_update();
            if now.given_up > given_up {
                given_up = now.given_up;
                tracing::warn!(
                    given_up,
                    delivered = now.delivered,
                    "events did not reach Nova; it may wait for them in vain"
                );
            }
        }
        Ok(())
    });
    Ok(())
}

fn access(config: &NovaConfig, auth: &AuthConfig) -> anyhow::Result<Arc<dyn NovaAccess>> {
    let fixed = (!config.url.is_empty()).then(|| config.url.clone());
    let Some(keystone) = config.keystone(auth)? else {
        // The check of the configuration wants an address where there is no Keystone.
        return Ok(Arc::new(Access {
            endpoint: fixed.unwrap_or_default(),
            token: None,
        }));
    };
    Ok(Arc::new(KeystoneAccess {
        session: Session::new(keystone).context("nova")?,
        fixed,
        wanted: Wanted {
            service_type: SERVICE_TYPE.to_owned(),
            interface: config.interface.as_str().to_owned(),
            region: (!config.region_name.is_empty()).then(|| config.region_name.clone()),
        },
    }))
}

/// Access with a token of Keystone, to where the configuration or the catalogue says.
struct KeystoneAccess {
    session: Session,
    fixed: Option<String>,
    wanted: Wanted,
}

impl NovaAccess for KeystoneAccess {
    fn access(&self) -> BoxFuture<'_, Result<Access, String>> {
        Box::pin(async move {
            let (endpoint, token) = match &self.fixed {
                Some(endpoint) => (endpoint.clone(), self.session.token().await?),
                None => {
                    let access = self.session.access(&self.wanted).await?;
                    (access.endpoint, access.token)
                }
            };
            Ok(Access {
                endpoint,
                token: Some(token),
            })
        })
    }

    fn refused(&self, access: Access) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(token) = &access.token {
                self.session.forget(token).await;
            }
        })
    }
}

#[cfg(test)]
mod tests;
