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
    /// MAC of the device and how often yet, by when it is due.
    due: BTreeMap<(Instant, Spot), (MacAddr, u32)>,
    /// When each address is due.
    spots: BTreeMap<Spot, Instant>,
    ends: bool,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Tell of this address, which is at the device with this MAC.
    Tell(Spot, MacAddr),
    /// Nothing before then.
    Wait(Duration),
    /// Nothing.
    Rest,
}

impl Pending {
    fn announce(&mut self, spot: Spot, mac: MacAddr, now: Instant) {
        self.put(spot, now, (mac, TIMES));
    }

    fn put(&mut self, spot: Spot, at: Instant, what: (MacAddr, u32)) {
        self.cease(spot);
        self.spots.insert(spot, at);
        self.due.insert((at, spot), what);
    }

    fn cease(&mut self, spot: Spot) {
        if let Some(at) = self.spots.remove(&spot) {
            self.due.remove(&(at, spot));
        }
    }

    /// The next thing to do; it is taken for done.
    fn next(&mut self, now: Instant) -> Next {
        let Some((&(at, spot), &(mac, left))) = self.due.first_key_value() else {
            return Next::Rest;
        };
        let early = at.saturating_duration_since(now);
        if !early.is_zero() {
            return Next::Wait(early);
        }
        match left {
            0 | 1 => self.cease(spot),
            _ => self.put(spot, now + INTERVAL, (mac, left - 1)),
        }
        Next::Tell(spot, mac)
    }
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
        pending.announce((ifindex, address), mac, Instant::now());
        self.shared.news.notify_one();
    }

    /// The address is not at this device any more: nothing is said of it from now on.
    pub(crate) fn cease(&self, ifindex: u32, address: Ipv4Addr) {
        self.shared.lock().cease((ifindex, address));
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
            let ((ifindex, address), mac) = match pending.next(Instant::now()) {
                Next::Tell(spot, mac) => (spot, mac),
                Next::Wait(early) => {
                    let waited = self.news.wait_timeout(pending, early);
                    pending = waited.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
                Next::Rest => {
                    pending = self.news.wait(pending).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            // With the lock: nobody says of an address that it is here after `cease`.
            if let Err(error) = injector.send(ifindex, &gratuitous_arp(mac, address)) {
                tracing::warn!(%address, %error, "nobody was told that an address is here");
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const HERE: Spot = (7, Ipv4Addr::new(203, 0, 113, 1));
    const THERE: Spot = (8, Ipv4Addr::new(203, 0, 113, 2));

    #[test]
    fn an_address_is_told_of_three_times_and_one_that_goes_no_more() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.announce(HERE, MAC, start);
        pending.announce(THERE, MAC, start);
        assert_eq!(pending.next(start), Next::Tell(HERE, MAC));
        assert_eq!(pending.next(start), Next::Tell(THERE, MAC));
        assert_eq!(pending.next(start), Next::Wait(INTERVAL));
        pending.cease(THERE);
        for turn in 1..TIMES {
            let now = start + INTERVAL * turn;
            assert_eq!(pending.next(now), Next::Tell(HERE, MAC));
        }
        assert_eq!(pending.next(start + INTERVAL * TIMES), Next::Rest);
    }

    #[test]
    fn an_address_that_comes_again_is_told_of_as_if_it_were_new() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.announce(HERE, MAC, start);
        pending.next(start);
        pending.announce(HERE, MAC, start);
        let told = (0..TIMES).filter(|turn| {
            let now = start + INTERVAL * *turn;
            pending.next(now) == Next::Tell(HERE, MAC)
        });
        assert_eq!(told.count(), TIMES as usize);
    }
}
