//! Hosts, gateways and VMs on one machine: network namespaces, links between them and processes inside them, for the demo, tests
//! and benchmarks. Everything is found again by its name, so that a later run can remove what a crashed one left.
//!
//! It needs root, iproute2 and ethtool, and touches nothing but what it made: namespaces called `alc-LAB-...`, one link of the
//! same name, and `/run/alcor-lab/LAB`.

mod process;

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

pub use process::Process;
use thiserror::Error;

/// Where labs keep logs, data and pid files.
const RUN_DIR: &str = "/run/alcor-lab";
/// Longest name of a lab: with it, interface names stay within the kernel's 15 characters.
const NAME_MAX: usize = 8;

/// What went wrong, and what to do.
#[derive(Debug, Error)]
pub enum LabError {
    /// Not root.
    #[error("network namespaces need root; run this as root")]
    NotRoot,
    /// The name does not fit.
    #[error("'{0}' cannot be a lab's name: 1 to {NAME_MAX} lower-case letters and digits")]
    Name(String),
    /// A program is not there.
    #[error("'{program}' cannot be started ({source}); `cargo xtask setup` installs what is missing")]
    Start {
        /// Which.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed: {stderr}")]
    Command {
        /// With its arguments.
        command: String,
        /// What it printed.
        stderr: String,
    },
    /// A file cannot be written or read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something did not happen in time.
    #[error("waited {} s for {what}, in vain{}", waited.as_secs(), last.as_ref().map(|l| format!(": {l}")).unwrap_or_default())]
    Timeout {
        /// What.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen last.
        last: Option<String>,
    },
}

/// A set of namespaces and processes with a name. Dropping it removes all, unless [`Lab::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    name: String,
    kept: bool,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

/// Runs a command and gives its output; an exit status other than 0 is an error.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(program: &str, args: &[&str]) -> Result<Output, LabError> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LabError::Start {
            program: program.to_owned(),
            source,
        })?;
    if output.status.success() {
        return Ok(output);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let stderr = match text(&output.stderr) {
        empty if empty.is_empty() => text(&output.stdout),
        stderr => stderr,
    };
    Err(LabError::Command {
        command: format!("{program} {}", args.join(" ")),
        stderr,
    })
}

/// Asks again and again until there is an answer, at most `bound` long.
///
/// # Errors
/// [`LabError::Timeout`] with the last thing that `poll` said.
pub fn eventually<T>(
    what: &str,
    bound: Duration,
    mut poll: impl FnMut() -> Result<T, String>,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        let last = match poll() {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if start.elapsed() > bound {
            return Err(LabError::Timeout {
                what: what.to_owned(),
                waited: bound,
                last: Some(last),
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Lab {
    /// Makes a lab; what a crashed one of the same name left is removed first.
    ///
    /// # Errors
    /// When not root, or something cannot be removed.
    pub fn new(name: &str) -> Result<Self, LabError> {
        Self::clean(name)?;
        let lab = Self {
            name: name.to_owned(),
            kept: false,
        };
        make_dir(&lab.dir().join("pids"))?;
        Ok(lab)
    }

    /// Removes everything of a lab: processes first, then namespaces and links, then files.
    ///
    /// # Errors
    /// When not root, or something cannot be removed.
    pub fn clean(name: &str) -> Result<(), LabError> {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(ok) {
            return Err(LabError::Name(name.to_owned()));
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let dir = Path::new(RUN_DIR).join(name);
        process::stop_recorded(&dir.join("pids"));
        let prefix = format!("alc-{name}-");
        let listed = run("ip", &["netns", "list"])?;
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            let Some(namespace) = line
                .split_whitespace()
                .next()
                .filter(|ns| ns.starts_with(&prefix))
            else {
                continue;
            };
            process::stop_all_in(namespace)?;
            run("ip", &["netns", "del", namespace])?;
        }
        remove_link(&format!("alc-{name}"))?;
        match fs::remove_dir_all(&dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LabError::File { path: dir, source })
            }
            _ => Ok(()),
        }
    }

    /// Leaves everything when this value is dropped.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// The lab's folder for logs and data.
    pub fn dir(&self) -> PathBuf {
        Path::new(RUN_DIR).join(&self.name)
    }

    /// Makes a namespace with its loopback up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn namespace(&self, name: &str) -> Result<Namespace, LabError> {
        let namespace = Namespace {
            name: format!("alc-{}-{name}", self.name),
        };
        run("ip", &["netns", "add", &namespace.name])?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Makes the wire that hosts are plugged into: a bridge in a namespace of its own.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wire(&self, mtu: u16) -> Result<Namespace, LabError> {
        self.wire_called("wire", mtu)
    }

    /// Makes another wire, for example of the network outside.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wire_called(&self, name: &str, mtu: u16) -> Result<Namespace, LabError> {
        let wire = self.namespace(name)?;
        wire.ip(&["link", "add", "br0", "type", "bridge"])?;
        wire.ip(&["link", "set", "br0", "mtu", &mtu.to_string(), "up"])?;
        Ok(wire)
    }

    /// Makes a host: a namespace with `eth0` on the wire.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn host(
        &self,
        wire: &Namespace,
        name: &str,
        address: IpAddr,
        mtu: u16,
    ) -> Result<Namespace, LabError> {
        let host = self.namespace(name)?;
        plug_into(wire, &format!("to-{name}"), &host, "eth0", address, mtu)?;
        Ok(host)
    }

    /// Gives a node that is on a wire already `eth1` on another one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn uplink(
        &self,
        node: &Namespace,
        wire: &Namespace,
        address: IpAddr,
        mtu: u16,
    ) -> Result<(), LabError> {
        // Names of devices are short: the part of the node's that is not the lab's.
        let short = node.name.strip_prefix(&format!("alc-{}-", self.name));
        let port = format!("to-{}", short.unwrap_or(&node.name));
        plug_into(wire, &port, node, "eth1", address, mtu)
    }

    /// Makes a gateway: a namespace with `eth0` on the wire of hosts, and `eth1` on the one of the outside.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn gateway(
        &self,
        name: &str,
        wire: &Namespace,
        address: IpAddr,
        outside: (&Namespace, IpAddr),
        mtu: u16,
    ) -> Result<Namespace, LabError> {
        let gateway = self.namespace(name)?;
        let port = format!("to-{name}");
        for (device, (wire, address)) in [("eth0", (wire, address)), ("eth1", outside)] {
            plug_into(wire, &port, &gateway, device, address, mtu)?;
            // What a program sees before the kernel does must be whole, as on a real wire: what is left to a network card is
            // done before, and what the program sends back is taken by a queue (GRO) at the other end.
            wire.run(&["ethtool", "-K", &port, "tx", "off", "gro", "on"])?;
        }
        Ok(gateway)
    }

    /// Gives the machine's own namespace an address on the wire.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn plug_root(&self, wire: &Namespace, address: IpAddr) -> Result<(), LabError> {
        let link = format!("alc-{}", self.name);
        run(
            "ip",
            &[
                "link", "add", &link, "type", "veth", "peer", "name", "to-root", "netns", &wire.name,
            ],
        )?;
        wire.ip(&["link", "set", "to-root", "master", "br0", "up"])?;
        run("ip", &["addr", "add", &format!("{address}/24"), "dev", &link])?;
        run("ip", &["link", "set", &link, "up"])?;
        Ok(())
    }

    /// Makes a VM: a namespace whose `eth0` has this MAC and ends in `host` as `device`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn vm(&self, host: &Namespace, name: &str, device: &str, mac: &str) -> Result<Namespace, LabError> {
        let vm = self.namespace(name)?;
        plug(&vm, host, device, mac)?;
        Ok(vm)
    }

    /// Starts a process; its output goes to `LABEL.log` in the lab's folder. `namespace`: where, or the machine's own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        &self,
        namespace: Option<&Namespace>,
        label: &str,
        program: &Path,
        args: &[&str],
    ) -> Result<Process, LabError> {
        process::spawn(
            &self.dir(),
            namespace.map(|namespace| namespace.name.as_str()),
            label,
            program,
            args,
        )
    }
}

/// Plugs a node into a wire: `device` there, with an address in a /24, `port` here.
fn plug_into(
    wire: &Namespace,
    port: &str,
    node: &Namespace,
    device: &str,
    address: IpAddr,
    mtu: u16,
) -> Result<(), LabError> {
    let mtu = mtu.to_string();
    run(
        "ip",
        &[
            "link", "add", device, "mtu", &mtu, "netns", &node.name, "type", "veth", "peer", "name", port,
            "mtu", &mtu, "netns", &wire.name,
        ],
    )?;
    wire.ip(&["link", "set", port, "master", "br0", "up"])?;
    node.ip(&["addr", "add", &format!("{address}/24"), "dev", device])?;
    node.ip(&["link", "set", device, "up"])?;
    Ok(())
}

/// Plugs a VM into a host: `eth0` there, `device` here.
///
/// # Errors
/// When the kernel refuses.
pub fn plug(vm: &Namespace, host: &Namespace, device: &str, mac: &str) -> Result<(), LabError> {
    run(
        "ip",
        &[
            "link", "add", device, "netns", &host.name, "type", "veth", "peer", "name", "eth0", "address",
            mac, "netns", &vm.name,
        ],
    )?;
    // SLAAC addresses must be the ones that Neutron expects: formed from the MAC.
    vm.ip(&["link", "set", "eth0", "addrgenmode", "eui64", "up"])?;
    host.ip(&["link", "set", device, "up"])?;
    Ok(())
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = Self::clean(&self.name)
        {
            eprintln!("lab {}: not everything could be removed: {error}", self.name);
        }
    }
}

impl Namespace {
    /// Its name, for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A namespace that exists.
    pub fn existing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    /// `ip` inside.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, args: &[&str]) -> Result<String, LabError> {
        let output = run("ip", &[&["-n", self.name.as_str()], args].concat())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command inside and gives what it printed. Mounts stay those of the machine, so that `/sys/fs/bpf` is the
    /// same everywhere (`ip netns exec` would hide it).
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn run(&self, args: &[&str]) -> Result<String, LabError> {
        let net = format!("--net=/run/netns/{}", self.name);
        let output = run("nsenter", &[&[net.as_str(), "--"], args].concat())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn make_dir(path: &Path) -> Result<(), LabError> {
    fs::create_dir_all(path).map_err(|source| LabError::File {
        path: path.to_owned(),
        source,
    })
}

/// Removes a link, if it is there. The kernel removes one by itself a moment after the namespace of its other end.
fn remove_link(name: &str) -> Result<(), LabError> {
    let is_there = || Path::new("/sys/class/net").join(name).exists();
    if !is_there() {
        return Ok(());
    }
    match run("ip", &["link", "del", name]) {
        Err(error) if is_there() => Err(error),
        _ => Ok(()),
    }
}
