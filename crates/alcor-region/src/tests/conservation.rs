//! Whatever was done: the live state is the one that the stored rows give, indexes and allocators included, and the
//! feed leads to it.

use alcor_model::{
    Change, Kind, Revision, SecurityGroup, SecurityGroupRule,
    resource::{Direction, Ethertype, HostWord, PortStatus, Protocol, Remote},
};
use alcor_store::State as _;
use proptest::prelude::*;

use super::*;
use crate::{
    RegionState,
    alloc::NumberSpace,
    command::{FixedIpRequest, NetworkUpdate, PortReport, PortUpdate, StandardUpdate, SubnetUpdate},
    security_group::{RuleCreate, RuleRequest, SecurityGroupCreate},
};

/// One random command; the numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Network,
    Subnet(u8, u8),
    Ports(u8, u8),
    UpdateNetwork(u8),
    UpdateSubnet(u8),
    Move(u8, u8),
    Readdress(u8, bool),
    ChangeMac(u8, u8),
    Report(u8, bool),
    Host(u8),
    Group(u8),
    Rule(u8, u8),
    Regroup(u8, u8),
    DeleteNetwork(u8),
    DeleteSubnet(u8),
    DeletePort(u8),
    DeleteGroup(u8),
    DeleteRule(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let n = any::<u8>;
    prop_oneof![
        Just(Step::Network),
        (n(), n()).prop_map(|(a, b)| Step::Subnet(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::Subnet(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::Ports(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::Ports(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::Ports(a, b)),
        n().prop_map(Step::UpdateNetwork),
        n().prop_map(Step::UpdateSubnet),
        (n(), n()).prop_map(|(a, b)| Step::Move(a, b)),
        (n(), any::<bool>()).prop_map(|(a, b)| Step::Readdress(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::ChangeMac(a, b)),
        (n(), any::<bool>()).prop_map(|(a, b)| Step::Report(a, b)),
        n().prop_map(Step::Host),
        n().prop_map(Step::Group),
        (n(), n()).prop_map(|(a, b)| Step::Rule(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::Rule(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::Regroup(a, b)),
        n().prop_map(Step::DeleteGroup),
        n().prop_map(Step::DeleteRule),
        n().prop_map(Step::DeleteNetwork),
        n().prop_map(Step::DeleteSubnet),
        n().prop_map(Step::DeletePort),
    ]
}

fn pick<T: Clone>(items: impl Iterator<Item = T>, n: u8) -> Option<T> {
    let all: Vec<_> = items.collect();
    (!all.is_empty()).then(|| all[usize::from(n) % all.len()].clone())
}

/// Runs a step; a refusal is as good as a success, as long as it leaves nothing.
async fn run(region: &Region, step: Step) -> Result<(), RegionError> {
    let snapshot = region.snapshot();
    let state = &snapshot.state;
    let network = |n| pick(state.networks().iter().map(|row| row.id), n);
    let subnet = |n| pick(state.subnets().iter().map(|row| row.id), n);
    let port = |n| pick(state.ports().iter().cloned(), n);
    let admin = admin();
    match step {
        Step::Network => {
            region
                .create::<Network>(&admin, vec![NetworkCreate::default(); 2])
                .await?;
        }
        Step::Subnet(n, kind) => {
            let Some(id) = network(n) else { return Ok(()) };
            let create = match kind % 4 {
                0 => subnet_of(id, "10.0.0.0/29"),
                1 => subnet_of(id, "10.0.0.8/29"),
                2 => subnet_of(id, "fd00::/64"),
                _ => slaac_of(id, "fd00:0:0:1::/64"),
            };
            region.create::<Subnet>(&admin, vec![create]).await?;
        }
        Step::Ports(n, count) => {
            let Some(id) = network(n) else { return Ok(()) };
            let create = PortCreate {
                binding_host_id: format!("h{}", count % 3),
                device_id: format!("d{}", count % 4),
                ..port_of(id)
            };
            region
                .create::<Port>(&admin, vec![create; usize::from(count % 5)])
                .await?;
        }
        Step::UpdateNetwork(n) => {
            let Some(id) = network(n) else { return Ok(()) };
            let standard = StandardUpdate {
                name: Some(format!("n{n}")),
                ..StandardUpdate::default()
            };
            let update = NetworkUpdate {
                standard,
                mtu: Some(1000 + u16::from(n)),
                ..NetworkUpdate::default()
            };
            region.update::<Network>(&admin, id, update, None).await?;
        }
        Step::UpdateSubnet(n) => {
            let Some(id) = subnet(n) else { return Ok(()) };
            let update = SubnetUpdate {
                gateway_ip: Some(None),
                ..SubnetUpdate::default()
            };
            region.update::<Subnet>(&admin, id, update, None).await?;
        }
        Step::Move(n, host) => {
            let Some(port) = port(n) else { return Ok(()) };
            let host = if host % 4 == 0 {
                String::new()
            } else {
                format!("h{}", host % 4)
            };
            let update = PortUpdate {
                binding_host_id: Some(host),
                ..PortUpdate::default()
            };
            region.update::<Port>(&admin, port.id, update, None).await?;
        }
        Step::Readdress(n, keep) => {
            let Some(port) = port(n) else { return Ok(()) };
            let keep = port.fixed_ips.iter().filter(|_| keep);
            let mut asked: Vec<_> = keep
                .map(|fixed| FixedIpRequest {
                    subnet_id: Some(fixed.subnet_id),
                    ip_address: None,
                })
                .collect();
            if let Some(subnet) = state.subnets_of(port.network_id).next() {
                asked.push(FixedIpRequest {
                    subnet_id: Some(subnet.id),
                    ip_address: None,
                });
            }
            let update = PortUpdate {
                fixed_ips: Some(asked),
                ..PortUpdate::default()
            };
            region.update::<Port>(&admin, port.id, update, None).await?;
        }
        Step::ChangeMac(n, mac) => {
            let Some(port) = port(n) else { return Ok(()) };
            let mac = format!("fa:16:3e:ff:ff:{mac:02x}").parse().unwrap();
            let update = PortUpdate {
                mac_address: Some(Some(mac)),
                ..PortUpdate::default()
            };
            region.update::<Port>(&admin, port.id, update, None).await?;
        }
        Step::Report(n, up) => {
            let Some(port) = port(n) else { return Ok(()) };
            let report = PortReport {
                port_id: port.id,
                host_id: port.binding.host_id.clone(),
                applied_revision: port.revision,
                status: if up { PortStatus::Active } else { PortStatus::Down },
                reason: (!up).then(|| "no device".into()),
            };
            region.report_ports(vec![report]).await?;
        }
        Step::Host(n) => {
            region
                .register_host(
                    &format!("h{}", n % 4),
                    HostWord::new([10, 0, 0, n.max(1)].into(), "nova"),
                )
                .await?;
        }
        Step::Group(_) | Step::Rule(..) | Step::Regroup(..) | Step::DeleteGroup(_) | Step::DeleteRule(_) => {
            return security_step(region, step).await;
        }
        Step::DeleteNetwork(n) => {
            let Some(id) = network(n) else { return Ok(()) };
            region.delete::<Network>(&admin, id, None).await?;
        }
        Step::DeleteSubnet(n) => {
            let Some(id) = subnet(n) else { return Ok(()) };
            region.delete::<Subnet>(&admin, id, None).await?;
        }
        Step::DeletePort(n) => {
            let Some(port) = port(n) else { return Ok(()) };
            region.delete::<Port>(&admin, port.id, None).await?;
        }
    }
    Ok(())
}

/// Runs a step about security groups.
async fn security_step(region: &Region, step: Step) -> Result<(), RegionError> {
    let snapshot = region.snapshot();
    let state = &snapshot.state;
    let group = |n| pick(state.security_groups().iter().map(|row| row.id), n);
    let admin = admin();
    match step {
        Step::Group(n) => {
            let create = SecurityGroupCreate {
                stateful: Some(n % 4 != 0),
                ..SecurityGroupCreate::default()
            };
            region.create::<SecurityGroup>(&admin, vec![create]).await?;
        }
        Step::Rule(n, kind) => {
            let Some(security_group_id) = group(n) else {
                return Ok(());
            };
            let request = RuleRequest {
                direction: Direction::Ingress,
                ethertype: Ethertype::Ipv4,
                protocol: Protocol::parse(if kind % 2 == 0 { "tcp" } else { "6" }),
                port_range_min: Some(1 + u16::from(kind % 3)),
                port_range_max: Some(3),
                remote_ip_prefix: None,
                remote_group_id: group(kind).filter(|_| kind % 5 != 0),
                remote_address_group_id: None,
            };
            let create = RuleCreate {
                standard: StandardCreate::default(),
                security_group_id,
                request,
            };
            region.create::<SecurityGroupRule>(&admin, vec![create]).await?;
        }
        Step::Regroup(n, count) => {
            let Some(port) = pick(state.ports().iter().cloned(), n) else {
                return Ok(());
            };
            let groups = (0..count % 4).filter_map(|more| group(n.wrapping_add(more)));
            let update = PortUpdate {
                security_groups: Some(groups.collect()),
                ..PortUpdate::default()
            };
            region.update::<Port>(&admin, port.id, update, None).await?;
        }
        Step::DeleteGroup(n) => {
            let Some(id) = group(n) else { return Ok(()) };
            region.delete::<SecurityGroup>(&admin, id, None).await?;
        }
        Step::DeleteRule(n) => {
            let rules = state.security_group_rules().iter().map(|row| row.id);
            let Some(id) = pick(rules, n) else { return Ok(()) };
            region.delete::<SecurityGroupRule>(&admin, id, None).await?;
        }
        _ => {}
    }
    Ok(())
}

/// What a naive scan over groups, rules and ports finds.
fn assert_security_fits_a_scan(state: &RegionState) {
    let rules = |fits: &dyn Fn(&SecurityGroupRule) -> bool| -> Vec<_> {
        let all = state.security_group_rules().iter();
        all.filter(|rule| fits(rule)).map(|rule| rule.id).collect()
    };
    for group in state.security_groups().iter() {
        let own: Vec<_> = state.rules_of(group.id).map(|rule| rule.id).collect();
        assert_eq!(own, rules(&|rule| rule.security_group_id == group.id));
        let about: Vec<_> = state.rules_about(group.id).map(|rule| rule.id).collect();
        assert_eq!(
            about,
            rules(&|rule| rule.matches.remote == Remote::Group(group.id))
        );
        let under: Vec<_> = state.ports_under(group.id).map(|port| port.id).collect();
        let scan = state
            .ports()
            .iter()
            .filter(|port| port.security_groups.contains(&group.id));
        assert_eq!(under, scan.map(|port| port.id).collect::<Vec<_>>());
        let default = state.default_security_group(&group.standard.project_id);
        assert_eq!(default == Some(group.id), group.is_default);
    }
    for project in ["admin", "nobody"] {
        let caller = member(project);
        let mut seen: Vec<_> = state.rules_seen_by(project).map(|rule| rule.id).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, rules(&|rule| state.sees_rule(&caller, rule)));
        let seen: Vec<_> = state.security_groups_seen_by(project).cloned().collect();
        let groups = state.security_groups().iter();
        let scan = groups.filter(|group| state.sees_security_group(&caller, group));
        assert_eq!(seen, scan.cloned().collect::<Vec<_>>());
    }
    for rule in state.security_group_rules().iter() {
        assert_eq!(
            state.rule_like(rule.security_group_id, &rule.matches),
            Some(rule.id)
        );
        assert!(state.security_groups().contains(&rule.security_group_id));
        if let Remote::Group(remote) = rule.matches.remote {
            assert!(state.security_groups().contains(&remote));
        }
    }
    for port in state.ports().iter() {
        for group in &port.security_groups {
            assert!(state.security_groups().contains(group));
        }
    }
}

/// The state that the rows alone give, as a restart makes it.
fn rebuilt(state: &RegionState) -> RegionState {
    let mut new = RegionState::default();
    for row in Kind::ALL.iter().flat_map(|kind| state.rows(*kind)) {
        new.put(row);
    }
    new
}

fn assert_same(live: &RegionState, other: &RegionState, which: &str) {
    for kind in Kind::ALL {
        assert!(live.rows(*kind).eq(other.rows(*kind)), "{which}: {kind:?}");
    }
    assert!(live.indexes() == other.indexes(), "{which}: the indexes differ");
    for subnet in live.subnets().iter() {
        let taken = |state: &RegionState| state.offsets(subnet.id).cloned().unwrap_or_default();
        assert_eq!(taken(live), taken(other), "{which}: subnet {}", subnet.cidr);
    }
}

/// What a naive scan over the ports finds.
fn assert_indexes_fit_a_scan(state: &RegionState) {
    let scan = |fits: &dyn Fn(&Port) -> bool| -> Vec<_> {
        state
            .ports()
            .iter()
            .filter(|port| fits(port))
            .map(|port| port.id)
            .collect()
    };
    for network in state.networks().iter() {
        let indexed: Vec<_> = state.ports_of(network.id).map(|port| port.id).collect();
        assert_eq!(indexed, scan(&|port| port.network_id == network.id));
        assert_eq!(state.network_with_vni(network.segmentation_id), Some(network.id));
        assert!(state.vnis().is_taken(network.segmentation_id.get()));
    }
    assert_eq!(state.vnis().taken(), state.networks().len() as u64);
    for host in ["h0", "h1", "h2", "h3"] {
        let indexed: Vec<_> = state.ports_on(host).map(|port| port.id).collect();
        assert_eq!(indexed, scan(&|port| port.binding.host_id == host));
    }
    for port in state.ports().iter() {
        assert_eq!(
            state.port_with_mac(port.network_id, port.mac_address),
            Some(port.id)
        );
        for fixed in &port.fixed_ips {
            assert_eq!(
                state.port_with_ip(fixed.subnet_id, fixed.ip_address),
                Some(port.id)
            );
            assert!(state.subnets().contains(&fixed.subnet_id));
        }
        assert!(state.networks().contains(&port.network_id));
    }
    for subnet in state.subnets().iter() {
        let used = state.addresses_of(subnet.id).count() as u64;
        if subnet.cidr.addr().is_ipv4() {
            assert_eq!(state.offsets(subnet.id).map_or(0, NumberSpace::taken), used);
        }
        assert!(state.networks().contains(&subnet.network_id));
    }
    for kind in Kind::ALL.iter().copied() {
        let mut owned = std::collections::BTreeMap::new();
        for row in state.rows(kind) {
            *owned.entry(row.project_id().to_owned()).or_insert(0_u64) += 1;
        }
        owned.remove("");
        assert_eq!(state.counts_of(kind), owned, "{kind:?}");
    }
    for runtime in state.runtimes().iter() {
        let port = state.ports().get(&runtime.port_id).unwrap();
        assert_eq!(port.binding.host_id, runtime.host_id);
    }
}

async fn replayed(region: &Region) -> RegionState {
    let mut state = RegionState::default();
    let mut reader = region.subscribe(Revision::ZERO);
    while reader.revision() < region.snapshot().revision {
        for change in reader.next().await.unwrap().unwrap().changes {
            match change {
                Change::Put(row) => {
                    state.put(row);
                }
                Change::Delete { key, .. } => {
                    state.remove(&key);
                }
            }
        }
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_live_state_is_what_the_rows_give(steps in prop::collection::vec(step(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            let place = Place::new(RegionConfig::default(), 24);
            for step in steps {
                let before = place.region.snapshot();
                if let Err(refusal) = run(&place.region, step).await {
                    assert!(!matches!(refusal, RegionError::StoreUnavailable { .. }), "{refusal}");
                    let after = place.region.snapshot();
                    assert_eq!(before.revision, after.revision, "{refusal}");
                    assert_same(&before.state, &after.state, "after a refusal");
                }
            }
            let live = place.region.snapshot();
            assert_indexes_fit_a_scan(&live.state);
            assert_security_fits_a_scan(&live.state);
            assert_same(&live.state, &rebuilt(&live.state), "rebuilt from rows");
            assert_same(&live.state, &replayed(&place.region).await, "replayed from the feed");
            let path = place.dir.path().join("region.sqlite");
            let again = Region::open(Box::new(SqliteEngine::open(&path).unwrap()), RegionConfig::default()).unwrap();
            assert_eq!(again.snapshot().revision, live.revision);
            assert_same(&live.state, &again.snapshot().state, "reopened");
        });
    }
}
