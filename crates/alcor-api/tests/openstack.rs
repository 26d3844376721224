//! The real `openstack` command against the API. Built only with the feature `openstack`, so that who asks for it and
//! lacks the command sees a failure and not a skip; `ALCOR_TEST_OPENSTACK` names the command.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::process::Output;

use common::{Api, PROJECT};
use serde_json::Value;

struct OpenStack {
    program: String,
    endpoint: String,
}

impl OpenStack {
    async fn run(&self, arguments: &str) -> Output {
        let words = ["--os-auth-type", "none", "--os-endpoint", &self.endpoint];
        tokio::process::Command::new(&self.program)
            .args(words)
            .args(arguments.split_whitespace())
            .output()
            .await
            .unwrap_or_else(|error| panic!("{} cannot be run: {error}", self.program))
    }

    /// Runs a command that must succeed and prints JSON.
    async fn json(&self, arguments: &str) -> Value {
        let text = self.text(&format!("{arguments} -f json")).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments}: {error}: {text}"))
    }

    /// Runs a command that must succeed.
    async fn text(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openstack {arguments}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail, and gives what it says.
    async fn refusal(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        assert!(!output.status.success(), "openstack {arguments} worked");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[tokio::test]
async fn the_openstack_command_works() {
    let program = std::env::var("ALCOR_TEST_OPENSTACK").expect(
        "ALCOR_TEST_OPENSTACK must name the openstack command; `cargo xtask test` installs it and sets it",
    );
    let api = Api::start().await;
    let openstack = OpenStack {
        program,
        endpoint: api.url(""),
    };

    let network = openstack
        .json("network create --description d --mtu 1400 blue")
        .await;
    assert_eq!(
        (&network["mtu"], &network["provider:network_type"]),
        (&1400.into(), &"vxlan".into())
    );
    assert_eq!(network["project_id"], PROJECT);
    let subnet = openstack
        .json(
            "subnet create --network blue --subnet-range 10.0.0.0/24 --dns-nameserver 192.0.2.53 \
             --allocation-pool start=10.0.0.10,end=10.0.0.99 --host-route destination=10.9.0.0/16,gateway=10.0.0.2 s4",
        )
        .await;
    assert_eq!(
        (&subnet["gateway_ip"], &subnet["ip_version"]),
        (&"10.0.0.1".into(), &4.into())
    );
    openstack
        .json(
            "subnet create --network blue --subnet-range fd00:1::/64 --ip-version 6 --ipv6-ra-mode slaac \
             --ipv6-address-mode slaac s6",
        )
        .await;
    let port = openstack
        .json("port create --network blue --fixed-ip subnet=s4,ip-address=10.0.0.50 --host host-1 --device vm1 p1")
        .await;
    assert_eq!(
        (&port["binding_host_id"], &port["binding_vif_type"]),
        (&"host-1".into(), &"tap".into())
    );

    let list = openstack.json("network list --long").await;
    assert_eq!(list[0]["Name"], "blue");
    assert_eq!(
        openstack
            .json("subnet list --network blue")
            .await
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    let list = openstack
        .json("port list --network blue --fixed-ip ip-address=10.0.0.50")
        .await;
    assert_eq!(list[0]["Name"], "p1");
    assert_eq!(
        openstack.json("port list --device-owner nobody").await,
        Value::Array(Vec::new())
    );
    assert_eq!(openstack.json("port show p1").await["device_id"], "vm1");

    openstack.text("network set --name green --tag t1 blue").await;
    assert_eq!(
        openstack.json("network show green").await["tags"],
        serde_json::json!(["t1"])
    );
    assert_eq!(
        openstack
            .json("network list --tags t1")
            .await
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    openstack.text("network unset --all-tag green").await;
    openstack
        .text("subnet set --no-dns-nameservers --gateway none s4")
        .await;
    let subnet = openstack.json("subnet show s4").await;
    assert_eq!(
        (&subnet["gateway_ip"], &subnet["dns_nameservers"]),
        (&Value::Null, &serde_json::json!([]))
    );
    openstack.text("port set --disable --description x p1").await;
    assert_eq!(openstack.json("port show p1").await["admin_state_up"], false);
    openstack.text("port unset --device p1").await;

    assert!(
        openstack
            .refusal("network delete green")
            .await
            .contains("There are one or more ports still in use")
    );
    assert!(
        openstack
            .refusal("network show nothing")
            .await
            .contains("No Network found for nothing")
    );
    openstack.text("port delete p1").await;
    openstack.text("subnet delete s4 s6").await;
    openstack.text("network delete green").await;
    assert_eq!(openstack.json("network list").await, Value::Array(Vec::new()));
    let extensions = openstack.json("extension list --network").await;
    let listed = |alias: &str| {
        let mut rows = extensions.as_array().unwrap().iter();
        rows.any(|row| row["Alias"] == alias)
    };
    assert!(listed("allowed-address-pairs") && !listed("qos"), "{extensions}");
}
