//! A controller, an NCM and simulated hosts as processes on loopback (no root): what 10,000 sessions cost, how fast they are
//! back when the NCM was killed, and how long a port takes from the API call until its host says that packets see it, in
//! networks of growing size. The hosts program nothing: their receipts say "visible" at once, so that all of the time is the
//! control plane's. Not here: answers on demand (`bench_resolve` of alcor-ncm) and real packets.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use alcor_lab::eventually;
use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Figures, percentile, print_table, rounded};
use crate::{
    cloud::{Api, Build, now_us, text},
    openstack::process::Process,
    shell::root,
};

/// Ports or networks made by one API call.
const BULK: usize = 500;
/// Ports of each of the networks that the sessions are measured with.
const PORTS_PER_NETWORK: usize = 10;
/// Hosts that the ports of a measured network are spread over.
const SPREAD: usize = 100;
/// Ports of the burst.
const BURST: usize = 20_000;
/// How long the hosts may take to have everything.
const SETTLE: Duration = Duration::from_secs(600);

/// How much is measured.
struct Extent {
    hosts: usize,
    sizes: &'static [usize],
    samples: usize,
    burst: usize,
}

const WHOLE: Extent = Extent {
    hosts: 10_000,
    sizes: &[10, 1_000, 100_000, 1_000_000],
    samples: 200,
    burst: BURST,
};
const QUICK: Extent = Extent {
    hosts: 500,
    sizes: &[10, 1_000],
    samples: 20,
    burst: 1_000,
};

pub(super) fn bench(quick: bool) -> anyhow::Result<Figures> {
    let (extent, build) = match quick {
        true => (QUICK, Build::Debug),
        false => (WHOLE, Build::Release),
    };
    build.packages(&["alcor", "alcor-sim"])?;
    let mut figures = Figures::new();
    figures.insert("build".into(), json!(if quick { "debug" } else { "release" }));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    figures.insert("cores".into(), json!(cores));
    sessions(&extent, build, &mut figures)?;
    let stage = Stage::start(SPREAD, build)?;
    let mut rows = vec![["ports in the network", "p50", "p99"].map(str::to_owned).to_vec()];
    for size in extent.sizes {
        let network = stage.network(&format!("of {size}"))?;
        stage.fill(&network, *size)?;
        let mut times = Vec::with_capacity(extent.samples);
        for sample in 0..extent.samples {
            times.push(stage.sample(&network, sample)?);
        }
        times.sort_by(f64::total_cmp);
        let (p50, p99) = (percentile(&times, 0.5), percentile(&times, 0.99));
        figures.insert(format!("program_p50_ms_{size}"), rounded(p50));
        figures.insert(format!("program_p99_ms_{size}"), rounded(p99));
        rows.push(vec![
            size.to_string(),
            format!("{p50:.2} ms"),
            format!("{p99:.2} ms"),
        ]);
    }
    print_table(rows);
    let network = stage.network("burst")?;
    let began = Instant::now();
    stage.fill(&network, extent.burst)?;
    let key = format!("burst_{}_s", extent.burst);
    figures.insert(key, rounded(began.elapsed().as_secs_f64()));
    eprintln!(
        "{cores} cores, shared by controller, NCM and {SPREAD} simulated hosts, each a process of its own but the hosts."
    );
    Ok(figures)
}

/// What sessions cost the NCM, and how long until all are back and complete after it was killed.
fn sessions(extent: &Extent, build: Build, figures: &mut Figures) -> anyhow::Result<()> {
    let hosts = extent.hosts;
    let mut stage = Stage::start(hosts, build)?;
    let mut ports = Vec::with_capacity(hosts);
    let networks = stage.networks(hosts / PORTS_PER_NETWORK)?;
    for (index, network) in (0..hosts).map(|host| (host, &networks[host % networks.len()])) {
        ports.push(json!({"network_id": network, "binding:host_id": format!("sim-{index}")}));
    }
    stage.bulk("ports", &ports)?;
    stage.settle()?;
    let rss = stage.ncm_rss_mb()?;
    figures.insert(format!("agents_{hosts}_rss_mb"), rounded(rss));
    stage.ncm.kill()?;
    // The hosts see that it is gone before the time begins.
    stage.hosts_are("no host has a session", |welcomed, _| welcomed == 0)?;
    let began = Instant::now();
    stage.ncm = stage.places.ncm()?;
    stage.hosts_are("all hosts are complete again", |welcomed, complete| {
        welcomed == hosts && complete == hosts
    })?;
    let seconds = began.elapsed().as_secs_f64();
    figures.insert(format!("reconnect_{hosts}_s"), rounded(seconds));
    eprintln!(
        "{hosts} hosts: {rss:.0} MB in the NCM's memory, all complete {seconds:.1} s after the NCM was started again"
    );
    Ok(())
}

/// Where the processes of a stage listen and write.
struct Places {
    build: Build,
    folder: PathBuf,
    api: String,
    feed: String,
    southbound: String,
    directory: String,
}

impl Places {
    fn new(build: Build) -> anyhow::Result<Self> {
        let folder = root().join("target/tmp/scale");
        // What an earlier run left.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let free = || anyhow::Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string());
        Ok(Self {
            build,
            folder,
            api: free()?,
            feed: free()?,
            southbound: free()?,
            directory: free()?,
        })
    }

    fn spawn(&self, name: &str, program: &str, args: &[String]) -> anyhow::Result<Process> {
        let mut command = Command::new(self.build.program(program));
        command.args(args).env("ALCOR_METRICS__ENABLED", "false");
        Process::spawn(name, &mut command, &self.log(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn ncm(&self) -> anyhow::Result<Process> {
        let args = [
            "ncm".to_owned(),
            "--log=warn".to_owned(),
            format!("--controller=http://{}", self.feed),
            format!("--listen={}", self.southbound),
            format!("--directory-listen={}", self.directory),
        ];
        self.spawn("ncm", "alcor", &args)
    }
}

/// Processes that are stopped when this is dropped.
struct Stage {
    api: Api,
    hosts: usize,
    _sim: Process,
    ncm: Process,
    _controller: Process,
    places: Places,
}

impl Stage {
    fn start(hosts: usize, build: Build) -> anyhow::Result<Self> {
        let places = Places::new(build)?;
        let controller = [
            "controller".to_owned(),
            "--log=warn".to_owned(),
            "--noauth".to_owned(),
            "--quota-defaults=unlimited".to_owned(),
            format!("--api-listen={}", places.api),
            format!("--feed-listen={}", places.feed),
            format!("--ncm=http://{}", places.directory),
            format!("--data-dir={}", places.folder.display()),
        ];
        let mut controller = places.spawn("controller", "alcor", &controller)?;
        let api = Api::new(&format!("http://{}", places.api))?;
        controller.wait_until(SETTLE, || api.get("/v2.0/networks").is_ok())?;
        let ncm = places.ncm()?;
        let sim = [
            "sockets".to_owned(),
            "--again".to_owned(),
            format!("--ncm=http://{}", places.southbound),
            format!("--hosts={hosts}"),
        ];
        let sim = places.spawn("sim", "alcor-sim", &sim)?;
        let stage = Self {
            api,
            hosts,
            _sim: sim,
            ncm,
            _controller: controller,
            places,
        };
        stage.hosts_are("all hosts have a session", |welcomed, _| welcomed == hosts)?;
        Ok(stage)
    }

    /// Waits until this is true of how many hosts have a session, and how many of them are complete.
    fn hosts_are(&self, what: &str, is: impl Fn(usize, usize) -> bool) -> anyhow::Result<()> {
        let log = self.places.log("sim");
        eventually(what, SETTLE, || {
            let (welcomed, complete) = last_line(&log).ok_or_else(|| "nothing yet".to_owned())?;
            match is(welcomed, complete) {
                true => Ok(()),
                false => Err(format!("{welcomed} welcomed, {complete} complete")),
            }
        })?;
        Ok(())
    }

    fn bulk(&self, plural: &str, members: &[Value]) -> anyhow::Result<Vec<String>> {
        let progress = indicatif::ProgressBar::new(members.len() as u64)
            .with_prefix(format!("making {plural}"))
            .with_style(indicatif::ProgressStyle::with_template(
                "{prefix:>14} {bar:40} {pos}/{len}",
            )?);
        let mut ids = Vec::with_capacity(members.len());
        for members in members.chunks(BULK) {
            let body = self
                .api
                .post(&format!("/v2.0/{plural}"), &json!({ plural: members }))?;
            for made in body[plural].as_array().into_iter().flatten() {
                ids.push(text(&made["id"])?.to_owned());
            }
            progress.inc(members.len() as u64);
        }
        progress.finish();
        Ok(ids)
    }

    fn networks(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let networks: Vec<_> = (0..count)
            .map(|index| json!({"name": format!("n{index}")}))
            .collect();
        let ids = self.bulk("networks", &networks)?;
        let subnet = |id: &String| json!({"network_id": id, "ip_version": 4, "cidr": "10.0.0.0/8"});
        self.bulk("subnets", &ids.iter().map(subnet).collect::<Vec<_>>())?;
        Ok(ids)
    }

    fn network(&self, name: &str) -> anyhow::Result<String> {
        eprintln!("network {name}");
        self.networks(1)?.pop().context("no network was made")
    }

    /// Makes ports of a network, spread over the hosts, and waits until all hosts have what they need.
    fn fill(&self, network: &str, ports: usize) -> anyhow::Result<()> {
        let mut made = 0;
        while made < ports {
            let count = (ports - made).min(100 * BULK);
            let port = |index: usize| json!({"network_id": network, "binding:host_id": self.host(index)});
            self.bulk("ports", &(made..made + count).map(port).collect::<Vec<_>>())?;
            made += count;
        }
        self.settle()
    }

    fn host(&self, index: usize) -> String {
        format!("sim-{}", index % self.hosts)
    }

    /// Waits until every host has applied everything that it must have.
    fn settle(&self) -> anyhow::Result<()> {
        eventually("all hosts to be up to date", SETTLE, || {
            let body = self
                .api
                .get("/alcor/v1/hosts")
                .map_err(|error| format!("{error:#}"))?;
            let hosts = body["hosts"].as_array().cloned().unwrap_or_default();
            let current = |host: &&Value| host["pending"] == 0 && host["alive"] == true;
            let current = hosts.iter().filter(current).count();
            match current == self.hosts {
                true => Ok(()),
                false => Err(format!("{current} of {} hosts", hosts.len())),
            }
        })?;
        Ok(())
    }

    /// Milliseconds from the call that makes a port until its host says that packets see it.
    fn sample(&self, network: &str, index: usize) -> anyhow::Result<f64> {
        let port = json!({"port": {"network_id": network, "binding:host_id": self.host(index)}});
        let called_us = now_us();
        let port = self.api.post("/v2.0/ports", &port)?["port"].take();
        let path = format!("/alcor/v1/ports/{}/status", text(&port["id"])?);
        let mut visible_us = 0;
        eventually("the port is visible", SETTLE, || {
            let state = self.api.get(&path).map_err(|error| format!("{error:#}"))?;
            visible_us = state["timing"]["visible_us"].as_u64().unwrap_or_default();
            match visible_us > 0 && state["status"] == "ACTIVE" {
                true => Ok(()),
                false => Err(state.to_string()),
            }
        })?;
        anyhow::ensure!(
            visible_us > called_us,
            "the port was visible before it was asked for"
        );
        Ok((visible_us - called_us) as f64 / 1e3)
    }

    /// Memory of the NCM's process that is in RAM.
    fn ncm_rss_mb(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.ncm.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kb: f64 = kb.context("the kernel does not say")?.trim().parse()?;
        Ok(kb * 1024.0 / 1e6)
    }
}

/// Hosts with a session, and complete ones, as the simulator last printed.
fn last_line(log: &Path) -> Option<(usize, usize)> {
    let text = std::fs::read_to_string(log).ok()?;
    // A line that is being written has no end yet.
    let (whole, _) = text.rsplit_once('\n')?;
    let mut words = whole.lines().next_back()?.split(' ');
    let welcomed = words.next()?.parse().ok()?;
    let complete = words.nth(2)?.parse().ok()?;
    Some((welcomed, complete))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulators_last_whole_line_counts() {
        let folder = root().join("target/tmp");
        std::fs::create_dir_all(&folder).ok();
        let log = folder.join(format!("scale-{}.log", std::process::id()));
        let line = "12 agents welcomed, 7 complete, 13 sessions, 3 deltas, 4 rows\n99 age";
        assert!(std::fs::write(&log, line).is_ok());
        assert_eq!(last_line(&log), Some((12, 7)));
        std::fs::remove_file(&log).ok();
    }
}
