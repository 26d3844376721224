//! The command line. Flags are optional overrides: what is not given comes from the environment, the file, the
//! defaults, in this order (see `config`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::Not,
    path::PathBuf,
};

use alcor_model::{Id, Port};
use clap::{Args, Parser, Subcommand};
use serde::{Serialize, Serializer};

/// Virtual networks for a cloud region.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Examples:\n  \
    alcor controller --data-dir /var/lib/alcor\n  \
    alcor all --noauth --data-dir /tmp/alcor\n  \
    alcor ncm --controller http://127.0.0.1:9695 --listen 127.0.0.1:9697\n  \
    alcor gateway --name gw-1 --tunnel-ip 192.0.2.21 --underlay eth0 --external eth1 --ncm http://192.0.2.1:9697\n  \
    alcor agent --host node-1 --tunnel-ip 192.0.2.11 --ncm http://192.0.2.1:9697\n  \
    alcor certs ca /etc/alcor/certs\n  \
    alcor --config /etc/alcor.toml --print-config\n  \
    alcor show ports --json\n  \
    alcor host state node-1\n  \
    alcor trace --from 0198a4c0-5f3e-7c1d-8a2b-3c4d5e6f7081 --to 10.0.0.9 --proto tcp --dport 22"
)]
pub struct Cli {
    /// Configuration file (TOML).
    #[arg(long, global = true, env = "ALCOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration that would be in force (file, environment and flags together) and stop.
    #[arg(long, global = true)]
    pub print_config: bool,
    /// Logging.
    #[command(flatten)]
    pub log: LogFlags,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play a role until told to stop (SIGINT or SIGTERM).
    #[command(flatten)]
    Run(Role),
    /// Show networks, ports or hosts; of this host, connections and dropped packets.
    Show {
        /// What to show.
        #[command(subcommand)]
        what: Shown,
        /// Where from and how.
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Say what every stage would do with a packet, on both hosts, and which rule decides.
    Trace {
        /// Which packet.
        #[command(flatten)]
        packet: TraceFlags,
        /// Where from and how.
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Run a gateway until told to stop (SIGINT or SIGTERM); or, with a subcommand, look after gateways.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  \
        alcor gateway --name gw-1 --tunnel-ip 192.0.2.21 --underlay eth0 --external eth1 --ncm http://192.0.2.1:9697\n  \
        alcor gateway list\n  alcor gateway drain gw-1"
    )]
    Gateway {
        /// What of them; nothing: run one.
        #[command(subcommand)]
        what: Option<GatewayAsked>,
        /// The process's.
        #[command(flatten)]
        gateway: GatewayFlags,
        /// Its certificate.
        #[command(flatten)]
        tls: TlsFlags,
        /// Where from and how.
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Make a development CA, and certificates of it for controllers, NCMs, gateways and hosts.
    #[command(after_help = "Examples:\n  \
        alcor certs ca /etc/alcor/certs\n  \
        alcor certs issue /etc/alcor/certs --controller c1 --ip 192.0.2.1\n  \
        alcor certs issue /etc/alcor/certs --host node-1")]
    Certs {
        /// What to make.
        #[command(subcommand)]
        what: CertsAsked,
    },
    /// Look at one host.
    Host {
        /// What of it.
        #[command(subcommand)]
        what: HostShown,
        /// Where from and how.
        #[command(flatten)]
        output: OutputFlags,
    },
}

/// Flags of `alcor trace`.
#[derive(Debug, Args)]
#[command(
    after_help = "The answer is computed from what both hosts must have (the goal state), by the model data plane. It says whether the \
hosts have applied it. It is about the first packet of a connection: what is established goes on by its connection.\n\nExamples:\n  \
alcor trace --from PORT --to 10.0.0.9 --proto tcp --dport 22\n  \
alcor trace --from PORT --to fd00::9 --proto icmp\n  \
alcor trace --from PORT --to 10.0.0.9 --proto udp --sport 5353 --dport 5353 --json"
)]
pub struct TraceFlags {
    /// The id of the port that would send the packet.
    #[arg(long, value_name = "PORT")]
    pub from: String,
    /// Its destination.
    #[arg(long, value_name = "ADDRESS")]
    pub to: IpAddr,
    /// Its protocol, by name (tcp, udp, icmp, sctp, ...) or number.
    #[arg(long, default_value = "tcp", value_name = "NAME")]
    pub proto: String,
    /// Its destination port.
    #[arg(long, value_name = "PORT")]
    pub dport: Option<u16>,
    /// Its source port; default 49152.
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// Its ICMP type; default: an echo request.
    #[arg(long, value_name = "TYPE")]
    pub icmp_type: Option<u8>,
    /// Its ICMP code; default 0.
    #[arg(long, value_name = "CODE")]
    pub icmp_code: Option<u8>,
}

/// A role of the process.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Controller, NCM and agent in one process: a region on one machine.
    All(AllFlags),
    /// The API, the store and the NCM; with --ncm, without the NCM.
    #[command(after_help = "Examples:\n  alcor controller --data-dir /var/lib/alcor\n  \
        alcor controller --feed-listen 127.0.0.1:9695 --ncm http://127.0.0.1:9694")]
    Controller(AloneFlags),
    /// An NCM as a process of its own, which follows a controller that was started with --ncm.
    #[command(
        after_help = "Agents connect to it as to a controller that has its own. It goes on serving them while the controller is away.\n\n\
        Example:\n  alcor ncm --controller http://127.0.0.1:9695 --listen 127.0.0.1:9697 --directory-listen 127.0.0.1:9694"
    )]
    Ncm(NcmAloneFlags),
    /// The agent of this host.
    Agent(AgentAloneFlags),
}

impl Command {
    /// The certificate's flags, of a process that has one.
    pub fn tls(&self) -> Option<&TlsFlags> {
        match self {
            Self::Run(Role::All(flags)) => Some(&flags.tls),
            Self::Run(Role::Controller(flags)) => Some(&flags.tls),
            Self::Run(Role::Ncm(flags)) => Some(&flags.tls),
            Self::Run(Role::Agent(flags)) => Some(&flags.tls),
            Self::Gateway { tls, .. } => Some(tls),
            Self::Show { .. } | Self::Trace { .. } | Self::Certs { .. } | Self::Host { .. } => None,
        }
    }
}

/// Flags of `alcor all`.
#[derive(Debug, Args)]
pub struct AllFlags {
    /// The controller's.
    #[command(flatten)]
    pub controller: ControllerFlags,
    /// The agent's.
    #[command(flatten)]
    pub agent: AgentFlags,
    /// The process's certificate: a controller's and this host's.
    #[command(flatten)]
    pub tls: TlsFlags,
}

/// Flags of `alcor ncm`.
#[derive(Debug, Args)]
pub struct NcmAloneFlags {
    /// The NCM's.
    #[command(flatten)]
    pub ncm: NcmFlags,
    /// Its certificate.
    #[command(flatten)]
    pub tls: TlsFlags,
}

/// Flags of `alcor agent`.
#[derive(Debug, Args)]
pub struct AgentAloneFlags {
    /// The agent's.
    #[command(flatten)]
    pub agent: AgentFlags,
    /// Its certificate.
    #[command(flatten)]
    pub tls: TlsFlags,
}

/// Flags about certificates; each overrides the key of the same name in `[tls]`. All three, or none: then nothing is protected.
#[derive(Debug, Default, Args, Serialize)]
pub struct TlsFlags {
    /// Certificates of the authorities that are trusted (PEM).
    #[arg(long = "tls-ca", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// This process's certificate (PEM).
    #[arg(long = "tls-certificate", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long = "tls-key", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// What `alcor certs` makes.
#[derive(Debug, Subcommand)]
pub enum CertsAsked {
    /// An authority: ca.pem, which everybody gets, and ca.key, which nobody gets.
    Ca {
        /// The folder.
        dir: PathBuf,
        /// How long it is meant to be used, in days.
        #[arg(long, default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Replace an authority that is there: nobody who trusts only the new one accepts certificates of the old one.
        #[arg(long)]
        force: bool,
    },
    /// A certificate of the authority in the folder, with a new key. Each holder gets both of them and ca.pem.
    Issue {
        /// The folder of the authority.
        dir: PathBuf,
        /// Whose, and how.
        #[command(flatten)]
        flags: IssueFlags,
    },
}

/// Flags of `alcor certs issue`.
#[derive(Debug, Args)]
pub struct IssueFlags {
    /// A host, by its name (its agent's --host).
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// A gateway, by its name.
    #[arg(long, value_name = "NAME")]
    pub gateway: Vec<String>,
    /// An NCM; the name is for people.
    #[arg(long, value_name = "NAME")]
    pub ncm: Vec<String>,
    /// A controller; the name is for people.
    #[arg(long, value_name = "NAME")]
    pub controller: Vec<String>,
    /// An address at which others connect to it; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// A DNS name at which they do; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// How long the certificate is good, in days.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// Replace a certificate and a key that are there.
    #[arg(long)]
    pub force: bool,
}

/// Logging flags.
#[derive(Debug, Default, Args, Serialize)]
pub struct LogFlags {
    /// What to log: a level or a filter such as `info,alcor_ncm=debug`.
    #[arg(long = "log", global = true, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// How to log: `text` or `json`.
    #[arg(long = "log-format", global = true, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// Controller flags; each overrides the key of the same name in `[controller]`.
#[derive(Debug, Default, Args, Serialize)]
pub struct ControllerFlags {
    /// Where the HTTP API listens; loopback only when there is no authentication.
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_listen: Option<SocketAddr>,
    /// No authentication: whoever reaches the API, on loopback only, is admin. For trying things out.
    #[arg(long)]
    #[serde(rename = "auth", serialize_with = "no_auth", skip_serializing_if = "Not::not")]
    pub noauth: bool,
    /// Where agents connect to, when the NCM is in this process.
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub southbound_listen: Option<SocketAddr>,
    /// Folder of the database.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Quotas of projects that nobody set any for: `neutron` (Neutron's numbers) or `unlimited`.
    #[arg(long, value_name = "WHICH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_defaults: Option<String>,
}

/// Flags of `alcor controller`.
#[derive(Debug, Args)]
pub struct AloneFlags {
    /// The controller's.
    #[command(flatten)]
    pub controller: ControllerFlags,
    /// Those about an NCM elsewhere.
    #[command(flatten)]
    pub elsewhere: ElsewhereFlags,
    /// Its certificate.
    #[command(flatten)]
    pub tls: TlsFlags,
}

/// Where the NCM is, when it is a process of its own; each flag overrides the key of the same name in `[controller]`.
#[derive(Debug, Default, Args, Serialize)]
pub struct ElsewhereFlags {
    /// The NCM is a process of its own, and answers questions about hosts here (its --directory-listen).
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ncm: Option<String>,
    /// Where an NCM that is a process of its own follows this controller.
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed_listen: Option<SocketAddr>,
}

/// NCM flags; each overrides the key of the same name in `[ncm]`.
#[derive(Debug, Default, Args, Serialize)]
pub struct NcmFlags {
    /// The controller to follow (its --feed-listen).
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// Where agents connect to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Where controllers ask about hosts.
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory_listen: Option<SocketAddr>,
}

/// The flag as the part of the configuration that it stands for.
fn no_auth<S: Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    BTreeMap::from([("mode", "noauth")]).serialize(serializer)
}

/// Agent flags; each overrides the key of the same name in `[agent]`.
#[derive(Debug, Default, Args, Serialize)]
pub struct AgentFlags {
    /// This host's name, as in `binding:host_id`.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// This host's address in the underlay, where other hosts send tunnel packets.
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_ip: Option<IpAddr>,
    /// The NCM to connect to.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ncm: Option<String>,
    /// Data plane: `ebpf` or `model`.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<String>,
    /// An external network and the device that leads to it; may be given several times.
    #[arg(long, value_name = "ID=DEVICE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<String>,
    /// The local socket for attaching devices.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// Gateway flags; each overrides the key of the same name in `[gateway]`.
#[derive(Debug, Default, Args, Serialize)]
pub struct GatewayFlags {
    /// This gateway's name, unique among gateways and hosts.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The set that it is in.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// This gateway's address in the underlay, where hosts send packets to it.
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_ip: Option<IpAddr>,
    /// The device that leads to the hosts.
    #[arg(long, value_name = "DEVICE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay: Option<String>,
    /// A device that leads to the outside; may be given several times.
    #[arg(long, value_name = "DEVICE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<String>,
    /// The NCM to connect to.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ncm: Option<String>,
    /// Data plane: `xdp` or `model`.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<String>,
    /// The local socket, where `alcor show drops --socket` asks.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// What `alcor gateway` does besides being one.
#[derive(Debug, Subcommand)]
pub enum GatewayAsked {
    /// All gateways, and how much goes through each.
    List,
    /// The sets that they form: who is in them, and for how many networks they forward.
    Sets,
    /// Take one out of use: hosts send nothing to it any more, what still comes is forwarded.
    Drain {
        /// Its name or id.
        gateway: String,
    },
    /// Take one into use again.
    Undrain {
        /// Its name or id.
        gateway: String,
    },
    /// What one has applied, network by network, what goes through it, what it drops, and its source NAT.
    State {
        /// Its name or id.
        gateway: String,
    },
}

/// Flags of commands that ask a controller.
#[derive(Debug, Args)]
pub struct OutputFlags {
    /// The controller's API.
    #[arg(
        long,
        global = true,
        env = "ALCOR_API",
        default_value = "http://127.0.0.1:9696",
        value_name = "URL"
    )]
    pub api: String,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `alcor show` shows.
#[derive(Debug, Subcommand)]
pub enum Shown {
    /// All networks.
    Networks,
    /// All ports.
    Ports,
    /// All hosts.
    Hosts,
    /// One host: intended against applied.
    Host {
        /// Its name.
        id: String,
    },
    /// The tracked connections of a port; run it on the port's host, as who owns the agent's socket.
    #[command(after_help = "Example:\n  alcor show connections 0198a4c0-5f3e-7c1d-8a2b-3c4d5e6f7081")]
    Connections {
        /// The port's id.
        port: Id<Port>,
        /// The agent's socket.
        #[command(flatten)]
        agent: SocketFlag,
    },
    /// Dropped packets of this host, by port and reason; run it on the host, as who owns the agent's socket.
    #[command(
        after_help = "Examples:\n  alcor show drops\n  alcor show drops --port 0198a4c0-5f3e-7c1d-8a2b-3c4d5e6f7081 --json"
    )]
    Drops {
        /// Only those of this port.
        #[arg(long, value_name = "PORT")]
        port: Option<Id<Port>>,
        /// The agent's socket.
        #[command(flatten)]
        agent: SocketFlag,
    },
    /// Devices, load and source NAT of this node's gateway; run it on the node, as who owns the gateway's socket.
    #[command(after_help = "Example:\n  alcor show gateway --socket /run/alcor/gateway.sock")]
    Gateway {
        /// The gateway's socket.
        #[command(flatten)]
        agent: SocketFlag,
    },
}

/// Where the agent of this host answers.
#[derive(Debug, Args)]
pub struct SocketFlag {
    /// The local socket of this host's agent.
    #[arg(
        long,
        env = "ALCOR_SOCKET",
        default_value = "/run/alcor/agent.sock",
        value_name = "PATH"
    )]
    pub socket: PathBuf,
}

/// What `alcor host` shows.
#[derive(Debug, Subcommand)]
pub enum HostShown {
    /// Intended against applied revision of each resource, with the error if there is one.
    State {
        /// Its name.
        id: String,
    },
}
