//! Wiring of the roles: which parts run, how they reach each other, and how they stop.

use crate::config::Config;

/// The roles this process plays.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// API, store and NCM.
    pub controller: bool,
    /// The host's agent.
    pub agent: bool,
}

impl Roles {
    /// Plays them until SIGINT or SIGTERM, or until one of them fails.
    pub async fn run(self, config: Config) -> anyhow::Result<()> {
        let _ = config;
        anyhow::bail!("not wired yet")
    }
}
