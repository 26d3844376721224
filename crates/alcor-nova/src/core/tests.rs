use proptest::prelude::*;

use super::*;

fn port(number: u128) -> Id<Port> {
    Id::from_uuid(Uuid::from_u128(number))
}

fn observed(status: PortStatus) -> Observed {
    Observed {
        server: Uuid::from_u128(7),
        status,
        bound: Revision(1),
        fingerprint: 0,
    }
}

fn names(batch: Option<Vec<ServerEvent>>) -> Vec<(EventName, EventStatus)> {
    batch
        .unwrap_or_default()
        .iter()
        .map(|event| (event.name, event.status))
        .collect()
}

const T0: Duration = Duration::ZERO;

#[test]
fn what_is_so_at_the_start_is_no_news() {
    let mut core = Notifier::new([(port(1), observed(PortStatus::Active))]);
    core.observe(port(1), Some(observed(PortStatus::Active)));
    assert_eq!(core.next_batch(T0), None);
    assert_eq!(core.wake_at(), None);
}

#[test]
fn plugged_unplugged_failed_changed_and_deleted() {
    use EventStatus::{Completed, Failed};
    let mut core = Notifier::new([]);
    let mut step = |now: Option<Observed>| {
        core.observe(port(1), now);
        let said = names(core.next_batch(T0));
        core.ended(T0, Outcome::Delivered);
        said
    };
    assert_eq!(step(Some(observed(PortStatus::Build))), []);
    assert_eq!(
        step(Some(observed(PortStatus::Active))),
        [(EventName::VifPlugged, Completed)]
    );
    assert_eq!(
        step(Some(observed(PortStatus::Down))),
        [(EventName::VifUnplugged, Completed)]
    );
    assert_eq!(
        step(Some(observed(PortStatus::Error))),
        [(EventName::VifPlugged, Failed)]
    );
    let moved = Observed {
        fingerprint: 1,
        ..observed(PortStatus::Error)
    };
    assert_eq!(step(Some(moved)), [(EventName::NetworkChanged, Completed)]);
    assert_eq!(step(None), [(EventName::VifDeleted, Completed)]);
    assert_eq!(step(None), []);
}

#[test]
fn active_on_another_binding_is_another_plugging() {
    let mut core = Notifier::new([(port(1), observed(PortStatus::Active))]);
    let elsewhere = Observed {
        bound: Revision(9),
        ..observed(PortStatus::Active)
    };
    core.observe(port(1), Some(elsewhere));
    assert_eq!(
        names(core.next_batch(T0)),
        [(EventName::VifPlugged, EventStatus::Completed)]
    );
}

#[test]
fn a_port_that_goes_to_another_server_is_deleted_for_the_first() {
    let mut core = Notifier::new([(port(1), observed(PortStatus::Active))]);
    let other = Observed {
        server: Uuid::from_u128(8),
        ..observed(PortStatus::Active)
    };
    core.observe(port(1), Some(other));
    let batch = core.next_batch(T0).unwrap();
    let said: Vec<_> = batch
        .iter()
        .map(|event| (event.server_uuid, event.name))
        .collect();
    assert_eq!(
        said,
        [
            (Uuid::from_u128(7), EventName::VifDeleted),
            (Uuid::from_u128(8), EventName::VifPlugged)
        ]
    );
}

#[test]
fn a_failed_request_is_tried_again_later_and_later_and_without_what_is_outdated() {
    let mut core = Notifier::new([]);
    core.observe(port(1), Some(observed(PortStatus::Active)));
    core.observe(port(2), Some(observed(PortStatus::Active)));
    assert_eq!(core.next_batch(T0).unwrap().len(), 2);
    core.observe(port(1), Some(observed(PortStatus::Down)));
    assert_eq!(core.next_batch(T0), None, "one request at a time");
    core.ended(T0, Outcome::TryAgain);
    assert_eq!(core.wake_at(), Some(BACKOFF_FIRST));
    assert_eq!(core.next_batch(BACKOFF_FIRST / 2), None);
    let again = core.next_batch(BACKOFF_FIRST).unwrap();
    let said: Vec<_> = again.iter().map(|event| (event.port, event.name)).collect();
    assert_eq!(
        said,
        [
            (port(2), EventName::VifPlugged),
            (port(1), EventName::VifUnplugged)
        ]
    );
    core.ended(BACKOFF_FIRST, Outcome::TryAgain);
    assert_eq!(core.wake_at(), Some(BACKOFF_FIRST * 3));
    let mut now = BACKOFF_FIRST * 3;
    for _ in 0..40 {
        assert!(core.next_batch(now).is_some());
        core.ended(now, Outcome::TryAgain);
        let next = core.wake_at().unwrap();
        assert!(next - now <= BACKOFF_MAX);
        now = next;
    }
    assert!(core.next_batch(now).is_some());
    core.ended(now, Outcome::Delivered);
    assert_eq!(core.waiting(), 0);
    assert_eq!(
        core.counters(),
        Counters {
            delivered: 2,
            retries: 42,
            given_up: 0
        }
    );
}

#[test]
fn too_many_events_give_up_the_oldest() {
    let mut core = Notifier::new([]);
    let count = u128::try_from(QUEUE_MAX).unwrap() + 5;
    for number in 0..count {
        core.observe(port(number), Some(observed(PortStatus::Active)));
    }
    assert_eq!(core.waiting(), QUEUE_MAX);
    assert_eq!(core.counters().given_up, 5);
    let batch = core.next_batch(T0).unwrap();
    assert_eq!(batch.len(), Pace::default().batch);
    assert_eq!(batch[0].port, port(5));
}

#[test]
fn what_nova_refuses_for_good_is_not_repeated() {
    let mut core = Notifier::new([]);
    core.observe(port(1), Some(observed(PortStatus::Active)));
    core.next_batch(T0);
    core.ended(T0, Outcome::Refused);
    assert_eq!(core.next_batch(T0), None);
    assert_eq!(core.counters().given_up, 1);
}

proptest! {
    /// Whatever happens and however often Nova fails: what Nova heard last of a port is how it is at the end.
    #[test]
    fn the_last_word_about_a_port_is_true(
        steps in prop::collection::vec((0u128..4, 0u8..6, any::<bool>()), 1..80)
    ) {
        let mut core = Notifier::new([]);
        let mut truth: BTreeMap<Id<Port>, Option<Observed>> = BTreeMap::new();
        let mut heard: BTreeMap<Id<Port>, EventName> = BTreeMap::new();
        let mut now = Duration::ZERO;
        let hear = |heard: &mut BTreeMap<_, _>, batch: Vec<ServerEvent>| {
            for event in batch.into_iter().filter(|event| event.name != EventName::NetworkChanged) {
                heard.insert(event.port, event.name);
            }
        };
        for (number, kind, works) in steps {
            let status = [PortStatus::Active, PortStatus::Down, PortStatus::Build, PortStatus::Active];
            let state = status.get(usize::from(kind)).map(|status| observed(*status));
            truth.insert(port(number), state);
            core.observe(port(number), state);
            now += Duration::from_secs(30);
            if let Some(batch) = core.next_batch(now) {
                if works {
                    hear(&mut heard, batch);
                }
                core.ended(now, if works { Outcome::Delivered } else { Outcome::TryAgain });
            }
        }
        while core.waiting() > 0 {
            now += BACKOFF_MAX;
            if let Some(batch) = core.next_batch(now) {
                hear(&mut heard, batch);
            }
            core.ended(now, Outcome::Delivered);
        }
        for (id, state) in truth {
            let last = heard.get(&id).copied();
            match state.map(|state| state.status) {
                Some(PortStatus::Active) => prop_assert_eq!(last, Some(EventName::VifPlugged)),
                Some(_) => prop_assert_ne!(last, Some(EventName::VifPlugged)),
                None => prop_assert!(matches!(last, None | Some(EventName::VifDeleted))),
            }
        }
    }
}

#[test]
fn an_event_is_given_up_after_so_many_failures_and_newer_ones_are_not() {
    let mut core = Notifier::new([]);
    core.observe(port(1), Some(observed(PortStatus::Active)));
    let mut now = T0;
    for tried in 1..=TRIES_MAX {
        now = core.wake_at().unwrap().max(now);
        assert_eq!(core.next_batch(now).map(|batch| batch.len()), Some(1), "{tried}");
        if tried == TRIES_MAX {
            core.observe(port(2), Some(observed(PortStatus::Active)));
        }
        core.ended(now, Outcome::TryAgain);
    }
    assert_eq!(core.counters().given_up, 1);
    assert!(
        now > Duration::from_secs(300),
        "Nova has stopped to wait: {now:?}"
    );
    let batch = core.next_batch(core.wake_at().unwrap()).unwrap();
    assert_eq!(
        batch.iter().map(|event| event.port).collect::<Vec<_>>(),
        [port(2)]
    );
}

#[test]
fn what_happens_within_the_interval_goes_together() {
    let interval = Duration::from_secs(2);
    let mut core = Notifier::new([]).at(Pace { batch: 2, interval });
    core.observe(port(1), Some(observed(PortStatus::Active)));
    assert_eq!(core.next_batch(T0).unwrap().len(), 1, "the first does not wait");
    core.ended(T0, Outcome::Delivered);
    for number in 2..5 {
        core.observe(port(number), Some(observed(PortStatus::Active)));
    }
    assert_eq!((core.next_batch(T0), core.wake_at()), (None, Some(interval)));
    assert_eq!(
        core.next_batch(interval).unwrap().len(),
        2,
        "no more than asked for"
    );
    core.ended(interval, Outcome::Delivered);
    assert_eq!(core.next_batch(interval * 2).unwrap().len(), 1);
}
