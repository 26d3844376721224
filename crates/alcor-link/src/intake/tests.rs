//! What gets out is whole, whatever comes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::collections::BTreeSet;
use std::sync::Arc;

use alcor_model::{Host, Kind, ResourceKey};

use super::*;
use crate::convert::{encode_change, encode_row};

fn host(revision: u64) -> Resource {
    Resource::Host(Arc::new(Host {
        name: "h1".into(),
        revision: Revision(revision),
        tunnel_ip: "192.0.2.1".parse().unwrap(),
        created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        admin_state_up: true,
        description: String::new(),
        availability_zone: "nova".into(),
        external_networks: BTreeSet::new(),
    }))
}

fn message(body: Body) -> link::FeedMessage {
    link::FeedMessage { body: Some(body) }
}

fn begin(revision: u64) -> link::FeedMessage {
    message(Body::SnapshotBegin(link::SnapshotBegin { region: 7, revision }))
}

fn rows(rows: Vec<link::FeedRow>) -> link::FeedMessage {
    message(Body::SnapshotRows(link::SnapshotRows { rows }))
}

fn end(rows: u64) -> link::FeedMessage {
    message(Body::SnapshotEnd(link::SnapshotEnd { rows }))
}

fn changes(after: u64, revision: u64, more: bool, changes: &[Change]) -> link::FeedMessage {
    let changes = changes.iter().filter_map(|change| encode_change(change).unwrap());
    message(Body::Changes(link::Changes {
        after,
        revision,
        committed_us: 5,
        changes: changes.collect(),
        more,
    }))
}

/// An NCM that is at this commit.
fn at(revision: u64) -> Intake {
    let mut intake = Intake::default();
    intake.step(begin(revision)).unwrap();
    intake.step(end(0)).unwrap();
    intake
}

#[test]
fn a_snapshot_gets_out_whole_or_not_at_all() {
    let row = encode_row(&host(3)).unwrap();
    let mut intake = Intake::default();
    assert_eq!(intake.step(begin(3)).unwrap(), Taken::Nothing);
    assert_eq!(intake.step(rows(vec![row.clone()])).unwrap(), Taken::Nothing);
    let (revision, rows_) = (Revision(3), vec![host(3)]);
    assert_eq!(
        intake.step(end(1)).unwrap(),
        Taken::Snapshot {
            revision,
            rows: rows_
        }
    );
    // One that is cut leaves the NCM where it was, and one that lost a row is none.
    intake.step(begin(9)).unwrap();
    assert_eq!(
        (intake.subscription().region, intake.subscription().from_revision),
        (7, 3)
    );
    intake.step(begin(9)).unwrap();
    let lost = IntakeError::Rows { got: 0, sent: 1 };
    assert_eq!(intake.step(end(1)), Err(lost));
    assert_eq!(intake.subscription().from_revision, 3);
}

#[test]
fn rows_of_a_kind_that_only_a_newer_controller_knows_are_passed_over() {
    let mut intake = Intake::default();
    intake.step(begin(1)).unwrap();
    let row = link::FeedRow {
        kind: "flying_carpet".into(),
        body: "{}".into(),
    };
    intake.step(rows(vec![row])).unwrap();
    assert!(matches!(intake.step(end(1)).unwrap(), Taken::Snapshot { rows, .. } if rows.is_empty()));
}

#[test]
fn a_row_that_cannot_be_read_stops_the_feed() {
    for body in ["", "{}", "\u{0}", "[1"] {
        let mut intake = Intake::default();
        intake.step(begin(1)).unwrap();
        let row = link::FeedRow {
            kind: Kind::Port.as_str().into(),
            body: body.into(),
        };
        assert!(matches!(
            intake.step(rows(vec![row])),
            Err(IntakeError::Convert(_))
        ));
    }
}

#[test]
fn changes_in_parts_are_one_batch_and_a_cut_one_is_asked_for_again() {
    let gone = Change::Delete {
        key: ResourceKey::Host("h1".into()),
        revision: Revision(6),
    };
    let put = Change::Put(host(6));
    let mut intake = at(5);
    let first = changes(5, 6, true, std::slice::from_ref(&put));
    assert_eq!(intake.step(first.clone()).unwrap(), Taken::Nothing);
    assert_eq!(intake.subscription().from_revision, 5, "the stream broke there");
    intake.step(first).unwrap();
    let taken = intake
        .step(changes(5, 6, false, std::slice::from_ref(&gone)))
        .unwrap();
    let both = Taken::Changes {
        changes: vec![put, gone],
        revision: Revision(6),
        committed_us: 5,
    };
    assert_eq!(taken, both);
    assert_eq!(intake.subscription().from_revision, 6);
}

#[test]
fn parts_of_two_batches_are_not_taken_for_one() {
    let mut intake = at(5);
    let put = Change::Put(host(6));
    intake
        .step(changes(5, 6, true, std::slice::from_ref(&put)))
        .unwrap();
    let other = intake.step(changes(5, 7, false, &[]));
    assert!(matches!(other, Err(IntakeError::Order(_))), "{other:?}");
    assert_eq!(intake.subscription().from_revision, 5);
}

#[test]
fn what_does_not_go_on_from_here_is_refused() {
    let gap = IntakeError::Gap {
        at: Revision(5),
        after: Revision(6),
    };
    assert_eq!(at(5).step(changes(6, 7, false, &[])), Err(gap.clone()));
    let resumed = |revision| message(Body::Resumed(link::Resumed { revision }));
    assert_eq!(at(5).step(resumed(6)), Err(gap));
    assert_eq!(at(5).step(resumed(5)), Ok(Taken::Resumed));
    for early in [resumed(0), changes(0, 1, false, &[]), end(0), rows(Vec::new())] {
        assert!(matches!(
            Intake::default().step(early),
            Err(IntakeError::Order(_))
        ));
    }
    let mut intake = at(5);
    intake.start_over();
    assert_eq!(
        (intake.subscription().region, intake.subscription().from_revision),
        (0, 0)
    );
}

fn named(name: &str, revision: u64) -> Resource {
    let Resource::Host(row) = host(revision) else {
        unreachable!()
    };
    let mut row = Host::clone(&row);
    row.name = name.into();
    Resource::Host(Arc::new(row))
}

#[test]
fn changes_in_a_snapshot_make_it_one_of_a_later_commit() {
    let mut intake = at(3);
    intake.step(begin(5)).unwrap();
    let sent: Vec<_> = [named("h1", 1), named("h2", 2), named("h3", 5)]
        .iter()
        .map(|row| encode_row(row).unwrap())
        .collect();
    intake.step(rows(sent)).unwrap();
    let gone = Change::Delete {
        key: ResourceKey::Host("h1".into()),
        revision: Revision(7),
    };
    intake.step(changes(5, 8, true, &[gone])).unwrap();
    // The end cannot come between parts of one commit.
    let puts = [Change::Put(named("h2", 8)), Change::Put(named("h4", 6))];
    intake.step(changes(5, 8, false, &puts)).unwrap();
    let again = [Change::Put(named("h1", 9))];
    assert_eq!(intake.step(changes(8, 9, false, &again)).unwrap(), Taken::Nothing);
    assert_eq!(
        intake.subscription().from_revision,
        3,
        "a stream that breaks there leaves nothing"
    );

    intake.step(begin(5)).unwrap();
    intake
        .step(rows(vec![encode_row(&named("h2", 2)).unwrap()]))
        .unwrap();
    intake.step(changes(5, 8, true, &again)).unwrap();
    assert!(matches!(intake.step(end(1)), Err(IntakeError::Order(_))));

    intake.step(begin(5)).unwrap();
    intake
        .step(rows(vec![encode_row(&named("h2", 2)).unwrap()]))
        .unwrap();
    let gap = IntakeError::Gap {
        at: Revision(5),
        after: Revision(6),
    };
    assert_eq!(intake.step(changes(6, 8, false, &again)), Err(gap));

    intake.step(begin(5)).unwrap();
    let sent: Vec<_> = [named("h1", 1), named("h2", 2)]
        .iter()
        .map(|row| encode_row(row).unwrap())
        .collect();
    intake.step(rows(sent)).unwrap();
    intake
        .step(changes(5, 8, false, &[again[0].clone(), puts[1].clone()]))
        .unwrap();
    let taken = Taken::Snapshot {
        revision: Revision(8),
        rows: vec![named("h1", 9), named("h2", 2), named("h4", 6)],
    };
    assert_eq!(intake.step(end(2)).unwrap(), taken);
    assert_eq!(intake.subscription().from_revision, 8);
}
