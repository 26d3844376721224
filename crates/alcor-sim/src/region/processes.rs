//! The controller and the NCM, as processes that listen on loopback: started, killed without warning, started again where they were.
//! Not here: what is asked of them.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{Places, RegionError, api::Api};

/// How often it is tried whether the API answers.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Both, and where they listen.
pub(super) struct Processes {
    alcor: PathBuf,
    folder: PathBuf,
    eager_rows_max: Option<usize>,
    api: String,
    feed: String,
    southbound: String,
    directory: String,
    controller: Option<Child>,
    ncm: Option<Child>,
}

impl Processes {
    /// None runs yet.
    pub(super) fn new(places: &Places, eager_rows_max: Option<usize>) -> Result<Self, RegionError> {
        let file = |source| RegionError::File {
            path: places.folder.display().to_string(),
            source,
        };
        fs::create_dir_all(&places.folder).map_err(file)?;
        // All are bound before the first is given back, so that no two are the same.
        let listeners: Result<Vec<_>, _> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
        let addresses: Result<Vec<_>, _> = listeners
            .map_err(file)?
            .iter()
            .map(TcpListener::local_addr)
            .collect();
        let addresses: Vec<String> = addresses.map_err(file)?.iter().map(ToString::to_string).collect();
        let [api, feed, southbound, directory] = &addresses[..] else {
            unreachable!("four were bound")
        };
        Ok(Self {
            alcor: places.alcor.clone(),
            folder: places.folder.clone(),
            eager_rows_max,
            api: api.clone(),
            feed: feed.clone(),
            southbound: southbound.clone(),
            directory: directory.clone(),
            controller: None,
            ncm: None,
        })
    }

    pub(super) fn folder(&self) -> String {
        self.folder.display().to_string()
    }

    /// The API's URL.
    pub(super) fn api(&self) -> String {
        format!("http://{}", self.api)
    }

    /// Where hosts connect to.
    pub(super) fn ncm_url(&self) -> String {
        format!("http://{}", self.southbound)
    }

    pub(super) fn start_controller(&mut self) -> Result<(), RegionError> {
        let arguments = [
            "controller".to_owned(),
            "--log=warn".to_owned(),
            "--noauth".to_owned(),
            "--quota-defaults=unlimited".to_owned(),
            format!("--api-listen={}", self.api),
            format!("--feed-listen={}", self.feed),
            format!("--ncm=http://{}", self.directory),
            format!("--data-dir={}", self.folder.display()),
        ];
        self.controller = Some(self.spawn("controller", &arguments)?);
        Ok(())
    }

    pub(super) fn start_ncm(&mut self) -> Result<(), RegionError> {
        let arguments = [
            "ncm".to_owned(),
            "--log=warn".to_owned(),
            format!("--controller=http://{}", self.feed),
            format!("--listen={}", self.southbound),
            format!("--directory-listen={}", self.directory),
        ];
        self.ncm = Some(self.spawn("ncm", &arguments)?);
        Ok(())
    }

    fn spawn(&self, name: &str, arguments: &[String]) -> Result<Child, RegionError> {
        let path = self.folder.join(format!("{name}.log"));
        let file = |source| RegionError::File {
            path: path.display().to_string(),
            source,
        };
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(file)?;
        let mut command = Command::new(&self.alcor);
        command.args(arguments).env("ALCOR_METRICS__ENABLED", "false");
        if let Some(rows) = self.eager_rows_max {
            command.env("ALCOR_NCM__EAGER_ROWS_MAX", rows.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.kill_on_drop(true);
        command.spawn().map_err(|source| RegionError::Start {
            program: self.alcor.display().to_string(),
            source,
        })
    }

    /// As by `kill -9`.
    pub(super) async fn kill_controller(&mut self) {
        kill(&mut self.controller).await;
    }

    /// As by `kill -9`.
    pub(super) async fn kill_ncm(&mut self) {
        kill(&mut self.ncm).await;
    }

    /// Waits until the API answers.
    pub(super) async fn until_answered(&self, api: &Api, within: Duration) -> Result<(), RegionError> {
        let until = Instant::now() + within;
        while let Err(error) = api.get("/v2.0/networks?limit=1").await {
            if Instant::now() >= until {
                return Err(error);
            }
            sleep(TRY_EVERY).await;
        }
        Ok(())
    }

    /// Memory of the NCM that is in RAM, in MiB; none when it does not run.
    pub(super) fn ncm_rss_mib(&self) -> Option<f64> {
        let status = fs::read_to_string(proc_of(self.ncm.as_ref()?)?.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib / 1024.0)
    }

    /// Processor time of the NCM that runs, in seconds.
    pub(super) fn ncm_cpu_s(&self) -> Option<f64> {
        let stat = fs::read_to_string(proc_of(self.ncm.as_ref()?)?.join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        // Fields 14 and 15 of proc(5), in hundredths of a second; `rest` begins with field 3.
        let ticks: Option<Vec<f64>> = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse().ok())
            .collect();
        Some(ticks?.iter().sum::<f64>() / 100.0)
    }
}

fn proc_of(child: &Child) -> Option<PathBuf> {
    Some(Path::new("/proc").join(child.id()?.to_string()))
}

async fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // It may have ended by itself, which what follows shows.
        drop(child.kill().await);
    }
}
