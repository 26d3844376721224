//! One try of one namespace to reach another: a TCP connection, and a ping where that must work. The receiver itself says
//! whether somebody came, so an answer of somebody else with the same address is not taken for its own.

use std::{
    fs::File,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use alcor_lab::Namespace;
use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};

/// How often sender and receiver look whether the other is there.
const LOOK: Duration = Duration::from_millis(5);

/// What to try.
pub struct Probe {
    /// Who sends.
    pub from: Namespace,
    /// Who should receive.
    pub to: Namespace,
    /// Where the receiver listens: its address, and a port that no other probe uses at the same time.
    pub address: SocketAddr,
    /// How long to wait for it.
    pub patience: Duration,
    /// Try a ping too.
    pub ping: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The receiver was reached by everything that was tried.
    Reached,
    /// No connection came.
    NoConnection,
    /// A connection came, but no answer to the ping.
    NoPing,
}

impl Probe {
    /// Tries it.
    ///
    /// # Errors
    /// When the namespaces cannot be entered.
    pub fn run(&self) -> anyhow::Result<Answer> {
        let came = thread::scope(|scope| {
            let receiver = scope.spawn(|| inside(&self.to, || self.receive()));
            let sender = scope.spawn(|| inside(&self.from, || self.connect()));
            let died = || anyhow::anyhow!("a probe's thread panicked");
            sender.join().map_err(|_| died())??;
            receiver.join().map_err(|_| died())?
        })?;
        if !came {
            return Ok(Answer::NoConnection);
        }
        let ip = self.address.ip().to_string();
        match !self.ping
            || self
                .from
                .run(&["ping", "-n", "-q", "-c", "1", "-W", "3", &ip])
                .is_ok()
        {
            true => Ok(Answer::Reached),
            false => Ok(Answer::NoPing),
        }
    }

    /// Connects; that nobody is reached is no error.
    fn connect(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while let Some(left) = self.patience.checked_sub(begun.elapsed()) {
            match TcpStream::connect_timeout(&self.address, left.max(LOOK)) {
                // The receiver does not listen yet.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => thread::sleep(LOOK),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// Whether somebody came.
    fn receive(&self) -> anyhow::Result<bool> {
        let begun = Instant::now();
        let listener =
            TcpListener::bind(self.address).with_context(|| format!("listening on {}", self.address))?;
        listener.set_nonblocking(true)?;
        while begun.elapsed() < self.patience {
            match listener.accept() {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                Err(error) => return Err(error).context("waiting for a connection"),
            }
        }
        Ok(false)
    }
}

/// Runs something in a namespace, in the thread that it is called in, which must end with it.
fn inside<T>(namespace: &Namespace, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let path = format!("/run/netns/{}", namespace.name());
    let file = File::open(&path).with_context(|| format!("opening {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))?;
    work()
}
