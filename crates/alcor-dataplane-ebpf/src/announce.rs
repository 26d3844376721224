//! That the neighbours of an external network learn where an address is now: gratuitous ARPs, more than one as any may be lost, and not all
//! addresses' at once. For hosts and gateways. Which addresses these are is told.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use alcor_dataplane::packet::{ETHERTYPE_ARP, Ethernet};
use alcor_model::MacAddr;

use crate::inject::Injector;

/// How often an address is told of.
const TIMES: u32 = 3;
/// How long between two times.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long between any two frames.
const PACE: Duration = Duration::from_millis(1);

/// An address at a device, by interface index.
type Spot = (u32, Ipv4Addr);

/// What is still to be told: one entry for each address at most.
#[derive(Default)]
struct Pending {
    /// MAC of the device, how often yet, and not before when.
    spots: BTreeMap<Spot, (MacAddr, u32, Instant)>,
    ends: bool,
}

struct Shared {
    pending: Mutex<Pending>,
    news: Condvar,
}

/// Tells of addresses, in a thread of its own. Ends with the value.
pub(crate) struct Announcer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Announcer {
    /// Tells by `injector`.
    pub(crate) fn start(injector: Injector) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            news: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("announcer".to_owned())
            .spawn(move || for_thread.run(&injector))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The address is at this device now.
    pub(crate) fn announce(&self, ifindex: u32, mac: MacAddr, address: Ipv4Addr) {
        let mut pending = self.shared.lock();
        pending
            .spots
            .insert((ifindex, address), (mac, TIMES, Instant::now()));
        self.shared.news.notify_one();
    }

    /// The address is not at this device any more: nothing is said of it from now on.
    pub(crate) fn cease(&self, ifindex: u32, address: Ipv4Addr) {
        self.shared.lock().spots.remove(&(ifindex, address));
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to do.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, injector: &Injector) {
        let mut pending = self.lock();
        while !pending.ends {
            let next = pending.spots.iter().min_by_key(|(_, (.., at))| *at);
            let Some((&(ifindex, address), &(mac, left, at))) = next else {
                pending = self.news.wait(pending).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let early = at.saturating_duration_since(Instant::now());
            if !early.is_zero() {
                let waited = self.news.wait_timeout(pending, early);
                pending = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            // With the lock: nobody says of an address that it is here after `cease`.
            if let Err(error) = injector.send(ifindex, &gratuitous_arp(mac, address)) {
                tracing::warn!(%address, %error, "nobody was told that an address is here");
            }
            match left.checked_sub(1).filter(|left| *left > 0) {
                Some(left) => pending
                    .spots
                    .insert((ifindex, address), (mac, left, at + INTERVAL)),
                None => pending.spots.remove(&(ifindex, address)),
            };
            drop(pending);
            thread::sleep(PACE);
            pending = self.lock();
        }
    }
}

/// An ARP request of an address for itself (RFC 5227, section 3): who has a MAC for it changes it.
fn gratuitous_arp(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let ethernet = Ethernet {
        destination: MacAddr::BROADCAST,
        source: mac,
        ethertype: ETHERTYPE_ARP,
    };
    let mut frame = ethernet.bytes().to_vec();
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}
