//! Every test there is: what needs no root, what does, and what needs real clients.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    demo,
    openstack::{self, venv::Venv},
    setup::{For, setup},
    shell::{cargo, output, root, run},
    sim,
};

/// Runs all tests.
///
/// # Errors
/// When something they need is missing, or one fails.
pub fn test() -> anyhow::Result<()> {
    anyhow::ensure!(
        is_root(),
        "some tests make network namespaces and load kernel programs: run this as root (`cargo test --workspace` runs the others)"
    );
    setup(For::Everything)?;
    for file in ["/sys/kernel/btf/vmlinux", "/proc/sys/net/core/bpf_jit_enable"] {
        anyhow::ensure!(
            std::path::Path::new(file).exists(),
            "the kernel lacks {file}: kernel programs cannot be tested"
        );
    }
    let openstack = Venv::prepare()?.program("openstack");
    eprintln!("\nthe demo, and the openstack command against it");
    demo::look_at_kept(|endpoint| openstack_works(&openstack, endpoint))?;
    eprintln!("\neight hosts with real packets");
    sim::sim(&sim::Flags::of_test())?;
    // The features switch on what needs root (`root-tests`) and the `openstack` client.
    let mut tests = cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
    let hits = fresh(&root().join("target/route-hits"))?;
    run(tests.env("ALCOR_TEST_OPENSTACK", &openstack).env(HITS, &hits))?;
    every_endpoint(&hits)?;
    openstack::test(&openstack::Flags::default())
}

/// The environment variable that tells tests where to note which endpoints they exercised.
const HITS: &str = "ALCOR_TEST_ROUTE_HITS";

/// Tests the API and fails when an endpoint is exercised by no test.
///
/// # Errors
/// When a test fails or an endpoint was forgotten.
pub fn endpoints() -> anyhow::Result<()> {
    let hits = fresh(&root().join("target/route-hits"))?;
    run(cargo(&["test", "-p", "alcor-api"]).env(HITS, &hits))?;
    run(cargo(&[
        "test",
        "-p",
        "alcor-api",
        "--test",
        "exercised",
        "--",
        "--ignored",
    ])
    .env(HITS, &hits))
}

fn every_endpoint(hits: &Path) -> anyhow::Result<()> {
    let mut last = cargo(&[
        "test",
        "--workspace",
        "--all-features",
        "--test",
        "exercised",
        "--",
        "--ignored",
    ]);
    run(last.env(HITS, hits))
}

/// An empty folder.
fn fresh(path: &Path) -> anyhow::Result<PathBuf> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => std::fs::create_dir_all(path)?,
    }
    Ok(path.to_owned())
}

/// Lists, creates, shows and deletes with the real client against a running demo.
fn openstack_works(program: &Path, endpoint: &str) -> anyhow::Result<()> {
    let openstack = |arguments: &str| {
        eprintln!("+ openstack {arguments}");
        let access = ["--os-auth-type", "none", "--os-endpoint", endpoint];
        output(
            Command::new(program)
                .args(access)
                .args(arguments.split_whitespace()),
        )
    };
    let expect = |arguments: &str, text: &str| {
        let said = openstack(arguments)?;
        anyhow::ensure!(
            said.contains(text),
            "openstack {arguments} should say {text}: {said}"
        );
        Ok(())
    };
    expect("network list", " demo ")?;
    expect("port list --long", "ACTIVE")?;
    openstack("network create blue")?;
    openstack("subnet create --network blue --subnet-range 10.9.0.0/24 blue4")?;
    openstack("port create --network blue --fixed-ip ip-address=10.9.0.9 blue-port")?;
    expect("network show blue", "vxlan")?;
    expect("subnet show blue4", "10.9.0.1")?;
    expect("port show blue-port", "10.9.0.9")?;
    for what in [
        "port delete blue-port",
        "subnet delete blue4",
        "network delete blue",
    ] {
        openstack(what)?;
    }
    let left = openstack("network list")?;
    anyhow::ensure!(!left.contains(" blue "), "the network is still there: {left}");
    Ok(())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
