//! Installs what is missing: Debian packages, the Rust component and linker for kernel programs, OpenStack's
//! programs that tests run. What is there already is left alone.

use std::{fs, path::Path, process::Command};

use anyhow::Context as _;

use crate::{
    openstack::venv::Venv,
    shell::{cargo, has, output, root, run, tools},
};

/// What the machine is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Building, and namespaces with real clients.
    Demo,
    /// That, and every test.
    Everything,
}

/// Command, Debian package, what for.
const PACKAGES: [(&str, &str, &str); 9] = [
    ("cc", "build-essential", "links programs, compiles SQLite"),
    ("ip", "iproute2", "network namespaces and links"),
    ("ethtool", "ethtool", "links of gateways that are like wires"),
    ("ping", "iputils-ping", "the first packet"),
    ("fping", "fping", "many first packets at once"),
    ("iperf3", "iperf3", "TCP between VMs"),
    ("udhcpc", "udhcpc", "a real DHCP client in the VMs"),
    ("nsenter", "util-linux", "runs processes inside namespaces"),
    ("vtysh", "frr", "a real router that announces floating IPs"),
];

/// Version of the linker for kernel programs.
const BPF_LINKER: &str = "^0.13";

/// Installs what is missing.
///
/// # Errors
/// When an installation fails; the message says which.
pub fn setup(purpose: For) -> anyhow::Result<()> {
    packages()?;
    rust_src()?;
    bpf_linker()?;
    if purpose == For::Everything {
        Venv::prepare()?;
    }
    Ok(())
}

fn packages() -> anyhow::Result<()> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(command, ..)| !has(command)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (_, package, purpose) in &missing {
        eprintln!("installing Debian package {package}: {purpose}");
    }
    apt(&missing.iter().map(|(_, package, _)| *package).collect::<Vec<_>>())
}

/// Installs Debian packages.
///
/// # Errors
/// When this is not Debian or apt-get fails.
pub fn apt(packages: &[&str]) -> anyhow::Result<()> {
    anyhow::ensure!(
        has("apt-get"),
        "this is not Debian; install yourself: {}",
        packages.join(" ")
    );
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(install)
        .args(packages))
}

/// Kernel programs are built with their own `core`, which needs its source.
fn rust_src() -> anyhow::Result<()> {
    let sysroot = sysroot()?;
    if Path::new(&sysroot)
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file()
    {
        return Ok(());
    }
    eprintln!("installing Rust component rust-src: kernel programs are built with their own core");
    run(Command::new("rustup").args(["component", "add", "rust-src"]))
        .context("is rustup installed? Kernel programs need the component rust-src")
}

fn sysroot() -> anyhow::Result<String> {
    Ok(output(
        Command::new("rustc")
            .args(["--print", "sysroot"])
            .current_dir(root()),
    )?
    .trim()
    .to_owned())
}

/// Links kernel programs. Built against the LLVM that rustc brings, so that both read the same bitcode.
fn bpf_linker() -> anyhow::Result<()> {
    let linker = tools().join("bin/bpf-linker");
    let works = |program: &Path| {
        Command::new(program)
            .arg("--version")
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if works(&linker) {
        return Ok(());
    }
    eprintln!("building bpf-linker from crates.io: it links kernel programs (about a minute)");
    let version = output(Command::new("rustc").arg("-vV").current_dir(root()))?;
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "));
    let major = llvm
        .and_then(|version| version.split('.').next())
        .context("rustc -vV names no LLVM version")?;
    let prefix = tools().join("llvm");
    link_llvm(&Path::new(&sysroot()?).join("lib"), &prefix.join("lib"))?;
    let feature = format!("llvm-{major}");
    let root = tools().display().to_string();
    let args = [
        "install",
        "bpf-linker",
        "--version",
        BPF_LINKER,
        "--no-default-features",
        "--features",
        &feature,
        "--root",
        &root,
        "--target-dir",
        "target/tools/build",
    ];
    run(cargo(&args).env("LLVM_PREFIX", &prefix))?;
    anyhow::ensure!(works(&linker), "{} was built and does not run", linker.display());
    Ok(())
}

/// Makes a folder in which a linker finds rustc's LLVM as `libLLVM.so`.
fn link_llvm(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    let is_llvm = |name: &str| name.starts_with("libLLVM.so.") && name.contains("-rust-");
    let names = fs::read_dir(from)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let name = names.filter(|name| is_llvm(name)).max();
    let name = name.with_context(|| format!("there is no libLLVM.so.*-rust-* in {}", from.display()))?;
    for link in [&name, "libLLVM.so"] {
        let link = to.join(link);
        // An older link may point to another toolchain.
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(from.join(&name), &link)?;
    }
    Ok(())
}
