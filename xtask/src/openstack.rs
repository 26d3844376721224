//! OpenStack's own programs run against Alcor: a real Keystone, its clients, its API tests.
//!
//! Everything is started by xtask on loopback, in a folder of its own below `target/openstack` that stays for reading,
//! and is stopped when the run ends.

mod alcor;
pub mod clients;
pub mod fuzz;
mod identity;
mod keystone;
pub mod neutron;
pub mod process;
pub mod tempest;
pub mod venv;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use self::{alcor::Alcor, keystone::Keystone, venv::Venv};
use crate::{cloud::Build, shell::root};

/// Alcor with Keystone.
#[derive(Debug)]
pub struct Openstack {
    /// Where logs and results lie.
    pub dir: PathBuf,
    /// OpenStack's programs.
    pub venv: Venv,
    /// Alcor. Before Keystone, so that it is stopped first.
    pub alcor: Alcor,
    /// Identity.
    pub keystone: Keystone,
    _lock: fs::File,
}

impl Openstack {
    /// Installs what is missing, builds Alcor, and starts both on an empty region.
    ///
    /// # Errors
    /// When one of them does not come up, or another run of the same name is at work.
    pub fn start(name: &str, build: Build) -> anyhow::Result<Self> {
        process::watch_for_interrupts();
        let venv = Venv::prepare()?;
        let (dir, lock) = work_dir(name)?;
        eprintln!("starting Keystone");
        let keystone = Keystone::start(&venv, &dir)?;
        eprintln!("starting Alcor");
        let alcor = Alcor::start(build, &keystone, &dir)?;
        eprintln!(
            "Keystone at {}, Alcor at {}; logs in {}",
            keystone.url,
            alcor.url,
            dir.display()
        );
        Ok(Self {
            dir,
            venv,
            alcor,
            keystone,
            _lock: lock,
        })
    }
}

/// What OpenStack's own programs test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// `openstack` and openstacksdk through every resource, as two projects.
    Clients,
    /// The tests of `tempest.api.network`.
    Tempest,
    /// Requests that schemathesis makes from the API's document.
    Fuzz,
}

/// Flags of `cargo xtask openstack`.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// Run only these.
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

/// Runs OpenStack's clients, a short run of tempest, and schemathesis last, because it leaves much behind.
///
/// # Errors
/// When one of them fails.
pub fn test(flags: &Flags) -> anyhow::Result<()> {
    let wanted = |part| flags.only.is_empty() || flags.only.contains(&part);
    let openstack = Openstack::start("test", Build::Debug)?;
    if wanted(Part::Clients) {
        clients::clients(&openstack)?;
    }
    if wanted(Part::Tempest) {
        tempest::run_against(&openstack, &tempest::Flags::short())?;
    }
    if wanted(Part::Fuzz) {
        fuzz::fuzz(&openstack)?;
    }
    Ok(())
}

/// An empty folder of a run, and the lock that keeps a second run out of it.
///
/// # Errors
/// When another run holds it.
pub fn work_dir(name: &str) -> anyhow::Result<(PathBuf, fs::File)> {
    let all = root().join("target/openstack");
    let dir = all.join(name);
    fs::create_dir_all(&all)?;
    let lock = fs::File::create(all.join(format!("{name}.lock")))?;
    lock.try_lock()
        .with_context(|| format!("another run is at work in {}", dir.display()))?;
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(&dir)?;
    Ok((dir, lock))
}
