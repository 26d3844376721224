//! A real Keystone on SQLite, on loopback, with the projects, users and roles that tests need.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use super::{
    identity::Identity,
    process::{Process, free_port, run_logged},
    venv::Venv,
};

/// Every user's password. The service listens on loopback for the length of a test.
pub const PASSWORD: &str = "secret";
/// The region of the catalogue.
pub const REGION: &str = "RegionOne";
/// Roles that Neutron's policies know.
const ROLES: [&str; 5] = ["admin", "manager", "member", "reader", "service"];
/// Project, user, roles. Red and blue must not see each other.
const USERS: [(&str, &str, &[&str]); 5] = [
    ("service", "neutron", &["service", "admin"]),
    ("red", "red", &["member", "reader"]),
    ("red", "red-reader", &["reader"]),
    ("blue", "blue", &["member", "reader"]),
    ("blue", "blue-reader", &["reader"]),
];
/// How long one step of the set-up may take on a busy machine.
const STEP: Duration = Duration::from_secs(180);
/// One, because SQLite lets one write at a time and Keystone does not ask again.
const THREADS: &str = "1";

/// A running Keystone.
#[derive(Debug)]
pub struct Keystone {
    /// `http://127.0.0.1:PORT/v3`
    pub url: String,
    _process: Process,
}

impl Keystone {
    /// Makes a new one in a folder, and what tests need in it.
    ///
    /// # Errors
    /// When a step of its set-up fails; the message has the end of its log.
    pub fn start(venv: &Venv, dir: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}/v3");
        let config = configure(dir)?;
        set_up(venv, dir, &config, &url)?;
        let mut serve = venv.script("serve.py");
        serve.args(["keystone", &port.to_string(), "1", THREADS]);
        serve
            .env("OS_KEYSTONE_CONFIG_DIR", config.parent().unwrap_or(dir))
            .current_dir(dir);
        let mut process = Process::spawn("Keystone", &mut serve, &dir.join("keystone.log"))?;
        let http = reqwest::blocking::Client::builder().no_proxy().build()?;
        process.wait_until(STEP, || {
            http.get(&url)
                .send()
                .is_ok_and(|reply| reply.status().is_success())
        })?;
        let keystone = Self {
            url,
            _process: process,
        };
        keystone.fill()?;
        Ok(keystone)
    }

    /// Signed in as the administrator.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub fn admin(&self) -> anyhow::Result<Identity> {
        Identity::sign_in(&self.url, "admin", "admin")
    }

    fn fill(&self) -> anyhow::Result<()> {
        let admin = self.admin()?;
        let mut roles = Vec::new();
        for role in ROLES {
            roles.push((role, admin.ensure("role", role)?));
        }
        for (project, user, granted) in USERS {
            let (project, user) = (admin.ensure("project", project)?, admin.ensure("user", user)?);
            for (_, role) in roles.iter().filter(|(role, _)| granted.contains(role)) {
                admin.grant(&project, &user, role)?;
            }
        }
        Ok(())
    }
}

/// Writes the configuration; gives its path.
fn configure(dir: &Path) -> anyhow::Result<PathBuf> {
    let etc = dir.join("keystone");
    for keys in ["fernet", "credential"] {
        fs::create_dir_all(etc.join(keys))?;
    }
    let path = etc.join("keystone.conf");
    let at = etc.display();
    // The least rounds that bcrypt takes: tests make users by the hundred. The cache is right for one process only.
    let text = format!(
        "[DEFAULT]\n\
         transport_url = fake://\n\
         use_stderr = true\n\
         [database]\n\
         connection = sqlite:///{at}/keystone.sqlite?timeout=60\n\
         sqlite_synchronous = false\n\
         [identity]\n\
         password_hash_rounds = 4\n\
         [token]\n\
         provider = fernet\n\
         expiration = 86400\n\
         [fernet_tokens]\n\
         key_repository = {at}/fernet\n\
         [credential]\n\
         key_repository = {at}/credential\n\
         [cache]\n\
         enabled = true\n\
         backend = oslo_cache.dict\n"
    );
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Tables, keys, the administrator and Keystone's own place in the catalogue.
fn set_up(venv: &Venv, dir: &Path, config: &Path, url: &str) -> anyhow::Result<()> {
    // Keys belong to whom the service runs as: the owner of what this process has just written.
    let (user, group) = owner(config)?;
    let keys = ["--keystone-user", &user, "--keystone-group", &group];
    let bootstrap = [
        "bootstrap",
        "--bootstrap-username=admin",
        "--bootstrap-project-name=admin",
        &format!("--bootstrap-password={PASSWORD}"),
        &format!("--bootstrap-region-id={REGION}"),
        &format!("--bootstrap-admin-url={url}"),
        &format!("--bootstrap-internal-url={url}"),
        &format!("--bootstrap-public-url={url}"),
    ];
    let steps = [
        vec!["db_sync"],
        [&["fernet_setup"], &keys[..]].concat(),
        [&["credential_setup"], &keys[..]].concat(),
        bootstrap.to_vec(),
    ];
    for step in steps {
        let name = format!("keystone-manage {}", step[0]);
        let mut manage = venv.command("keystone-manage");
        manage
            .arg("--config-file")
            .arg(config)
            .args(&step)
            .current_dir(dir);
        run_logged(
            &name,
            &mut manage,
            &dir.join(format!("keystone-{}.log", step[0])),
            STEP,
        )?;
    }
    Ok(())
}

fn owner(path: &Path) -> anyhow::Result<(String, String)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path)?;
    Ok((metadata.uid().to_string(), metadata.gid().to_string()))
}
