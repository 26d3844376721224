"""openstacksdk through the life of every resource: created, got, found, listed, updated, deleted; and what another
project sees of it."""
import contextlib

from openstack import exceptions

NOBODY = "00000000-0000-0000-0000-000000000001"


def same(resource, expected, what):
    for field, value in expected.items():
        got = getattr(resource, field)
        assert got == value, f"{what}: {field} is {got!r}, not {value!r}"


@contextlib.contextmanager
def life(owner, stranger, kind, create, expected=None, updates=(), plural=None):
    """A resource from its creation to its end. `updates`: fields and their new values."""
    net, expected = owner.net, expected or create
    plural = plural or f"{kind}s"
    made = getattr(net, f"create_{kind}")(**create)
    same(made, expected, f"create_{kind}")
    get, delete = getattr(net, f"get_{kind}"), getattr(net, f"delete_{kind}")
    same(get(made.id), {"id": made.id, **expected}, f"get_{kind}")
    if create.get("name"):
        assert getattr(net, f"find_{kind}")(create["name"], ignore_missing=False).id == made.id
    assert made.id in {one.id for one in getattr(net, plural)()}, f"{plural} lacks {made.id}"
    assert [one.id for one in getattr(net, plural)(id=made.id)] == [made.id], f"{plural}(id=...)"
    for update in updates:
        same(getattr(net, f"update_{kind}")(made.id, **update), update, f"update_{kind}")
        same(get(made.id), update, f"update_{kind}, then get")
    if stranger:
        hidden(stranger, kind, plural, made.id, updates)
    yield made
    delete(made.id, ignore_missing=False)
    missing(lambda: get(made.id), f"{kind} after its end")
    missing(lambda: delete(made.id, ignore_missing=False), f"{kind}, deleted twice")


def hidden(stranger, kind, plural, ident, updates):
    net = stranger.net
    assert ident not in {one.id for one in getattr(net, plural)()}, f"{stranger.name} lists a foreign {kind}"
    missing(lambda: getattr(net, f"get_{kind}")(ident), f"{stranger.name} gets a foreign {kind}")
    missing(lambda: getattr(net, f"delete_{kind}")(ident, ignore_missing=False), f"{stranger.name} deletes a {kind}")
    for update in updates[:1]:
        missing(lambda: getattr(net, f"update_{kind}")(ident, **update), f"{stranger.name} updates a foreign {kind}")


def raises(kind, action, what):
    try:
        got = action()
    except kind as error:
        return error
    raise AssertionError(f"{what}: should raise {kind}, gave {got}")


def missing(action, what):
    return raises(exceptions.NotFoundException, action, what)


def conflict(kind, action, what):
    """Refused with 409 and Neutron's exception type."""
    error = raises(exceptions.ConflictException, action, what)
    told = error.response.json()["NeutronError"]["type"]
    assert told == kind, f"{what}: {told}, not {kind}"


def networks_and_subnets(red, blue, _):
    with life(red, blue, "network", {"name": "sdk-network-net", "description": "first", "mtu": 1400},
              updates=[{"name": "sdk-network-net-2", "description": "second"}, {"is_admin_state_up": False}]) as net:
        red.net.set_tags(net, ["a", "b"])
        assert sorted(red.net.get_network(net.id).tags) == ["a", "b"]
        assert [one.id for one in red.net.networks(tags="a,b")] == [net.id]
        assert net.id not in {one.id for one in red.net.networks(not_tags="a")}
        create = {"name": "sdk-network-subnet", "network_id": net.id, "ip_version": 4, "cidr": "10.20.0.0/24"}
        expected = {**create, "gateway_ip": "10.20.0.1", "is_dhcp_enabled": True,
                    "allocation_pools": [{"start": "10.20.0.2", "end": "10.20.0.254"}]}
        with life(red, blue, "subnet", create, expected,
                  [{"name": "sdk-network-subnet-2", "dns_nameservers": ["10.20.0.2"]}, {"is_dhcp_enabled": False}]):
            missing(lambda: blue.net.create_port(network_id=net.id), "a port in a foreign network")
            missing(lambda: blue.net.create_subnet(**{**create, "cidr": "10.21.0.0/24"}), "a foreign subnet")
            before = red.net.get_network(net.id)
            red.net.update_network(net.id, description="third")
            raises(exceptions.PreconditionFailedException,
                   lambda: red.net.update_network(before, if_revision=before.revision_number, description="late"),
                   "an update of what has changed")


def bulk_and_pages(red, blue, _):
    made = [red.net.create_network(name=f"sdk-bulk-page-{n}") for n in range(7)]
    try:
        listed = [one.id for one in red.net.networks(limit=3, sort_key="name", sort_dir="desc")
                  if one.name.startswith("sdk-bulk-page-")]
        assert listed == [one.id for one in reversed(made)], "seven networks over pages of three, sorted"
        names = {one.name for one in red.net.networks(name="sdk-bulk-page-1")}
        assert names == {"sdk-bulk-page-1"}, names
        ports = list(red.net.create_ports([{"network_id": made[0].id, "name": f"sdk-bulk-bulk-{n}"} for n in range(5)]))
        assert [port.name for port in ports] == [f"sdk-bulk-bulk-{n}" for n in range(5)]
        raises(exceptions.NotFoundException, lambda: list(red.net.create_ports(
            [{"network_id": made[0].id}, {"network_id": NOBODY}])), "a bulk with one that cannot be")
        assert len(list(red.net.ports(network_id=made[0].id))) == 5, "a refused bulk leaves nothing"
        conflict("NetworkInUse", lambda: red.net.delete_network(made[0].id), "a network with ports")
        for port in ports:
            red.net.delete_port(port.id)
    finally:
        for one in made:
            red.net.delete_network(one.id)


def ports(red, blue, nova):
    """`nova` has the role service, as Nova has: what it does needs no administrator."""
    with life(red, blue, "network", {"name": "sdk-port-net"}) as net, \
            life(red, blue, "subnet", {"network_id": net.id, "ip_version": 4, "cidr": "10.22.0.0/24"}) as subnet:
        fixed = [{"subnet_id": subnet.id, "ip_address": "10.22.0.9"}]
        create = {"name": "sdk-port-port", "network_id": net.id, "fixed_ips": fixed, "mac_address": "02:00:00:00:00:09"}
        with life(red, blue, "port", create, updates=[
                {"name": "sdk-port-port-2"}, {"device_id": "vm"}, {"is_admin_state_up": False},
                {"allowed_address_pairs": [{"ip_address": "10.22.0.77", "mac_address": "02:00:00:00:00:09"}]}]) as port:
            conflict("IpAddressAlreadyAllocated", lambda: red.net.create_port(network_id=net.id, fixed_ips=fixed), "twice")
            conflict("SubnetInUse", lambda: red.net.delete_subnet(subnet.id, ignore_missing=False), "used subnet")
            assert red.net.get_port(port.id).binding_host_id is None, "what only the administrator sees"
            bound = nova.net.update_port(port.id, binding_host_id="node-1", device_owner="compute:az")
            assert bound.binding_host_id == "node-1"
            raises(exceptions.ForbiddenException, lambda: red.net.delete_port(port.id), "a VM's port, deleted by a member")
            second = nova.net.create_port_binding(port.id, host="node-2")
            assert second.status == "INACTIVE"
            assert {one.host for one in nova.net.port_bindings(port.id)} == {"node-1", "node-2"}
            nova.net.activate_port_binding(port.id, host="node-2")
            assert nova.net.get_port(port.id).binding_host_id == "node-2"
            nova.net.delete_port_binding(port.id, host="node-1")
            assert {one.host for one in nova.net.port_bindings(port.id)} == {"node-2"}
            nova.net.update_port(port.id, device_owner="", device_id="")
            found = {one.id for one in red.net.ports(fixed_ips="ip_address=10.22.0.9")}
            assert found == {port.id}, found


def pools(red, blue, _):
    with life(red, blue, "address_scope", {"name": "sdk-pool-scope", "ip_version": 4},
              updates=[{"name": "sdk-pool-scope-2"}]) as scope, \
            life(red, blue, "subnet_pool",
                 {"name": "sdk-pool-pool", "prefixes": ["10.23.0.0/16"], "default_prefix_length": 26,
                  "address_scope_id": scope.id},
                 updates=[{"description": "second"}, {"default_prefix_length": 25}]) as pool, \
            life(red, blue, "network", {"name": "sdk-pool-net"}) as net:
        with life(red, blue, "subnet", {"network_id": net.id, "ip_version": 4, "subnet_pool_id": pool.id},
                  {"subnet_pool_id": pool.id, "cidr": "10.23.0.0/25"}):
            raises(exceptions.BadRequestException, lambda: red.net.delete_subnet_pool(pool.id), "a used pool")


def security(red, blue, _):
    with life(red, blue, "security_group", {"name": "sdk-security-group", "description": "first"},
              updates=[{"name": "sdk-security-group-2"}, {"description": "second"}]) as group, \
            life(red, blue, "address_group", {"name": "sdk-security-addresses", "addresses": ["192.0.2.0/24"]},
                 updates=[{"name": "sdk-security-addresses-2"}]) as addresses:
        red.net.add_addresses_to_address_group(addresses, ["198.51.100.7/32"])
        assert sorted(red.net.get_address_group(addresses.id).addresses) == ["192.0.2.0/24", "198.51.100.7/32"]
        red.net.remove_addresses_from_address_group(addresses, ["192.0.2.0/24"])
        assert red.net.get_address_group(addresses.id).addresses == ["198.51.100.7/32"]
        rule = {"security_group_id": group.id, "direction": "ingress", "ether_type": "IPv4", "protocol": "tcp",
                "port_range_min": 22, "port_range_max": 22}
        with life(red, blue, "security_group_rule", {**rule, "remote_address_group_id": addresses.id}):
            conflict("AddressGroupInUse", lambda: red.net.delete_address_group(addresses, ignore_missing=False), "used")
        with life(red, blue, "security_group_rule", {**rule, "remote_ip_prefix": "192.0.2.0/24"}) as made:
            conflict("SecurityGroupRuleExists", lambda: red.net.create_security_group_rule(
                **rule, remote_ip_prefix="192.0.2.0/24"), "the same rule twice")
            assert made.id in {one["id"] for one in red.net.get_security_group(group.id).security_group_rules}
        missing(lambda: blue.net.create_security_group_rule(**rule), "a rule in a foreign group")
        missing(lambda: red.net.create_security_group_rule(**{**rule, "remote_group_id": NOBODY}), "an unknown group")


def routers(red, blue, admin):
    public = admin.net.create_network(name="sdk-router-public", is_router_external=True)
    admin.net.create_subnet(network_id=public.id, ip_version=4, cidr="198.51.100.0/24", enable_dhcp=False)
    with life(red, blue, "network", {"name": "sdk-router-net"}) as net, \
            life(red, blue, "subnet", {"network_id": net.id, "ip_version": 4, "cidr": "10.24.0.0/24"}) as subnet, \
            life(red, blue, "router", {"name": "sdk-router-router"},
                 updates=[{"name": "sdk-router-router-2", "description": "second"}, {"is_admin_state_up": True}]) as router:
        missing(lambda: blue.net.add_interface_to_router(router.id, subnet_id=subnet.id), "a foreign router")
        added = red.net.add_interface_to_router(router.id, subnet_id=subnet.id)
        assert added["subnet_id"] == subnet.id
        conflict("RouterInUse", lambda: red.net.delete_router(router.id, ignore_missing=False), "a router in use")
        route = {"destination": "10.99.0.0/16", "nexthop": "10.24.0.5"}
        red.net.add_extra_routes_to_router(router.id, {"router": {"routes": [route]}})
        assert red.net.get_router(router.id).routes == [route]
        red.net.remove_extra_routes_from_router(router.id, {"router": {"routes": [route]}})
        assert red.net.get_router(router.id).routes == []
        red.net.update_router(router.id, external_gateway_info={"network_id": public.id})
        floating(red, blue, public, net, router, subnet)
        red.net.update_router(router.id, external_gateway_info={})
        assert not red.net.get_router(router.id).external_gateway_info
        red.net.remove_interface_from_router(router.id, subnet_id=subnet.id)
    admin.net.delete_network(public.id, ignore_missing=False)


def floating(red, blue, public, net, router, subnet):
    with life(red, blue, "port", {"network_id": net.id}) as port:
        with life(red, blue, "ip", {"floating_network_id": public.id},
                  updates=[{"description": "second"}, {"port_id": port.id}]) as address:
            assert red.net.get_ip(address.id).fixed_ip_address == port.fixed_ips[0]["ip_address"]
            conflict("RouterInterfaceInUseByFloatingIP", lambda: red.net.remove_interface_from_router(
                router.id, subnet_id=subnet.id), "an interface that a floating IP needs")
            missing(lambda: blue.net.create_ip(floating_network_id=public.id, port_id=port.id), "a foreign port")


def rbac_and_quotas(red, blue, admin):
    with life(red, blue, "network", {"name": "sdk-rbac-net"}) as net:
        create = {"object_type": "network", "object_id": net.id, "action": "access_as_shared",
                  "target_project_id": blue.project_id}
        with life(red, blue, "rbac_policy", create, plural="rbac_policies"):
            assert blue.net.get_network(net.id).id == net.id
            port = blue.net.create_port(network_id=net.id)
            blue.net.delete_port(port.id, ignore_missing=False)
        missing(lambda: blue.net.get_network(net.id), "what is no longer shared")
    admin.net.update_quota(blue.project_id, ports=0)
    try:
        with life(blue, red, "network", {"name": "sdk-rbac-full"}) as net:
            conflict("OverQuota", lambda: blue.net.create_port(network_id=net.id), "one port too many")
        raises(exceptions.ForbiddenException, lambda: red.net.update_quota(red.project_id, ports=-1), "a member's quota")
    finally:
        admin.net.delete_quota(blue.project_id)
    details = red.net.get_quota(red.project_id, details=True)
    assert details.ports["limit"] == 500, details


def operators_view(red, _, admin):
    assert list(admin.net.extensions())
    list(red.net.service_providers())
    list(admin.net.agents())
    list(red.net.availability_zones())
    with life(admin, red, "network", {"name": "sdk-operator-segmented", "provider_network_type": "vxlan"}) as net:
        assert admin.net.get_network_ip_availability(net.id).used_ips == 0
        segments = list(admin.net.segments(network_id=net.id))
        assert [one.network_type for one in segments] == ["vxlan"]
        assert admin.net.update_segment(segments[0], name="sdk-operator-segment").name == "sdk-operator-segment"
        missing(lambda: red.net.get_segment(segments[0].id), "a member's view of a segment")


def segment_ranges(red, _, admin):
    with life(admin, None, "network_segment_range",
              {"name": "sdk-operator-range", "network_type": "vxlan", "minimum": 910001, "maximum": 910010, "shared": True},
              updates=[{"maximum": 910020}]) as made:
        raises((exceptions.ForbiddenException, exceptions.NotFoundException),
               lambda: red.net.get_network_segment_range(made.id), "a member's view of a range")


ALL = [networks_and_subnets, bulk_and_pages, pools, security, routers, rbac_and_quotas, operators_view, segment_ranges]
