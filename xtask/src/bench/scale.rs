//! A controller, an NCM and simulated hosts as processes on loopback (no root): what 10,000 sessions cost, how fast they are
//! back when the NCM was killed, and how long a port takes from the API call until its host says that packets see it, in
//! networks of growing size. The hosts program nothing: their receipts say "visible" at once, so that all of the time is the
//! control plane's. Then hosts ask where addresses are, as fast as they are answered; and one virtual machine scans a /8 while
//! ports are made elsewhere. Not here: real packets.

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
    cloud::{Api, Build, PROGRAMS, now_us, text},
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
/// The smallest network that hosts ask about.
const ASKED_MIN: usize = 100;
/// How long questions are counted.
const ASKING: Duration = Duration::from_secs(5);
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
    sizes: &[10, 100, 1_000, 10_000, 100_000, 1_000_000],
    samples: 200,
    burst: BURST,
};
const QUICK: Extent = Extent {
    hosts: 500,
    sizes: &[10, 100, 1_000],
    samples: 20,
    burst: 1_000,
};

pub(super) fn bench(quick: bool) -> anyhow::Result<Figures> {
    let (extent, build) = match quick {
        true => (QUICK, Build::Debug),
        false => (WHOLE, Build::Release),
    };
    build.packages(PROGRAMS)?;
    let mut figures = Figures::new();
    figures.insert("build".into(), json!(if quick { "debug" } else { "release" }));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    figures.insert("cores".into(), json!(cores));
    sessions(&extent, build, &mut figures)?;
    let mut stage = Stage::start(SPREAD, build)?;
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
        if *size >= ASKED_MIN {
            stage.resolve(&network, *size, &mut figures)?;
        }
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
    stage.scan(&network, &extent, &mut figures)?;
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
        let [api, feed, southbound, directory] = free_addresses()?;
        Ok(Self {
            build,
            folder,
            api,
            feed,
            southbound,
            directory,
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

    fn sim(&self, hosts: usize, more: &[String]) -> anyhow::Result<Process> {
        // What an earlier one printed is not about this one.
        let _ = std::fs::remove_file(self.log("sim"));
        let mut args = vec![
            "sockets".to_owned(),
            "--again".to_owned(),
            format!("--ncm=http://{}", self.southbound),
            format!("--hosts={hosts}"),
        ];
        args.extend_from_slice(more);
        self.spawn("sim", "alcor-sim", &args)
    }
}

/// Processes that are stopped when this is dropped.
struct Stage {
    api: Api,
    hosts: usize,
    sim: Process,
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
        let sim = places.sim(hosts, &[])?;
        let stage = Self {
            api,
            hosts,
            sim,
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

    /// Starts the hosts anew, with other work.
    fn restart_hosts(&mut self, more: &[String]) -> anyhow::Result<()> {
        self.sim.kill()?;
        self.sim = self.places.sim(self.hosts, more)?;
        let hosts = self.hosts;
        self.hosts_are("all hosts have a session", |welcomed, _| welcomed == hosts)
    }

    /// All hosts ask for the addresses of a network: answers a second, and for each second of the NCM's processor time. Those who
    /// ask share the processor with the NCM, and need more of it than the NCM.
    fn resolve(&mut self, network: &str, ports: usize, figures: &mut Figures) -> anyhow::Result<()> {
        self.restart_hosts(&[
            format!("--ask-network={network}"),
            format!("--ask-addresses={ports}"),
        ])?;
        self.settle()?;
        let (answers, seconds, cpu) = self.asked()?;
        let [wall, core] = [seconds, cpu].map(|seconds| answers.all as f64 / seconds);
        anyhow::ensure!(
            answers.routes * 10 > answers.all * 9,
            "nine of ten addresses are somebody's: {answers:?}"
        );
        figures.insert(format!("resolve_per_cpu_s_{ports}"), rounded(core));
        figures.insert(format!("resolve_per_s_{ports}"), rounded(wall));
        eprintln!(
            "{ports} ports: {core:.0} answers for each second of the NCM's processor time, {wall:.0} a second"
        );
        self.restart_hosts(&[])?;
        self.settle()
    }

    /// What came of questions while they were counted, for how long, and the NCM's processor time.
    fn asked(&self) -> anyhow::Result<(Answers, f64, f64)> {
        let log = self.places.log("sim");
        let begun = (
            Instant::now(),
            self.ncm_cpu_s()?,
            answers(&log).unwrap_or_default(),
        );
        std::thread::sleep(ASKING);
        let now = answers(&log).context("the hosts say nothing of answers")?;
        let seconds = begun.0.elapsed().as_secs_f64();
        Ok((now.since(&begun.2), seconds, self.ncm_cpu_s()? - begun.1))
    }

    /// One virtual machine asks for random addresses of a /8 as fast as it is answered, while ports are made on other hosts.
    fn scan(&mut self, network: &str, extent: &Extent, figures: &mut Figures) -> anyhow::Result<()> {
        let host = self.host(0);
        let port = json!({"port": {"network_id": network, "binding:host_id": host}});
        let port = self.api.post("/v2.0/ports", &port)?;
        let port = text(&port["port"]["id"])?;
        self.settle()?;
        let p99 = |stage: &Self| -> anyhow::Result<f64> {
            let samples =
                (0..extent.samples).map(|sample| stage.sample(network, 1 + sample % (stage.hosts - 1)));
            let mut times = samples.collect::<anyhow::Result<Vec<f64>>>()?;
            times.sort_by(f64::total_cmp);
            Ok(percentile(&times, 0.99))
        };
        let quiet = p99(self)?;
        let more = [
            format!("--ask-network={network}"),
            format!("--ask-port={port}"),
            "--ask-first=10.0.0.0".to_owned(),
            format!("--ask-addresses={}", 1 << 24),
            "--ask-hosts=1".to_owned(),
        ];
        self.restart_hosts(&more)?;
        self.settle()?;
        let (answers, seconds, cpu) = self.asked()?;
        let scanned = p99(self)?;
        figures.insert("scan_cpu_percent".into(), rounded(cpu / seconds * 100.0));
        figures.insert("scan_answers_per_s".into(), rounded(answers.all as f64 / seconds));
        figures.insert(
            "scan_busy_share".into(),
            rounded(answers.busy as f64 / answers.all.max(1) as f64),
        );
        figures.insert("scan_others_p99_ratio".into(), rounded(scanned / quiet));
        Ok(())
    }

    /// Processor time of the NCM's process.
    fn ncm_cpu_s(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.ncm.id()))?;
        let (_, rest) = stat.rsplit_once(')').context("the kernel does not say")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Fields 14 and 15 of proc(5), in hundredths of a second; `rest` begins with field 3.
        let ticks = |field: usize| fields.get(field - 3).and_then(|value| value.parse::<f64>().ok());
        let both = ticks(14).zip(ticks(15)).context("the kernel does not say")?;
        Ok((both.0 + both.1) / 100.0)
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

/// What came of questions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Answers {
    all: u64,
    routes: u64,
    busy: u64,
}

impl Answers {
    const fn since(&self, before: &Self) -> Self {
        Self {
            all: self.all.saturating_sub(before.all),
            routes: self.routes.saturating_sub(before.routes),
            busy: self.busy.saturating_sub(before.busy),
        }
    }
}

/// The numbers that the simulator last printed: agents with a session, complete ones, sessions, deltas, rows, answers, those
/// that say where, those that say "later".
fn last_numbers(log: &Path) -> Option<[u64; 8]> {
    let text = std::fs::read_to_string(log).ok()?;
    // A line that is being written has no end yet.
    let (whole, _) = text.rsplit_once('\n')?;
    let parts = whole.lines().next_back()?.split(", ");
    let numbers = parts.map(|part| part.split(' ').next()?.parse().ok());
    numbers.collect::<Option<Vec<u64>>>()?.try_into().ok()
}

/// Hosts with a session, and complete ones.
fn last_line(log: &Path) -> Option<(usize, usize)> {
    let [welcomed, complete, ..] = last_numbers(log)?;
    Some((usize::try_from(welcomed).ok()?, usize::try_from(complete).ok()?))
}

fn answers(log: &Path) -> Option<Answers> {
    let [.., all, routes, busy] = last_numbers(log)?;
    Some(Answers { all, routes, busy })
}

/// Addresses on loopback where nobody listens at the moment, each with a port of its own: all are bound before the first is let go.
fn free_addresses<const N: usize>() -> anyhow::Result<[String; N]> {
    let mut listeners = Vec::with_capacity(N);
    for _ in 0..N {
        listeners.push(TcpListener::bind("127.0.0.1:0")?);
    }
    let mut addresses = [const { String::new() }; N];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?.to_string();
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulators_last_whole_line_counts() {
        let folder = root().join("target/tmp");
        std::fs::create_dir_all(&folder).ok();
        let log = folder.join(format!("scale-{}.log", std::process::id()));
        let line = "12 agents welcomed, 7 complete, 13 sessions, 3 deltas, 4 rows, 9 answers, 8 routes, 1 busy\n99 age";
        assert!(std::fs::write(&log, line).is_ok());
        assert_eq!(last_line(&log), Some((12, 7)));
        let asked = Answers {
            all: 9,
            routes: 8,
            busy: 1,
        };
        assert_eq!(answers(&log), Some(asked));
        std::fs::remove_file(&log).ok();
    }
}
