//! The configuration: defaults, then one TOML file, then the environment (`ALCOR_` and `__` between the levels,
//! for example `ALCOR_CONTROLLER__API_LISTEN`), then flags; later ones win.
//!
//! An unknown key is an error: a misspelt key must not be silently ignored.

mod auth;
mod gateway;
mod metrics;
mod ncm;
mod nova;
mod tls;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use alcor_model::{Id, Network};
use alcor_region::quota;
use anyhow::Context as _;
use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use auth::AuthConfig;
#[cfg(test)]
pub use auth::AuthMode;
pub use gateway::{GatewayConfig, GatewayDataplane};
pub use metrics::MetricsConfig;
pub use ncm::NcmConfig;
pub use nova::NovaConfig;
pub use tls::TlsConfig;

use crate::cli::{Cli, Command, Role};

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Logging.
    pub log: LogConfig,
    /// The process's certificates, whatever its roles.
    #[serde(default)]
    pub tls: TlsConfig,
    /// The controller role.
    pub controller: ControllerConfig,
    /// Which hosts are told of what; and the NCM role, when it is a process of its own.
    pub ncm: NcmConfig,
    /// The agent role.
    pub agent: AgentConfig,
    /// The gateway role.
    pub gateway: GatewayConfig,
    /// Whether the controller tells Nova of its servers' ports, and how.
    pub nova: NovaConfig,
    /// What the process counts of itself.
    pub metrics: MetricsConfig,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A level or a filter such as `info,alcor_ncm=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[controller]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerConfig {
    /// Where the HTTP API listens; loopback only when there is no authentication.
    pub api_listen: SocketAddr,
    /// Where agents connect to, when the NCM is in this process.
    pub southbound_listen: SocketAddr,
    /// The NCM is a process of its own, and answers questions about hosts at this URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ncm: Option<String>,
    /// Where such an NCM follows this controller.
    pub feed_listen: SocketAddr,
    /// Folder of the database.
    pub data_dir: PathBuf,
    /// The project that every caller acts for when there is no authentication.
    pub project_id: String,
    /// MTU of the links between hosts, in bytes; networks get what is left for the inner packet.
    pub underlay_mtu: u16,
    /// First VXLAN network identifier to give out.
    pub vni_first: u32,
    /// Last VXLAN network identifier to give out.
    pub vni_last: u32,
    /// Quotas of projects that nobody set any for.
    pub quota_defaults: QuotaDefaults,
    /// Single quotas that differ from `quota_defaults`, by name (`port`, `network`, ...); -1 is no limit.
    pub quotas: BTreeMap<String, i64>,
    /// Who may use the API.
    pub auth: AuthConfig,
}

/// Where the quotas of projects begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaDefaults {
    /// Neutron's numbers.
    Neutron,
    /// Nothing is bounded, for demos and benchmarks.
    Unlimited,
}

impl ControllerConfig {
    /// The limits, by name, of projects that have none of their own.
    ///
    /// # Errors
    /// For a name that is no quota, and for a limit below -1.
    pub fn quota_limits(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        let mut limits = match self.quota_defaults {
            QuotaDefaults::Neutron => quota::neutron_defaults(),
            QuotaDefaults::Unlimited => BTreeMap::new(),
        };
        for (name, limit) in &self.quotas {
            let Some(kind) = quota::find(name) else {
                let names: Vec<&str> = quota::QUOTAS.iter().map(|kind| kind.name).collect();
                anyhow::bail!(
                    "controller.quotas has '{name}', but the quotas are {}",
                    names.join(", ")
                );
            };
            match u64::try_from(*limit) {
                Ok(limit) => limits.insert(kind.name, limit),
                Err(_) if *limit == quota::UNLIMITED => limits.remove(kind.name),
                Err(_) => {
                    anyhow::bail!("controller.quotas.{name} is {limit}; the least is -1, which is no limit")
                }
            };
        }
        Ok(limits)
    }
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// This host's name, as in `binding:host_id`. Default: the kernel's host name.
    pub host: String,
    /// This host's address in the underlay.
    pub tunnel_ip: IpAddr,
    /// The availability zone that this host is in.
    pub availability_zone: String,
    /// The NCM to connect to.
    pub ncm: String,
    /// Data plane to drive.
    pub dataplane: DataplaneKind,
    /// Neighbours that the kernel's tables have room for, all networks together; 32 bytes of the kernel's memory for each,
    /// used or not. Tables that an earlier agent left keep their size.
    pub max_neighbours: u32,
    /// External networks and the devices that lead to them, each as `ID=DEVICE`: there this host answers for floating IPs of its
    /// own ports.
    pub external: Vec<String>,
    /// The local socket for attaching devices.
    pub socket: PathBuf,
}

impl AgentConfig {
    /// The device of each external network.
    ///
    /// # Errors
    /// When an entry is not as `ID=DEVICE`, or one network has two.
    pub fn external_devices(&self) -> anyhow::Result<BTreeMap<Id<Network>, String>> {
        let mut devices = BTreeMap::new();
        for entry in &self.external {
            let (id, device) = entry
                .split_once('=')
                .filter(|(_, device)| !device.is_empty())
                .with_context(|| format!("agent.external: '{entry}' is not as ID=DEVICE"))?;
            let id = Uuid::parse_str(id)
                .with_context(|| format!("agent.external: '{id}' is not the id of a network"))?;
            anyhow::ensure!(
                devices.insert(Id::from_uuid(id), device.to_owned()).is_none(),
                "agent.external: network {id} has two devices"
            );
        }
        Ok(devices)
    }
}

/// The data planes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataplaneKind {
    /// Kernel programs.
    Ebpf,
    /// In memory, no packets: for trying the control plane.
    Model,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            log: LogConfig {
                filter: "info".into(),
                format: LogFormat::Text,
            },
            tls: TlsConfig::default(),
            controller: ControllerConfig {
                api_listen: SocketAddr::new(loopback, 9696),
                southbound_listen: SocketAddr::new(loopback, 9697),
                ncm: None,
                feed_listen: SocketAddr::new(loopback, 9695),
                data_dir: "/var/lib/alcor".into(),
                project_id: "default".into(),
                underlay_mtu: 1500,
                vni_first: 1,
                vni_last: alcor_model::Vni::MAX,
                quota_defaults: QuotaDefaults::Neutron,
                quotas: BTreeMap::new(),
                auth: AuthConfig::default(),
            },
            ncm: NcmConfig::default(),
            agent: AgentConfig {
                host: kernel_host_name(),
                tunnel_ip: loopback,
                availability_zone: alcor_model::resource::DEFAULT_ZONE.into(),
                ncm: "http://127.0.0.1:9697".into(),
                dataplane: DataplaneKind::Ebpf,
                max_neighbours: alcor_dataplane_ebpf::MAX_NEIGHBOURS,
                external: Vec::new(),
                socket: "/run/alcor/agent.sock".into(),
            },
            gateway: GatewayConfig::default(),
            nova: NovaConfig::default(),
            metrics: MetricsConfig::default(),
        }
    }
}

/// The kernel's host name, or `localhost` where it cannot be read.
fn kernel_host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// The part of a variable's name after `ALCOR_`, in whatever case, is that of a password.
fn is_password(key: &str) -> bool {
    [auth::PASSWORD_VARIABLE, nova::PASSWORD_VARIABLE]
        .iter()
        .filter_map(|variable| variable.strip_prefix("ALCOR_"))
        .any(|name| name.eq_ignore_ascii_case(key))
}

impl Config {
    /// Puts the layers together.
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown or a value does not fit.
    pub fn load(cli: &Cli) -> anyhow::Result<Self> {
        let mut figment = Figment::new();
        if let Some(file) = &cli.config {
            anyhow::ensure!(
                file.is_file(),
                "there is no configuration file {}",
                file.display()
            );
            figment = figment.merge(Toml::file_exact(file));
        }
        // Other variables that begin with ALCOR_ are flags' own, or tests'.
        let keys = Env::prefixed("ALCOR_")
            .filter(|key| key.as_str().contains("__") && !is_password(key.as_str()))
            .split("__");
        figment = figment.merge(keys);
        figment = figment.merge(Serialized::default("log", &cli.log));
        if let Some(Command::Run(role)) = &cli.command {
            figment = match role {
                Role::All(flags) => figment
                    .merge(Serialized::default("controller", &flags.controller))
                    .merge(Serialized::default("agent", &flags.agent)),
                Role::Controller(flags) => figment
                    .merge(Serialized::default("controller", &flags.controller))
                    .merge(Serialized::default("controller", &flags.elsewhere)),
                Role::Ncm(flags) => figment.merge(Serialized::default("ncm", &flags.ncm)),
                Role::Agent(flags) => figment.merge(Serialized::default("agent", &flags.agent)),
            };
        }
        if let Some(Command::Gateway { gateway, .. }) = &cli.command {
            figment = figment.merge(Serialized::default("gateway", gateway));
        }
        if let Some(flags) = cli.command.as_ref().and_then(Command::tls) {
            figment = figment.merge(Serialized::default("tls", flags));
        }
        let mut defaults = Self::default();
        if figment.contains("tls.ca") {
            defaults.secure();
        }
        let figment = figment.join(Serialized::defaults(defaults));
        let mut config: Self = figment.extract().context("the configuration is not usable")?;
        if let Ok(password) = std::env::var(auth::PASSWORD_VARIABLE) {
            config.controller.auth.password = password.into();
        }
        if let Ok(password) = std::env::var(nova::PASSWORD_VARIABLE) {
            config.nova.password = password.into();
        }
        config.check()?;
        let all = matches!(&cli.command, Some(Command::Run(Role::All(_))));
        anyhow::ensure!(
            !(all && config.controller.ncm.is_some()),
            "controller.ncm is set, but `alcor all` has an NCM of its own; run `alcor controller`, `alcor ncm` and `alcor agent`"
        );
        Ok(config)
    }

    /// Turns the URLs into those of a process with certificates.
    fn secure(&mut self) {
        for url in [
            &mut self.agent.ncm,
            &mut self.gateway.ncm,
            &mut self.ncm.controller,
        ] {
            *url = tls::secured(url);
        }
    }

    /// Whether every URL of another part is one, with the scheme that fits the certificates.
    fn check_urls(&self) -> anyhow::Result<()> {
        let tls = self.tls.files()?.is_some();
        let urls = [
            ("agent.ncm", Some(&self.agent.ncm), 9697),
            ("gateway.ncm", Some(&self.gateway.ncm), 9697),
            ("ncm.controller", Some(&self.ncm.controller), 9695),
            ("controller.ncm", self.controller.ncm.as_ref(), 9694),
        ];
        for (key, url, port) in urls {
            let Some(url) = url else { continue };
            let (scheme, because) = match tls {
                true => ("https", ", because [tls] has certificates"),
                false => ("http", "; https needs the certificates of [tls]"),
            };
            let rest = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
            let host = rest.unwrap_or_default();
            anyhow::ensure!(
                host.contains(':') && !host.contains(char::is_whitespace),
                "{key} is '{url}'; it must be a URL such as {scheme}://127.0.0.1:{port}{because}"
            );
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        let c = &self.controller;
        anyhow::ensure!(
            1 <= c.vni_first && c.vni_first <= c.vni_last && c.vni_last <= alcor_model::Vni::MAX,
            "controller.vni_first ({}) to controller.vni_last ({}) is not a range within 1 to {}",
            c.vni_first,
            c.vni_last,
            alcor_model::Vni::MAX
        );
        anyhow::ensure!(
            (1280..=9216).contains(&c.underlay_mtu),
            "controller.underlay_mtu is {}; it must be between 1280 and 9216",
            c.underlay_mtu
        );
        anyhow::ensure!(
            !self.agent.host.is_empty() && self.agent.host.len() <= 255,
            "agent.host must have 1 to 255 characters"
        );
        self.agent.external_devices()?;
        c.quota_limits()?;
        self.check_urls()?;
        self.gateway.check()?;
        self.ncm.check()
    }

    /// The configuration as a file that gives the same again.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn to_toml(&self) -> anyhow::Result<String> {
        toml::to_string_pretty(self).context("writing the configuration")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn external_networks_have_a_device_each() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let given = |entries: &[&str]| {
            let flags = entries.iter().flat_map(|entry| ["--external", entry]);
            let args: Vec<&str> = ["agent"].into_iter().chain(flags).collect();
            load(&args)
        };
        assert_eq!(
            given(&[]).unwrap().agent.external_devices().unwrap(),
            BTreeMap::new()
        );
        let config = given(&[&format!("{one}=eth1"), &format!("{other}=eth1.7")]).unwrap();
        let devices = config.agent.external_devices().unwrap();
        let expected = [(one, "eth1"), (other, "eth1.7")];
        let expected = expected.map(|(id, device)| (Id::from_uuid(id), device.to_owned()));
        assert_eq!(devices, BTreeMap::from(expected));
        let twice = format!("{one}=eth2");
        let empty = format!("{one}=");
        for wrong in [&["eth1"][..], &["7=eth1"], &[&empty], &[&twice, &twice]] {
            let refused = format!("{:#}", given(wrong).unwrap_err());
            assert!(refused.contains("agent.external"), "{refused}");
        }
    }

    fn load(args: &[&str]) -> anyhow::Result<Config> {
        Config::load(&Cli::try_parse_from([&["alcor"], args].concat())?)
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alcor.toml");
        std::fs::write(
            &file,
            "[agent]\nhost = 'from-file'\nncm = 'http://192.0.2.1:9697'\n",
        )
        .unwrap();
        let config = load(&["--config", file.to_str().unwrap(), "agent", "--host", "from-flag"]).unwrap();
        assert_eq!(config.agent.host, "from-flag");
        assert_eq!(config.agent.ncm, "http://192.0.2.1:9697");
        assert_eq!(config.controller, Config::default().controller);
    }

    #[test]
    fn no_authentication_is_asked_for_by_name() {
        let mode = |args: &[&str]| load(args).unwrap().controller.auth.mode;
        assert_eq!(mode(&["controller"]), auth::AuthMode::Keystone);
        assert_eq!(mode(&["controller", "--noauth"]), auth::AuthMode::NoAuth);
        assert_eq!(mode(&["all", "--noauth"]), auth::AuthMode::NoAuth);
    }

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alcor.toml");
        std::fs::write(&file, "[agent]\nhots = 'x'\n").unwrap();
        let error = format!(
            "{:#}",
            load(&["--config", file.to_str().unwrap(), "agent"]).unwrap_err()
        );
        assert!(error.contains("hots"), "{error}");
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let config = Config::default();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alcor.toml");
        std::fs::write(&file, config.to_toml().unwrap()).unwrap();
        assert_eq!(
            load(&["--config", file.to_str().unwrap(), "all"]).unwrap(),
            config
        );
    }

    #[test]
    fn quotas_begin_with_neutrons_and_can_be_changed_by_name() {
        let mut config = Config::default().controller;
        assert_eq!(config.quota_limits().unwrap()["port"], 500);
        config.quotas = [("port".to_owned(), -1), ("network".to_owned(), 7)].into();
        let limits = config.quota_limits().unwrap();
        assert_eq!((limits.get("port"), limits["network"]), (None, 7));
        config.quota_defaults = QuotaDefaults::Unlimited;
        assert_eq!(config.quota_limits().unwrap(), [("network", 7)].into());
        config.quotas = [("prot".to_owned(), 1)].into();
        assert!(config.quota_limits().unwrap_err().to_string().contains("'prot'"));
        config.quotas = [("port".to_owned(), -2)].into();
        assert!(config.quota_limits().is_err());
    }

    #[test]
    fn an_ncm_elsewhere_is_a_url_and_not_for_all_in_one() {
        let far = load(&["controller", "--ncm", "http://127.0.0.1:9694"]).unwrap();
        assert_eq!(far.controller.ncm.as_deref(), Some("http://127.0.0.1:9694"));
        assert_eq!(load(&["controller"]).unwrap().controller.ncm, None);
        let ncm = load(&["ncm", "--controller", "http://192.0.2.1:9695"])
            .unwrap()
            .ncm;
        assert_eq!(ncm.controller, "http://192.0.2.1:9695");
        for (args, word) in [
            (["controller", "--ncm", "127.0.0.1:9694"], "controller.ncm"),
            (
                ["ncm", "--controller", "https://192.0.2.1:9695"],
                "ncm.controller",
            ),
            (
                ["ncm", "--directory-listen", "127.0.0.1:9697"],
                "ncm.directory_listen",
            ),
        ] {
            let error = format!("{:#}", load(&args).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alcor.toml");
        std::fs::write(&file, "[controller]\nncm = 'http://127.0.0.1:9694'\n").unwrap();
        let error = load(&["--config", file.to_str().unwrap(), "all"]).unwrap_err();
        assert!(error.to_string().contains("alcor all"), "{error}");
    }

    #[test]
    fn certificates_are_all_there_or_not_at_all() {
        assert_eq!(load(&["agent"]).unwrap().tls.files().unwrap(), None);
        let flags = [
            "--tls-ca=/c/ca.pem",
            "--tls-certificate=/c/h1.pem",
            "--tls-key=/c/h1.key",
        ];
        for role in ["all", "controller", "ncm", "agent", "gateway"] {
            let config = load(&[&[role], &flags[..]].concat()).unwrap();
            let files = config.tls.files().unwrap().unwrap();
            assert_eq!(files.key.to_str(), Some("/c/h1.key"), "{role}");
            let urls = [&config.agent.ncm, &config.gateway.ncm, &config.ncm.controller];
            assert!(
                urls.iter().all(|url| url.starts_with("https://")),
                "{role}: {urls:?}"
            );
        }
        for (given, missing) in [
            (&flags[..1], "tls.certificate and tls.key"),
            (&flags[1..], "tls.ca"),
            (&flags[..2], "tls.key"),
        ] {
            let error = format!("{:#}", load(&[&["ncm"], given].concat()).unwrap_err());
            assert!(error.contains(missing), "{error}");
        }
        let plain = ["agent", "--ncm=http://192.0.2.1:9697"];
        let error = load(&[&plain, &flags[..]].concat()).unwrap_err().to_string();
        assert!(
            error.contains("agent.ncm") && error.contains("https://"),
            "{error}"
        );
        let error = load(&["gateway", "--ncm=https://192.0.2.1:9697"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("gateway.ncm") && error.contains("[tls]"),
            "{error}"
        );
    }

    #[test]
    fn a_gateway_is_configured_by_flags_and_asked_about_by_subcommands() {
        let flags = "gateway --name g1 --set edge --external eth1 --external eth2 --dataplane model";
        let config = load(&flags.split(' ').collect::<Vec<_>>()).unwrap().gateway;
        assert_eq!((config.name.as_str(), config.set.as_str()), ("g1", "edge"));
        assert_eq!(config.external, ["eth1", "eth2"]);
        assert_eq!(config.dataplane, GatewayDataplane::Model);
        for (flags, word) in [
            ("gateway --set=", "gateway.set"),
            ("gateway --ncm 192.0.2.1:9697", "gateway.ncm"),
            ("gateway --external=", "gateway.external"),
        ] {
            let error = format!("{:#}", load(&flags.split(' ').collect::<Vec<_>>()).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
        let parse = |words: &str| Cli::try_parse_from(["alcor"].into_iter().chain(words.split(' ')));
        for words in [
            "gateway list --json",
            "gateway drain g1 --api http://127.0.0.1:1",
            "gateway state g1",
        ] {
            assert!(parse(words).is_ok(), "{words}");
        }
        assert!(parse("gateway --name g1 list").is_err(), "one or the other");
    }

    #[test]
    fn an_empty_vni_range_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alcor.toml");
        std::fs::write(&file, "[controller]\nvni_first = 10\nvni_last = 9\n").unwrap();
        let error = format!(
            "{:#}",
            load(&["--config", file.to_str().unwrap(), "controller"]).unwrap_err()
        );
        assert!(error.contains("vni_first"), "{error}");
    }
}
