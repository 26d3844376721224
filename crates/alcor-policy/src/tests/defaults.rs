use super::who;
use crate::{Credentials, Foreseen, Policy, Value};

/// Columns: admin of p0, then in p1 (the owner): manager, member, reader; then in p2 (somebody else): member; then a
/// service; then nobody (no roles in p1).
fn askers() -> [Credentials; 7] {
    [
        who("p0", &["admin", "manager", "member", "reader"]),
        who("p1", &["manager", "member", "reader"]),
        who("p1", &["member", "reader"]),
        who("p1", &["reader"]),
        who("p2", &["member", "reader"]),
        who("ps", &["service"]),
        who("p1", &[]),
    ]
}

type Attributes = Vec<(&'static str, Value<'static>)>;

/// Something of p1, in whatever it belongs to, which is p1's too.
fn owned(more: &[(&'static str, Value<'static>)]) -> Attributes {
    let mut target = vec![
        ("project_id", Value::text("p1")),
        ("network:project_id", Value::text("p1")),
        ("security_group:project_id", Value::text("p1")),
        ("ext_parent:project_id", Value::text("p1")),
    ];
    target.extend_from_slice(more);
    target
}

/// Something of p2 in a network of p1.
fn guest(more: &[(&'static str, Value<'static>)]) -> Attributes {
    let mut target = vec![
        ("project_id", Value::text("p2")),
        ("network:project_id", Value::text("p1")),
    ];
    target.extend_from_slice(more);
    target
}

fn check(target: &Attributes, cases: &[(&str, &str)]) {
    let policy = Policy::load(None).unwrap();
    for (names, expected) in cases {
        for name in names.split_whitespace() {
            assert!(policy.rule(name).is_some(), "{name}");
            let found: String = askers()
                .iter()
                .map(|asker| {
                    if policy.allows_named(name, asker, target) {
                        'y'
                    } else {
                        '-'
                    }
                })
                .collect();
            assert_eq!(
                found, *expected,
                "{name} (admin manager member reader | other | service | none)"
            );
        }
    }
}

#[test]
fn what_a_project_owns() {
    check(
        &owned(&[]),
        &[
            (
                "create_network update_network delete_network create_network:port_security_enabled",
                "yyy----",
            ),
            ("get_network", "yyyy-y-"),
            ("get_network:tags", "yyyy---"),
            (
                "create_network:shared update_network:shared create_network:router:external",
                "y------",
            ),
            (
                "get_network:provider:network_type create_network:provider:segmentation_id",
                "y------",
            ),
            (
                "create_subnet update_subnet delete_subnet create_subnet:tags update_subnet:service_types",
                "yyy----",
            ),
            ("get_subnet", "yyyy-y-"),
            ("create_subnet:segment_id get_subnet:segment_id", "y------"),
            (
                "create_port update_port delete_port create_port:mac_address create_port:fixed_ips:ip_address",
                "yyy--y-",
            ),
            ("get_port", "yyyy-y-"),
            ("update_port:mac_address", "yy---y-"),
            (
                "create_port:binding:host_id get_port:binding:vif_details get_port:binding:profile",
                "y----y-",
            ),
            (
                "create_port:binding:profile update_port:binding:profile create_port_binding activate",
                "-----y-",
            ),
            (
                "create_port:allowed_address_pairs update_port:port_security_enabled",
                "yyy--y-",
            ),
            ("update_port:data_plane_status", "y------"),
            (
                "create_router add_router_interface remove_extraroutes update_router:external_gateway_info",
                "yyy----",
            ),
            ("get_router", "yyyy---"),
            (
                "create_router:ha get_router:distributed update_router:external_gateway_info:enable_snat",
                "y------",
            ),
            ("create_floatingip update_floatingip delete_floatingip", "yyy----"),
            ("create_floatingip:floating_ip_address", "yy-----"),
            (
                "create_floatingip_port_forwarding delete_floatingip_port_forwarding",
                "yyy----",
            ),
            (
                "get_floatingip_port_forwarding get_floatingip get_security_group get_security_group_rule",
                "yyyy---",
            ),
            (
                "create_security_group create_security_group_rule delete_security_group_rule",
                "yyy----",
            ),
            (
                "create_subnetpool add_prefixes onboard_network_subnets create_address_scope add_addresses",
                "yyy----",
            ),
            (
                "create_subnetpool:shared update_address_scope:shared create_subnetpool:is_default",
                "y------",
            ),
            ("get_quota", "yy-----"),
            (
                "update_quota delete_quota get_agent create_segment get_network_segment_range",
                "y------",
            ),
            (
                "get_availability_zone get_service_provider get_default_security_group_rule",
                "yyyyy--",
            ),
            ("get_network_ip_availability", "y----y-"),
            ("create_rbac_policy delete_rbac_policy", "yyy----"),
        ],
    );
}

#[test]
fn guests_in_networks_of_others() {
    check(&guest(&[]), &[("get_port", "yyyyyy-")]);
    // The owner of the network sees, deletes and numbers guests' ports, but does not change them.
    check(
        &guest(&[]),
        &[
            ("update_port", "y---yy-"),
            ("delete_port", "yyy-yy-"),
            (
                "create_port create_port:fixed_ips:ip_address update_port:fixed_ips",
                "yyy--y-",
            ),
            ("delete_subnet update_subnet", "yyy-y--"),
            ("create_subnet", "yyy----"),
        ],
    );
}

#[test]
fn shared_and_external_things() {
    let shared = [("shared", Value::Bool(true))];
    check(
        &owned(&shared),
        &[
            ("get_network get_subnet", "yyyyyyy"),
            (
                "get_subnetpool get_address_scope get_address_group get_security_group",
                "yyyyyyy",
            ),
            (
                "update_network delete_network update_subnetpool update_address_group",
                "yyy----",
            ),
        ],
    );
    let external = [("router:external", Value::Bool(true))];
    check(
        &owned(&external),
        &[
            ("get_network get_subnet", "yyyyyyy"),
            ("update_network", "yyy----"),
        ],
    );
    let of_shared = [("network:shared", Value::Bool(true))];
    check(
        &owned(&of_shared),
        &[
            (
                "create_port create_port:fixed_ips create_port:fixed_ips:subnet_id",
                "yyyyyyy",
            ),
            (
                "create_port:mac_address create_port:fixed_ips:ip_address update_port:fixed_ips",
                "yyy--y-",
            ),
        ],
    );
}

#[test]
fn owners_of_devices() {
    check(
        &owned(&[("device_owner", Value::text("network:router_interface"))]),
        &[("create_port:device_owner", "yyy--y-")],
    );
    check(
        &owned(&[("device_owner", Value::text("compute:nova"))]),
        &[
            ("create_port:device_owner update_port:device_owner", "yyyyyyy"),
            ("delete_port", "y----y-"),
        ],
    );
    // A service that forwards a member's request may delete a server's port.
    let mut forwarded = who("p1", &["member", "reader"]);
    forwarded.service_roles = vec!["service".to_owned()];
    let target = owned(&[("device_owner", Value::text("compute:nova"))]);
    let policy = Policy::load(None).unwrap();
    assert!(policy.allows_named("delete_port", &forwarded, &target));
    forwarded.roles.clear();
    assert!(!policy.allows_named("delete_port", &forwarded, &target));
}

#[test]
fn sharing_with_everybody_is_for_admins() {
    let rules = "create_rbac_policy:target_tenant";
    check(
        &owned(&[("target_tenant", Value::text("*"))]),
        &[(rules, "y------")],
    );
    check(
        &owned(&[("target_tenant", Value::text("p2"))]),
        &[(rules, "yyyyyyy")],
    );
}

#[test]
fn lists_know_before_the_first_row() {
    let policy = Policy::load(None).unwrap();
    let [admin, _, member, ..] = askers();
    let foresee = |name: &str, who: &Credentials| policy.foresee(policy.rule(name).unwrap(), who);
    assert_eq!(foresee("get_port", &admin), Foreseen::Always);
    assert_eq!(foresee("get_port", &member), Foreseen::Depends);
    assert_eq!(foresee("get_port:binding:host_id", &member), Foreseen::Never);
    assert_eq!(foresee("get_agent", &member), Foreseen::Never);
    assert_eq!(foresee("get_availability_zone", &member), Foreseen::Always);
}
