//! What outlives the process: the folder of pinned maps and links, and the lock that keeps two agents from
//! sharing it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use alcor_dataplane::DataplaneError;
use alcor_dataplane_abi::layout::LAYOUT;
use alcor_model::{Id, Port};
use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions},
};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{EbpfConfig, error};

/// Where locks lie. Not on the BPF file system, which holds kernel objects only.
const LOCK_DIR: &str = "/run/alcor";
const TUNNEL: &str = "tunnel";
const EXTERNAL: &str = "external";

/// Whose link a pin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Tunnel,
    /// A device that leads to an external network.
    External,
    Port(Id<Port>),
}

/// The pins of one instance.
pub(crate) struct Pins {
    instance: PathBuf,
    root: PathBuf,
    _lock: Flock<File>,
}

impl Pins {
    /// The pins of a host's data plane.
    pub(crate) fn open(config: &EbpfConfig) -> Result<Self, DataplaneError> {
        Self::open_in("alcor", &config.instance, &config.bpffs, LAYOUT)
    }

    /// Finds or makes the instance's folder in `family`; removes pins of another layout.
    pub(crate) fn open_in(
        family: &str,
        name: &str,
        bpffs: &Path,
        layout: u32,
    ) -> Result<Self, DataplaneError> {
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(named) {
            let reason = "use letters, digits and '-' only";
            return Err(error::kernel(
                format!("taking '{name}' as name of the instance"),
                reason,
            ));
        }
        let lock = lock(family, name)?;
        mount_bpffs(bpffs)?;
        let instance = bpffs.join(family).join(name);
        let current = format!("layout-{layout}");
        if let Ok(entries) = fs::read_dir(&instance) {
            for entry in entries.flatten().filter(|entry| entry.file_name() != *current) {
                tracing::warn!(found = %entry.path().display(), "kernel tables of another layout: starting anew");
                remove_tree(&entry.path())?;
            }
        }
        let root = instance.join(current);
        for dir in ["maps", "links"] {
            let path = root.join(dir);
            fs::create_dir_all(&path).map_err(|source| error::io("making", &path, source))?;
        }
        Ok(Self {
            instance,
            root,
            _lock: lock,
        })
    }

    /// Where a map is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Where links are pinned.
    pub(crate) fn link_folder(&self) -> PathBuf {
        self.root.join("links")
    }

    fn link(&self, owner: Owner, ifindex: u32) -> PathBuf {
        let name = match owner {
            Owner::Tunnel => format!("{TUNNEL}_{ifindex}"),
            Owner::External => format!("{EXTERNAL}_{ifindex}"),
            Owner::Port(port) => format!("{port}_{ifindex}"),
        };
        self.link_folder().join(name)
    }

    /// The links that are pinned: owner and interface index.
    pub(crate) fn links(&self) -> Result<Vec<(Owner, u32)>, DataplaneError> {
        let path = self.link_folder();
        let entries = fs::read_dir(&path).map_err(|source| error::io("reading", &path, source))?;
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| parse(&name)).collect())
    }

    /// Puts the program on the link that is pinned, without a gap. False when the link's device is gone; the
    /// pin is then removed.
    pub(crate) fn adopt(
        &self,
        program: &mut SchedClassifier,
        owner: Owner,
        ifindex: u32,
    ) -> Result<bool, DataplaneError> {
        let path = self.link(owner, ifindex);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            error::kernel(format!("taking over the link {}", path.display()), source)
        };
        let pinned = PinnedLink::from_pin(&path).map_err(|source| failed(source.into()))?;
        let link =
            SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(|source| failed(source.into()))?;
        match program.attach_to_link(link) {
            Ok(id) => {
                // Its file descriptor may go: the pin holds it.
                drop(file_link(program, id)?);
                Ok(true)
            }
            Err(source) => {
                tracing::info!(%source, link = %path.display(), "the device of a link is gone");
                self.remove(owner, ifindex)?;
                Ok(false)
            }
        }
    }

    /// Attaches the program to the device's ingress and pins the link.
    pub(crate) fn attach(
        &self,
        program: &mut SchedClassifier,
        owner: Owner,
        device: &str,
        ifindex: u32,
    ) -> Result<(), DataplaneError> {
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program
            .attach_with_options(device, TcAttachType::Ingress, order)
            .map_err(|source| error::kernel(format!("attaching to {device}"), source))?;
        let path = self.link(owner, ifindex);
        file_link(program, id)?
            .pin(&path)
            .map(drop)
            .map_err(|source| error::kernel(format!("pinning {}", path.display()), source))
    }

    /// Removes the link: the program leaves the device.
    pub(crate) fn remove(&self, owner: Owner, ifindex: u32) -> Result<(), DataplaneError> {
        let path = self.link(owner, ifindex);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(error::io("removing", &path, source))
            }
            _ => Ok(()),
        }
    }

    /// Removes all pins of the instance.
    pub(crate) fn remove_all(self) -> Result<(), DataplaneError> {
        remove_tree(&self.instance)
    }
}

fn file_link(program: &mut SchedClassifier, id: SchedClassifierLinkId) -> Result<FdLink, DataplaneError> {
    let link = program
        .take_link(id)
        .map_err(|source| error::kernel("taking a link", source))?;
    FdLink::try_from(link).map_err(|source| error::kernel("taking a link", source))
}

fn parse(name: &str) -> Option<(Owner, u32)> {
    let (owner, ifindex) = name.rsplit_once('_')?;
    let owner = match owner {
        TUNNEL => Owner::Tunnel,
        EXTERNAL => Owner::External,
        port => Owner::Port(port.parse().ok()?),
    };
    Some((owner, ifindex.parse().ok()?))
}

/// Takes the lock of an instance; a host's has its name alone, as ever.
fn lock(family: &str, instance: &str) -> Result<Flock<File>, DataplaneError> {
    let file = match family {
        "alcor" => format!("{instance}.lock"),
        family => format!("{family}.{instance}.lock"),
    };
    let path = Path::new(LOCK_DIR).join(file);
    fs::create_dir_all(LOCK_DIR).map_err(|source| error::io("making", Path::new(LOCK_DIR), source))?;
    let file = File::create(&path).map_err(|source| error::io("opening", &path, source))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        let reason = "another process runs this data plane; stop it, or choose another instance name";
        error::kernel(format!("locking {} ({errno})", path.display()), reason)
    })
}

fn mount_bpffs(path: &Path) -> Result<(), DataplaneError> {
    fs::create_dir_all(path).map_err(|source| error::io("making", path, source))?;
    let found = statfs(path).map_err(|source| error::io("looking at", path, source.into()))?;
    if found.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|source| {
        error::io(
            "mounting the BPF file system (needs root) on",
            path,
            source.into(),
        )
    })
}

fn remove_tree(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error::io("removing", path, source)),
        _ => Ok(()),
    }
}
