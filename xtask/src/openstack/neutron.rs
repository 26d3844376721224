//! The reference Neutron that Alcor is measured beside: its API with ML2 and the usual services, `noauth`, no agents, on
//! a MariaDB of its own, as it is deployed. Everything listens on loopback or a socket and ends with the benchmark.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;

use super::{
    process::{Process, free_port, run_logged, watch_for_interrupts},
    venv::Venv,
    work_dir,
};
use crate::{setup::apt, shell::has};

/// How long one step of the set-up may take on a busy machine.
const STEP: Duration = Duration::from_secs(300);
/// Processes of the API: one for each core that most test machines have.
const WORKERS: &str = "2";
const THREADS: &str = "8";
/// Network identifiers; each is a row that is written at the first start.
const VNI_LAST: u16 = 1000;

/// A running Neutron.
#[derive(Debug)]
pub struct Neutron {
    /// Where its API listens.
    pub address: String,
    // Before the database, so that it is stopped first.
    _api: Process,
    _database: Process,
    _lock: fs::File,
}

impl Neutron {
    /// Installs what is missing and starts it on an empty database.
    ///
    /// # Errors
    /// When a step fails; the message has the end of its log.
    pub fn start() -> anyhow::Result<Self> {
        watch_for_interrupts();
        let venv = Venv::prepare_with_neutron()?;
        if !has("mariadbd") {
            apt(&["mariadb-server-core", "mariadb-client-core"])?;
        }
        let (dir, lock) = work_dir("neutron")?;
        eprintln!("starting MariaDB and Neutron; logs in {}", dir.display());
        let (database, socket) = database(&dir)?;
        let config = configure(&venv, &dir, &socket)?;
        let mut migrate = venv.command("neutron-db-manage");
        migrate
            .arg("--config-file")
            .arg(&config)
            .args(["upgrade", "heads"])
            .current_dir(&dir);
        run_logged("neutron-db-manage", &mut migrate, &dir.join("migrate.log"), STEP)?;
        let port = free_port()?;
        let mut serve = venv.script("serve.py");
        serve
            .args(["neutron", &port.to_string(), WORKERS, THREADS])
            .current_dir(&dir);
        serve
            .env("OS_NEUTRON_CONFIG_DIR", &dir)
            .env("OS_NEUTRON_CONFIG_FILES", "neutron.conf");
        let mut api = Process::spawn("Neutron", &mut serve, &dir.join("neutron.log"))?;
        let http = reqwest::blocking::Client::builder().no_proxy().build()?;
        let url = format!("http://127.0.0.1:{port}/v2.0/networks");
        api.wait_until(STEP, || {
            http.get(&url)
                .send()
                .is_ok_and(|reply| reply.status().is_success())
        })?;
        Ok(Self {
            address: format!("127.0.0.1:{port}"),
            _api: api,
            _database: database,
            _lock: lock,
        })
    }
}

/// Starts a MariaDB that can be reached only through a socket, with one empty database; gives the socket.
fn database(dir: &Path) -> anyhow::Result<(Process, PathBuf)> {
    let (data, socket) = (dir.join("mariadb"), dir.join("mariadb.sock"));
    let mut install = Command::new("mariadb-install-db");
    install.args([
        "--no-defaults",
        "--user=root",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    ]);
    install.arg(format!("--datadir={}", data.display()));
    run_logged(
        "mariadb-install-db",
        &mut install,
        &dir.join("mariadb-install.log"),
        STEP,
    )?;
    let mut server = Command::new("mariadbd");
    server.args([
        "--no-defaults",
        "--user=root",
        "--skip-networking",
        "--innodb-buffer-pool-size=512M",
    ]);
    server
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", socket.display()));
    server.arg(format!("--pid-file={}", dir.join("mariadb.pid").display()));
    let mut process = Process::spawn("MariaDB", &mut server, &dir.join("mariadb.log"))?;
    let create = || {
        let sql = "create database if not exists neutron character set utf8mb4";
        let mut client = Command::new("mariadb");
        client
            .args(["--no-defaults", "--user=root", "--execute", sql])
            .arg(format!("--socket={}", socket.display()));
        client.output().is_ok_and(|output| output.status.success())
    };
    process.wait_until(STEP, create)?;
    Ok((process, socket))
}

fn configure(venv: &Venv, dir: &Path, socket: &Path) -> anyhow::Result<PathBuf> {
    let from = venv.installed("etc/neutron/api-paste.ini");
    fs::copy(&from, dir.join("api-paste.ini")).with_context(|| format!("copying {}", from.display()))?;
    let path = dir.join("neutron.conf");
    let (at, socket) = (dir.display(), socket.display());
    let text = format!(
        "[DEFAULT]\n\
         core_plugin = ml2\n\
         service_plugins = router,segments,network_ip_availability,timestamp,revisions,tag\n\
         auth_strategy = noauth\n\
         transport_url = fake://\n\
         api_paste_config = {at}/api-paste.ini\n\
         state_path = {at}\n\
         use_stderr = true\n\
         dhcp_agent_notification = false\n\
         notify_nova_on_port_status_changes = false\n\
         notify_nova_on_port_data_changes = false\n\
         rpc_workers = 0\n\
         [oslo_concurrency]\n\
         lock_path = {at}/lock\n\
         [database]\n\
         connection = mysql+pymysql://root@localhost/neutron?unix_socket={socket}&charset=utf8mb4\n\
         max_pool_size = 20\n\
         [quotas]\n\
         default_quota = -1\n\
         quota_network = -1\n\
         quota_subnet = -1\n\
         quota_port = -1\n\
         [ml2]\n\
         type_drivers = local,flat,vlan,vxlan\n\
         project_network_types = vxlan\n\
         mechanism_drivers = openvswitch\n\
         extension_drivers = port_security,dns\n\
         [ml2_type_vxlan]\n\
         vni_ranges = 1:{VNI_LAST}\n"
    );
    fs::write(&path, text)?;
    Ok(path)
}
