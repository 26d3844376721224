//! Events from the kernel's ring to the agent's channel.
#![allow(unsafe_code)]

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use alcor_dataplane::{DataplaneError, Event, PuntReason};
use alcor_dataplane_abi::layout::{EVENT_TOO_LONG, EventHeader};
use alcor_model::{Id, Network};
use aya::maps::{MapData, RingBuf};
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{error, layout};

/// How long the reader waits before it looks whether it shall end.
const POLL_MS: u16 = 200;

/// Which network a handle means; shared with the reader.
pub(crate) type Handles = Arc<Mutex<HashMap<u32, Id<Network>>>>;

/// The thread that reads the ring. It ends when this is dropped.
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub(crate) fn start(
        ring: RingBuf<MapData>,
        handles: Handles,
        sender: mpsc::Sender<Event>,
    ) -> Result<Self, DataplaneError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("alcor-events".to_owned())
            .spawn(move || read(ring, &handles, &sender, &stopped))
            .map_err(|source| error::kernel("starting the thread that reads events", source))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only fails when the thread panicked, which has been told already.
            drop(thread.join());
        }
    }
}

fn read(mut ring: RingBuf<MapData>, handles: &Handles, sender: &mpsc::Sender<Event>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        while let Some(item) = ring.next() {
            // A full channel loses the event: the agent is behind, and the next packet tells it again.
            if let Some(event) = parse(&item, handles)
                && let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(event)
            {
                tracing::debug!("the agent is behind: an event of the data plane is lost");
            }
        }
        // SAFETY: the descriptor belongs to `ring`, which lives longer than this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, PollTimeout::from(POLL_MS));
    }
}

fn parse(item: &[u8], handles: &Handles) -> Option<Event> {
    let (header, frame) = item.split_at_checked(size_of::<EventHeader>())?;
    // SAFETY: as many bytes as the header has, of a type that any bytes are valid for; read without alignment.
    let header: EventHeader = unsafe { header.as_ptr().cast::<EventHeader>().read_unaligned() };
    let port = Id::from_uuid(Uuid::from_bytes(header.port));
    let reason = PuntReason::from_u32(header.kind & !EVENT_TOO_LONG)?;
    let frame = Bytes::copy_from_slice(frame.get(..header.len as usize)?);
    if reason == PuntReason::TooBig {
        let mtu = u16::try_from(header.mtu).unwrap_or(u16::MAX);
        return Some(Event::TooBig { port, mtu, frame });
    }
    if reason == PuntReason::Unresolved {
        let networks = handles.lock().unwrap_or_else(PoisonError::into_inner);
        let network = *networks.get(&header.network)?;
        let address = layout::ip(header.family, header.ip);
        let is_lost = header.kind & EVENT_TOO_LONG != 0;
        return Some(match is_lost {
            true => Event::TooLong {
                port,
                network,
                address,
            },
            false => Event::Unresolved {
                port,
                network,
                address,
                frame,
            },
        });
    }
    Some(Event::Punt { port, reason, frame })
}
