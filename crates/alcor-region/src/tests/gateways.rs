//! Gateways register, are drained and are forgotten.

use alcor_model::resource::HostWord;

use super::*;
use crate::gateway::{self, GatewayRegistration, GatewayUpdate};

fn said(name: &str, set: &str, tunnel_ip: &str) -> GatewayRegistration {
    GatewayRegistration {
        name: name.into(),
        set: set.into(),
        tunnel_ip: tunnel_ip.parse().unwrap(),
    }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, RegionError>) -> (&'static str, String) {
    let error = outcome.unwrap_err();
    (error.neutron_type(), error.to_string())
}

#[tokio::test]
async fn a_gateway_registers_once_and_keeps_what_an_operator_said() {
    let place = Place::new(RegionConfig::default(), 24);
    let region = &place.region;
    let first = region
        .register_gateway(said("g1", "default", "192.0.2.1"))
        .await
        .unwrap();
    let same = region
        .register_gateway(said("g1", "default", "192.0.2.1"))
        .await
        .unwrap();
    assert_eq!(first, same, "nothing was written");
    let id = first.id;
    let drain = GatewayUpdate { draining: Some(true) };
    let drained = region.write(move |tx, _| gateway::update(tx, id, &drain)).await;
    assert!(drained.unwrap().draining);
    let moved = region
        .register_gateway(said("g1", "edge", "192.0.2.2"))
        .await
        .unwrap();
    assert!(moved.revision > first.revision);
    assert_eq!(
        (moved.id, moved.created_at, moved.draining, moved.set.as_str()),
        (id, first.created_at, true, "edge")
    );
    let snapshot = region.snapshot();
    let at = |ip: &str| snapshot.state.gateway_at(ip.parse().unwrap()).map(|g| g.id);
    assert_eq!((at("192.0.2.1"), at("192.0.2.2")), (None, Some(id)));
    region.write(move |tx, _| gateway::delete(tx, id)).await.unwrap();
    assert!(region.snapshot().state.gateway_named("g1").is_none());
    let again = region.write(move |tx, _| gateway::delete(tx, id)).await;
    assert_eq!(refusal(again).0, "GatewayNotFound");
    let update = region
        .write(move |tx, _| gateway::update(tx, id, &GatewayUpdate::default()))
        .await;
    assert_eq!(refusal(update).0, "GatewayNotFound");
}

#[tokio::test]
async fn what_a_gateway_cannot_be_is_refused() {
    let place = Place::new(RegionConfig::default(), 24);
    let region = &place.region;
    let host = "192.0.2.9".parse().unwrap();
    region
        .register_host("h1", HostWord::new(host, "nova"))
        .await
        .unwrap();
    region
        .register_gateway(said("g1", "default", "192.0.2.1"))
        .await
        .unwrap();
    for (name, set, tunnel_ip, why) in [
        ("", "default", "192.0.2.2", "the name"),
        ("g\n", "default", "192.0.2.2", "the name"),
        ("g2", "", "192.0.2.2", "the set"),
        ("g2", "default", "0.0.0.0", "0.0.0.0"),
        ("g2", "default", "ff02::1", "ff02::1"),
        ("h1", "default", "192.0.2.2", "a host has this name"),
        ("g2", "default", "192.0.2.1", "gateway g1"),
    ] {
        let outcome = region.register_gateway(said(name, set, tunnel_ip)).await;
        let (kind, message) = refusal(outcome);
        assert_eq!(kind, "InvalidInput", "{message}");
        assert!(message.contains(why), "{message}");
    }
    let as_a_host = region.register_host("g1", HostWord::new(host, "nova")).await;
    assert!(refusal(as_a_host).1.contains("a gateway has this name"));
    assert_eq!(region.snapshot().state.gateway_nodes().len(), 1);
}
