//! The demo's gateway: the first packet to a peer goes by it, later ones directly; and it is the way out and in.

use alcor_lab::eventually;
use anyhow::Context as _;
use serde_json::{Value, json};

use super::{ADDRESS, configure, go_on, ip_of, step};
use crate::cloud::{Cloud, FAR_HOST, Gateway, Host, OUTSIDE_ROUTER, Outside, Vm, text};

/// What hosts are told: nothing that they do not ask for, as in a network that is too large to tell them everything.
pub(super) const CONFIGURATION: &str = "[ncm]\neager_rows_max = 0\n";

/// A gateway, and the outside that it leads to.
pub(super) struct Edge {
    gateway: Gateway,
    outside: Outside,
}

/// Starts the gateway.
pub(super) fn start(cloud: &Cloud) -> anyhow::Result<Edge> {
    let outside = cloud.outside()?;
    let gateway = cloud.gateway(1, &outside)?;
    Ok(Edge { gateway, outside })
}

impl Edge {
    /// Waits until hosts send what they do not know by the gateway.
    pub(super) fn is_in_force(&self, cloud: &Cloud, hosts: &[Host; 2], network: &str) -> anyhow::Result<()> {
        for host in hosts {
            eventually("the gateway in a host's rows", ADDRESS, || {
                let gateways = cloud.gateways_in_force(&host.name, network);
                match gateways.map_err(|error| format!("{error:#}"))? {
                    found if found.contains(&self.gateway.tunnel_ip) => Ok(()),
                    found => Err(format!("{found:?}")),
                }
            })?;
        }
        Ok(())
    }

    /// Shows what it is for, and that what hosts have learned does not need it.
    pub(super) fn show(
        mut self,
        cloud: &Cloud,
        hosts: &[Host; 2],
        vms: &[Vm],
        network: &str,
    ) -> anyhow::Result<()> {
        step("a peer that h1 has never heard of: the first packet goes by the gateway, nothing waits");
        let peer = cloud.vm(&hosts[1], "vm4", network)?;
        configure(&peer)?;
        go_on()?;
        let (ip, before) = (ip_of(&peer, 4)?, learning(cloud, &hosts[0])?);
        println!(
            "h1 knows {} addresses of others, {ip} is none of them",
            before["learned"]
        );
        let first = ping(&vms[0], &ip)?;
        let after = eventually("the direct path", ADDRESS, || {
            let after = learning(cloud, &hosts[0]).map_err(|error| format!("{error:#}"))?;
            match after["learned"].as_u64() > before["learned"].as_u64() {
                true => Ok(after),
                false => Err(after.to_string()),
            }
        })?;
        anyhow::ensure!(
            after["released"] == before["released"],
            "a packet was held, though there is a gateway: {after}"
        );
        println!(
            "vm1 -> {} -> vm4: {first} ms; meanwhile h1 has asked for the direct path",
            self.gateway.name
        );
        println!("vm1 -> vm4, directly: {} ms", ping(&vms[0], &ip)?);
        go_on()?;
        self.way_out(cloud, vms, network)?;
        go_on()?;
        step("the gateway is switched off: what hosts have learned goes on");
        self.gateway.power_off()?;
        println!("vm1 -> vm4: {} ms", ping(&vms[0], &ip)?);
        cloud.power_on(&mut self.gateway)
    }

    fn way_out(&self, cloud: &Cloud, vms: &[Vm], network: &str) -> anyhow::Result<()> {
        step("the way out: a router with source NAT, and a floating IP for vm3");
        let make = |path: &str, kind: &str, body: Value| -> anyhow::Result<Value> {
            Ok(cloud.api.post(&format!("/v2.0/{path}"), &json!({ kind: body }))?[kind].take())
        };
        let external = make(
            "networks",
            "network",
            json!({"name": "outside", "router:external": true}),
        )?;
        let pools = json!([{"start": "203.0.113.100", "end": "203.0.113.199"}]);
        let subnet = json!({"network_id": external["id"], "ip_version": 4, "cidr": "203.0.113.0/24",
            "gateway_ip": OUTSIDE_ROUTER, "allocation_pools": pools, "enable_dhcp": false});
        make("subnets", "subnet", subnet)?;
        let info = json!({"name": "edge", "external_gateway_info": {"network_id": external["id"]}});
        let router = make("routers", "router", info)?;
        let path = format!("/v2.0/routers/{}/add_router_interface", text(&router["id"])?);
        let subnets = cloud
            .api
            .get(&format!("/v2.0/subnets?network_id={network}&ip_version=4"))?;
        let inside = &subnets["subnets"][0]["id"];
        cloud.api.put(&path, &json!({"subnet_id": inside}))?;
        let address = &router["external_gateway_info"]["external_fixed_ips"][0]["ip_address"];
        let out = eventually("an answer from outside", ADDRESS, || {
            ping(&vms[0], FAR_HOST).map_err(|error| format!("{error:#}"))
        })?;
        println!("vm1 -> {FAR_HOST}, which sees {address}: {out} ms");
        let wanted = json!({"floating_network_id": external["id"], "port_id": vms[2].port["id"]});
        let floating = make("floatingips", "floatingip", wanted)?;
        let group = &vms[2].port["security_groups"][0];
        let rule = json!({"security_group_id": group, "direction": "ingress", "protocol": "icmp"});
        make("security-group-rules", "security_group_rule", rule)?;
        let floating = text(&floating["floating_ip_address"])?;
        eventually(&format!("an answer of {floating}"), ADDRESS, || {
            let ping = ["ping", "-n", "-c", "1", "-W", "1", floating];
            self.outside.router.run(&ping).map_err(|error| error.to_string())
        })?;
        println!("outside -> {floating} -> vm3: answered");
        Ok(())
    }
}

/// What a host has learned, and how.
fn learning(cloud: &Cloud, host: &Host) -> anyhow::Result<Value> {
    Ok(cloud.agent_state(&host.name)?["learning"].take())
}

/// One ping; its round trip in milliseconds.
fn ping(from: &Vm, to: &str) -> anyhow::Result<String> {
    let printed = from
        .namespace
        .run(&["ping", "-n", "-c", "1", "-W", "2", to])
        .with_context(|| format!("{} cannot ping {to}", from.name))?;
    let time = printed.split_once(" time=").map(|(_, rest)| rest);
    let time = time.and_then(|rest| rest.split(' ').next());
    Ok(time.context("ping printed no time")?.to_owned())
}
