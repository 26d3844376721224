//! Local ports: devices found by name or given by a client, conditions, reports, answers to packets.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use std::time::Duration;

use alcor_agent::{core::Event, delta::Phase, devices::Link, request::Request, responder::Refusal};
use alcor_dataplane::{PuntReason, RowChange, model::Model};
use alcor_model::{Id, Port, resource::Port as PortResource};
use alcor_proto::v1::PortCondition;
use bytes::Bytes;
use common::{Key, Rig, port_id};
use serde_json::{Value, json};

const PORT: Key = Key::Port(0, 1);

fn name(port: Id<Port>) -> String {
    PortResource::device_name(port)
}

fn link(name: &str, index: u32, up: bool) -> Link {
    Link {
        index,
        name: name.to_owned(),
        up,
    }
}

/// A rig with a network, a subnet and one port, and links known to be none.
fn rig() -> Rig {
    let mut rig = Rig::new(Model::default());
    rig.step(Event::Links(Vec::new()));
    rig.connect();
    rig.delta(
        0,
        Phase::Whole,
        1,
        vec![
            Key::Network(0).change(1, true),
            Key::Subnet(0).change(1, true),
            PORT.change(1, true),
        ],
    );
    rig.settle();
    rig
}

fn ask(rig: &mut Rig, client: u64, request: Value) {
    let request: Request = serde_json::from_value(request).unwrap();
    rig.step(Event::Request { client, request });
    rig.settle();
}

fn answer(rig: &Rig, client: u64) -> Option<&Value> {
    rig.answers
        .iter()
        .find(|(who, _)| *who == client)
        .map(|(_, body)| body)
}

fn conditions(rig: &Rig) -> Vec<PortCondition> {
    rig.reports.iter().map(|report| report.condition()).collect()
}

#[test]
fn a_port_is_wired_when_row_and_device_are_in_force_and_the_device_is_up() {
    let mut rig = rig();
    let device = name(port_id(0, 1));
    assert_eq!(conditions(&rig), [PortCondition::NoDevice]);
    rig.step(Event::Link(link(&device, 7, false)));
    rig.settle();
    assert_eq!(rig.links_up, std::slice::from_ref(&device));
    assert_eq!(
        conditions(&rig).last(),
        Some(&PortCondition::NoDevice),
        "down is not wired"
    );
    rig.step(Event::Link(link(&device, 7, true)));
    rig.settle();
    let report = rig.reports.last().unwrap();
    assert_eq!((report.condition(), report.revision), (PortCondition::Wired, 1));
    // A new revision of the row is reported, the same condition or not.
    let before = rig.reports.len();
    rig.delta(0, Phase::Delta, 2, vec![PORT.change(2, true)]);
    rig.settle();
    assert_eq!(rig.reports.len(), before + 1);
    assert_eq!(rig.reports.last().unwrap().revision, 2);
    rig.step(Event::LinkGone(device));
    rig.settle();
    assert_eq!(conditions(&rig).last(), Some(&PortCondition::NoDevice));
    assert_eq!(
        alcor_dataplane::Dataplane::snapshot(&mut rig.model)
            .unwrap()
            .devices
            .len(),
        0
    );
}

#[test]
fn a_new_session_is_told_everything_again() {
    let mut rig = rig();
    rig.step(Event::Link(link(&name(port_id(0, 1)), 7, true)));
    rig.settle();
    rig.cut();
    rig.reports.clear();
    rig.connect();
    assert_eq!(conditions(&rig), [PortCondition::Wired]);
}

#[test]
fn a_device_that_cannot_be_used_is_said_and_tried_again() {
    let mut rig = rig();
    let device = name(port_id(0, 1));
    rig.model.set_device_present(&device, false);
    rig.step(Event::Link(link(&device, 7, true)));
    rig.settle();
    let report = rig.reports.last().unwrap();
    assert_eq!(report.condition(), PortCondition::Failed);
    assert!(report.reason.contains(&device), "{}", report.reason);
    rig.model.set_device_present(&device, true);
    rig.pass(Duration::from_secs(6));
    assert_eq!(conditions(&rig).last(), Some(&PortCondition::Wired));
}

#[test]
fn a_link_that_cannot_be_set_up_is_a_failure() {
    let mut rig = rig();
    let device = name(port_id(0, 1));
    rig.step(Event::Link(link(&device, 7, false)));
    rig.settle();
    rig.step(Event::LinkRefused(device, "operation not permitted".to_owned()));
    let report = rig.reports.last().unwrap();
    assert_eq!(report.condition(), PortCondition::Failed);
    assert!(report.reason.contains("operation not permitted"));
    // Tried again, without saying anything else in the meantime.
    let (tries, reports) = (rig.links_up.len(), rig.reports.len());
    rig.pass(Duration::from_secs(6));
    assert_eq!((rig.links_up.len(), rig.reports.len()), (tries + 1, reports));
    rig.step(Event::Link(link(&name(port_id(0, 1)), 7, true)));
    assert_eq!(conditions(&rig).last(), Some(&PortCondition::Wired));
}

#[test]
fn ports_with_the_same_device_name_are_not_guessed() {
    let mut rig = rig();
    let device = name(port_id(0, 1));
    // The same first 11 characters as the first port's.
    let uuid = uuid::Uuid::from_u128(port_id(0, 1).uuid().as_u128() + 1);
    let twin: Id<Port> = Id::from_uuid(uuid);
    assert_eq!(name(twin), device);
    let (revision, change) = PORT.change(2, true).unwrap();
    let RowChange::Put(alcor_dataplane::Row::Port(mut row)) = change else {
        panic!("not a port")
    };
    (row.id, row.mac, row.fixed_ips) = (twin, "02:00:00:00:00:99".parse().unwrap(), Vec::new());
    rig.delta(
        0,
        Phase::Delta,
        2,
        vec![Ok((revision, RowChange::Put(alcor_dataplane::Row::Port(row))))],
    );
    rig.settle();
    rig.step(Event::Link(link(&device, 7, true)));
    rig.settle();
    assert_eq!(conditions(&rig).last(), Some(&PortCondition::Failed));
    let id = |report: &alcor_proto::v1::PortReport| uuid::Uuid::from_slice(&report.port_id).unwrap();
    for (one, other) in [(port_id(0, 1), twin), (twin, port_id(0, 1))] {
        let report = rig
            .reports
            .iter()
            .rfind(|report| id(report) == one.uuid())
            .unwrap();
        assert!(report.reason.contains(&other.to_string()), "{}", report.reason);
    }
    assert!(
        alcor_dataplane::Dataplane::snapshot(&mut rig.model)
            .unwrap()
            .devices
            .is_empty()
    );
    ask(
        &mut rig,
        1,
        json!({"attach": {"port_id": twin, "device": device}}),
    );
    assert_eq!(answer(&rig, 1).unwrap()["condition"], "wired");
    // The other port goes: the one that is left keeps what it was given.
    rig.delta(0, Phase::Delta, 3, vec![PORT.change(3, false)]);
    rig.settle();
    let devices = alcor_dataplane::Dataplane::snapshot(&mut rig.model)
        .unwrap()
        .devices;
    assert_eq!(devices.into_iter().collect::<Vec<_>>(), [(twin, device)]);
}

#[test]
fn attach_answers_when_the_port_is_wired_even_before_its_row_came() {
    let mut rig = Rig::new(Model::default());
    rig.step(Event::Links(vec![link("veth7", 7, true)]));
    rig.connect();
    ask(
        &mut rig,
        1,
        json!({"attach": {"port_id": port_id(0, 1), "device": "veth7"}}),
    );
    assert_eq!(answer(&rig, 1), None);
    let rows = vec![
        Key::Network(0).change(1, true),
        Key::Subnet(0).change(1, true),
        PORT.change(1, true),
    ];
    rig.delta(0, Phase::Whole, 1, rows);
    rig.settle();
    let body = answer(&rig, 1).unwrap();
    assert_eq!(
        (&body["ok"], &body["condition"], &body["device"]),
        (&json!(true), &json!("wired"), &json!("veth7"))
    );
    // The device goes; the name coming back may be somebody else's.
    rig.step(Event::LinkGone("veth7".to_owned()));
    rig.step(Event::Link(link("veth7", 8, true)));
    rig.settle();
    assert_eq!(conditions(&rig).last(), Some(&PortCondition::NoDevice));
}

#[test]
fn attach_answers_the_present_condition_when_time_is_over() {
    let mut rig = Rig::new(Model::default());
    rig.connect();
    ask(
        &mut rig,
        1,
        json!({"attach": {"port_id": port_id(0, 1), "device": "veth7", "wait_ms": 50}}),
    );
    rig.pass(Duration::from_millis(60));
    let body = answer(&rig, 1).unwrap();
    assert_eq!(
        (&body["ok"], &body["condition"]),
        (&json!(true), &json!("pending"))
    );
    assert_eq!(body["reason"], "the NCM has not told of this port yet");
}

#[test]
fn attach_says_why_not() {
    let mut rig = rig();
    rig.model.set_device_present("veth7", false);
    ask(
        &mut rig,
        1,
        json!({"attach": {"port_id": port_id(0, 1), "device": "veth7"}}),
    );
    assert!(
        answer(&rig, 1).unwrap()["error"]
            .as_str()
            .unwrap()
            .contains("veth7")
    );
    ask(
        &mut rig,
        2,
        json!({"attach": {"port_id": port_id(0, 1), "device": "../../etc/passwd"}}),
    );
    assert!(
        answer(&rig, 2).unwrap()["error"]
            .as_str()
            .unwrap()
            .contains("not the name of a device")
    );
    ask(
        &mut rig,
        3,
        json!({"attach": {"port_id": port_id(0, 1), "device": "veth7", "wait_ms": 600_000}}),
    );
    assert!(
        answer(&rig, 3).unwrap()["error"]
            .as_str()
            .unwrap()
            .contains("at most 60000")
    );
}

#[test]
fn detach_takes_the_device_and_it_is_not_taken_back_by_name() {
    let mut rig = rig();
    let device = name(port_id(0, 1));
    rig.step(Event::Link(link(&device, 7, true)));
    rig.settle();
    ask(&mut rig, 1, json!({"detach": {"port_id": port_id(0, 1)}}));
    assert_eq!(answer(&rig, 1).unwrap()["ok"], true);
    assert_eq!(conditions(&rig).last(), Some(&PortCondition::NoDevice));
    rig.pass(Duration::from_secs(20));
    assert_eq!(conditions(&rig).last(), Some(&PortCondition::NoDevice));
    // A new device of that name is the port's again.
    rig.step(Event::Link(link(&device, 9, true)));
    rig.settle();
    assert_eq!(conditions(&rig).last(), Some(&PortCondition::Wired));
}

#[test]
fn a_device_has_one_port() {
    let mut rig = rig();
    rig.delta(0, Phase::Delta, 2, vec![Key::Port(0, 2).change(2, true)]);
    rig.settle();
    for (client, p) in [(1, 1), (2, 2)] {
        ask(
            &mut rig,
            client,
            json!({"attach": {"port_id": port_id(0, p), "device": "veth7"}}),
        );
        assert_eq!(answer(&rig, client).unwrap()["condition"], "wired");
    }
    let devices = alcor_dataplane::Dataplane::snapshot(&mut rig.model)
        .unwrap()
        .devices;
    assert_eq!(
        devices.into_iter().collect::<Vec<_>>(),
        [(port_id(0, 2), "veth7".to_owned())]
    );
}

#[test]
fn a_restart_keeps_devices_and_drops_those_that_went_meanwhile() {
    let mut rig = rig();
    let device = name(port_id(0, 1));
    rig.step(Event::Link(link(&device, 7, true)));
    rig.delta(0, Phase::Delta, 2, vec![Key::Port(0, 2).change(2, true)]);
    ask(
        &mut rig,
        1,
        json!({"attach": {"port_id": port_id(0, 2), "device": "veth7"}}),
    );
    let mut rig = rig.restart();
    rig.step(Event::Links(vec![link(&device, 7, true)]));
    assert_eq!(
        rig.backlog.len(),
        2,
        "one advertisement, one detach: {:?}",
        rig.backlog
    );
    rig.connect();
    assert_eq!(rig.reports, [], "nothing is known of revisions yet");
    let rows = vec![
        Key::Network(0).change(1, true),
        Key::Subnet(0).change(1, true),
        PORT.change(1, true),
        Key::Port(0, 2).change(2, true),
    ];
    rig.delta(0, Phase::Whole, 2, rows);
    rig.settle();
    assert_eq!(rig.applied, []);
    let mut reports: Vec<_> = rig.reports.iter().map(|r| (r.revision, r.condition())).collect();
    reports.sort_by_key(|(revision, _)| *revision);
    reports.dedup();
    assert_eq!(reports, [(1, PortCondition::Wired), (2, PortCondition::NoDevice)]);
}

#[test]
fn a_wired_port_hears_router_advertisements_at_once_and_then_now_and_again() {
    let mut rig = rig();
    rig.step(Event::Link(link(&name(port_id(0, 1)), 7, true)));
    rig.settle();
    assert_eq!(rig.model.take_injected().len(), 1);
    rig.pass(Duration::from_secs(100));
    assert_eq!(rig.model.take_injected().len(), 0);
    rig.pass(Duration::from_secs(1_000));
    let count = rig.model.take_injected().len();
    assert!((3..=8).contains(&count), "{count}");
    // A change of the subnet is told at once.
    rig.delta(0, Phase::Delta, 2, vec![Key::Subnet(0).change(2, true)]);
    rig.settle();
    rig.step(Event::Tick);
    rig.settle();
    assert_eq!(rig.model.take_injected().len(), 1);
}

#[test]
fn icmp_errors_are_limited_for_each_port_and_what_is_refused_is_counted() {
    let mut rig = rig();
    rig.step(Event::Link(link(&name(port_id(0, 1)), 7, true)));
    rig.settle();
    rig.model.take_injected();
    let (source, destination) = ("fd00::1:1".parse().unwrap(), "fd01::1".parse().unwrap());
    let packet = alcor_agent::responder::frame::icmpv6(source, destination, 1, vec![128; 8]);
    let mac = alcor_model::MacAddr([2, 0, 0, 1, 0, 1]);
    let frame = alcor_agent::responder::frame::ethernet(alcor_model::net::GATEWAY_MAC, mac, 0x86dd, &packet);
    let punt = |reason, frame: &[u8]| {
        let frame = Bytes::copy_from_slice(frame);
        Event::Dataplane(alcor_dataplane::Event::Punt {
            port: port_id(0, 1),
            reason,
            frame,
        })
    };
    for _ in 0..100 {
        rig.step(punt(PuntReason::TtlExceeded, &frame));
    }
    rig.settle();
    assert_eq!(rig.model.take_injected().len(), 20);
    assert_eq!(rig.agent.refusals()[&Refusal::RateLimited], 80);
    rig.pass(Duration::from_secs(1));
    rig.step(punt(PuntReason::TtlExceeded, &frame));
    rig.settle();
    assert_eq!(rig.model.take_injected().len(), 1);
    rig.step(punt(PuntReason::Dhcp4, &frame));
    assert_eq!(rig.agent.refusals()[&Refusal::Malformed], 1);
    // What is too big takes of the same: nothing is left until time passes.
    let too_big = Event::Dataplane(alcor_dataplane::Event::TooBig {
        port: port_id(0, 1),
        mtu: 1280,
        frame: Bytes::copy_from_slice(&frame),
    });
    rig.step(too_big.clone());
    for _ in 0..10 {
        rig.step(punt(PuntReason::TtlExceeded, &frame));
    }
    rig.settle();
    let answers = rig.model.take_injected();
    assert_eq!(answers[0].1[54..56], [2, 0], "packet too big");
    assert!(answers.len() < 11, "{}", answers.len());
}

#[test]
fn the_state_shows_ports_networks_and_counters() {
    let mut rig = rig();
    ask(&mut rig, 1, json!({"state": {}}));
    let body = answer(&rig, 1).unwrap();
    assert_eq!(body["session"], "open");
    assert_eq!(body["networks"][0]["held_revision"], 1);
    assert_eq!(body["ports"][0]["condition"], "no_device");
}
