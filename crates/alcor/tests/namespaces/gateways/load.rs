//! What the API says of a gateway's load is what went through it.

use alcor_lab::eventually;
use serde_json::{Value, json};

use super::{Cloud, FAR, north::North};
use crate::region::{PATIENCE, interrupt, more_answers};

/// What a gateway's own socket says of itself.
fn told_on_the_node(cloud: &Cloud, gateway: usize) -> Value {
    let name = &cloud.gateways[gateway].name;
    cloud.region.ask_agent(name, "{\"gateway\": {}}")["gateway"].take()
}

/// A gateway's load as the API has it.
fn said(cloud: &Cloud, gateway: usize) -> Value {
    let name = &cloud.gateways[gateway].name;
    cloud.region.alcor(&["gateway", "state", name, "--json"])["load"].take()
}

fn packets(load: &Value, way: &str) -> u64 {
    let ways = load["passed"].as_array().into_iter().flatten();
    let found = ways.clone().find(|line| line["way"] == way);
    found
        .and_then(|line| line["packets"].as_u64())
        .unwrap_or_default()
}

fn dropped(load: &Value, reason: &str) -> u64 {
    let mut drops = load["drops"].as_array().into_iter().flatten();
    let found = drops.find(|line| line["reason"] == reason);
    found
        .and_then(|line| line["packets"].as_u64())
        .unwrap_or_default()
}

/// Waits until the API says what the node does: nothing is on its way.
fn settled(cloud: &Cloud, gateway: usize) -> Value {
    eventually("the API to say what the node does", PATIENCE, || {
        let (here, load) = (told_on_the_node(cloud, gateway), said(cloud, gateway));
        let same = ["east_west", "north", "south"].iter().all(|way| {
            let here = here["load"][format!("{way}_packets")].as_u64();
            here == Some(packets(&load, way)) && load != Value::Null
        });
        match same {
            true => Ok(load),
            false => Err(format!("{here}\n{load}")),
        }
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", cloud.logs()))
}

#[test]
fn what_went_through_a_gateway_is_what_the_api_says() {
    let north = North::start(Cloud::start_with("tgwload", None));
    let cloud = &north.cloud;
    let vm = cloud.region.vm("vm", 0, &[&north.subnet]);
    vm.reaches(FAR);
    let owner = north.owner();
    let before = settled(cloud, owner);
    // Nothing behind the router's address waits for these.
    let to = north.snat_address();
    let strays = format!("for n in 1 2 3; do echo stray > /dev/udp/{to}/9; done");
    cloud.outside.run(&["bash", "-c", &strays]).unwrap();
    let printed = vm
        .namespace
        .run(&["ping", "-n", "-c25", "-i0.02", "-W2", FAR])
        .unwrap();
    assert!(printed.contains("25 received"), "{printed}");
    let after = settled(cloud, owner);
    for (way, more) in [("north", 25), ("south", 25), ("east_west", 0)] {
        let sent = packets(&after, way) - packets(&before, way);
        assert_eq!(sent, more, "{way}: {before}\n{after}");
    }
    let drops = dropped(&after, "no_translation") - dropped(&before, "no_translation");
    assert_eq!(drops, 3, "{before}\n{after}");
    let routers = after["nat"]["busiest"].as_array().unwrap();
    let router = routers
        .iter()
        .find(|line| line["router_id"] == north.router["id"]);
    assert!(
        router.is_some_and(|line| line["connections"].as_u64() >= Some(1)),
        "{after}"
    );
    assert_eq!(
        after["devices"],
        told_on_the_node(cloud, owner)["devices"],
        "{after}"
    );

    // In short, with rates while something goes through.
    let mut ping = cloud
        .region
        .spawn(&vm, "ping", "ping", &["-n", "-i", "0.01", FAR]);
    more_answers(&mut ping, 20);
    let name = json!(cloud.gateways[owner].name);
    eventually("packets in a second", PATIENCE, || {
        let listed = cloud.region.alcor(&["gateway", "list", "--json"]);
        let mut rows = listed.as_array().into_iter().flatten();
        let row = rows.find(|row| row["name"] == name);
        match row.is_some_and(|row| row["packets_per_s"].as_u64() > Some(0)) {
            true => Ok(()),
            false => Err(listed.to_string()),
        }
    })
    .unwrap();
    interrupt(&mut ping);
    let sets = cloud.region.alcor(&["gateway", "sets", "--json"]);
    assert_eq!(
        (&sets[0]["name"], &sets[0]["in_use"]),
        (&json!("default"), &json!(2)),
        "{sets}"
    );
    assert_eq!(sets[0]["networks"], 1, "the network with a way out: {sets}");
    // The same for people.
    let name = &cloud.gateways[owner].name;
    let shown = cloud.region.printed(&["gateway", "state", name]);
    let router = north.router["id"].as_str().unwrap();
    for part in ["no_translation", "source NAT: 1 routers", router, "XDP on eth0: "] {
        assert!(shown.contains(part), "no '{part}': {shown}");
    }
    let shown = cloud.region.printed(&["gateway", "list"]);
    assert!(
        shown.contains("packets/s") && shown.contains("dropped"),
        "{shown}"
    );
}
