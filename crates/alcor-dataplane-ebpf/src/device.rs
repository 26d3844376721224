//! Devices: made, brought up and looked at with `ip`, always with arguments of our own, never a shell.

use std::{path::Path, process::Command};

use alcor_dataplane::DataplaneError;

use crate::error;

/// UDP port of VXLAN (RFC 7348).
const VXLAN_PORT: &str = "4789";
/// Largest MTU of the tunnel device: it must never be the one to say no, the networks' MTUs do.
const TUNNEL_MTU: &str = "65000";

/// Is there when the kernel has IPv6.
const IPV6_SETTINGS: &str = "/proc/sys/net/ipv6";

/// What the data plane must know of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    /// One end of a veth pair whose other end is in another network namespace.
    pub(crate) peer_elsewhere: bool,
}

fn run(args: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .map_err(|error| format!("cannot run `ip` (Debian package iproute2): {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// The interface index of a name, if there is such a device in this network namespace.
pub(crate) fn ifindex(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

/// Looks at a device.
pub(crate) fn look(name: &str) -> Result<Device, DataplaneError> {
    let ifindex = ifindex(name).ok_or_else(|| error::device(name, "there is no such device"))?;
    let text = run(&["-json", "-details", "link", "show", "dev", name])
        .map_err(|reason| error::device(name, reason))?;
    let links: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|problem| error::device(name, format!("`ip` said: {problem}")))?;
    let link = &links[0];
    let is_veth = link["linkinfo"]["info_kind"] == "veth";
    let elsewhere = link.get("link_netnsid").is_some();
    Ok(Device {
        name: name.to_owned(),
        ifindex,
        peer_elsewhere: is_veth && elsewhere,
    })
}

/// The device with this index, if it is there.
pub(crate) fn look_at_index(ifindex: u32) -> Option<Device> {
    let name = nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok()?;
    look(&name).ok()
}

/// Brings a device up. It gets no address: what this host would say there, the VM would hear.
pub(crate) fn bring_up(name: &str) -> Result<(), DataplaneError> {
    let refused = |reason| error::device(name, reason);
    // A kernel without IPv6 refuses the setting, and needs it not.
    if Path::new(IPV6_SETTINGS).exists() {
        run(&["link", "set", "dev", name, "addrgenmode", "none"]).map_err(refused)?;
    }
    run(&["link", "set", "dev", name, "up"])
        .map(drop)
        .map_err(refused)
}

/// The tunnel device, made if it is not there.
pub(crate) fn tunnel(name: &str) -> Result<u32, DataplaneError> {
    let refused = |reason| error::device(name, reason);
    if ifindex(name).is_none() {
        run(&[
            "link",
            "add",
            "dev",
            name,
            "mtu",
            TUNNEL_MTU,
            "type",
            "vxlan",
            "external",
            "gbp",
            "dstport",
            VXLAN_PORT,
            "nolearning",
            "udp6zerocsumtx",
            "udp6zerocsumrx",
        ])
        .map_err(refused)?;
    }
    bring_up(name)?;
    ifindex(name).ok_or_else(|| error::device(name, "it is gone again"))
}

/// Removes a device; nothing happens when it is not there.
pub(crate) fn delete(name: &str) -> Result<(), DataplaneError> {
    if ifindex(name).is_none() {
        return Ok(());
    }
    run(&["link", "delete", "dev", name])
        .map(drop)
        .map_err(|reason| error::device(name, reason))
}
