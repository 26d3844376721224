//! `[controller.auth]`: who may use the API, and how they prove who they are.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use alcor_api::{ApiConfig, Authentication};
use alcor_identity::{KeystoneConfig, Secret, Verifier, VerifierConfig, cache::Bounds};
use alcor_policy::{MAX_FILE_BYTES, Policy};
use alcor_region::command::Caller;
use anyhow::Context as _;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// The environment variable with the password; read as it is, not as a number when it looks like one.
pub const PASSWORD_VARIABLE: &str = "ALCOR_CONTROLLER__AUTH__PASSWORD";

/// Most tokens that are asked for at a time.
const MAX_IN_FLIGHT: usize = 256;
/// Longest time that a refusal holds, in seconds.
const MAX_REFUSAL_S: u32 = 10;
/// Longest time that a revoked token may still work, in seconds.
const MAX_REVOCATION_S: u32 = 3_600;
/// Time before the first new try of a call to Keystone.
pub const BACKOFF: Duration = Duration::from_millis(100);

/// `[controller.auth]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// How callers prove who they are.
    pub mode: AuthMode,
    /// Keystone's address, such as `https://keystone:5000`.
    pub keystone_url: String,
    /// The user that asks Keystone about tokens.
    pub username: String,
    /// That user's password; better in `password_file` or in the environment. Never printed.
    #[serde(default, skip_serializing)]
    pub password: Password,
    /// A file with nothing but the password in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The user's domain, by name.
    pub user_domain_name: String,
    /// The project in which the user has the service role.
    pub project_name: String,
    /// The project's domain, by name.
    pub project_domain_name: String,
    /// Authorities to trust besides the system's, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Longest time for one call to Keystone, in milliseconds.
    pub timeout_ms: u32,
    /// How often a failed call is tried again.
    pub retries: u32,
    /// Most tokens that are remembered.
    pub cache_tokens: usize,
    /// After this many seconds a remembered token is asked for again: so long may a revoked one still work.
    pub revocation_s: u32,
    /// Rules over the default ones, in oslo.policy's YAML form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_file: Option<PathBuf>,
}

/// How callers prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// By a token of Keystone.
    Keystone,
    /// Not at all: whoever reaches the API is admin. On loopback only.
    NoAuth,
}

/// A text that is not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Password {
    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The password itself, or what the file has when none was given. `section` is the one of the configuration.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn secret(&self, section: &str, file: Option<&Path>) -> anyhow::Result<Secret> {
        match file {
            Some(path) if self.is_empty() => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("reading {section}.password_file {}", path.display()))?;
                Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
            }
            _ => Ok(Secret::new(self.0.clone())),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            mode: AuthMode::Keystone,
            keystone_url: String::new(),
            username: String::new(),
            password: Password::default(),
            password_file: None,
            user_domain_name: "Default".into(),
            project_name: "service".into(),
            project_domain_name: "Default".into(),
            ca_file: None,
            timeout_ms: 5_000,
            retries: 2,
            cache_tokens: 10_000,
            revocation_s: 60,
            policy_file: None,
        }
    }
}

impl AuthConfig {
    /// Whether the values make sense together.
    ///
    /// # Errors
    /// What does not, by name.
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.revocation_s <= MAX_REVOCATION_S,
            "controller.auth.revocation_s is {}; the most is {MAX_REVOCATION_S}",
            self.revocation_s
        );
        anyhow::ensure!(
            (1..=1_000_000).contains(&self.cache_tokens),
            "controller.auth.cache_tokens must be 1 to 1000000"
        );
        anyhow::ensure!(
            (1..=60_000).contains(&self.timeout_ms) && self.retries <= 10,
            "controller.auth.timeout_ms must be 1 to 60000, and retries at most 10"
        );
        if self.mode == AuthMode::Keystone {
            for (key, value) in [("keystone_url", &self.keystone_url), ("username", &self.username)] {
                anyhow::ensure!(
                    !value.is_empty(),
                    "controller.auth.mode is 'keystone', so controller.auth.{key} is needed; to try things out on this \
                     machine without authentication, say --noauth"
                );
            }
            anyhow::ensure!(
                !self.password.is_empty() || self.password_file.is_some(),
                "controller.auth.mode is 'keystone', so password_file is needed, or {PASSWORD_VARIABLE}"
            );
        }
        Ok(())
    }

    /// The API's settings.
    ///
    /// # Errors
    /// When something is missing, a file cannot be read, or Keystone's address or the rules are of no use.
    pub fn api_config(&self, project_id: &str) -> anyhow::Result<ApiConfig> {
        self.check()?;
        let authentication = match self.mode {
            AuthMode::NoAuth => Authentication::NoAuth(Caller {
                project_id: project_id.to_owned(),
                is_admin: true,
            }),
            AuthMode::Keystone => Authentication::Keystone {
                verifier: Verifier::new(self.verifier()?).context("controller.auth")?,
                uri: self.keystone_url.clone(),
            },
        };
        let mut config = ApiConfig::new(authentication);
        config.policy = Arc::new(self.policy()?);
        Ok(config)
    }

    fn policy(&self) -> anyhow::Result<Policy> {
        let Some(path) = &self.policy_file else {
            return Ok(Policy::load(None)?);
        };
        let context = || format!("controller.auth.policy_file {}", path.display());
        let size = std::fs::metadata(path).with_context(context)?.len();
        anyhow::ensure!(
            size <= MAX_FILE_BYTES as u64,
            "{} is larger than {MAX_FILE_BYTES} bytes",
            context()
        );
        let text = std::fs::read_to_string(path).with_context(context)?;
        Policy::load(Some(&text)).with_context(context)
    }

    fn password(&self) -> anyhow::Result<Secret> {
        self.password
            .secret("controller.auth", self.password_file.as_deref())
    }

    /// Keystone, and who Alcor is there.
    ///
    /// # Errors
    /// When the password's file cannot be read.
    pub fn keystone(&self) -> anyhow::Result<KeystoneConfig> {
        Ok(KeystoneConfig {
            url: self.keystone_url.clone(),
            username: self.username.clone(),
            password: self.password()?,
            user_domain_name: self.user_domain_name.clone(),
            project_name: self.project_name.clone(),
            project_domain_name: self.project_domain_name.clone(),
            ca_file: self.ca_file.clone(),
            timeout: Duration::from_millis(self.timeout_ms.into()),
            retries: self.retries,
            backoff: BACKOFF,
        })
    }

    fn verifier(&self) -> anyhow::Result<VerifierConfig> {
        let seconds = |seconds: u32| SignedDuration::from_secs(i64::from(seconds));
        Ok(VerifierConfig {
            keystone: self.keystone()?,
            bounds: Bounds {
                capacity: self.cache_tokens,
                max_in_flight: MAX_IN_FLIGHT,
                revocation: seconds(self.revocation_s),
                refusal: seconds(self.revocation_s.min(MAX_REFUSAL_S)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keystone() -> AuthConfig {
        AuthConfig {
            keystone_url: "http://127.0.0.1:5000".into(),
            username: "alcor".into(),
            password: Password::from("rosebud".to_owned()),
            ..AuthConfig::default()
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(keystone().check().is_ok());
        let missing = |change: fn(&mut AuthConfig)| {
            let mut config = keystone();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(missing(|config| config.keystone_url.clear()).contains("keystone_url"));
        assert!(
            AuthConfig::default()
                .api_config("p")
                .unwrap_err()
                .to_string()
                .contains("--noauth")
        );
        assert!(missing(|config| config.username.clear()).contains("username"));
        assert!(missing(|config| config.password = Password::default()).contains(PASSWORD_VARIABLE));
        assert!(missing(|config| config.revocation_s = 86_400).contains("revocation_s"));
        assert!(missing(|config| config.cache_tokens = 0).contains("cache_tokens"));
        assert!(missing(|config| config.timeout_ms = 0).contains("timeout_ms"));
    }

    #[test]
    fn the_password_is_never_shown() {
        let config = keystone();
        assert!(!toml::to_string(&config).unwrap().contains("rosebud"));
        assert!(!format!("{config:?}").contains("rosebud"));
        assert!(!format!("{:?}", config.api_config("p").unwrap()).contains("rosebud"));
    }

    #[test]
    fn the_password_can_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "rosebud\n").unwrap();
        let mut config = keystone();
        config.password = Password::default();
        config.password_file = Some(path);
        assert_eq!(config.password().unwrap().reveal(), "rosebud");
        config.password_file = Some(dir.path().join("nothing"));
        assert!(config.password().unwrap_err().to_string().contains("nothing"));
    }

    #[test]
    fn rules_come_from_a_file_or_the_start_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        std::fs::write(&path, "create_network: rule:admin_only\n").unwrap();
        let mut config = keystone();
        config.policy_file = Some(path.clone());
        assert!(config.api_config("p").is_ok());
        std::fs::write(&path, "create_network: rule:nobody_wrote_this\n").unwrap();
        let error = format!("{:#}", config.api_config("p").unwrap_err());
        assert!(
            error.contains("policy.yaml") && error.contains("nobody_wrote_this"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(config.api_config("p").is_err());
    }
}
