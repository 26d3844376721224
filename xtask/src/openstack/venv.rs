//! The Python virtual environment with OpenStack's programs from PyPI, in the versions of
//! `xtask/openstack/constraints.txt`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    setup::apt,
    shell::{root, run, tools},
};

/// Variables that change what Python and OpenStack's programs do; the caller's own must not.
const FOREIGN: [&str; 4] = ["OS_", "PYTHON", "TEMPEST", "STESTR"];

/// An installed virtual environment.
#[derive(Clone, Debug)]
pub struct Venv {
    dir: PathBuf,
}

impl Venv {
    /// Installs what tests need, if it is not there.
    ///
    /// # Errors
    /// When Python is missing or pip fails.
    pub fn prepare() -> anyhow::Result<Self> {
        let venv = Self {
            dir: tools().join("openstack-tests"),
        };
        venv.install("requirements.txt")?;
        Ok(venv)
    }

    /// The same with the reference Neutron, which only a benchmark needs.
    ///
    /// # Errors
    /// When Python is missing or pip fails.
    pub fn prepare_with_neutron() -> anyhow::Result<Self> {
        let venv = Self::prepare()?;
        venv.install("requirements-neutron.txt")?;
        Ok(venv)
    }

    /// A program of the environment, with none of the caller's settings for OpenStack or Python.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if FOREIGN.iter().any(|prefix| name.starts_with(prefix))
                || name.to_lowercase().ends_with("_proxy")
            {
                command.env_remove(name);
            }
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = self.dir.join("bin");
        let paths = std::iter::once(own).chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(paths) {
            command.env("PATH", path);
        }
        command.env("PYTHONUNBUFFERED", "1");
        command
    }

    /// Where a program of the environment is.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// What a package put into the environment besides its modules.
    pub fn installed(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// One of our own scripts, under the environment's Python.
    pub fn script(&self, name: &str) -> Command {
        let mut command = self.command("python");
        command.arg(file(name));
        command
    }

    /// Where its packages are.
    ///
    /// # Errors
    /// When it has none.
    pub fn packages(&self) -> anyhow::Result<PathBuf> {
        let entries = fs::read_dir(self.dir.join("lib"))?.flatten();
        let python = entries
            .map(|entry| entry.path())
            .find(|path| path.join("site-packages").is_dir());
        Ok(python
            .context("the virtual environment has no packages")?
            .join("site-packages"))
    }

    /// Installs the packages of a requirements file unless exactly those were installed before.
    fn install(&self, requirements: &str) -> anyhow::Result<()> {
        let (wanted, constraints) = (file(requirements), file("constraints.txt"));
        let mark = self.dir.join(format!("installed-{requirements}"));
        let content = fs::read_to_string(&wanted)? + &fs::read_to_string(&constraints)?;
        if fs::read_to_string(&mark).is_ok_and(|installed| installed == content) {
            return Ok(());
        }
        eprintln!("installing from PyPI what {requirements} names, about a minute");
        self.create()?;
        // With the caller's settings: a mirror or a proxy may be needed.
        let mut pip = Command::new(self.program("python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--constraint",
        ]);
        run(pip.arg(constraints).arg("--requirement").arg(wanted))?;
        fs::write(&mark, content).with_context(|| format!("writing {}", mark.display()))
    }

    fn create(&self) -> anyhow::Result<()> {
        if self.program("pip").is_file() {
            return Ok(());
        }
        let make = || {
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&self.dir)
                .output()
        };
        if make().is_ok_and(|made| made.status.success()) {
            return Ok(());
        }
        apt(&["python3-venv"])?;
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&self.dir))
    }
}

/// A file of `xtask/openstack`.
pub fn file(name: &str) -> PathBuf {
    Path::new(&root()).join("xtask/openstack").join(name)
}
