//! The API says what the host has.

use serde_json::json;

use crate::region::Region;

#[test]
fn a_port_is_active_while_its_device_is_there_and_it_is_bound() {
    let region = Region::start("tstatus");
    let network = region.network();
    let subnet = region.subnet(&network, "10.0.0.0/24");
    let [vm, peer] = [("vm", 0), ("peer", 1)].map(|(name, host)| region.vm(name, host, &[&subnet]));
    peer.reaches(&vm.ip(&subnet));
    vm.unplug();
    region.status_becomes(&vm, "DOWN");
    vm.plug();
    region.status_becomes(&vm, "ACTIVE");
    vm.configure(&subnet);
    peer.reaches(&vm.ip(&subnet));

    // Unbound: the host forgets the port, though the device is still there.
    region.put("port", &vm.port["id"], json!({"binding:host_id": ""}));
    region.status_becomes(&vm, "DOWN");
    assert!(!peer.pings(&vm.ip(&subnet)));
    region.put(
        "port",
        &vm.port["id"],
        json!({"binding:host_id": region.hosts[0].name}),
    );
    region.status_becomes(&vm, "ACTIVE");
    peer.reaches(&vm.ip(&subnet));
}
