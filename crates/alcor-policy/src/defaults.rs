//! The default rules: those of Neutron's 2026.1 release for the resources that Alcor has, in a form of our own.

const ADMIN: &str = "rule:admin_only";
const SERVICE: &str = "rule:service_api";
const READER: &str = "role:reader";
const ADMIN_OR_SERVICE: &str = "rule:admin_only or rule:service_api";

// Admins, and those of the owner's project with at least this role.
const OWNER_MANAGER: &str = "rule:admin_only or (role:manager and project_id:%(project_id)s)";
const OWNER_MEMBER: &str = "rule:admin_only or (role:member and project_id:%(project_id)s)";
const OWNER_READER: &str = "rule:admin_only or (role:reader and project_id:%(project_id)s)";

// The same with services.
const OWNER_MEMBER_OR_SERVICE: &str =
    "rule:admin_only or rule:service_api or (role:member and project_id:%(project_id)s)";
const OWNER_MEMBER_OR_ADVSVC: &str =
    "rule:admin_only or rule:context_is_advsvc or (role:member and project_id:%(project_id)s)";

// Admins, and those of the project that owns the network.
const NET_MEMBER: &str = "rule:admin_only or (role:member and rule:network_owner)";
const NET_MEMBER_OR_SERVICE: &str =
    "rule:admin_only or rule:service_api or (role:member and rule:network_owner)";
const NET_MANAGER_OR_SERVICE: &str =
    "rule:admin_only or rule:service_api or (role:manager and rule:network_owner)";
const NET_MEMBER_SERVICE_OR_SHARED: &str =
    "rule:admin_only or rule:service_api or (role:member and rule:network_owner) or rule:shared";
const NOT_OF_THE_NETWORK: &str =
    "not rule:network_device or rule:admin_only or rule:service_api or (role:member and rule:network_owner)";

// Admins, and those of the project that owns the resource or its network.
const OWNER_OR_NET_MEMBER: &str =
    "rule:admin_only or (role:member and (rule:network_owner or project_id:%(project_id)s))";
const PORT_READER: &str = "rule:admin_only or rule:service_api or (role:reader and (rule:network_owner or project_id:%(project_id)s))";
const PORT_TAG_READER: &str = "rule:admin_only or rule:context_is_advsvc or (role:reader and (rule:network_owner or project_id:%(project_id)s))";
const PORT_TAG_MEMBER: &str = "rule:admin_only or rule:context_is_advsvc or (role:member and (rule:network_owner or project_id:%(project_id)s))";
const SUBNET_READER: &str = "rule:admin_only or rule:service_api or rule:shared or rule:external_network \
     or (role:reader and (rule:network_owner or project_id:%(project_id)s))";
const SUBNET_TAG_READER: &str = "rule:admin_only or rule:shared or rule:external_network \
     or (role:reader and (rule:network_owner or project_id:%(project_id)s))";
/// What a server uses goes only with the server, unless the request comes through a service.
const PORT_DELETE: &str = "rule:admin_only or rule:service_api \
     or ((service_roles:service or (not rule:compute_device and not rule:baremetal_device and not rule:manila_device)) \
         and role:member and (rule:network_owner or project_id:%(project_id)s))";

const NETWORK_READER: &str = "rule:admin_only or rule:service_api or rule:context_is_advsvc or rule:shared or rule:external \
     or (role:reader and project_id:%(project_id)s)";
const NETWORK_TAG_READER: &str = "rule:admin_only or rule:context_is_advsvc or rule:shared or rule:external \
     or (role:reader and project_id:%(project_id)s)";

const SG_MEMBER: &str = "rule:admin_only or (role:member and rule:sg_owner)";
const SG_READER: &str = "rule:admin_only or (role:reader and rule:sg_owner)";
const PARENT_MEMBER: &str = "rule:admin_only or (role:member and rule:ext_parent_owner)";
const PARENT_READER: &str = "rule:admin_only or (role:reader and rule:ext_parent_owner)";
const NOT_EVERYBODY: &str =
    "rule:admin_only or (not field:rbac_policy:target_tenant=* and not field:rbac_policy:target_project=*)";

/// Rules that others refer to.
const NAMED: &[(&str, &str)] = &[
    ("context_is_admin", "role:admin"),
    ("context_with_global_access", "!"),
    ("context_can_set_project_id", "!"),
    ("context_is_advsvc", "role:advsvc"),
    ("service_api", "role:service"),
    ("owner", "project_id:%(project_id)s"),
    ("network_owner", "project_id:%(network:project_id)s"),
    ("ext_parent_owner", "project_id:%(ext_parent:project_id)s"),
    ("sg_owner", "project_id:%(security_group:project_id)s"),
    ("admin_only", "rule:context_is_admin"),
    ("admin_or_owner", "rule:context_is_admin or rule:owner"),
    (
        "admin_or_network_owner",
        "rule:context_is_admin or rule:network_owner",
    ),
    (
        "admin_owner_or_network_owner",
        "rule:owner or rule:admin_or_network_owner",
    ),
    (
        "admin_or_ext_parent_owner",
        "rule:context_is_admin or rule:ext_parent_owner",
    ),
    ("admin_or_sg_owner", "rule:context_is_admin or rule:sg_owner"),
    ("admin_owner_or_sg_owner", "rule:owner or rule:admin_or_sg_owner"),
    (
        "admin_or_data_plane_int",
        "rule:context_is_admin or role:data_plane_integrator",
    ),
    ("regular_user", ""),
    ("default", "rule:admin_or_owner"),
    ("shared", "field:networks:shared=True"),
    ("external", "field:networks:router:external=True"),
    ("external_network", "field:subnets:router:external=True"),
    ("shared_subnetpools", "field:subnetpools:shared=True"),
    ("shared_address_scopes", "field:address_scopes:shared=True"),
    ("shared_address_groups", "field:address_groups:shared=True"),
    ("shared_security_group", "field:security_groups:shared=True"),
    (
        "rule_default_sg",
        "field:security_group_rules:belongs_to_default_sg=True",
    ),
    ("network_device", "field:port:device_owner=~^network:"),
    ("compute_device", "field:port:device_owner=~^compute:"),
    ("baremetal_device", "field:port:device_owner=~^baremetal:"),
    ("manila_device", "field:port:device_owner=~^manila:"),
    ("restrict_wildcard", NOT_EVERYBODY),
];

/// Rules for one resource: verbs, the attributes that the rule is about (none: the resource itself), the rule.
type Row = (&'static str, &'static str, &'static str);

const RESOURCES: &[(&str, &[Row])] = &[
    (
        "network",
        &[
            ("create update delete", "", OWNER_MEMBER),
            ("get", "", NETWORK_READER),
            ("create update", "port_security_enabled tags", OWNER_MEMBER),
            ("create update", "shared router:external is_default", ADMIN),
            (
                "create get update",
                "segments provider:network_type provider:physical_network provider:segmentation_id",
                ADMIN,
            ),
            ("get", "tags", NETWORK_TAG_READER),
            ("delete", "tags", OWNER_MEMBER),
        ],
    ),
    (
        "subnet",
        &[
            ("create", "", NET_MEMBER),
            ("get", "", SUBNET_READER),
            ("update delete", "", OWNER_OR_NET_MEMBER),
            ("create get update", "segment_id", ADMIN),
            // Neutron has a stricter rule and never asks it: the attribute is not one that the policy enforces.
            ("create", "service_types", NET_MEMBER),
            ("update", "service_types", OWNER_OR_NET_MEMBER),
            ("update", "leak_routes", ADMIN),
            ("create update delete", "tags", OWNER_OR_NET_MEMBER),
            ("get", "tags", SUBNET_TAG_READER),
        ],
    ),
    (
        "subnetpool",
        &[
            ("create update delete", "", OWNER_MEMBER),
            (
                "get",
                "",
                "rule:shared_subnetpools or rule:admin_only or (role:reader and rule:owner)",
            ),
            ("create", "shared", ADMIN),
            ("create update", "is_default", ADMIN),
            ("create update delete", "tags", OWNER_MEMBER),
            (
                "get",
                "tags",
                "rule:shared_subnetpools or rule:admin_only or (role:reader and rule:owner)",
            ),
        ],
    ),
    (
        "address_scope",
        &[
            ("create update delete", "", OWNER_MEMBER),
            (
                "get",
                "",
                "rule:shared_address_scopes or rule:admin_only or (role:reader and rule:owner)",
            ),
            ("create update", "shared", ADMIN),
        ],
    ),
    (
        "address_group",
        &[
            ("create update delete", "", OWNER_MEMBER),
            (
                "get",
                "",
                "rule:shared_address_groups or rule:admin_only or (role:reader and rule:owner)",
            ),
        ],
    ),
    (
        "port",
        &[
            ("create", "", NET_MEMBER_SERVICE_OR_SHARED),
            ("get", "", PORT_READER),
            ("update", "", OWNER_MEMBER_OR_SERVICE),
            ("delete", "", PORT_DELETE),
            (
                "create update",
                "device_id binding:vnic_type",
                OWNER_MEMBER_OR_SERVICE,
            ),
            ("create update", "device_owner", NOT_OF_THE_NETWORK),
            ("create", "mac_address", NET_MEMBER_OR_SERVICE),
            ("update", "mac_address", NET_MANAGER_OR_SERVICE),
            ("create", "fixed_ips", NET_MEMBER_SERVICE_OR_SHARED),
            ("update", "fixed_ips", NET_MEMBER_OR_SERVICE),
            (
                "create update",
                "fixed_ips:ip_address port_security_enabled",
                NET_MEMBER_OR_SERVICE,
            ),
            (
                "create update",
                "fixed_ips:subnet_id",
                NET_MEMBER_SERVICE_OR_SHARED,
            ),
            (
                "create update",
                "allowed_address_pairs allowed_address_pairs:mac_address allowed_address_pairs:ip_address",
                NET_MEMBER_OR_SERVICE,
            ),
            ("create get update", "binding:host_id", ADMIN_OR_SERVICE),
            ("create update", "binding:profile", SERVICE),
            (
                "get",
                "binding:vif_type binding:vif_details binding:profile",
                ADMIN_OR_SERVICE,
            ),
            ("create get update", "trusted", ADMIN),
            ("get", "resource_request", ADMIN),
            (
                "update",
                "data_plane_status",
                "rule:admin_only or role:data_plane_integrator",
            ),
            ("create update", "tags", OWNER_MEMBER_OR_ADVSVC),
            ("get", "tags", PORT_TAG_READER),
            ("delete", "tags", PORT_TAG_MEMBER),
        ],
    ),
    (
        "port_binding",
        &[
            ("get", "", ADMIN_OR_SERVICE),
            ("create update delete", "", SERVICE),
        ],
    ),
    (
        "router",
        &[
            ("create update delete", "", OWNER_MEMBER),
            ("get", "", OWNER_READER),
            ("create get update", "distributed ha", ADMIN),
            (
                "create update",
                "external_gateway_info external_gateway_info:network_id",
                OWNER_MEMBER,
            ),
            (
                "create update",
                "external_gateway_info:enable_snat external_gateway_info:external_fixed_ips",
                ADMIN,
            ),
            (
                "create update",
                "enable_default_route_bfd enable_default_route_ecmp",
                ADMIN,
            ),
            ("create update delete", "tags", OWNER_MEMBER),
            ("get", "tags", OWNER_READER),
        ],
    ),
    ("router_interface", &[("add remove", "", OWNER_MEMBER)]),
    ("extraroutes", &[("add remove", "", OWNER_MEMBER)]),
    (
        "external_gateways",
        &[
            ("add update remove", "", OWNER_MEMBER),
            ("add update remove", "external_gateways", OWNER_MEMBER),
            ("add update", "external_gateways:network_id", OWNER_MEMBER),
            (
                "add update",
                "external_gateways:enable_snat external_gateways:external_fixed_ips",
                ADMIN,
            ),
        ],
    ),
    (
        "floatingip",
        &[
            ("create update delete", "", OWNER_MEMBER),
            ("get", "", OWNER_READER),
            ("create", "floating_ip_address", OWNER_MANAGER),
            ("create update", "router_id", OWNER_MEMBER),
            ("create update delete", "tags", OWNER_MEMBER),
            ("get", "tags", OWNER_READER),
        ],
    ),
    ("floatingip_pool", &[("get", "", OWNER_READER)]),
    (
        "floatingip_port_forwarding",
        &[
            ("create update delete", "", PARENT_MEMBER),
            ("get", "", PARENT_READER),
        ],
    ),
    (
        "security_group",
        &[
            ("create update delete", "", OWNER_MEMBER),
            (
                "get",
                "",
                "rule:shared_security_group or rule:admin_only or (role:reader and rule:owner)",
            ),
            ("create update delete", "tags", OWNER_MEMBER),
            (
                "get",
                "tags",
                "rule:shared_security_group or rule:admin_only or (role:reader and rule:owner)",
            ),
        ],
    ),
    (
        "default_security_group",
        &[(
            "create",
            "",
            "rule:admin_only or rule:service_api or (role:reader and project_id:%(project_id)s)",
        )],
    ),
    (
        "security_group_rule",
        &[
            ("create delete", "", SG_MEMBER),
            ("get", "", SG_READER),
            // Neutron has no rule for this one, and then its rule `default` holds.
            ("update", "", "rule:default"),
        ],
    ),
    (
        "default_security_group_rule",
        &[("create update delete", "", ADMIN), ("get", "", READER)],
    ),
    (
        "rbac_policy",
        &[
            ("create update delete", "", OWNER_MEMBER),
            ("get", "", OWNER_READER),
            ("create update", "target_tenant", NOT_EVERYBODY),
            (
                "create update",
                "target_project",
                "rule:admin_only or not field:rbac_policy:target_project=*",
            ),
        ],
    ),
    (
        "quota",
        &[("get", "", OWNER_MANAGER), ("update delete", "", ADMIN)],
    ),
    (
        "auto_allocated_topology",
        &[("get", "", OWNER_READER), ("delete", "", OWNER_MEMBER)],
    ),
    ("agent", &[("create get update delete", "", ADMIN)]),
    ("dhcp-network", &[("create delete", "", ADMIN)]),
    ("l3-router", &[("create update delete", "", ADMIN)]),
    ("availability_zone", &[("get", "", READER)]),
    ("network_ip_availability", &[("get", "", ADMIN_OR_SERVICE)]),
    ("segment", &[("create get update delete", "", ADMIN)]),
    ("segments_tags", &[("create get update delete", "", ADMIN)]),
    (
        "network_segment_range",
        &[
            ("create get update delete", "", ADMIN),
            ("create get update delete", "tags", ADMIN),
        ],
    ),
    ("service_provider", &[("get", "", READER)]),
];

/// Actions whose names are not a verb and a resource.
const ACTIONS: &[(&str, &str)] = &[
    ("get_dhcp-networks", ADMIN),
    ("get_dhcp-agents", ADMIN),
    ("get_l3-routers", ADMIN),
    ("get_l3-agents", ADMIN),
    ("activate", SERVICE),
    ("add_addresses", OWNER_MEMBER),
    ("remove_addresses", OWNER_MEMBER),
    ("add_prefixes", OWNER_MEMBER),
    ("remove_prefixes", OWNER_MEMBER),
    ("onboard_network_subnets", OWNER_MEMBER),
    // Alcor's own: hosts, and the state of ports on them.
    ("alcor_admin", ADMIN),
];

/// All default rules: name, text, and whether only tokens for a project may use them.
pub fn rules() -> Vec<(String, &'static str, bool)> {
    let mut rules: Vec<(String, &'static str, bool)> = NAMED
        .iter()
        .map(|(name, rule)| ((*name).to_owned(), *rule, false))
        .collect();
    rules.extend(
        ACTIONS
            .iter()
            .map(|(name, rule)| ((*name).to_owned(), *rule, true)),
    );
    for (resource, rows) in RESOURCES {
        for (verbs, attributes, rule) in *rows {
            for verb in verbs.split_whitespace() {
                let action = format!("{verb}_{resource}");
                if attributes.is_empty() {
                    rules.push((action, rule, true));
                    continue;
                }
                let of_attributes = attributes.split_whitespace();
                rules.extend(of_attributes.map(|attribute| (format!("{action}:{attribute}"), *rule, true)));
            }
        }
    }
    rules
}
