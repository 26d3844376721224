//! `alcor controller` with Keystone's tokens, as an operator would run it.

use std::{fs, path::Path, time::Duration};

use super::{
    keystone::{Keystone, PASSWORD},
    process::{Process, free_port},
};
use crate::cloud::Build;

/// How long it may take until it answers.
const READY: Duration = Duration::from_secs(60);

/// A running controller.
#[derive(Debug)]
pub struct Alcor {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    _process: Process,
}

impl Alcor {
    /// Builds it, starts it on a new region in a folder, and names it in the catalogue.
    ///
    /// # Errors
    /// When it cannot be built or does not answer; the message has the end of its log.
    pub fn start(build: Build, keystone: &Keystone, dir: &Path) -> anyhow::Result<Self> {
        build.packages(&["alcor"])?;
        let config = dir.join("alcor.toml");
        fs::write(&config, configuration(keystone))?;
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let mut command = std::process::Command::new(build.program("alcor"));
        command.arg("--config").arg(&config).arg("controller");
        command.arg(format!("--api-listen=127.0.0.1:{port}"));
        command.arg(format!("--southbound-listen=127.0.0.1:{}", free_port()?));
        command.arg(format!("--data-dir={}", dir.join("region").display()));
        let mut process = Process::spawn("alcor controller", &mut command, &dir.join("alcor.log"))?;
        let http = reqwest::blocking::Client::builder().no_proxy().build()?;
        // The list of versions needs no token.
        process.wait_until(READY, || {
            http.get(&url)
                .send()
                .is_ok_and(|reply| reply.status().is_success())
        })?;
        keystone.admin()?.publish_network(&url)?;
        Ok(Self {
            url,
            _process: process,
        })
    }
}

/// Quotas are those of the Neutron project's own gate, where its tests are known to pass. Answers of Keystone may take
/// their time on a busy machine.
fn configuration(keystone: &Keystone) -> String {
    format!(
        "[controller.quotas]\n\
         floatingip = 500\n\
         router = 100\n\
         security_group = 100\n\
         security_group_rule = 1000\n\
         [controller.auth]\n\
         mode = \"keystone\"\n\
         keystone_url = \"{}\"\n\
         username = \"neutron\"\n\
         password = \"{PASSWORD}\"\n\
         timeout_ms = 30000\n",
        keystone.url.trim_end_matches("/v3")
    )
}
