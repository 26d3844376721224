//! What is known of hosts outlives the NCM, and costs few writes.

use alcor_model::HostRuntime;

use super::*;
use crate::core::memory::STORE_EVERY;

/// What the NCM would have kept after this time.
fn kept_after(sim: &mut Sim, time: Duration) -> Vec<HostRuntime> {
    sim.now.since_start += time;
    sim.now.unix_us += u64::try_from(time.as_micros()).unwrap();
    // Heartbeats, so that the time does not end the sessions.
    for agent in sim.agents.values() {
        let Some(session) = agent.session else { continue };
        let body = v1::agent_message::Body::Heartbeat(v1::Heartbeat::default());
        sim.ncm.step(sim.now, Event::Message { session, body });
    }
    let (actions, _) = sim.ncm.step(sim.now, Event::Tick);
    let kept = actions.into_iter().filter_map(|action| match action {
        Action::NoteHosts(hosts) => Some(hosts),
        _ => None,
    });
    kept.flatten().collect()
}

#[test]
fn a_new_ncm_knows_what_the_old_one_knew() {
    let mut sim = Sim::new(Options::default());
    for port in 1..=3 {
        let change = sim.world.port(port, 0, Some(1), u8::try_from(port).unwrap());
        sim.untold.push(change);
    }
    sim.arrive();
    // The last port is refused.
    let change = sim.world.port(4, 0, Some(1), 4);
    sim.untold.push(change);
    sim.tell();
    let message = sim.agents.get_mut(&1).unwrap().inbox.pop_front();
    let Some(v1::ncm_message::Body::Delta(delta)) = message else {
        panic!("{message:?}");
    };
    let session = sim.agents[&1].session.unwrap();
    let refused = vec![v1::RowError {
        row: u32::try_from(delta.rows.len() - 1).unwrap(),
        reason: "no room".into(),
    }];
    let body = v1::agent_message::Body::Receipt(v1::Receipt {
        refused,
        ..receipt(delta.sequence)
    });
    sim.ncm.step(sim.now, Event::Message { session, body });
    let kept = kept_after(&mut sim, STORE_EVERY);
    let before = sim.ncm.host_state("h1").unwrap();
    assert_eq!((before.summary.errors, before.summary.pending), (1, 0));

    let mut rows = sim.world.rows();
    rows.extend(kept.into_iter().map(|row| Resource::HostRuntime(Arc::new(row))));
    let mut new = Ncm::new(Options::default());
    let event = Event::Snapshot {
        revision: sim.world.revision,
        rows,
    };
    new.step(Now::default(), event);
    let after = new.host_state("h1").unwrap();
    assert!(!after.summary.alive, "it has not said hello");
    assert_eq!(after.summary.last_seen_at, before.summary.last_seen_at);
    assert_eq!(after.summary.errors, 1);
    assert_eq!(
        (after.incarnation, after.resyncs),
        (before.incarnation, before.resyncs)
    );
    let told = |state: &alcor_model::effective::HostState| {
        let rows = state.resources.iter();
        rows.map(|row| {
            (
                row.kind.clone(),
                row.id.clone(),
                row.applied_revision >= Some(row.intended_revision),
                row.error.clone(),
            )
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(told(&after), told(&before));
    assert_eq!(after.neighbours, before.neighbours);
    assert!(after.neighbours.iter().any(|row| row.timing.is_some()));

    // Once the host speaks for itself, what was kept does not count any more.
    let mut hello = sim.agents[&1].hello(1);
    hello.held.clear();
    new.step(Now::default(), Event::Hello { session: 1, hello });
    let fresh = new.host_state("h1").unwrap();
    assert!(fresh.summary.alive);
    assert!(
        fresh
            .resources
            .iter()
            .all(|row| row.applied_revision.is_none() && row.error.is_none())
    );
}

#[test]
fn heartbeats_cost_no_row_and_changes_a_row_in_five_seconds() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.port(1, 0, Some(1), 1);
    sim.untold.push(change);
    sim.arrive();
    let hosts = usize::from(HOSTS);
    assert_eq!(kept_after(&mut sim, STORE_EVERY).len(), hosts, "all said hello");
    let second = Duration::from_secs(1);
    let quiet: usize = (0..120).map(|_| kept_after(&mut sim, second).len()).sum();
    assert_eq!(quiet, 0, "nothing but heartbeats");
    // Many changes of one host are one row.
    for number in 2..=5 {
        let change = sim.world.port(number, 0, Some(1), u8::try_from(number).unwrap());
        sim.untold.push(change);
        sim.tell();
        while (1..=HOSTS).any(|host| sim.deliver(host)) {}
        let soon = kept_after(&mut sim, Duration::ZERO);
        assert_eq!(
            soon.iter().filter(|row| row.name == "h1").count(),
            usize::from(number == 2)
        );
    }
    let kept = kept_after(&mut sim, STORE_EVERY);
    assert!(kept.iter().any(|row| row.name == "h1"));
    assert!(kept.len() <= hosts);
    // A session that ends is news.
    sim.disconnect(1);
    let kept = kept_after(&mut sim, STORE_EVERY);
    assert_eq!(
        kept.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
        ["h1"]
    );
}
