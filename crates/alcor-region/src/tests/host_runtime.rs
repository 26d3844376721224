//! What is kept of hosts: of registered ones only, and gone with them.

use alcor_model::{Host, HostRuntime, Revision, resource::HostWord};

use super::*;
use crate::host;

fn word(name: &str, last_seen_us: u64) -> HostRuntime {
    HostRuntime {
        name: name.into(),
        revision: Revision::ZERO,
        incarnation: 1,
        dataplane: Some("model".into()),
        last_seen_us,
        resyncs: 1,
        networks: Vec::new(),
    }
}

#[tokio::test]
async fn what_is_new_about_registered_hosts_is_kept() {
    let place = Place::new(RegionConfig::default(), 24);
    let region = &place.region;
    let tunnel_ip = "192.0.2.1".parse().unwrap();
    region
        .register_host("h1", HostWord::new(tunnel_ip, "nova"))
        .await
        .unwrap();
    let both = vec![word("h1", 1), word("h2", 1)];
    assert_eq!(
        region.note_hosts(both.clone()).await.unwrap(),
        1,
        "nobody knows h2"
    );
    assert_eq!(region.note_hosts(both).await.unwrap(), 0, "nothing new");
    assert_eq!(region.note_hosts(vec![word("h1", 2)]).await.unwrap(), 1);
    let kept = |region: &Region| {
        region
            .snapshot()
            .state
            .host_runtimes()
            .get(&"h1".to_owned())
            .map(|row| row.last_seen_us)
    };
    assert_eq!(kept(region), Some(2));
    let gone = region.write(|tx, _| host::delete(tx, Host::agent_id("h1"))).await;
    gone.unwrap();
    assert_eq!(kept(region), None);
}
