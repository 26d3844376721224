//! Processes of a lab: started with their output in a file and their pid in another, stopped by that pid and by nothing
//! else.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{LabError, make_dir, run};

/// How long a process may take to end after SIGTERM.
const TERM_BOUND: Duration = Duration::from_secs(5);

/// A process. It goes on when this value is dropped; [`Process::stop`] or the lab's end stop it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    pid_file: PathBuf,
}

pub(crate) fn spawn(
    dir: &Path,
    namespace: Option<&str>,
    label: &str,
    program: &Path,
    args: &[&str],
) -> Result<Process, LabError> {
    make_dir(&dir.join("pids"))?;
    let log = dir.join(format!("{label}.log"));
    let file = |source| LabError::File {
        path: log.clone(),
        source,
    };
    let out = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(file)?;
    let err = out.try_clone().map_err(file)?;
    let mut command = match namespace {
        Some(namespace) => {
            let mut command = Command::new("nsenter");
            command
                .arg(format!("--net=/run/netns/{namespace}"))
                .arg("--")
                .arg(program);
            command
        }
        None => Command::new(program),
    };
    let child = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        // Ctrl-C reaches only who cleans up, and what is kept outlives its terminal.
        .process_group(0)
        .spawn()
        .map_err(|source| LabError::Start {
            program: program.display().to_string(),
            source,
        })?;
    let pid_file = dir.join("pids").join(label);
    let record = format!("{} {}", child.id(), start_time(child.id()).unwrap_or_default());
    fs::write(&pid_file, record).map_err(|source| LabError::File {
        path: pid_file.clone(),
        source,
    })?;
    Ok(Process { child, log, pid_file })
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn wait(&mut self, bound: Duration) -> Result<ExitStatus, LabError> {
        let what = format!("the end of process {}", self.pid());
        crate::eventually(&what, bound, || {
            self.ended().ok_or_else(|| "it still runs".to_owned())
        })
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.pid_file);
    }

    /// Asks it to end, waits, and kills it when it does not.
    pub fn stop(&mut self) {
        if self.ended().is_none() {
            signal(self.pid(), Signal::SIGTERM);
            if self.wait(TERM_BOUND).is_ok() {
                let _ = fs::remove_file(&self.pid_file);
                return;
            }
        }
        self.kill();
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// When a process started, in the kernel's clock ticks: with the pid it names one process for ever.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)
        .map(str::to_owned)
}

/// Stops the processes that an earlier lab recorded, if they still are the same ones.
pub(crate) fn stop_recorded(pids: &Path) {
    let entries = fs::read_dir(pids).into_iter().flatten().flatten();
    let records = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let running: Vec<u32> = records
        .filter_map(|record| {
            let (pid, started) = record.split_once(' ')?;
            let pid: u32 = pid.parse().ok()?;
            (start_time(pid)? == started).then_some(pid)
        })
        .collect();
    stop_pids(&running);
}

/// Stops whatever runs inside a namespace.
pub(crate) fn stop_all_in(namespace: &str) -> Result<(), LabError> {
    let output = run("ip", &["netns", "pids", namespace])?;
    let pids: Vec<u32> = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    stop_pids(&pids);
    Ok(())
}

fn stop_pids(pids: &[u32]) {
    for pid in pids {
        signal(*pid, Signal::SIGTERM);
    }
    let start = Instant::now();
    let alive =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
    while pids.iter().any(alive) && start.elapsed() < TERM_BOUND {
        std::thread::sleep(Duration::from_millis(20));
    }
    for pid in pids.iter().filter(|pid| alive(pid)) {
        signal(*pid, Signal::SIGKILL);
    }
}
