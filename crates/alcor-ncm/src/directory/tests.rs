//! The directory by itself: who may ask what, how much, and that no change is missed.

use std::{sync::atomic::AtomicU64, thread};

use alcor_model::{Id, Network, Port};
use alcor_southbound::convert::resolve::{Question, Verdict};

use super::*;

fn id<T>(number: u128) -> Id<T> {
    Id::from_uuid(uuid::Uuid::from_u128(number))
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

const NETWORK: u128 = 1;

/// Two hosts with a port each in a network, `asks` with a session, and as many addresses on the other one.
struct Place {
    directory: Arc<Directory>,
    writer: Writer,
    network: NetworkIndex,
    asks: HostIndex,
    other: HostIndex,
    asker: Asker,
}

fn place(limits: Limits, addresses: u32) -> Place {
    let (directory, mut writer) = Directory::new(limits);
    let network = writer.network(id(NETWORK));
    let (asks, other) = (writer.host("a"), writer.host("b"));
    for (host, port) in [(asks, 1), (other, 2)] {
        writer.enter(host, (id(NETWORK), network), id(port));
        let tunnel = Ipv4Addr::from_bits(host.0).into();
        writer.set_tunnel(host, Some((tunnel, Revision(3))));
    }
    writer.open(asks, 7);
    let asker = directory.asker("a", 7).unwrap();
    let place = Place {
        directory,
        writer,
        network,
        asks,
        other,
        asker,
    };
    for number in 0..addresses {
        place.put(number, 5);
    }
    place
}

impl Place {
    fn put(&self, number: u32, revision: u64) -> Vec<HostIndex> {
        let entry = Entry {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            host: self.other,
            label: 9,
            revision: Revision(revision),
        };
        self.writer.put(self.network, address(number), entry)
    }

    fn ask(&self, now: Duration, number: u32, port: Option<u128>) -> Verdict {
        self.ask_in(now, NETWORK, number, port)
    }

    fn ask_in(&self, now: Duration, network: u128, number: u32, port: Option<u128>) -> Verdict {
        let question = Question {
            network: id::<Network>(network),
            ip: address(number),
            port: port.map(id::<Port>),
        };
        let (answers, _) = self.directory.resolve(now, &self.asker, &[question]);
        answers[0].verdict
    }
}

const AT: Duration = Duration::ZERO;

#[test]
fn keys_are_addresses_in_networks() {
    for ip in ["10.0.0.1", "2001:db8::7", "::ffff:10.0.0.1"] {
        let ip: IpAddr = ip.parse().unwrap();
        let key = Key::new(NetworkIndex(5), ip);
        assert_eq!((key.network(), key.ip()), (NetworkIndex(5), ip));
    }
    assert_eq!((size_of::<Key>(), size_of::<Stored>()), (20, 20));
}

#[test]
fn a_host_asks_only_where_it_has_ports() {
    let mut place = place(Limits::default(), 1);
    let Verdict::Route(revision, row) = place.ask(AT, 0, Some(1)) else {
        panic!("it may ask");
    };
    assert_eq!((row.label, revision), (9, Revision(5)));
    assert_eq!(place.ask(AT, 0, None), Verdict::Route(revision, row), "a renewal");
    assert_eq!(place.ask(AT, 1, Some(1)), Verdict::Unknown);
    assert_eq!(place.ask(AT, 0, Some(2)), Verdict::Deny, "a port of another host");
    assert_eq!(place.ask_in(AT, 99, 0, None), Verdict::Deny, "no network");
    let elsewhere = place.writer.network(id(2));
    place.writer.enter(place.other, (id(2), elsewhere), id(3));
    assert_eq!(place.ask_in(AT, 2, 0, None), Verdict::Deny, "a network of others");
    assert_eq!(
        place.ask_in(AT, 2, 0, Some(1)),
        Verdict::Deny,
        "nor with a port of its own"
    );

    place.writer.leave(place.asks, id(NETWORK), id(1));
    assert_eq!(place.ask(AT, 0, None), Verdict::Deny, "it has left");
    place
        .writer
        .enter(place.asks, (id(NETWORK), place.network), id(1));
    place.writer.load();
    assert_eq!(
        place.ask(AT, 0, None),
        Verdict::Busy,
        "nobody is told half of a state"
    );
}

#[test]
fn what_was_learned_belongs_to_a_session_and_ends_with_its_lease() {
    let place = place(Limits::default(), 2);
    let learners = || place.writer.learners(place.network, address(0));
    place.ask(AT, 0, None);
    assert_eq!(learners(), [place.asks]);
    assert_eq!(place.put(0, 6), [place.asks]);

    let kept = place.directory.limits().kept();
    place.writer.sweep(kept - Duration::from_secs(1), place.asks);
    assert_eq!(learners(), [place.asks]);
    place.ask(kept / 2, 0, None);
    place.writer.sweep(kept, place.asks);
    assert_eq!(learners(), [place.asks], "renewed");
    place.writer.sweep(kept * 3 / 2, place.asks);
    assert_eq!(learners(), []);

    place.ask(AT, 0, None);
    place.writer.open(place.asks, 8);
    assert_eq!(learners(), []);
    assert_eq!(place.ask(AT, 0, None), Verdict::Busy, "the session is over");
    assert_eq!(learners(), []);
    let asker = place.directory.asker("a", 8).unwrap();
    let place = Place { asker, ..place };
    place.ask(AT, 0, None);
    assert_eq!(place.writer.remove(place.network, address(0)), [place.asks]);
    assert_eq!(place.ask(AT, 0, None), Verdict::Unknown);
    assert_eq!(place.writer.learners(place.network, address(0)), []);
}

#[test]
fn a_scan_is_metered_and_learns_a_bounded_amount() {
    let limits = Limits {
        learned_max: 100,
        port_questions: 10,
        host_questions: 1_000,
        host_burst: 500,
        ..Limits::default()
    };
    let place = place(limits, 1_000);
    let is_busy = |verdict: &Verdict| *verdict == Verdict::Busy;
    let answers: Vec<_> = (0..50).map(|number| place.ask(AT, number, Some(1))).collect();
    assert_eq!(
        answers.iter().filter(|answer| is_busy(answer)).count(),
        30,
        "of the port"
    );
    let answers: Vec<_> = (0..1_000).map(|number| place.ask(AT, number, None)).collect();
    assert!(answers[..100].iter().all(|answer| !is_busy(answer)));
    assert!(answers[100..].iter().all(is_busy), "no room");
    let later = Duration::from_secs(1);
    assert!(
        !is_busy(&place.ask(later, 0, None)),
        "what it has it may go on using"
    );
    let answers: Vec<_> = (0..1_000).map(|_| place.ask(later, 0, None)).collect();
    assert_eq!(
        answers.iter().filter(|answer| is_busy(answer)).count(),
        501,
        "of the host"
    );
}

/// A port that scans leaves room for the other ports of its host.
#[test]
fn a_port_that_scans_takes_a_part_of_what_its_host_may_learn() {
    let limits = Limits {
        learned_max: 100,
        port_questions: 1_000,
        ..Limits::default()
    };
    let place = place(limits, 1_000);
    place
        .writer
        .enter(place.asks, (id(NETWORK), place.network), id(9));
    let served = |port| {
        let first = if port == 1 { 100 } else { 200 };
        let answers = (first..first + 90).map(|number| place.ask(AT, number, Some(port)));
        answers.filter(|answer| *answer != Verdict::Busy).count()
    };
    assert_eq!((served(1), served(9)), (25, 25));
    // What is known costs nothing more.
    assert!(matches!(place.ask(AT, 100, Some(1)), Verdict::Route(..)));
}

/// Rows change while hosts ask: whoever was given an older row than the newest was found as a learner by the write that
/// came after.
#[test]
fn no_change_is_missed() {
    let limits = Limits {
        host_questions: u32::MAX,
        host_burst: u32::MAX,
        ..Limits::default()
    };
    let place = place(limits, 1);
    let (given, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                if let Verdict::Route(revision, _) = place.ask(AT, 0, None) {
                    given.store(revision.0, Ordering::SeqCst);
                }
            }
        });
        let (mut revision, mut hits) = (6, 0);
        while hits < 1_000 {
            // Now and then whoever asks is waited for, so that this is about something on one core, too.
            while revision % 8 == 0 && (revision - 1) % 3 != 0 && given.load(Ordering::SeqCst) != revision - 1
            {
                thread::yield_now();
            }
            let before = given.load(Ordering::SeqCst);
            let told = match revision % 3 {
                0 => place.writer.remove(place.network, address(0)),
                _ => place.put(0, revision),
            };
            if before == revision - 1 {
                hits += 1;
                assert_eq!(told, [place.asks], "it was given {before}");
            }
            revision += 1;
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn what_was_learned_in_one_network_is_found_without_looking_at_the_others() {
    let place = place(Limits::default(), 0);
    let (large, small) = (NetworkIndex(8), NetworkIndex(9));
    let learn = |network, number| {
        place
            .writer
            .learn(place.asks, network, address(number), Duration::from_secs(100));
    };
    (0..5_000).for_each(|number| learn(large, number));
    (0..3).for_each(|number| learn(small, number));
    let before = hosts::LOOKED_AT.get();
    assert_eq!(place.writer.learned_count(place.asks, small), 3);
    assert_eq!(hosts::LOOKED_AT.get(), before, "they are counted already");
    let learned = place.writer.learned_in(place.asks, small);
    assert_eq!(learned, (0..3).map(address).collect());
    place.writer.unlearn_all(place.asks, small);
    place.writer.unlearn_all(place.asks, NetworkIndex(10));
    assert_eq!(hosts::LOOKED_AT.get() - before, 6);
    assert_eq!(place.writer.learned_count(place.asks, small), 0);
    assert!(!place.writer.has_learned(place.asks, small, address(0)));
    assert!(place.writer.has_learned(place.asks, large, address(0)));
    place.writer.close(place.asks);
    assert_eq!(place.writer.learned_count(place.asks, large), 0);
    assert!(!place.writer.has_learned(place.asks, large, address(0)));
}

#[test]
fn a_large_network_does_not_keep_others_from_being_swept() {
    let place = place(Limits::default(), 0);
    let (large, small) = (NetworkIndex(8), NetworkIndex(9));
    let over = Duration::from_secs(1);
    for number in 0..20_000 {
        place.writer.learn(place.asks, large, address(number), over);
    }
    place.writer.learn(place.asks, small, address(0), over);
    for _ in 0..2 {
        place.writer.sweep(over * 2, place.asks);
    }
    assert_eq!(place.writer.learned_count(place.asks, small), 0);
    assert!(place.writer.learned_count(place.asks, large) > 10_000, "in parts");
}
