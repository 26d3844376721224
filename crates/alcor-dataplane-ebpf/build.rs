//! Compiles the kernel programs into `OUT_DIR` when the tools for it are there; without them the library is
//! built all the same, and says so when it is asked to load them.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const TARGET: &str = "bpfel-unknown-none";
const LINKER_VARIABLE: &str = "ALCOR_BPF_LINKER";

fn main() -> Result<(), Box<dyn Error>> {
    let crate_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rustc-check-cfg=cfg(kernel_programs)");
    println!("cargo::rerun-if-env-changed={LINKER_VARIABLE}");
    for input in [
        "programs/src",
        "programs/Cargo.toml",
        "programs/Cargo.lock",
        "../alcor-dataplane-abi/src",
    ] {
        println!("cargo::rerun-if-changed={}", crate_dir.join(input).display());
    }
    let workspace_linker = crate_dir.join("../../target/tools/bin/bpf-linker");
    let found = find_linker(&workspace_linker);
    // A file that is missing counts as changed: without a linker each build looks again.
    let never_there = out_dir.join("looks-again");
    let watched = found.as_ref().unwrap_or(&never_there);
    println!("cargo::rerun-if-changed={}", watched.display());

    let Some(linker) = found else {
        println!(
            "cargo::warning=bpf-linker is missing: building without kernel programs; run `cargo xtask setup`"
        );
        return Ok(());
    };
    if !has_rust_src()? {
        println!(
            "cargo::warning=rust-src is missing: building without kernel programs; run `cargo xtask setup`"
        );
        return Ok(());
    }
    // What lies in cargo's cache is used as it is; only a first build fetches.
    let mut output = compile(&crate_dir, &out_dir, &linker, true)?;
    if !output.status.success() {
        output = compile(&crate_dir, &out_dir, &linker, false)?;
    }
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("the kernel programs do not compile:\n{messages}").into());
    }
    let objects = out_dir.join("programs").join(TARGET).join("release");
    for (variable, object) in [
        ("ALCOR_PROGRAMS", "alcor-programs"),
        ("ALCOR_GATEWAY_PROGRAMS", "alcor-gateway-programs"),
        ("ALCOR_BENCH_PROGRAMS", "alcor-bench-programs"),
    ] {
        println!("cargo::rustc-env={variable}={}", objects.join(object).display());
    }
    println!("cargo::rustc-cfg=kernel_programs");
    Ok(())
}

fn find_linker(workspace_linker: &Path) -> Option<PathBuf> {
    let named = env::var_os(LINKER_VARIABLE).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|dir| dir.join("bpf-linker"));
    named
        .into_iter()
        .chain([workspace_linker.to_owned()])
        .chain(in_path)
        .find(|candidate| candidate.is_file())
}

fn has_rust_src() -> Result<bool, Box<dyn Error>> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    Ok(sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
}

fn compile(crate_dir: &Path, out_dir: &Path, linker: &Path, offline: bool) -> Result<Output, Box<dyn Error>> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(crate_dir.join("programs"))
        .args([
            "build",
            "--release",
            "--locked",
            "-Z",
            "build-std=core",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(out_dir.join("programs"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        // Maps in maps are declared by their types.
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS",
            "-C debuginfo=2 -C link-arg=--btf",
        );
    // What the outer cargo set for the host must not reach the bpf target.
    for variable in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(variable);
    }
    if offline {
        cargo.arg("--offline");
    }
    Ok(cargo.output()?)
}
