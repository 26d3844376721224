//! Every test there is: what needs no root, what does, and what needs real clients.

use crate::{
    setup::{For, setup},
    shell::{cargo, run, tools},
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
    let openstack = tools().join("openstack/bin/openstack");
    // The features switch on what needs root (`root-tests`) and the `openstack` client.
    run(
        cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"])
            .env("ALCOR_TEST_OPENSTACK", openstack),
    )
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
