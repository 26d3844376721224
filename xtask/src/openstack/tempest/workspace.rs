//! Tempest's workspace: its configuration, and the network and the pools that tests expect to be there.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    cloud::text,
    openstack::{
        Openstack,
        keystone::{PASSWORD, REGION},
        process::run_logged,
        venv::Venv,
    },
};

/// The external network that tests of routers and floating IPs use.
const PUBLIC: &str = "public";
const PUBLIC_SUBNET: &str = "172.24.0.0/16";
/// The default pools that tests of networks made for a project expect: name, prefix, length of a subnet's prefix.
const POOLS: [(&str, &str, u8); 2] = [
    ("shared-default-v4", "10.192.0.0/16", 26),
    ("shared-default-v6", "fd5f:1a2b:3c4d::/56", 64),
];
/// How long one answer of Alcor may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Makes the workspace; gives its folder.
///
/// # Errors
/// When Alcor refuses the network or lists no extensions.
pub fn make(openstack: &Openstack) -> anyhow::Result<PathBuf> {
    let dir = openstack.dir.join("tempest");
    let api = Admin::new(openstack)?;
    let listed = api.get("extensions")?;
    let listed = listed["extensions"]
        .as_array()
        .context("Alcor lists no extensions")?;
    let mut aliases: Vec<_> = listed.iter().filter_map(|one| one["alias"].as_str()).collect();
    aliases.sort_unstable();
    let public = api.public_network()?;
    api.default_pools()?;
    let config = configuration(
        openstack,
        &aliases.join(","),
        &public,
        &dir.join("lock").display().to_string(),
    );
    lay_out(&openstack.venv, &dir, &config)?;
    Ok(dir)
}

/// Lays a workspace out in a folder. Listing tests needs no configuration.
///
/// # Errors
/// When a file cannot be written or stestr fails.
pub fn lay_out(venv: &Venv, dir: &Path, config: &str) -> anyhow::Result<()> {
    fs::create_dir_all(dir.join("etc"))?;
    fs::write(dir.join("etc/tempest.conf"), config)?;
    let packages = venv.packages()?.join("tempest");
    let tests = packages.join("test_discover");
    let stestr = format!(
        "[DEFAULT]\ntest_path={}\ntop_dir={}\ngroup_regex=([^\\.]*\\.)*\n",
        tests.display(),
        packages.display()
    );
    fs::write(dir.join(".stestr.conf"), stestr)?;
    let mut init = venv.command("stestr");
    init.arg("init").current_dir(dir);
    run_logged("stestr init", &mut init, &dir.join("stestr.log"), TIMEOUT)
}

fn configuration(openstack: &Openstack, aliases: &str, public: &str, lock: &str) -> String {
    format!(
        "[DEFAULT]\n\
         log_file = tempest.log\n\
         [oslo_concurrency]\n\
         lock_path = {lock}\n\
         [auth]\n\
         admin_username = admin\n\
         admin_password = {PASSWORD}\n\
         admin_project_name = admin\n\
         admin_domain_name = Default\n\
         use_dynamic_credentials = true\n\
         create_isolated_networks = false\n\
         [identity]\n\
         uri_v3 = {keystone}\n\
         auth_version = v3\n\
         region = {REGION}\n\
         [identity-feature-enabled]\n\
         api_v2 = false\n\
         api_v3 = true\n\
         [service_available]\n\
         nova = false\n\
         glance = false\n\
         cinder = false\n\
         swift = false\n\
         horizon = false\n\
         neutron = true\n\
         [network]\n\
         region = {REGION}\n\
         project_network_cidr = 10.100.0.0/16\n\
         public_network_id = {public}\n\
         [network-feature-enabled]\n\
         ipv6 = true\n\
         floating_ips = true\n\
         ipv6_subnet_attributes = true\n\
         api_extensions = {aliases}\n\
         [validation]\n\
         run_validation = false\n\
         [neutron_plugin_options]\n\
         available_type_drivers = flat,vlan,local,vxlan\n\
         provider_vlans = physnet1\n",
        keystone = openstack.keystone.url,
    )
}

/// Alcor's API as the administrator sees it.
struct Admin {
    base: String,
    token: String,
    http: reqwest::blocking::Client,
}

impl Admin {
    fn new(openstack: &Openstack) -> anyhow::Result<Self> {
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self {
            base: format!("{}/v2.0", openstack.alcor.url),
            token: openstack.keystone.admin()?.token,
            http,
        })
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}/{path}", self.base));
        let reply = request.header("X-Auth-Token", &self.token).send()?;
        anyhow::ensure!(
            reply.status().is_success(),
            "Alcor refused {path} ({})",
            reply.status()
        );
        Ok(reply.json()?)
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}/{path}", self.base)).json(body);
        let reply = request.header("X-Auth-Token", &self.token).send()?;
        let status = reply.status();
        let answer = reply.text()?;
        anyhow::ensure!(status.is_success(), "Alcor refused {path} ({status}): {answer}");
        Ok(serde_json::from_str(&answer)?)
    }

    fn public_network(&self) -> anyhow::Result<String> {
        let network = json!({"network": {"name": PUBLIC, "router:external": true}});
        let network = self.post("networks", &network)?;
        let id = text(&network["network"]["id"])?;
        let subnet = json!({"subnet": {
            "network_id": id, "name": PUBLIC, "ip_version": 4, "enable_dhcp": false, "cidr": PUBLIC_SUBNET,
        }});
        self.post("subnets", &subnet)?;
        Ok(id.to_owned())
    }

    fn default_pools(&self) -> anyhow::Result<()> {
        for (name, prefix, length) in POOLS {
            let pool = json!({"subnetpool": {
                "name": name, "prefixes": [prefix], "default_prefixlen": length, "is_default": true, "shared": true,
            }});
            self.post("subnetpools", &pool)?;
        }
        Ok(())
    }
}
