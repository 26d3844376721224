"""The `openstack` command through the life of every resource: created, listed, shown, set, unset, deleted; and what
another project sees of it."""
import contextlib

UNSEEN = ("No ", "could not be found", "not found", "Could not find")


def same(shown, expected, what):
    for field, value in expected.items():
        assert field in shown, f"{what}: no field {field} in {sorted(shown)}"
        got = sorted(shown[field]) if isinstance(value, list) and value and isinstance(value[0], str) else shown[field]
        assert got == value, f"{what}: {field} is {got!r}, not {value!r}"


@contextlib.contextmanager
def life(owner, stranger, noun, create, expected, key="name", name=None, changes=(), listing=""):
    """A resource from its creation to its end.

    `changes`: lines of `openstack NOUN set|unset ... ID`, each with what `show` must say afterwards.
    """
    made = owner(f"{noun} create {create}")
    ident = made["id"]
    same(made, expected, f"{noun} create {create}")
    listed = {row["ID"] for row in owner(f"{noun} list {listing}")}
    assert ident in listed, f"{noun} list lacks {ident}"
    for reference in [ident] + ([name] if name else []):
        same(owner(f"{noun} show {reference}"), {"id": ident, **expected}, f"{noun} show {reference}")
    for line, afterwards in changes:
        owner(f"{noun} {line} {ident}")
        same(owner(f"{noun} show {ident}"), afterwards, f"{noun} {line}")
    if stranger:
        assert ident not in {row["ID"] for row in stranger(f"{noun} list {listing}")}, f"{stranger.name} lists {noun}"
        stranger.refused(f"{noun} show {ident}", *UNSEEN)
        stranger.refused(f"{noun} delete {ident}", *UNSEEN)
        for line, _ in changes[:1]:
            stranger.refused(f"{noun} {line} {ident}", *UNSEEN)
    yield made
    owner(f"{noun} delete {ident}")
    owner.refused(f"{noun} show {ident}", *UNSEEN)
    assert ident not in {row["ID"] for row in owner(f"{noun} list {listing}")}, f"{noun} {ident} is still listed"


TAGS = [("set --tag one --tag two", {"tags": ["one", "two"]}), ("unset --tag one", {"tags": ["two"]}),
        ("unset --all-tag", {"tags": []})]


def named(name, text="as asked"):
    """Changes that every named resource takes."""
    return [(f"set --name {name} --description '{text}'", {"name": name, "description": text})]


def networks(red, blue, _):
    with life(red, blue, "network", "cli-network-net --mtu 1400 --description first",
              {"name": "cli-network-net", "mtu": 1400, "description": "first", "shared": False, "admin_state_up": True,
               "port_security_enabled": True, "router:external": False},
              name="cli-network-net", changes=[*named("cli-network-net-2"), *TAGS, ("set --disable", {"admin_state_up": False}),
                                       ("set --disable-port-security", {"port_security_enabled": False}),
                                       ("set --mtu 1300", {"mtu": 1300})]):
        red.refused("network set --share cli-network-net-2", "orbidden", "disallowed", "rule")
        red.refused("network create --provider-network-type vxlan cli-network-nope", "orbidden", "disallowed", "rule")


def subnets(red, blue, _):
    with life(red, blue, "network", "cli-subnet-net", {}) as net:
        with life(red, blue, "subnet", f"cli-subnet-subnet --network {net['id']} --subnet-range 10.50.0.0/24 "
                  "--dns-nameserver 10.50.0.2 --allocation-pool start=10.50.0.10,end=10.50.0.99",
                  {"cidr": "10.50.0.0/24", "gateway_ip": "10.50.0.1", "ip_version": 4, "enable_dhcp": True,
                   "dns_nameservers": ["10.50.0.2"],
                   "allocation_pools": [{"start": "10.50.0.10", "end": "10.50.0.99"}]},
                  name="cli-subnet-subnet",
                  changes=[*named("cli-subnet-subnet-2"), *TAGS, ("set --no-dhcp", {"enable_dhcp": False}),
                           ("set --gateway 10.50.0.254", {"gateway_ip": "10.50.0.254"}),
                           ("set --dns-nameserver 10.50.0.3", {"dns_nameservers": ["10.50.0.2", "10.50.0.3"]}),
                           ("unset --dns-nameserver 10.50.0.2", {"dns_nameservers": ["10.50.0.3"]}),
                           ("set --host-route destination=10.9.0.0/16,gateway=10.50.0.5",
                            {"host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.50.0.5"}]}),
                           ("unset --host-route destination=10.9.0.0/16,gateway=10.50.0.5", {"host_routes": []})]):
            red.refused(f"subnet create --network {net['id']} --subnet-range 10.50.0.128/25 cli-subnet-twice", "overlap")
        with life(red, blue, "subnet", f"cli-subnet-v6 --network {net['id']} --ip-version 6 --subnet-range fd00:50::/64 "
                  "--ipv6-ra-mode slaac --ipv6-address-mode slaac",
                  {"ip_version": 6, "gateway_ip": "fd00:50::", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}):
            pass
        blue.refused(f"subnet create --network {net['id']} --subnet-range 10.51.0.0/24 cli-subnet-foreign", *UNSEEN)


def address_scopes_and_pools(red, blue, _):
    with life(red, blue, "address scope", "cli-addre-scope --ip-version 4", {"ip_version": 4, "shared": False},
              name="cli-addre-scope", changes=[("set --name cli-addre-scope-2", {"name": "cli-addre-scope-2"})]) as scope:
        with life(red, blue, "subnet pool", "cli-addre-pool --pool-prefix 10.60.0.0/16 --default-prefix-length 26 "
                  f"--min-prefix-length 24 --max-prefix-length 28 --address-scope {scope['id']}",
                  {"prefixes": ["10.60.0.0/16"], "default_prefixlen": 26, "min_prefixlen": 24, "max_prefixlen": 28,
                   "ip_version": 4, "address_scope_id": scope["id"]},
                  name="cli-addre-pool", changes=[*named("cli-addre-pool-2"), ("set --tag one", {"tags": ["one"]}),
                                            ("unset --all-tag", {"tags": []}),
                                            ("set --default-prefix-length 27", {"default_prefixlen": 27}),
                                            ("set --pool-prefix 10.61.0.0/16",
                                             {"prefixes": ["10.60.0.0/15"]})]) as pool:
            red.refused(f"address scope delete {scope['id']}", "in use", "Unable", "Conflict")
            with life(red, blue, "network", "cli-addre-net", {}) as net:
                with life(red, blue, "subnet", f"cli-addre-pooled --network {net['id']} --subnet-pool {pool['id']}",
                          {"cidr": "10.60.0.0/27", "subnetpool_id": pool["id"]}):
                    red.refused(f"subnet create --network {net['id']} --subnet-pool {pool['id']} --prefix-length 20 "
                                "cli-addre-large", "prefix")
            blue.refused(f"subnet create --network {net['id']} --subnet-pool {pool['id']} cli-addre-foreign", *UNSEEN)


def ports(red, blue, admin):
    with life(red, blue, "network", "cli-port-net", {}) as net, \
            life(red, blue, "subnet", f"cli-port-subnet --network {net['id']} --subnet-range 10.70.0.0/24", {}) as subnet:
        fixed = [{"subnet_id": subnet["id"], "ip_address": "10.70.0.7"}]
        with life(red, blue, "port", f"cli-port-port --network {net['id']} --mac-address 02:00:00:00:00:07 "
                  f"--fixed-ip subnet={subnet['id']},ip-address=10.70.0.7 "
                  "--allowed-address ip-address=10.70.0.200",
                  {"mac_address": "02:00:00:00:00:07", "fixed_ips": fixed, "status": "DOWN", "admin_state_up": True,
                   "allowed_address_pairs": [{"ip_address": "10.70.0.200", "mac_address": "02:00:00:00:00:07"}]},
                  name="cli-port-port",
                  changes=[*named("cli-port-port-2"), *TAGS, ("set --disable", {"admin_state_up": False}),
                           ("set --device vm-1", {"device_id": "vm-1"}),
                           ("set --extra-dhcp-option name=mtu,value=1400",
                            {"extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": "1400", "ip_version": 4}]}),
                           ("unset --allowed-address ip-address=10.70.0.200,mac-address=02:00:00:00:00:07",
                            {"allowed_address_pairs": []}),
                           ("set --no-security-group", {"security_group_ids": []}),
                           ("set --disable-port-security", {"port_security_enabled": False})]) as port:
            assert [row["ID"] for row in red("port list --fixed-ip ip-address=10.70.0.7")] == [port["id"]]
            red.refused(f"port create --network {net['id']} --fixed-ip ip-address=10.70.0.7 cli-port-twice", "already allocated")
            red.refused(f"subnet delete {subnet['id']}", "in use", "One or more ports")
            red.refused(f"network delete {net['id']}", "in use", "One or more ports")
            red.refused(f"port set --host node-1 {port['id']}", "orbidden", "disallowed", "rule")
            admin(f"port set --host node-1 {port['id']}")
            same(admin(f"port show {port['id']}"), {"binding_host_id": "node-1"}, "port set --host")
            admin(f"port unset --host {port['id']}")
            same(admin(f"port show {port['id']}"), {"binding_host_id": ""}, "port unset --host")
        blue.refused(f"port create --network {net['id']} cli-port-foreign", *UNSEEN)


def security_groups(red, blue, _):
    defaults = [row for row in red("security group list") if row["Name"] == "default"]
    assert len(defaults) == 1, f"one default group in a project: {defaults}"
    red.refused(f"security group delete {defaults[0]['ID']}", "default", "Default")
    with life(red, blue, "address group", "cli-security-addresses --address 192.0.2.0/24",
              {"name": "cli-security-addresses", "addresses": ["192.0.2.0/24"]}, name="cli-security-addresses",
              changes=[*named("cli-security-addresses-2"),
                       ("set --address 198.51.100.1/32", {"addresses": ["192.0.2.0/24", "198.51.100.1/32"]}),
                       ("unset --address 192.0.2.0/24", {"addresses": ["198.51.100.1/32"]})]) as addresses, \
            life(red, blue, "security group", "cli-security-group --description first --stateless",
                 {"name": "cli-security-group", "description": "first", "stateful": False}, name="cli-security-group",
                 changes=[*named("cli-security-group-2"), ("set --stateful", {"stateful": True}),
                          ("set --tag one", {"tags": ["one"]}), ("unset --all-tag", {"tags": []})]) as group:
        gid = group["id"]
        first = red(f"security group rule list {gid}")
        assert len(first) == 2, f"a new group lets everything out, by two rules: {first}"
        cases = [
            ("--protocol tcp --dst-port 80:443 --remote-ip 192.0.2.0/24",
             {"protocol": "tcp", "port_range_min": 80, "port_range_max": 443, "remote_ip_prefix": "192.0.2.0/24",
              "direction": "ingress", "ether_type": "IPv4"}),
            (f"--protocol udp --remote-group {gid}", {"protocol": "udp", "remote_group_id": gid}),
            (f"--protocol tcp --remote-address-group {addresses['id']}",
             {"remote_address_group_id": addresses["id"]}),
            ("--egress --protocol icmp --icmp-type 8 --icmp-code 0",
             {"direction": "egress", "port_range_min": 8, "port_range_max": 0}),
            ("--ethertype IPv6 --protocol ipv6-icmp", {"ether_type": "IPv6"}),
        ]
        for create, expected in cases:
            with life(red, blue, "security group rule", f"{create} {gid}", {**expected, "security_group_id": gid}):
                red.refused(f"security group rule create {create} {gid}", "already exists")
        blue.refused(f"security group rule create --protocol tcp {gid}", *UNSEEN)


def routers(red, blue, admin):
    public = admin("network create --external cli-router-public")
    outside = admin(f"subnet create --network {public['id']} --no-dhcp --subnet-range 203.0.113.0/24 cli-router-public4")
    with life(red, blue, "network", "cli-router-net", {}) as net, \
            life(red, blue, "subnet", f"cli-router-subnet --network {net['id']} --subnet-range 10.80.0.0/24", {}) as subnet, \
            life(red, blue, "router", "cli-router-router --description first", {"description": "first", "admin_state_up": True},
                 name="cli-router-router", changes=[*named("cli-router-router-2"), *TAGS,
                                             ("set --disable", {"admin_state_up": False}),
                                             ("set --enable", {"admin_state_up": True})]) as router:
        rid = router["id"]
        blue.refused(f"router add subnet {rid} {subnet['id']}", *UNSEEN)
        red(f"router add subnet {rid} {subnet['id']}")
        own = red(f"port list --router {rid}")
        assert [row["Fixed IP Addresses"][0]["ip_address"] for row in own] == ["10.80.0.1"], own
        red.refused(f"router delete {rid}", "still attached")
        red(f"router set --route destination=10.81.0.0/16,gateway=10.80.0.9 {rid}")
        same(red(f"router show {rid}"), {"routes": [{"destination": "10.81.0.0/16", "nexthop": "10.80.0.9"}]}, "routes")
        red(f"router add route --route destination=10.82.0.0/16,gateway=10.80.0.9 {rid}")
        assert len(red(f"router show {rid}")["routes"]) == 2
        red(f"router remove route --route destination=10.82.0.0/16,gateway=10.80.0.9 {rid}")
        red(f"router unset --route destination=10.81.0.0/16,gateway=10.80.0.9 {rid}")
        same(red(f"router show {rid}"), {"routes": []}, "routes")
        red(f"router set --external-gateway {public['id']} {rid}")
        gateway = red(f"router show {rid}")["external_gateway_info"]
        assert gateway["network_id"] == public["id"] and gateway["enable_snat"] is True, gateway
        floating_ips(red, blue, public, net, outside)
        red(f"router unset --external-gateway {rid}")
        assert not red(f"router show {rid}")["external_gateway_info"]
        red(f"router remove subnet {rid} {subnet['id']}")
        leg = red(f"port create --network {net['id']} cli-router-leg")["id"]
        red(f"router add port {rid} {leg}")
        same(red(f"port show {leg}"), {"device_id": rid, "device_owner": "network:router_interface"}, "added port")
        red(f"router remove port {rid} {leg}")
        red.refused(f"port show {leg}", *UNSEEN)
    admin(f"network delete {public['id']}")


def floating_ips(red, blue, public, net, outside):
    with life(red, blue, "port", f"cli-vm --network {net['id']}", {}) as port, \
            life(red, blue, "floating ip", f"{public['id']} --description first",
                 {"description": "first", "status": "DOWN", "port_id": None},
                 changes=[("set --description second", {"description": "second"}),
                          (f"set --port {port['id']}", {"port_id": port["id"]}), ("unset --port", {"port_id": None}),
                          ("set --tag one", {"tags": ["one"]}), ("unset --all-tag", {"tags": []})]) as floating:
        assert floating["floating_ip_address"].startswith("203.0.113."), floating
        assert floating["floating_network_id"] == outside["network_id"]
        blue.refused(f"floating ip create {public['id']} --port {port['id']}", *UNSEEN)


def rbac(red, blue, admin):
    for noun, create, action in [("network", "cli-rbac-net", "access_as_shared"),
                                 ("security group", "cli-rbac-group", "access_as_shared"),
                                 ("address scope", "cli-rbac-scope", "access_as_shared"),
                                 ("address group", "cli-rbac-addresses", "access_as_shared"),
                                 ("subnet pool", "cli-rbac-pool --pool-prefix 10.90.0.0/16", "access_as_shared")]:
        with life(red, blue, noun, create, {}) as thing:
            kind = noun.replace(" ", "_").replace("subnet_pool", "subnetpool")
            with life(red, blue, "network rbac",
                      f"--type {kind} --action {action} --target-project {blue.project_id} {thing['id']}",
                      {"object_type": kind, "object_id": thing["id"], "action": action,
                       "target_project_id": blue.project_id}):
                same(blue(f"{noun} show {thing['id']}"), {"id": thing["id"]}, f"shared {noun}")
                blue.refused(f"{noun} delete {thing['id']}")
            blue.refused(f"{noun} show {thing['id']}", *UNSEEN)
    blue.refused(f"network rbac create --type network --action access_as_shared --target-project {red.project_id} "
                 "00000000-0000-0000-0000-000000000001", *UNSEEN)


def quotas(red, blue, admin):
    shown = {row["Resource"]: row["Limit"] for row in red("quota show --network")}
    assert shown["ports"] == 500 and shown["networks"] == 100, shown
    admin(f"quota set --networks 1 {blue.project_id}")
    try:
        with life(blue, None, "network", "cli-quota-one", {}):
            blue.refused("network create cli-quota-two", "Quota exceeded", "quota")
        red.refused(f"quota set --networks 1000 {red.project_id}", "orbidden", "disallowed", "rule")
    finally:
        admin(f"quota delete --network {blue.project_id}")
    assert {row["Resource"]: row["Limit"] for row in blue("quota show --network")}["networks"] == 100


def operators_view(red, _, admin):
    """What only the administrator has: agents, zones, availability, segments, ranges, providers, extensions."""
    assert admin("extension list --network"), "no extensions"
    red("network service provider list")
    agents = admin("network agent list")
    assert {(one["Agent Type"], one["Alive"]) for one in agents} == {("Alcor agent", True)}, agents
    red.refused("network agent show 00000000-0000-0000-0000-000000000001")
    admin("availability zone list --network")
    with life(admin, red, "network", "cli-operator-segmented --provider-network-type vxlan", {}) as net:
        admin(f"subnet create --network {net['id']} --subnet-range 10.95.0.0/24 cli-operator-counted")
        counted = admin(f"ip availability show {net['id']}")
        assert (counted["total_ips"], counted["used_ips"]) == (253, 0), counted
        segments = admin(f"network segment list --network {net['id']}")
        assert len(segments) == 1 and segments[0]["Network Type"] == "vxlan", segments
        sid = segments[0]["ID"]
        admin(f"network segment set --name cli-operator-segment --description first {sid}")
        same(admin(f"network segment show {sid}"), {"name": "cli-operator-segment", "description": "first"}, "segment")
        red.refused(f"network segment show {sid}", *UNSEEN)


def segment_ranges(red, _, admin):
    with life(admin, None, "network segment range",
              "cli-range --shared --network-type vxlan --minimum 900001 --maximum 900010",
              {"minimum": 900001, "maximum": 900010, "network_type": "vxlan", "shared": True}, name="cli-range",
              changes=[("set --name cli-range-2 --minimum 900001 --maximum 900020", {"name": "cli-range-2", "maximum": 900020})]):
        assert red("network segment range list") == [], "a member's view of ranges"


def readers(red, reader):
    """A reader sees what its project has and changes nothing."""
    with life(red, None, "network", "cli-reader-net", {}) as net:
        same(reader(f"network show {net['id']}"), {"id": net["id"]}, "reader")
        for line in [f"network set --name mine {net['id']}", f"network delete {net['id']}", "network create mine",
                     f"subnet create --network {net['id']} --subnet-range 10.96.0.0/24 mine",
                     f"port create --network {net['id']} mine", "router create mine", "security group create mine"]:
            reader.refused(line, "orbidden", "disallowed", "rule")


ALL = [networks, subnets, address_scopes_and_pools, ports, security_groups, routers, rbac, quotas, operators_view,
       segment_ranges]
