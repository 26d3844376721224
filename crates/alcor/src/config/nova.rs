//! `[nova]`: whether and how Nova is told of its servers' ports.

use std::{path::PathBuf, time::Duration};

use alcor_identity::{KeystoneConfig, Secret};
use alcor_nova::{Pace, core::BATCH_MAX};
use serde::{Deserialize, Serialize};

use super::auth::{AuthConfig, AuthMode, BACKOFF, Password};

/// The environment variable with the password; read as it is, not as a number when it looks like one.
pub const PASSWORD_VARIABLE: &str = "ALCOR_NOVA__PASSWORD";

/// Longest pause between two requests, in milliseconds: Nova waits for events.
const INTERVAL_MAX_MS: u32 = 60_000;

/// `[nova]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NovaConfig {
    /// Whether Nova is told.
    pub enabled: bool,
    /// Nova's address with the version (`http://controller:8774/v2.1`). Default: from Keystone's catalogue.
    pub url: String,
    /// Keystone's address. Default: that of `controller.auth`, with its user.
    pub keystone_url: String,
    /// The user that has the role that Nova wants (`service` or `admin`).
    pub username: String,
    /// That user's password; better in `password_file` or in the environment. Never printed.
    #[serde(default, skip_serializing)]
    pub password: Password,
    /// A file with nothing but the password in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The user's domain, by name.
    pub user_domain_name: String,
    /// The project in which the user has its role.
    pub project_name: String,
    /// The project's domain, by name.
    pub project_domain_name: String,
    /// Authorities to trust besides the system's, as PEM: those of Keystone and of Nova.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The region of Nova in the catalogue. Default: the first that is there.
    pub region_name: String,
    /// Which of Nova's endpoints in the catalogue.
    pub interface: Interface,
    /// Longest time for one request, in milliseconds.
    pub timeout_ms: u32,
    /// Shortest time between two requests, in milliseconds: what happens meanwhile goes together.
    pub interval_ms: u32,
    /// Most events of one request.
    pub batch: usize,
}

/// For whom an endpoint in the catalogue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// For everybody.
    Public,
    /// For other services.
    Internal,
    /// For operators.
    Admin,
}

impl Interface {
    /// As the catalogue writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

impl Default for NovaConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            url: String::new(),
            keystone_url: String::new(),
            username: String::new(),
            password: Password::default(),
            password_file: None,
            user_domain_name: "Default".into(),
            project_name: "service".into(),
            project_domain_name: "Default".into(),
            ca_file: None,
            region_name: String::new(),
            interface: Interface::Internal,
            timeout_ms: 10_000,
            interval_ms: 200,
            batch: 100,
        }
    }
}

impl NovaConfig {
    /// Whether the values make sense together, and with how the API's callers prove who they are.
    ///
    /// # Errors
    /// What does not, by name, and what to do.
    pub fn check(&self, auth: &AuthConfig) -> anyhow::Result<()> {
        anyhow::ensure!(
            (1..=60_000).contains(&self.timeout_ms),
            "nova.timeout_ms is {}; it must be 1 to 60000",
            self.timeout_ms
        );
        anyhow::ensure!(
            self.interval_ms <= INTERVAL_MAX_MS,
            "nova.interval_ms is {}; the most is {INTERVAL_MAX_MS}, because Nova waits for what it is told",
            self.interval_ms
        );
        anyhow::ensure!(
            (1..=BATCH_MAX).contains(&self.batch),
            "nova.batch is {}; it must be 1 to {BATCH_MAX}",
            self.batch
        );
        if !self.enabled {
            return Ok(());
        }
        anyhow::ensure!(
            self.url.is_empty() || self.url.starts_with("http://") || self.url.starts_with("https://"),
            "nova.url is '{}'; write it as http://controller:8774/v2.1, or leave it out to find Nova in Keystone's \
             catalogue",
            self.url
        );
        if self.keystone_url.is_empty() {
            anyhow::ensure!(
                self.username.is_empty(),
                "nova.username is set, so nova.keystone_url is needed; leave out both to use the user of controller.auth"
            );
            anyhow::ensure!(
                !self.url.is_empty() || auth.mode == AuthMode::Keystone,
                "nova.enabled is true, but nothing says where Nova is: set nova.url, or nova.keystone_url with a user, or \
                 controller.auth.mode = 'keystone' to find it in Keystone's catalogue"
            );
            return Ok(());
        }
        anyhow::ensure!(
            !self.username.is_empty(),
            "nova.keystone_url is set, so nova.username is needed"
        );
        anyhow::ensure!(
            !self.password.is_empty() || self.password_file.is_some(),
            "nova.username is set, so nova.password_file is needed, or {PASSWORD_VARIABLE}"
        );
        Ok(())
    }

    /// Whom to log in as: the user named here, else that of the API; nobody where there is no Keystone.
    ///
    /// # Errors
    /// When the password's file cannot be read.
    pub fn keystone(&self, auth: &AuthConfig) -> anyhow::Result<Option<KeystoneConfig>> {
        if self.keystone_url.is_empty() {
            return match auth.mode {
                AuthMode::Keystone => auth.keystone().map(Some),
                AuthMode::NoAuth => Ok(None),
            };
        }
        Ok(Some(KeystoneConfig {
            url: self.keystone_url.clone(),
            username: self.username.clone(),
            password: self.secret()?,
            user_domain_name: self.user_domain_name.clone(),
            project_name: self.project_name.clone(),
            project_domain_name: self.project_domain_name.clone(),
            ca_file: self.ca_file.clone(),
            timeout: self.timeout(),
            // Requests to Nova are tried again as a whole.
            retries: 0,
            backoff: BACKOFF,
        }))
    }

    fn secret(&self) -> anyhow::Result<Secret> {
        self.password.secret("nova", self.password_file.as_deref())
    }

    /// The authorities that Nova's certificate is held against.
    pub fn authorities<'a>(&'a self, auth: &'a AuthConfig) -> Option<&'a PathBuf> {
        self.ca_file.as_ref().or(auth.ca_file.as_ref())
    }

    /// Longest time for one request.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }

    /// How events are gathered.
    pub fn pace(&self) -> Pace {
        Pace {
            batch: self.batch,
            interval: Duration::from_millis(self.interval_ms.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> NovaConfig {
        NovaConfig {
            enabled: true,
            keystone_url: "http://127.0.0.1:5000".into(),
            username: "alcor".into(),
            password: Password::from("rosebud".to_owned()),
            ..NovaConfig::default()
        }
    }

    fn noauth() -> AuthConfig {
        AuthConfig {
            mode: AuthMode::NoAuth,
            ..AuthConfig::default()
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let noauth = noauth();
        assert!(NovaConfig::default().check(&noauth).is_ok(), "off needs nothing");
        assert!(enabled().check(&noauth).is_ok());
        let missing = |change: fn(&mut NovaConfig)| {
            let mut config = enabled();
            change(&mut config);
            config.check(&self::noauth()).unwrap_err().to_string()
        };
        assert!(missing(|config| config.username.clear()).contains("nova.username is needed"));
        assert!(missing(|config| config.password = Password::default()).contains(PASSWORD_VARIABLE));
        assert!(missing(|config| config.keystone_url.clear()).contains("nova.keystone_url is needed"));
        let nowhere = missing(|config| {
            config.keystone_url.clear();
            config.username.clear();
        });
        assert!(
            nowhere.contains("set nova.url") && nowhere.contains("controller.auth.mode"),
            "{nowhere}"
        );
        assert!(
            missing(|config| config.url = "controller:8774".into()).contains("http://controller:8774/v2.1")
        );
        assert!(missing(|config| config.timeout_ms = 0).contains("nova.timeout_ms"));
        assert!(missing(|config| config.interval_ms = 100_000).contains("nova.interval_ms"));
        assert!(missing(|config| config.batch = 0).contains("nova.batch"));
    }

    #[test]
    fn the_user_is_that_of_the_api_unless_another_is_named() {
        let auth = AuthConfig {
            keystone_url: "http://192.0.2.1:5000".into(),
            username: "api".into(),
            password: Password::from("secret".to_owned()),
            ..AuthConfig::default()
        };
        let user = |config: NovaConfig, auth: &AuthConfig| {
            config.check(auth).unwrap();
            config.keystone(auth).unwrap().map(|keystone| keystone.username)
        };
        assert_eq!(user(enabled(), &auth).as_deref(), Some("alcor"));
        let plain = NovaConfig {
            enabled: true,
            ..NovaConfig::default()
        };
        assert_eq!(user(plain.clone(), &auth).as_deref(), Some("api"));
        let url = NovaConfig {
            url: "http://192.0.2.1:8774/v2.1".into(),
            ..plain
        };
        assert_eq!(user(url, &noauth()), None);
    }

    #[test]
    fn the_password_is_never_shown() {
        let config = enabled();
        assert!(!toml::to_string(&config).unwrap().contains("rosebud"));
        assert!(!format!("{config:?}").contains("rosebud"));
        let keystone = config.keystone(&noauth()).unwrap();
        assert!(!format!("{keystone:?}").contains("rosebud"));
    }
}
