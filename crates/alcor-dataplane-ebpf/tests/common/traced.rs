//! Single frames through the kernel programs, in a network namespace of the test's own.

use std::{process::Command, thread};

use alcor_dataplane_ebpf::{EbpfConfig, EbpfDataplane};
use nix::sched::{CloneFlags, unshare};

/// Runs `ip`; panics when it fails.
pub fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a test on a thread with a network namespace of its own, which goes with the thread.
pub fn in_namespace(instance: &str, test: impl FnOnce(&EbpfConfig) + Send) {
    let mut config = EbpfConfig::new(instance);
    config.trace = true;
    let body = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root: a network namespace of its own");
        ip(&["link", "set", "dev", "lo", "up"]);
        EbpfDataplane::purge(&config).unwrap();
        test(&config);
        EbpfDataplane::purge(&config).unwrap();
    };
    thread::scope(|scope| scope.spawn(body).join().unwrap());
}
