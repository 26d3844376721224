//! schemathesis on `/openapi.json`: requests made from the document, right ones and wrong ones; no answer may be a
//! server error or differ from what the document says.

use std::time::Duration;

use super::{Openstack, process::Process};

/// What every answer is held against.
const CHECKS: &str = "not_a_server_error,response_schema_conformance,content_type_conformance";
/// It answers 501, as Neutron does, and nothing else ever.
const NEVER_THERE: &str = "post_quotas";
/// Requests for each operation and phase, at most.
const EXAMPLES: &str = "6";
/// The same requests in every run.
const SEED: &str = "3";
/// How long requests are made, in seconds.
const TIME: &str = "150";
/// How long one answer may take, in seconds: what takes longer is a failure.
const ANSWER: &str = "20";
/// How long all of it may take.
const BOUND: Duration = Duration::from_secs(300);

/// Runs it as the administrator, whom nothing is refused because of who asks.
///
/// # Errors
/// When an answer is not as it must be.
pub fn fuzz(openstack: &Openstack) -> anyhow::Result<()> {
    eprintln!("\nschemathesis on the OpenAPI document");
    let token = openstack.keystone.admin()?.token;
    let mut run = openstack.venv.command("schemathesis");
    run.args(["run", &format!("{}/openapi.json", openstack.alcor.url)]);
    run.args([
        "--header",
        &format!("X-Auth-Token: {token}"),
        "--checks",
        CHECKS,
        "--exclude-operation-id",
        NEVER_THERE,
        "--seed",
        SEED,
    ]);
    run.args([
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        EXAMPLES,
        "--max-time",
        TIME,
    ]);
    run.args([
        "--request-timeout",
        ANSWER,
        "--no-shrink",
        "--warnings",
        "off",
        "--continue-on-failure",
    ]);
    run.current_dir(&openstack.dir)
        .stdout(std::io::stderr())
        .stderr(std::io::stderr());
    let log = openstack.dir.join("alcor.log");
    let status = Process::spawn_as_is("schemathesis", &mut run, &log)?.wait(BOUND)?;
    anyhow::ensure!(
        status.success(),
        "schemathesis found failures; Alcor's log is {}",
        log.display()
    );
    Ok(())
}
