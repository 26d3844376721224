//! Whether the other members of a gateway's set answer: a pure core. Each is sent a small packet every [`PROBE_EVERY`], which
//! its *data plane* sends back; a member that leaves [`MISSES_MAX`] of them in a row unanswered is unreachable.
//!
//! Not here: sockets ([`crate::run`] has one), and what follows from a member that does not answer (the NCM decides that,
//! from what all members say).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use alcor_dataplane::{Row, RowChange, RowKey};
pub use alcor_dataplane_abi::gateway_layout::PROBE_PORT;

/// How often each member is probed.
pub const PROBE_EVERY: Duration = Duration::from_millis(200);
/// So many unanswered probes in a row make a member unreachable.
pub const MISSES_MAX: u8 = 3;
/// Most members that are probed; of more, those with the smallest addresses.
pub const MEMBERS_MAX: usize = 64;
/// A member that no row names any more is probed for so long: one that is unreachable is named by none, and is to be heard when it
/// is back.
pub const FORGET_AFTER: Duration = Duration::from_secs(3_600);
/// Bytes of a probe: magic, then its number.
pub const PROBE_BYTES: usize = 16;
/// What a probe begins with, so that nothing else is taken for one.
const MAGIC: [u8; 8] = *b"alcorGW1";

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// To whom, at [`PROBE_PORT`].
    pub to: IpAddr,
    /// What.
    pub packet: [u8; PROBE_BYTES],
}

/// The state machine of one gateway's probes.
#[derive(Debug)]
pub struct Prober {
    me: IpAddr,
    /// Members that rows name, by row.
    named: BTreeMap<RowKey, Vec<IpAddr>>,
    /// The same, each once.
    wanted: BTreeSet<IpAddr>,
    members: BTreeMap<IpAddr, Member>,
    /// Rows have changed whom they name.
    changed: bool,
    number: u64,
    next: Duration,
}

#[derive(Debug)]
struct Member {
    /// The number of the probe that is out; none when it was answered.
    out: Option<u64>,
    misses: u8,
    /// When a row last named it.
    named_at: Duration,
}

/// The packet of a probe.
fn packet(number: u64) -> [u8; PROBE_BYTES] {
    let mut packet = [0; PROBE_BYTES];
    packet[..8].copy_from_slice(&MAGIC);
    packet[8..].copy_from_slice(&number.to_be_bytes());
    packet
}

/// The number of a probe; none when it is no probe.
fn number(packet: &[u8]) -> Option<u64> {
    let number = packet.strip_prefix(&MAGIC)?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

impl Prober {
    /// Nobody is known yet. `seed`: where numbers begin, so that answers to an earlier run are not taken for this one's.
    pub const fn new(me: IpAddr, seed: u64) -> Self {
        Self {
            me,
            named: BTreeMap::new(),
            wanted: BTreeSet::new(),
            members: BTreeMap::new(),
            changed: false,
            number: seed,
            next: Duration::ZERO,
        }
    }

    /// A row changes: it may name members.
    pub fn note(&mut self, change: &RowChange) {
        let key = change.key();
        let gateways: &[IpAddr] = match change {
            RowChange::Put(Row::Network(row)) => &row.gateways,
            RowChange::Put(Row::Router(row)) => {
                row.external.as_ref().map_or(&[], |external| &external.gateways)
            }
            _ => &[],
        };
        if gateways.is_empty() {
            self.changed |= self.named.remove(&key).is_some();
        } else if self.named.get(&key).is_none_or(|known| known != gateways) {
            self.named.insert(key, gateways.to_vec());
            self.changed = true;
        }
    }

    /// When [`Self::tick`] is to be called; earlier does nothing. None while nobody is known.
    pub fn deadline(&self) -> Option<Duration> {
        (self.changed || !self.members.is_empty()).then_some(self.next)
    }

    /// Time has passed: what is to be sent.
    pub fn tick(&mut self, now: Duration) -> Vec<Probe> {
        if now < self.next || self.deadline().is_none() {
            return Vec::new();
        }
        self.next = now + PROBE_EVERY;
        self.renew(now);
        let mut probes = Vec::with_capacity(self.members.len());
        for (to, member) in &mut self.members {
            if member.out.is_some() {
                member.misses = (member.misses + 1).min(MISSES_MAX);
            }
            self.number = self.number.wrapping_add(1);
            member.out = Some(self.number);
            probes.push(Probe {
                to: *to,
                packet: packet(self.number),
            });
        }
        probes
    }

    /// Takes those that rows name, and forgets those that none has named for long.
    fn renew(&mut self, now: Duration) {
        if std::mem::take(&mut self.changed) {
            self.wanted = self.named.values().flatten().copied().collect();
            self.wanted.remove(&self.me);
            for ip in self.wanted.iter().take(MEMBERS_MAX) {
                self.members.entry(*ip).or_insert(Member {
                    out: None,
                    misses: 0,
                    named_at: now,
                });
            }
        }
        self.members.retain(|ip, member| {
            if self.wanted.contains(ip) {
                member.named_at = now;
            }
            now.saturating_sub(member.named_at) < FORGET_AFTER
        });
        while self.members.len() > MEMBERS_MAX
            && let Some(oldest) = self.oldest()
        {
            self.members.remove(&oldest);
        }
    }

    /// The member that was named longest ago.
    fn oldest(&self) -> Option<IpAddr> {
        let oldest = self.members.iter().min_by_key(|(_, member)| member.named_at);
        oldest.map(|(ip, _)| *ip)
    }

    /// A packet came to the socket of probes. Late answers count too: who sends them lives.
    pub fn answer(&mut self, from: IpAddr, bytes: &[u8]) {
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        let recent = |number: u64| {
            let age = self.number.wrapping_sub(number);
            age < MISSES_MAX as u64 * MEMBERS_MAX as u64
        };
        if number(bytes).is_some_and(recent) {
            member.out = None;
            member.misses = 0;
        }
    }

    /// Those that do not answer, sorted.
    pub fn unreachable(&self) -> impl Iterator<Item = IpAddr> {
        let silent = self
            .members
            .iter()
            .filter(|(_, member)| member.misses >= MISSES_MAX);
        silent.map(|(ip, _)| *ip)
    }

    /// Who is probed, and how many probes in a row each has left unanswered.
    pub fn members(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        self.members.iter().map(|(ip, member)| (*ip, member.misses))
    }
}

#[cfg(test)]
mod tests {
    use alcor_dataplane::NetworkRow;
    use alcor_model::{Id, Vni};
    use uuid::Uuid;

    use super::*;

    const ME: &str = "192.0.2.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn names(gateways: &[&str]) -> RowChange {
        RowChange::Put(Row::Network(NetworkRow {
            id: Id::from_uuid(Uuid::from_u128(1)),
            vni: Vni::try_from(7).unwrap(),
            mtu: 1450,
            admin_state_up: true,
            underlay: None,
            on_demand: true,
            gateways: gateways.iter().map(|text| ip(text)).collect(),
        }))
    }

    /// The probes of the next round, and the time of it.
    fn round(prober: &mut Prober, now: &mut Duration) -> Vec<Probe> {
        *now += PROBE_EVERY;
        assert!(prober.deadline().is_none_or(|at| at <= *now));
        prober.tick(*now)
    }

    fn prober(gateways: &[&str]) -> Prober {
        let mut prober = Prober::new(ip(ME), 1_000);
        prober.note(&names(gateways));
        prober
    }

    #[test]
    fn three_misses_in_a_row_make_a_member_unreachable_and_one_answer_brings_it_back() {
        let mut now = Duration::ZERO;
        let mut prober = prober(&[ME, "192.0.2.2", "192.0.2.3"]);
        let mut last = Vec::new();
        for misses in 0..=MISSES_MAX {
            let unreachable: Vec<IpAddr> = prober.unreachable().collect();
            assert!(unreachable.is_empty(), "after {misses}");
            last = round(&mut prober, &mut now);
            let asked: Vec<IpAddr> = last.iter().map(|probe| probe.to).collect();
            assert_eq!(asked, [ip("192.0.2.2"), ip("192.0.2.3")], "not itself");
            prober.answer(ip("192.0.2.2"), &last[0].packet);
        }
        assert_eq!(prober.unreachable().collect::<Vec<_>>(), [ip("192.0.2.3")]);
        prober.answer(ip("192.0.2.3"), &last[1].packet);
        assert_eq!(prober.unreachable().count(), 0);
    }

    #[test]
    fn who_is_named_no_more_is_probed_until_it_is_forgotten() {
        let mut now = Duration::ZERO;
        let mut prober = prober(&["192.0.2.2"]);
        for _ in 0..=MISSES_MAX {
            round(&mut prober, &mut now);
        }
        prober.note(&names(&[]));
        assert_eq!(round(&mut prober, &mut now).len(), 1);
        assert_eq!(
            prober.unreachable().count(),
            1,
            "else it would be taken back at once"
        );
        now += FORGET_AFTER;
        assert!(round(&mut prober, &mut now).is_empty());
        assert_eq!((prober.unreachable().count(), prober.deadline()), (0, None));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let mut now = Duration::ZERO;
        let mut prober = prober(&["192.0.2.2"]);
        let peer = ip("192.0.2.2");
        for _ in 0..=MISSES_MAX {
            let probes = round(&mut prober, &mut now);
            let mut wrong = probes[0].packet;
            wrong[0] ^= 1;
            prober.answer(peer, &wrong);
            prober.answer(peer, &probes[0].packet[..15]);
            prober.answer(peer, &[]);
            // Of an earlier run, and of none.
            prober.answer(peer, &packet(1));
            prober.answer(peer, &packet(prober.number + 100));
            prober.answer(ip("192.0.2.9"), &probes[0].packet);
        }
        assert_eq!(prober.unreachable().collect::<Vec<_>>(), [peer]);
    }

    #[test]
    fn members_are_bounded() {
        let mut now = Duration::ZERO;
        let mut prober = Prober::new(ip(ME), 0);
        for n in 0..u8::try_from(MEMBERS_MAX).unwrap() + 50 {
            let RowChange::Put(Row::Network(mut row)) = names(&[&format!("198.51.100.{n}")]) else {
                unreachable!()
            };
            row.id = Id::from_uuid(Uuid::from_u128(u128::from(n)));
            prober.note(&RowChange::Put(Row::Network(row)));
            assert!(round(&mut prober, &mut now).len() <= MEMBERS_MAX);
        }
    }
}
