//! Processes that run beside xtask: their output goes to a file, and none of them outlives this program, whether it
//! ends well, fails, or is interrupted.
//!
//! Each is the leader of a process group of its own, so that Ctrl-C reaches xtask alone, which then stops them in
//! order.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// How long a process may take to end after SIGTERM.
const TERM_BOUND: Duration = Duration::from_secs(10);
/// How often to look whether something has happened.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of a log that are shown when its process has failed.
const SHOWN_LINES: usize = 25;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

/// From now on Ctrl-C and SIGTERM make every wait of this module fail, so that what runs is stopped on the way out.
pub fn watch_for_interrupts() {
    WATCH.call_once(|| {
        if let Err(error) = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst)) {
            eprintln!("Ctrl-C will leave processes behind: {error}");
        }
    });
}

/// A process and its group; stopped when this value is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with its output in `log`.
    ///
    /// # Errors
    /// When the log cannot be made or the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::create(log).with_context(|| format!("making {}", log.display()))?;
        command.stdout(out.try_clone()?).stderr(out);
        Self::spawn_as_is(name, command, log)
    }

    /// Starts a command whose standard output and error the caller has set; `log` is what to show when it fails.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn_as_is(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        let child =
            child.with_context(|| format!("{name} cannot be started ({:?})", command.get_program()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it ends before, does not answer in time, or xtask is interrupted.
    pub fn wait_until(&mut self, bound: Duration, mut answers: impl FnMut() -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended ({status}):\n{}", self.name, tail(&self.log));
            }
            if answers() {
                return Ok(());
            }
            self.pause(begin, bound)?;
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL);
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time, or xtask is interrupted.
    pub fn wait(&mut self, bound: Duration) -> anyhow::Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            self.pause(begin, bound)?;
        }
    }

    fn pause(&self, begin: Instant, bound: Duration) -> anyhow::Result<()> {
        anyhow::ensure!(!INTERRUPTED.load(Ordering::SeqCst), "interrupted");
        anyhow::ensure!(
            begin.elapsed() < bound,
            "{} was not done after {} s:\n{}",
            self.name,
            bound.as_secs(),
            tail(&self.log)
        );
        std::thread::sleep(LOOK);
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // The group may have ended meanwhile.
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGTERM);
            let begin = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && begin.elapsed() < TERM_BOUND {
                std::thread::sleep(LOOK);
            }
        }
        // Whatever of the group is left.
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Runs a command to its end with its output in a log; the log's end is part of the error.
///
/// # Errors
/// When it cannot be started, fails, takes longer than `bound`, or xtask is interrupted.
pub fn run_logged(name: &str, command: &mut Command, log: &Path, bound: Duration) -> anyhow::Result<()> {
    let status = Process::spawn(name, command, log)?.wait(bound)?;
    anyhow::ensure!(status.success(), "{name} failed ({status}):\n{}", tail(log));
    Ok(())
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// A TCP port of 127.0.0.1 that nobody listens on at the moment.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}
