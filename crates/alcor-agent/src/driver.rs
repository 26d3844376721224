//! The thread that owns the data plane: its calls block, so nothing else runs there. Work goes in in order, one
//! result each comes out in the same order.

use std::{
    collections::BTreeMap,
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use alcor_dataplane::{Dataplane, DataplaneError, RowChange, Snapshot};
use alcor_metrics::{AGENT_APPLY_SECONDS, AGENT_DROPS, AGENT_ROWS, GATEWAY_BYTES, GATEWAY_PACKETS};
use alcor_model::{Id, Port};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    core::{Event, LoadRead},
    held::Key,
    readout::{Reading, Readout},
};

/// How much work may wait for the data plane's thread.
pub(crate) const WORK_QUEUE: usize = 64;

/// What the data plane shall do.
#[derive(Debug)]
pub(crate) enum Work {
    Apply {
        batch: u64,
        changes: Vec<RowChange>,
    },
    Attach {
        port: Id<Port>,
        token: u64,
        device: String,
    },
    Detach {
        port: Id<Port>,
        token: u64,
    },
    Inject {
        port: Id<Port>,
        frame: Bytes,
    },
    Release {
        frames: Vec<(Id<Port>, Bytes)>,
    },
    TakeUsed {
        keys: Vec<Key>,
    },
    Read {
        client: u64,
        reading: Reading,
    },
    /// Read what a gateway says of its load.
    ReadLoad,
    /// Read the counters of dropped packets, and of those that a gateway passed on, for whoever watches metrics.
    Count,
}

/// Both ends of the thread.
pub(crate) struct Driver {
    pub(crate) work: mpsc::Sender<Work>,
    pub(crate) results: mpsc::Receiver<Event>,
    pub(crate) snapshot: oneshot::Receiver<Result<Snapshot, DataplaneError>>,
    pub(crate) thread: thread::JoinHandle<()>,
}

/// Starts the thread. It reads the snapshot first, and ends when the work's sender is dropped.
pub(crate) fn start(dataplane: Box<dyn Dataplane>) -> std::io::Result<Driver> {
    let (work, work_receiver) = mpsc::channel(WORK_QUEUE);
    let (result_sender, results) = mpsc::channel(WORK_QUEUE);
    let (snapshot_sender, snapshot) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("dataplane".to_owned())
        .spawn(move || drive(dataplane, snapshot_sender, work_receiver, &result_sender))?;
    Ok(Driver {
        work,
        results,
        snapshot,
        thread,
    })
}

fn drive(
    mut dataplane: Box<dyn Dataplane>,
    snapshot: oneshot::Sender<Result<Snapshot, DataplaneError>>,
    mut work: mpsc::Receiver<Work>,
    results: &mpsc::Sender<Event>,
) {
    if snapshot.send(dataplane.snapshot()).is_err() {
        return;
    }
    let began = Instant::now();
    while let Some(work) = work.blocking_recv() {
        if let Some(result) = perform(dataplane.as_mut(), work, began)
            && results.blocking_send(result).is_err()
        {
            return;
        }
    }
}

fn perform(dataplane: &mut dyn Dataplane, work: Work, began: Instant) -> Option<Event> {
    Some(match work {
        Work::Apply { batch, changes } => {
            let outcomes = match changes.is_empty() {
                true => Vec::new(),
                false => apply(dataplane, &changes),
            };
            Event::Applied {
                batch,
                visible_us: unix_us(),
                outcomes,
            }
        }
        Work::Attach { port, token, device } => {
            let outcome = text(dataplane.attach(port, &device));
            Event::Attached {
                port,
                token,
                visible_us: unix_us(),
                outcome,
            }
        }
        Work::Detach { port, token } => Event::Detached {
            port,
            token,
            outcome: text(dataplane.detach(port)),
        },
        Work::Release { frames } => {
            let refused = release(dataplane, &frames);
            Event::Released {
                sent: frames.len() as u64 - refused,
                refused,
            }
        }
        Work::TakeUsed { keys } => {
            let outcome = text(dataplane.take_used(&keys));
            Event::Used { keys, outcome }
        }
        Work::Read { client, reading } => Event::Read {
            client,
            outcome: text(match reading {
                Reading::Drops => dataplane.drops().map(Readout::Drops),
                Reading::Connections(port) => dataplane.connections(port).map(Readout::Connections),
                Reading::Gateway => dataplane.gateway().map(Readout::Gateway),
            }),
        },
        Work::ReadLoad => Event::Load(text(read_load(dataplane, began))),
        Work::Count => {
            count_drops(dataplane);
            count_passed(dataplane);
            return None;
        }
        Work::Inject { port, frame } => match dataplane.inject(port, &frame) {
            Ok(()) => return None,
            Err(error) => {
                tracing::debug!(%port, error = text::<()>(Err(error)).err(), "frame not delivered to the port");
                Event::InjectRefused
            }
        },
    })
}

fn apply(dataplane: &mut dyn Dataplane, changes: &[RowChange]) -> Vec<Result<(), String>> {
    let began = Instant::now();
    let outcomes: Vec<_> = dataplane.apply(changes).into_iter().map(text).collect();
    AGENT_APPLY_SECONDS.seconds([], began.elapsed());
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64;
    AGENT_ROWS.add(["refused"], refused);
    AGENT_ROWS.add(["applied"], outcomes.len() as u64 - refused);
    outcomes
}

/// How many packets were refused: those of a port that has lost its device.
fn release(dataplane: &mut dyn Dataplane, frames: &[(Id<Port>, Bytes)]) -> u64 {
    let mut refused = 0;
    for (port, frame) in frames {
        if let Err(error) = dataplane.release(*port, frame) {
            refused += 1;
            tracing::debug!(%port, error = text::<()>(Err(error)).err(), "a held packet was not sent on");
        }
    }
    refused
}

fn read_load(dataplane: &mut dyn Dataplane, began: Instant) -> Result<LoadRead, DataplaneError> {
    let taken_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(LoadRead {
        taken_us,
        report: dataplane.gateway()?,
        drops: dataplane.drops()?,
    })
}

/// By reason only: ports come and go, and what a port that is gone has dropped stays counted.
fn count_drops(dataplane: &mut dyn Dataplane) {
    let drops = match dataplane.drops() {
        Ok(drops) => drops,
        Err(error) => return tracing::debug!(%error, "dropped packets could not be counted"),
    };
    let mut totals = BTreeMap::<_, u64>::new();
    for ((_, reason), packets) in drops {
        *totals.entry(reason).or_default() += packets;
    }
    for (reason, packets) in totals {
        AGENT_DROPS.at_least([reason.as_str()], packets);
    }
}

fn count_passed(dataplane: &mut dyn Dataplane) {
    match dataplane.gateway() {
        Ok(None) => {}
        Ok(Some(report)) => {
            let load = report.load;
            for (way, packets, bytes) in [
                ("east_west", load.east_west_packets, load.east_west_bytes),
                ("north", load.north_packets, load.north_bytes),
                ("south", load.south_packets, load.south_bytes),
            ] {
                GATEWAY_PACKETS.at_least([way], packets);
                GATEWAY_BYTES.at_least([way], bytes);
            }
        }
        Err(error) => tracing::debug!(%error, "what was passed on could not be counted"),
    }
}

/// The error with its causes, in one line.
fn text<T>(outcome: Result<T, DataplaneError>) -> Result<T, String> {
    outcome.map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    })
}

/// Microseconds since the Unix epoch; 0 when the clock is before it.
pub(crate) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
