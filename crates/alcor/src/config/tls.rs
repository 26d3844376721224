//! `[tls]`: the certificates of this process. With them nothing between the parts of the platform is plain.

use std::path::PathBuf;

use alcor_tls::TlsFiles;
use serde::{Deserialize, Serialize};

/// `[tls]`: all three, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates of the authorities that are trusted (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// This process's certificate, and those between it and the authority (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl TlsConfig {
    /// The files; nothing when there is to be no TLS.
    ///
    /// # Errors
    /// When one is missing.
    pub fn files(&self) -> anyhow::Result<Option<TlsFiles>> {
        let keys = [
            ("ca", &self.ca),
            ("certificate", &self.certificate),
            ("key", &self.key),
        ];
        match (&self.ca, &self.certificate, &self.key) {
            (None, None, None) => Ok(None),
            (Some(ca), Some(certificate), Some(key)) => Ok(Some(TlsFiles {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            })),
            _ => {
                let missing = keys.iter().filter(|(_, path)| path.is_none());
                let missing: Vec<String> = missing.map(|(key, _)| format!("tls.{key}")).collect();
                anyhow::bail!(
                    "[tls] is not complete: set {} too, or nothing of it; `alcor certs` makes certificates",
                    missing.join(" and ")
                )
            }
        }
    }
}

/// The URL as it is with TLS.
pub(super) fn secured(url: &str) -> String {
    match url.strip_prefix("http://") {
        Some(rest) => format!("https://{rest}"),
        None => url.to_owned(),
    }
}
