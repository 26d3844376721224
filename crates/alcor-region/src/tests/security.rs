//! Security groups, their rules, templates and address groups: Neutron's rules, one test each, and duplicates of rules
//! against a naive comparison of what they match.

use std::net::IpAddr;

use alcor_model::{
    AddressGroup, DefaultSecurityGroupRule, Port, SecurityGroup, SecurityGroupRule,
    resource::{Direction, Ethertype, Protocol, Remote},
};
use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::{
    ErrorClass, RegionState,
    address_group::{AddressGroupCreate, add_addresses, remove_addresses},
    command::{PortUpdate, StandardUpdate},
    security_group::{
        RuleCreate, RuleKey, RuleRequest, SecurityGroupCreate, SecurityGroupUpdate, TemplateCreate,
        ensure_default,
    },
};

fn place() -> Place {
    Place::new(RegionConfig::default(), 24)
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, RegionError>, kind: &str, class: ErrorClass) -> String {
    let error = outcome.unwrap_err();
    assert_eq!(error.neutron_type(), kind, "{error}");
    assert_eq!(error.class(), class, "{error}");
    error.to_string()
}

fn conflict<T: std::fmt::Debug>(outcome: Result<T, RegionError>, kind: &str) -> String {
    refused(outcome, kind, ErrorClass::Conflict)
}

fn named(name: &str) -> SecurityGroupCreate {
    SecurityGroupCreate {
        standard: StandardCreate {
            name: name.into(),
            ..StandardCreate::default()
        },
        stateful: None,
    }
}

fn ingress<G>(protocol: Option<&str>, range: (Option<u16>, Option<u16>)) -> RuleRequest<G> {
    RuleRequest {
        direction: Direction::Ingress,
        ethertype: Ethertype::Ipv4,
        protocol: protocol.map(|text| Protocol::parse(text).unwrap()),
        port_range_min: range.0,
        port_range_max: range.1,
        remote_ip_prefix: None,
        remote_group_id: None,
        remote_address_group_id: None,
    }
}

fn rule_of(security_group_id: Id<SecurityGroup>, request: RuleRequest<Id<SecurityGroup>>) -> RuleCreate {
    RuleCreate {
        standard: StandardCreate::default(),
        security_group_id,
        request,
    }
}

impl Place {
    async fn group(&self, caller: &Caller, name: &str) -> Arc<SecurityGroup> {
        self.region
            .create::<SecurityGroup>(caller, vec![named(name)])
            .await
            .unwrap()
            .remove(0)
    }

    async fn try_rule(
        &self,
        group: Id<SecurityGroup>,
        request: RuleRequest<Id<SecurityGroup>>,
    ) -> Result<Arc<SecurityGroupRule>, RegionError> {
        let mut made = self
            .region
            .create::<SecurityGroupRule>(&owner(), vec![rule_of(group, request)])
            .await?;
        Ok(made.remove(0))
    }

    async fn try_groups(
        &self,
        port: Id<Port>,
        groups: &[Id<SecurityGroup>],
    ) -> Result<Arc<Port>, RegionError> {
        let update = PortUpdate {
            security_groups: Some(groups.to_vec()),
            ..PortUpdate::default()
        };
        self.region.update::<Port>(&owner(), port, update, None).await
    }

    async fn default_group(&self, project: &str) -> Id<SecurityGroup> {
        let project = project.to_owned();
        self.region
            .write(move |tx, env| ensure_default(tx, env, &project))
            .await
            .unwrap()
    }
}

/// Direction, family and remote of a group's rules.
fn summary(state: &RegionState, group: Id<SecurityGroup>) -> Vec<(Direction, Ethertype, Remote)> {
    let mut rules: Vec<_> = state
        .rules_of(group)
        .map(|rule| {
            (
                rule.matches.direction,
                rule.matches.ethertype,
                rule.matches.remote,
            )
        })
        .collect();
    rules.sort();
    rules
}

#[tokio::test]
async fn a_ports_project_gets_one_default_group_with_neutrons_rules() {
    let place = place();
    let network = place.network().await;
    assert!(place.region.snapshot().state.security_groups().is_empty());
    let first = place.port(network).await;
    let second = place.port(network).await;
    let snapshot = place.region.snapshot();
    let state = &snapshot.state;
    let group = state.default_security_group("p1").unwrap();
    assert_eq!(first.security_groups, [group]);
    assert_eq!(second.security_groups, [group]);
    assert_eq!(state.security_groups().len(), 1);
    let row = state.security_groups().get(&group).unwrap();
    assert_eq!(
        (row.standard.name.as_str(), row.is_default, row.stateful),
        ("default", true, true)
    );
    assert_eq!(
        summary(state, group),
        [
            (Direction::Ingress, Ethertype::Ipv4, Remote::Group(group)),
            (Direction::Ingress, Ethertype::Ipv6, Remote::Group(group)),
            (Direction::Egress, Ethertype::Ipv4, Remote::Any),
            (Direction::Egress, Ethertype::Ipv6, Remote::Any),
        ]
    );
    let under: Vec<_> = state.ports_under(group).map(|port| port.id).collect();
    assert_eq!(under.len(), 2);
}

#[tokio::test]
async fn a_new_group_lets_everything_out_and_brings_the_default_group() {
    let place = place();
    let group = place.group(&owner(), "web").await;
    let snapshot = place.region.snapshot();
    assert!(snapshot.state.default_security_group("p1").is_some());
    assert_eq!(
        summary(&snapshot.state, group.id),
        [
            (Direction::Egress, Ethertype::Ipv4, Remote::Any),
            (Direction::Egress, Ethertype::Ipv6, Remote::Any),
        ]
    );
}

#[tokio::test]
async fn ports_of_the_platform_and_without_port_security_have_no_group() {
    let place = place();
    let network = place.network().await;
    let router = PortCreate {
        device_owner: "network:router_interface".into(),
        ..port_of(network)
    };
    let port = place.try_port(router.clone()).await.unwrap();
    assert!(port.security_groups.is_empty() && !port.port_security_enabled);
    let open = PortCreate {
        port_security_enabled: Some(false),
        ..port_of(network)
    };
    assert!(
        place
            .try_port(open.clone())
            .await
            .unwrap()
            .security_groups
            .is_empty()
    );
    assert!(place.region.snapshot().state.security_groups().is_empty());

    let group = place.group(&owner(), "web").await.id;
    for create in [router, open] {
        let create = PortCreate {
            security_groups: Some(vec![group]),
            ..create
        };
        refused(
            place.try_port(create).await,
            "PortSecurityAndIPRequiredForSecurityGroups",
            ErrorClass::BadRequest,
        );
    }
    let none = PortCreate {
        security_groups: Some(Vec::new()),
        ..port_of(network)
    };
    assert!(place.try_port(none).await.unwrap().security_groups.is_empty());
}

#[tokio::test]
async fn port_security_goes_only_with_the_groups() {
    let place = place();
    let network = place.network().await;
    let port = place.port(network).await;
    let off = PortUpdate {
        port_security_enabled: Some(false),
        ..PortUpdate::default()
    };
    conflict(
        place
            .region
            .update::<Port>(&owner(), port.id, off.clone(), None)
            .await,
        "PortSecurityPortHasSecurityGroup",
    );
    let both = PortUpdate {
        security_groups: Some(port.security_groups.clone()),
        ..off.clone()
    };
    refused(
        place.region.update::<Port>(&owner(), port.id, both, None).await,
        "PortSecurityAndIPRequiredForSecurityGroups",
        ErrorClass::BadRequest,
    );
    let without = PortUpdate {
        security_groups: Some(Vec::new()),
        ..off
    };
    let port = place
        .region
        .update::<Port>(&owner(), port.id, without, None)
        .await
        .unwrap();
    assert!(port.security_groups.is_empty() && !port.port_security_enabled);
}

#[tokio::test]
async fn a_ports_groups_are_visible_and_of_one_kind() {
    let place = place();
    let network = place.network().await;
    let port = place.port(network).await;
    let own = place.group(&owner(), "own").await.id;
    let foreign = place.group(&member("p2"), "foreign").await.id;
    let stateless = SecurityGroupCreate {
        stateful: Some(false),
        ..named("stateless")
    };
    let stateless = place
        .region
        .create::<SecurityGroup>(&owner(), vec![stateless])
        .await
        .unwrap()[0]
        .id;
    let text = refused(
        place.try_groups(port.id, &[own, foreign]).await,
        "SecurityGroupNotFound",
        ErrorClass::NotFound,
    );
    assert_eq!(text, format!("Security group {foreign} does not exist"));
    conflict(
        place.try_groups(port.id, &[own, stateless]).await,
        "SecurityGroupConflict",
    );
    let many: Vec<_> = (0..=Port::MAX_SECURITY_GROUPS as u128)
        .map(|n| Id::from_uuid(Uuid::from_u128(n)))
        .collect();
    refused(
        place.try_groups(port.id, &many).await,
        "InvalidInput",
        ErrorClass::BadRequest,
    );
    let moved = place.try_groups(port.id, &[stateless]).await.unwrap();
    assert_eq!(moved.security_groups, [stateless]);
    let snapshot = place.region.snapshot();
    assert!(!snapshot.state.has_ports_under(port.security_groups[0]));
    assert!(snapshot.state.has_ports_under(stateless));
    let back = SecurityGroupUpdate {
        stateful: Some(true),
        ..SecurityGroupUpdate::default()
    };
    conflict(
        place
            .region
            .update::<SecurityGroup>(&owner(), stateless, back, None)
            .await,
        "SecurityGroupInUse",
    );
}

#[tokio::test]
async fn the_default_group_keeps_its_name_and_stays() {
    let (place, boss) = (place(), admin());
    let default = place.default_group("p1").await;
    let rename = |name: &str| SecurityGroupUpdate {
        standard: StandardUpdate {
            name: Some(name.into()),
            ..StandardUpdate::default()
        },
        stateful: None,
    };
    let update = |id, name| {
        place
            .region
            .update::<SecurityGroup>(&boss, id, rename(name), None)
    };
    conflict(update(default, "x").await, "SecurityGroupCannotUpdateDefault");
    for name in ["default", "Default"] {
        conflict(
            place
                .region
                .create::<SecurityGroup>(&owner(), vec![named(name)])
                .await,
            "SecurityGroupDefaultAlreadyExists",
        );
    }
    let web = place.group(&owner(), "web").await.id;
    conflict(update(web, "default").await, "SecurityGroupDefaultAlreadyExists");
    conflict(
        place
            .region
            .delete::<SecurityGroup>(&owner(), default, None)
            .await,
        "SecurityGroupCannotRemoveDefault",
    );
    place
        .region
        .delete::<SecurityGroup>(&boss, default, None)
        .await
        .unwrap();
    assert_ne!(
        place.default_group("p1").await,
        default,
        "it is made again on the next need"
    );
}

#[tokio::test]
async fn a_group_in_use_stays_and_a_deleted_one_takes_its_rules() {
    let place = place();
    let network = place.network().await;
    let port = place.port(network).await;
    let web = place.group(&owner(), "web").await.id;
    let db = place.group(&owner(), "db").await.id;
    place.try_groups(port.id, &[web]).await.unwrap();
    conflict(
        place.region.delete::<SecurityGroup>(&owner(), web, None).await,
        "SecurityGroupInUse",
    );
    let from_web = RuleRequest {
        remote_group_id: Some(web),
        ..ingress(Some("tcp"), (Some(5432), Some(5432)))
    };
    let rule = place.try_rule(db, from_web).await.unwrap();
    let before = place.region.snapshot();
    let number = |state: &RegionState| state.security_groups().get(&db).unwrap().standard.revision_number;
    place.try_groups(port.id, &[]).await.unwrap();
    place
        .region
        .delete::<SecurityGroup>(&owner(), web, None)
        .await
        .unwrap();
    let after = place.region.snapshot();
    assert!(!after.state.security_group_rules().contains(&rule.id));
    assert_eq!(after.state.rules_of(db).count(), 2);
    assert_eq!(number(&after.state), number(&before.state) + 1);
}

#[tokio::test]
async fn a_groups_revision_counts_its_rules() {
    let place = place();
    let web = place.group(&owner(), "web").await;
    let rule = place
        .try_rule(web.id, ingress(Some("tcp"), (Some(80), Some(80))))
        .await
        .unwrap();
    let number = || {
        let snapshot = place.region.snapshot();
        let group = snapshot.state.security_groups().get(&web.id).unwrap();
        group.standard.revision_number
    };
    assert_eq!(number(), web.standard.revision_number + 1);
    place
        .region
        .delete::<SecurityGroupRule>(&owner(), rule.id, None)
        .await
        .unwrap();
    assert_eq!(number(), web.standard.revision_number + 2);
}

#[tokio::test]
async fn rules_that_do_not_fit_together_are_refused() {
    let place = place();
    let web = place.group(&owner(), "web").await.id;
    let foreign = place.group(&member("p2"), "foreign").await.id;
    let bad = |kind: &'static str, request| {
        let place = &place;
        async move {
            refused(place.try_rule(web, request).await, kind, ErrorClass::BadRequest);
        }
    };
    let (tcp, icmp) = (Some("tcp"), Some("icmp"));
    bad(
        "SecurityGroupProtocolRequiredWithPorts",
        ingress(None, (Some(80), Some(80))),
    )
    .await;
    bad("SecurityGroupInvalidPortRange", ingress(tcp, (Some(80), None))).await;
    bad(
        "SecurityGroupInvalidPortRange",
        ingress(tcp, (Some(81), Some(80))),
    )
    .await;
    bad("SecurityGroupInvalidPortValue", ingress(tcp, (Some(0), Some(80)))).await;
    bad("SecurityGroupInvalidIcmpValue", ingress(icmp, (Some(256), None))).await;
    bad(
        "SecurityGroupInvalidIcmpValue",
        ingress(icmp, (Some(8), Some(256))),
    )
    .await;
    bad("SecurityGroupMissingIcmpType", ingress(icmp, (None, Some(0)))).await;
    bad(
        "SecurityGroupInvalidProtocolForPort",
        ingress(Some("esp"), (Some(1), Some(2))),
    )
    .await;
    for protocol in ["icmpv6", "ipv6-icmp", "58", "ipv6-route", "44"] {
        bad(
            "SecurityGroupEthertypeConflictWithProtocol",
            ingress(Some(protocol), (None, None)),
        )
        .await;
    }
    let prefixed = |prefix: &str| RuleRequest {
        remote_ip_prefix: Some(prefix.parse().unwrap()),
        ..ingress(tcp, (None, None))
    };
    bad("SecurityGroupRuleParameterConflict", prefixed("fd00::/64")).await;
    let two = RuleRequest {
        remote_group_id: Some(web),
        ..prefixed("10.0.0.0/8")
    };
    bad("SecurityGroupMultipleRemoteEntites", two).await;
    let of_strangers = RuleRequest {
        remote_group_id: Some(foreign),
        ..ingress(tcp, (None, None))
    };
    refused(
        place.try_rule(web, of_strangers).await,
        "SecurityGroupNotFound",
        ErrorClass::NotFound,
    );
    refused(
        place.try_rule(foreign, ingress(tcp, (None, None))).await,
        "SecurityGroupNotFound",
        ErrorClass::NotFound,
    );
    let of_nobody = RuleRequest {
        remote_address_group_id: Some(Id::from_uuid(Uuid::nil())),
        ..ingress(tcp, (None, None))
    };
    refused(
        place.try_rule(web, of_nobody).await,
        "AddressGroupNotFound",
        ErrorClass::NotFound,
    );
}

#[tokio::test]
async fn rules_are_normalised_and_keep_their_spelling() {
    let place = place();
    let web = place.group(&owner(), "web").await.id;
    let ipv6 = |protocol| RuleRequest {
        ethertype: Ethertype::Ipv6,
        ..ingress(Some(protocol), (None, None))
    };
    let spelled = |rule: &SecurityGroupRule| {
        let protocol = rule.matches.protocol.clone().unwrap();
        (protocol.number, protocol.spelled)
    };
    let rule = place.try_rule(web, ipv6("icmp")).await.unwrap();
    assert_eq!(spelled(&rule), (58, "ipv6-icmp".into()));
    for same in ["1", "58", "icmpv6", "ipv6-icmp"] {
        let text = conflict(place.try_rule(web, ipv6(same)).await, "SecurityGroupRuleExists");
        assert!(text.contains(&rule.id.to_string()), "{text}");
    }
    let rule = place
        .try_rule(web, ingress(Some("17"), (Some(1), Some(65_535))))
        .await
        .unwrap();
    assert_eq!(spelled(&rule), (17, "17".into()));
    assert_eq!(
        (rule.matches.port_range_min, rule.matches.port_range_max),
        (None, None)
    );
    conflict(
        place.try_rule(web, ingress(Some("UDP"), (None, None))).await,
        "SecurityGroupRuleExists",
    );
    let everybody = RuleRequest {
        remote_ip_prefix: Some("0.0.0.0/0".parse().unwrap()),
        ..ingress(Some("udp"), (None, None))
    };
    conflict(place.try_rule(web, everybody).await, "SecurityGroupRuleExists");
}

#[tokio::test]
async fn rules_of_one_request_are_made_together_or_not_at_all() {
    let (place, boss) = (place(), admin());
    let web = place.group(&owner(), "web").await.id;
    let db = place.group(&owner(), "db").await.id;
    let port = |number| ingress(Some("tcp"), (Some(number), Some(number)));
    let create = |rules| place.region.create::<SecurityGroupRule>(&boss, rules);
    let before = place.region.snapshot().revision;
    conflict(
        create(vec![rule_of(web, port(80)), rule_of(web, port(80))]).await,
        "DuplicateSecurityGroupRuleInPost",
    );
    refused(
        create(vec![rule_of(web, port(80)), rule_of(db, port(80))]).await,
        "SecurityGroupNotSingleGroupRules",
        ErrorClass::BadRequest,
    );
    let mut of_another = rule_of(web, port(81));
    of_another.standard.project_id = Some("p2".into());
    refused(
        create(vec![rule_of(web, port(80)), of_another]).await,
        "SecurityGroupRulesNotSingleProject",
        ErrorClass::BadRequest,
    );
    assert_eq!(place.region.snapshot().revision, before);
    create(vec![rule_of(web, port(80)), rule_of(web, port(81))])
        .await
        .unwrap();
    let before = place.region.snapshot().revision;
    conflict(
        create(vec![rule_of(web, port(82)), rule_of(web, port(81))]).await,
        "SecurityGroupRuleExists",
    );
    assert_eq!(place.region.snapshot().revision, before);
}

#[tokio::test]
async fn rules_of_strangers_are_not_there_but_those_of_own_groups_are() {
    let place = place();
    let web = place.group(&owner(), "web").await.id;
    let by_admin = place
        .region
        .create::<SecurityGroupRule>(
            &admin(),
            vec![rule_of(web, ingress(Some("tcp"), (Some(80), Some(80))))],
        )
        .await
        .unwrap()
        .remove(0);
    assert_eq!(by_admin.standard.project_id, "admin");
    let snapshot = place.region.snapshot();
    assert!(snapshot.state.sees_rule(&owner(), &by_admin));
    assert!(!snapshot.state.sees_rule(&member("p2"), &by_admin));
    refused(
        place
            .region
            .delete::<SecurityGroupRule>(&member("p2"), by_admin.id, None)
            .await,
        "SecurityGroupRuleNotFound",
        ErrorClass::NotFound,
    );
    let described = StandardUpdate {
        description: Some("web".into()),
        ..StandardUpdate::default()
    };
    let rule = place
        .region
        .update::<SecurityGroupRule>(&owner(), by_admin.id, described, Some(1))
        .await
        .unwrap();
    assert_eq!(rule.standard.description, "web");
}

#[tokio::test]
async fn quotas_count_the_default_group_and_the_first_rules() {
    let limited = |groups, rules| {
        let quotas = [("security_group", groups), ("security_group_rule", rules)];
        Place::new(
            RegionConfig {
                quotas: quotas.into_iter().collect(),
                ..RegionConfig::default()
            },
            24,
        )
    };
    let try_group = |place: &Place| {
        let region = place.region.clone();
        async move { region.create::<SecurityGroup>(&owner(), vec![named("g")]).await }
    };
    let place = limited(2, 100);
    try_group(&place).await.unwrap();
    conflict(try_group(&place).await, "OverQuota");
    let place = limited(10, 7);
    try_group(&place).await.unwrap();
    let text = conflict(try_group(&place).await, "OverQuota");
    assert!(text.contains("security_group_rule"), "{text}");
    let place = limited(10, 0);
    let network = place.network().await;
    conflict(place.try_port(port_of(network)).await, "OverQuota");
    assert!(place.region.snapshot().state.security_groups().is_empty());
}

fn template(
    request: RuleRequest<Option<Id<SecurityGroup>>>,
    used_in_default_sg: bool,
    used_in_non_default_sg: bool,
) -> TemplateCreate {
    TemplateCreate {
        standard: StandardCreate::default(),
        request,
        used_in_default_sg,
        used_in_non_default_sg,
    }
}

#[tokio::test]
async fn templates_decide_the_first_rules() {
    let place = place();
    let create = |create| {
        let region = place.region.clone();
        async move {
            region
                .create::<DefaultSecurityGroupRule>(&admin(), vec![create])
                .await
        }
    };
    let ssh = || ingress(Some("tcp"), (Some(22), Some(22)));
    let peer = place.group(&member("p2"), "peer").await.id;
    create(template(ssh(), false, true)).await.unwrap();
    create(template(ssh(), true, false)).await.unwrap();
    conflict(
        create(template(ssh(), true, false)).await,
        "DefaultSecurityGroupRuleExists",
    );
    conflict(
        create(template(ssh(), true, true)).await,
        "DefaultSecurityGroupRuleExists",
    );
    let parent = RuleRequest {
        remote_group_id: Some(None),
        ..ingress(Some("udp"), (None, None))
    };
    create(template(parent, false, true)).await.unwrap();
    let of_peer = RuleRequest {
        remote_group_id: Some(Some(peer)),
        ..ingress(Some("sctp"), (None, None))
    };
    create(template(of_peer, false, true)).await.unwrap();
    refused(
        create(template(ingress(None, (Some(1), Some(2))), false, true)).await,
        "SecurityGroupProtocolRequiredWithPorts",
        ErrorClass::BadRequest,
    );

    let web = place.group(&owner(), "web").await.id;
    let remotes = |state: &RegionState, group| {
        let mut found: Vec<_> = state
            .rules_of(group)
            .filter_map(|rule| Some((rule.matches.protocol.as_ref()?.number, rule.matches.remote)))
            .collect();
        found.sort();
        found
    };
    let snapshot = place.region.snapshot();
    assert_eq!(
        remotes(&snapshot.state, web),
        [
            (6, Remote::Any),
            (17, Remote::Group(web)),
            (132, Remote::Group(peer))
        ]
    );
    let default = snapshot.state.default_security_group("p1").unwrap();
    assert_eq!(remotes(&snapshot.state, default), [(6, Remote::Any)]);

    place
        .region
        .delete::<SecurityGroup>(&member("p2"), peer, None)
        .await
        .unwrap();
    let db = place.group(&owner(), "db").await.id;
    let snapshot = place.region.snapshot();
    assert_eq!(
        remotes(&snapshot.state, db),
        [(6, Remote::Any), (17, Remote::Group(db))],
        "nobody can be in a group that is gone"
    );
}

#[tokio::test]
async fn a_removed_first_template_stays_removed() {
    let place = place();
    place.default_group("p1").await;
    let snapshot = place.region.snapshot();
    let templates: Vec<_> = snapshot
        .state
        .default_security_group_rules()
        .iter()
        .map(|template| template.id)
        .collect();
    assert_eq!(templates.len(), 4);
    for id in &templates {
        place
            .region
            .delete::<DefaultSecurityGroupRule>(&admin(), *id, None)
            .await
            .unwrap();
    }
    refused(
        place
            .region
            .delete::<DefaultSecurityGroupRule>(&admin(), templates[0], None)
            .await,
        "DefaultSecurityGroupRuleNotFound",
        ErrorClass::NotFound,
    );
    let web = place.group(&owner(), "web").await.id;
    assert_eq!(place.region.snapshot().state.rules_of(web).count(), 0);
}

#[tokio::test]
async fn address_groups_hold_prefixes_until_rules_are_about_them() {
    let (place, boss) = (place(), admin());
    let nets = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let create = AddressGroupCreate {
        standard: StandardCreate::default(),
        addresses: nets(&["192.168.0.10/24", "10.0.0.1/32", "192.168.0.0/24", "fd00::1/64"]),
    };
    let group = place
        .region
        .create::<AddressGroup>(&owner(), vec![create])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        group.addresses,
        nets(&["10.0.0.1/32", "192.168.0.0/24", "fd00::/64"])
    );
    let change = |add: bool, caller: Caller, addresses: Vec<IpNet>| {
        let (region, id) = (place.region.clone(), group.id);
        async move {
            region
                .write(move |tx, env| {
                    if add {
                        add_addresses(tx, env, &caller, id, &addresses)
                    } else {
                        remove_addresses(tx, env, &caller, id, &addresses)
                    }
                })
                .await
        }
    };
    let text = refused(
        change(true, owner(), nets(&["10.1.0.0/16", "192.168.0.7/24"])).await,
        "AddressesAlreadyExist",
        ErrorClass::BadRequest,
    );
    assert!(
        text.contains("192.168.0.0/24") && !text.contains("10.1"),
        "{text}"
    );
    refused(
        change(false, owner(), nets(&["10.1.0.0/16"])).await,
        "AddressesNotFound",
        ErrorClass::NotFound,
    );
    refused(
        change(false, member("p2"), nets(&["10.0.0.1/32"])).await,
        "AddressGroupNotFound",
        ErrorClass::NotFound,
    );
    let many: Vec<IpNet> = (0..AddressGroup::MAX_ADDRESSES as u32)
        .map(|n| IpNet::from(IpAddr::from(std::net::Ipv4Addr::from(n << 4))))
        .collect();
    refused(
        change(true, owner(), many).await,
        "InvalidInput",
        ErrorClass::BadRequest,
    );
    change(true, owner(), nets(&["10.1.0.0/16"])).await.unwrap();
    let changed = change(false, owner(), nets(&["10.0.0.1/32"])).await.unwrap();
    assert_eq!(
        changed.addresses,
        nets(&["10.1.0.0/16", "192.168.0.0/24", "fd00::/64"])
    );
    assert_eq!(changed.standard.revision_number, 3);

    let web = place.group(&owner(), "web").await.id;
    let about = RuleRequest {
        remote_address_group_id: Some(group.id),
        ..ingress(Some("tcp"), (None, None))
    };
    let rule = place.try_rule(web, about).await.unwrap();
    let delete = || place.region.delete::<AddressGroup>(&boss, group.id, None);
    conflict(delete().await, "AddressGroupInUse");
    place
        .region
        .delete::<SecurityGroupRule>(&owner(), rule.id, None)
        .await
        .unwrap();
    delete().await.unwrap();
}

/// What a packet is, as far as rules look at it.
struct Packet {
    direction: Direction,
    ethertype: Ethertype,
    protocol: u8,
    /// Destination port or ICMP type, and ICMP code.
    numbers: (u16, u16),
    remote: IpAddr,
    remote_group: u128,
}

/// Whether a rule allows a packet, straight from what the client wrote.
fn allows(request: &RuleRequest<Id<SecurityGroup>>, packet: &Packet) -> bool {
    let protocol = match &request.protocol {
        None => true,
        Some(protocol) => {
            let icmp_of_ipv6 = request.ethertype == Ethertype::Ipv6 && protocol.number == 1;
            packet.protocol == if icmp_of_ipv6 { 58 } else { protocol.number }
        }
    };
    let is_icmp = [1, 58].contains(&packet.protocol);
    let numbers = match (request.port_range_min, request.port_range_max) {
        (None, None) | (Some(1), Some(65_535)) => true,
        (Some(kind), None) => packet.numbers.0 == kind,
        (Some(kind), Some(code)) if is_icmp => packet.numbers == (kind, code),
        (Some(min), Some(max)) => (min..=max).contains(&packet.numbers.0),
        (None, Some(_)) => false,
    };
    let remote = match (request.remote_ip_prefix, request.remote_group_id) {
        (Some(prefix), _) => prefix.contains(&packet.remote),
        (None, Some(group)) => group.uuid().as_u128() == packet.remote_group,
        (None, None) => true,
    };
    request.direction == packet.direction
        && request.ethertype == packet.ethertype
        && protocol
        && numbers
        && remote
}

const NUMBERS: [u16; 6] = [1, 8, 22, 80, 443, 65_535];

/// Packets that tell apart any two rules that [`any_request`] makes.
fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        for (ethertype, remotes) in [
            (Ethertype::Ipv4, ["10.0.0.1", "192.0.2.1"]),
            (Ethertype::Ipv6, ["fd00::1", "2001:db8::1"]),
        ] {
            for protocol in [1, 6, 17, 50, 58] {
                for numbers in NUMBERS.iter().flat_map(|a| NUMBERS.map(|b| (*a, b))) {
                    for (remote, remote_group) in remotes.iter().flat_map(|r| [1, 2].map(|g| (r, g))) {
                        packets.push(Packet {
                            direction,
                            ethertype,
                            protocol,
                            numbers,
                            remote: remote.parse().unwrap(),
                            remote_group,
                        });
                    }
                }
            }
        }
    }
    packets
}

fn any_request() -> impl Strategy<Value = RuleRequest<Id<SecurityGroup>>> {
    let spellings = [
        "tcp",
        "6",
        "TCP",
        "udp",
        "17",
        "icmp",
        "1",
        "icmpv6",
        "58",
        "ipv6-icmp",
        "esp",
        "50",
    ];
    let number = || prop::option::of(prop::sample::select(&[1u16, 8, 22, 80, 65_535][..]));
    (
        any::<bool>(),
        any::<bool>(),
        prop::option::of(prop::sample::select(spellings.to_vec())),
        prop_oneof![Just((None, None)), (number(), number())],
        0u8..5,
    )
        .prop_map(|(ingress, ipv4, protocol, range, remote)| RuleRequest {
            direction: if ingress {
                Direction::Ingress
            } else {
                Direction::Egress
            },
            ethertype: if ipv4 { Ethertype::Ipv4 } else { Ethertype::Ipv6 },
            protocol: protocol.and_then(Protocol::parse),
            port_range_min: range.0,
            port_range_max: range.1,
            remote_ip_prefix: match (remote, ipv4) {
                (1, true) => "0.0.0.0/0".parse().ok(),
                (1, false) => "::/0".parse().ok(),
                (2, true) => "10.0.0.0/8".parse().ok(),
                (2, false) => "fd00::/8".parse().ok(),
                _ => None,
            },
            remote_group_id: (remote > 2).then(|| Id::from_uuid(Uuid::from_u128(u128::from(remote) - 2))),
            remote_address_group_id: None,
        })
        .prop_filter("a rule that may be", |request| {
            request.clone().normalised(|remote| remote, Remote::Group).is_ok()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Two rules have the same key when, and only when, they allow the same packets.
    #[test]
    fn duplicates_are_rules_that_allow_the_same(requests in prop::collection::vec(any_request(), 2..12)) {
        let packets = packets();
        let seen: Vec<_> = requests
            .iter()
            .map(|request| {
                let matches = request.clone().normalised(|remote| remote, Remote::Group).unwrap();
                let allowed: Vec<bool> = packets.iter().map(|packet| allows(request, packet)).collect();
                (RuleKey::of(&matches), allowed)
            })
            .collect();
        for (key, allowed) in &seen {
            for (other_key, other_allowed) in &seen {
                prop_assert_eq!(key == other_key, allowed == other_allowed, "{:?} {:?}", key, other_key);
            }
        }
    }

    /// What is normalised is in its final form.
    #[test]
    fn normalising_twice_changes_nothing(request in any_request()) {
        let once = request.normalised(|remote| remote, Remote::Group).unwrap();
        let (remote_ip_prefix, remote_group_id) = match once.remote {
            Remote::Prefix(prefix) => (Some(prefix), None),
            Remote::Group(group) => (None, Some(group)),
            _ => (None, None),
        };
        let again = RuleRequest {
            direction: once.direction,
            ethertype: once.ethertype,
            protocol: once.protocol.clone(),
            port_range_min: once.port_range_min,
            port_range_max: once.port_range_max,
            remote_ip_prefix,
            remote_group_id,
            remote_address_group_id: None,
        };
        prop_assert_eq!(again.normalised(|remote| remote, Remote::Group).unwrap(), once);
    }
}
