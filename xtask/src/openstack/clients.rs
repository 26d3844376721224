//! `openstack` and openstacksdk against Alcor: the tests in `xtask/openstack/clients`.

use std::time::Duration;

use super::{Openstack, process::Process};

/// How long all of them may take.
const BOUND: Duration = Duration::from_secs(15 * 60);

/// Runs them; what they print goes to standard error.
///
/// # Errors
/// When one fails.
pub fn clients(openstack: &Openstack) -> anyhow::Result<()> {
    eprintln!("\nopenstackclient and openstacksdk through every resource, as two projects");
    let mut tests = openstack.venv.script("clients");
    tests.arg(&openstack.keystone.url).current_dir(&openstack.dir);
    tests.stdout(std::io::stderr()).stderr(std::io::stderr());
    let log = openstack.dir.join("alcor.log");
    let status = Process::spawn_as_is("the clients' tests", &mut tests, &log)?.wait(BOUND)?;
    anyhow::ensure!(
        status.success(),
        "tests of OpenStack's clients failed; Alcor's log is {}",
        log.display()
    );
    Ok(())
}
