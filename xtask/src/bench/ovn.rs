//! OVN with one hypervisor, all of it in a namespace and a folder: databases, northd, ovn-controller and Open vSwitch with
//! its dummy data path. How long it takes until one more member of a port group is enforced there.
//!
//! Members are ports that lie nowhere, except one that is bound to the hypervisor, whose rule names the group's addresses.

use std::{
    io::{BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use alcor_lab::{Lab, Namespace, Process, eventually};
use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    setup::apt,
    shell::{has, output},
};

const LAB: &str = "ovn";
const PROGRAMS: [&str; 7] = [
    "ovn-northd",
    "ovn-controller",
    "ovsdb-server",
    "ovsdb-tool",
    "ovs-vswitchd",
    "ovs-vsctl",
    "ovs-ofctl",
];
const PACKAGES: [&str; 3] = ["ovn-central", "ovn-host", "openvswitch-switch"];
/// How long a step may take with ten thousand ports on a busy machine; installing them first of all takes longest.
const BOUND: Duration = Duration::from_secs(600);
/// How often the hypervisor's controller may crash before anything is measured: the one of Debian 12 does at its first start
/// beside a bound port (23.03.1, a segmentation fault), and runs when it is started again.
const CRASHES_MAX: u32 = 3;
/// After which time it is looked whether the controller still runs. The database answers as soon as it can.
const LOOK_MS: u64 = 5_000;

/// Milliseconds from the transaction that adds a member until the hypervisor has installed it, for each sample.
///
/// # Errors
/// When OVN is not there or does not run.
pub(super) fn join(members: usize, samples: usize) -> anyhow::Result<Vec<f64>> {
    available()?;
    let lab = Lab::new(LAB)?;
    let mut ovn = Ovn::start(&lab)?;
    ovn.fill(members, samples)?;
    let crashes = ovn.crashes;
    let mut times = Vec::with_capacity(samples);
    for sample in 0..samples {
        let start = Instant::now();
        let port = ovn.outsiders.get(sample).context("there is no such port")?;
        let joins = json!(["ports", "insert", ["set", [["uuid", port]]]]);
        ovn.northbound(vec![mutate("Port_Group", "group", joins)])?;
        ovn.synchronise()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    anyhow::ensure!(
        ovn.crashes == crashes,
        "OVN's controller crashed while it was measured"
    );
    let flows = ovn.flows()?;
    anyhow::ensure!(
        flows > members,
        "the hypervisor has {flows} flows for {members} members"
    );
    Ok(times)
}

/// Where packages can be installed without starting services of the machine, they are.
fn available() -> anyhow::Result<()> {
    let missing = || PROGRAMS.iter().any(|program| !has(program));
    if missing() && !Path::new("/run/systemd/system").exists() {
        apt(&PACKAGES)?;
    }
    anyhow::ensure!(
        !missing(),
        "OVN is not installed; apt-get install {} (which starts its services here)",
        PACKAGES.join(" ")
    );
    Ok(())
}

struct Ovn<'a> {
    lab: &'a Lab,
    namespace: Namespace,
    /// How often the hypervisor was asked to catch up.
    turn: u64,
    controller: Option<Process>,
    crashes: u32,
    /// Ports that are not in the group yet.
    outsiders: Vec<String>,
}

fn mutate(table: &str, name: &str, mutation: Value) -> Value {
    json!({"op": "mutate", "table": table, "where": [["name", "==", name]], "mutations": [mutation]})
}

impl<'a> Ovn<'a> {
    fn start(lab: &'a Lab) -> anyhow::Result<Self> {
        let mut ovn = Self {
            lab,
            namespace: lab.namespace("ovn")?,
            turn: 0,
            controller: None,
            crashes: 0,
            outsiders: Vec::new(),
        };
        let schemas = [
            ("nb", "/usr/share/ovn/ovn-nb.ovsschema"),
            ("sb", "/usr/share/ovn/ovn-sb.ovsschema"),
            ("conf", "/usr/share/openvswitch/vswitch.ovsschema"),
        ];
        for (name, schema) in schemas {
            let database = ovn.path(&format!("{name}.db"));
            output(Command::new("ovsdb-tool").args(["create", &database, schema]))?;
            let remote = format!("--remote=p{}", ovn.socket(name));
            ovn.spawn(&format!("db-{name}"), &["ovsdb-server", &remote, &database])?;
        }
        for name in ["nb", "sb", "conf"] {
            ovn.wait_for(&format!("{name}.sock"))?;
        }
        ovn.switch(&["--no-wait", "init"])?;
        let conf = ovn.socket("conf");
        ovn.spawn(
            "vswitchd",
            &[
                "ovs-vswitchd",
                "--disable-system",
                "--enable-dummy=override",
                &conf,
            ],
        )?;
        let (remote, ip) = (ovn.socket("sb"), "external-ids:ovn-encap-ip=127.0.0.1");
        let remote = format!("external-ids:ovn-remote={remote}");
        let ids = [
            "external-ids:system-id=hypervisor",
            "external-ids:ovn-encap-type=geneve",
            ip,
            // A hypervisor that computes for a minute is not gone.
            "external-ids:ovn-openflow-probe-interval=0",
            "external-ids:ovn-remote-probe-interval=0",
        ];
        ovn.switch(&[&["set", "open", ".", &remote], &ids[..]].concat())?;
        let bridge = [
            "--",
            "set",
            "bridge",
            "br-int",
            "datapath-type=dummy",
            "fail-mode=secure",
        ];
        ovn.switch(&[&["add-br", "br-int"], &bridge[..]].concat())?;
        let port = ["--", "set", "interface", "p0", "external-ids:iface-id=port-0"];
        ovn.switch(&[&["add-port", "br-int", "p0"], &port[..]].concat())?;
        let northbound = format!("--ovnnb-db={}", ovn.socket("nb"));
        let southbound = format!("--ovnsb-db={}", ovn.socket("sb"));
        ovn.northbound(vec![json!({"op": "insert", "table": "NB_Global", "row": {}})])?;
        ovn.spawn("northd", &["ovn-northd", &northbound, &southbound])?;
        ovn.compute()?;
        Ok(ovn)
    }

    /// Starts the hypervisor's controller.
    fn compute(&mut self) -> anyhow::Result<()> {
        self.controller = Some(self.spawn("controller", &["ovn-controller", &self.socket("conf")])?);
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self.lab.dir().join(name).display().to_string()
    }

    fn socket(&self, name: &str) -> String {
        format!("unix:{}", self.path(&format!("{name}.sock")))
    }

    /// Starts a process whose own sockets and logs lie in the lab's folder.
    fn spawn(&self, label: &str, args: &[&str]) -> anyhow::Result<Process> {
        let dir = self.lab.dir().display().to_string();
        let mut all: Vec<String> = [
            "OVS_RUNDIR",
            "OVN_RUNDIR",
            "OVS_LOGDIR",
            "OVN_LOGDIR",
            "OVS_DBDIR",
        ]
        .map(|name| format!("{name}={dir}"))
        .to_vec();
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let env = Path::new("/usr/bin/env");
        Ok(self.lab.spawn(Some(&self.namespace), label, env, &all)?)
    }

    fn wait_for(&self, name: &str) -> anyhow::Result<()> {
        let path = self.lab.dir().join(name);
        eventually(name, BOUND, || match path.exists() {
            true => Ok(()),
            false => Err("it is not there".to_owned()),
        })?;
        Ok(())
    }

    fn switch(&self, args: &[&str]) -> anyhow::Result<()> {
        let database = format!("--db={}", self.socket("conf"));
        output(Command::new("ovs-vsctl").arg(database).args(args)).map(drop)
    }

    /// One transaction; gives what each operation says.
    fn northbound(&self, operations: Vec<Value>) -> anyhow::Result<Vec<Value>> {
        let answers = self.transact(operations)?;
        let failed = answers.iter().find(|answer| answer.get("error").is_some());
        anyhow::ensure!(failed.is_none(), "OVN's database refuses: {failed:?}");
        Ok(answers)
    }

    /// One transaction; gives what each operation says, errors too.
    fn transact(&self, operations: Vec<Value>) -> anyhow::Result<Vec<Value>> {
        let mut transaction = vec![json!("OVN_Northbound")];
        transaction.extend(operations);
        // JSON-RPC without a client program (RFC 7047, section 4.1.3): ten thousand ports do not fit into an argument.
        let mut stream = UnixStream::connect(self.path("nb.sock"))?;
        stream.set_read_timeout(Some(BOUND))?;
        let request = json!({"method": "transact", "params": transaction, "id": 0});
        serde_json::to_writer(&mut stream, &request)?;
        stream.flush()?;
        let answer = serde_json::Deserializer::from_reader(BufReader::new(stream))
            .into_iter::<Value>()
            .next();
        let mut answer = answer.context("OVN's database ended the connection")??;
        let Value::Array(answers) = answer["result"].take() else {
            anyhow::bail!("OVN's database says {answer}");
        };
        Ok(answers)
    }

    /// Waits until the hypervisor has installed what there is now, as `ovn-nbctl --wait=hv` does.
    fn synchronise(&mut self) -> anyhow::Result<()> {
        self.turn += 1;
        let turn = json!({"op": "update", "table": "NB_Global", "where": [], "row": {"nb_cfg": self.turn}});
        self.northbound(vec![turn])?;
        self.wait_until("NB_Global", json!([]), "hv_cfg", json!(self.turn))
    }

    /// Waits until a column of a row of the northbound database has a value, and starts the controller again where it
    /// crashed.
    fn wait_until(&mut self, table: &str, which: Value, column: &str, value: Value) -> anyhow::Result<()> {
        let wait = json!({"op": "wait", "timeout": LOOK_MS, "table": table, "columns": [column], "where": which, "until": "==", "rows": [{column: value}]});
        let start = Instant::now();
        loop {
            let answers = self.transact(vec![wait.clone()])?;
            if answers.iter().all(|answer| answer.get("error").is_none()) {
                return Ok(());
            }
            anyhow::ensure!(
                start.elapsed() < BOUND,
                "OVN is not done after {BOUND:?}: {answers:?}"
            );
            if self
                .controller
                .as_mut()
                .is_some_and(|process| process.ended().is_some())
            {
                self.crashes += 1;
                anyhow::ensure!(
                    self.crashes <= CRASHES_MAX,
                    "OVN's controller crashes again and again"
                );
                self.compute()?;
            }
        }
    }

    /// A switch with the members of a group and further ports, and the rule that names the group.
    fn fill(&mut self, members: usize, others: usize) -> anyhow::Result<()> {
        self.northbound(vec![
            json!({"op": "insert", "table": "Logical_Switch", "row": {"name": "switch"}}),
            json!({"op": "insert", "table": "Port_Group", "row": {"name": "group"}}),
        ])?;
        // All in one transaction: each one is worked into everything anew, here and on the hypervisor.
        self.ports(0..members + others, members)?;
        // The rules after the members: the other way round, each bulk would be worked into the rules anew.
        self.synchronise()?;
        let rule = |priority: u16, matches: &str, action: &str, name: &str| {
            let row =
                json!({"direction": "to-lport", "priority": priority, "match": matches, "action": action});
            json!({"op": "insert", "table": "ACL", "row": row, "uuid-name": name})
        };
        let allows = "outport == @group && ip4 && ip4.src == $group_ip4 && tcp.dst == 22";
        let acls = json!([
            "acls",
            "insert",
            ["set", [["named-uuid", "allow"], ["named-uuid", "deny"]]]
        ]);
        self.northbound(vec![
            rule(1000, allows, "allow-related", "allow"),
            rule(900, "outport == @group && ip4", "drop", "deny"),
            mutate("Port_Group", "group", acls),
        ])?;
        // Without a hypervisor, everything counts as installed.
        self.wait_until(
            "Logical_Switch_Port",
            json!([["name", "==", "port-0"]]),
            "up",
            json!(true),
        )?;
        self.synchronise()
    }

    fn ports(&mut self, numbers: std::ops::Range<usize>, members: usize) -> anyhow::Result<()> {
        let insert = |number: usize| {
            let [.., a, b, c] = number.to_be_bytes();
            let address = format!("02:00:00:{a:02x}:{b:02x}:{c:02x} 10.{a}.{b}.{c}");
            let row = json!({"name": format!("port-{number}"), "addresses": address});
            json!({"op": "insert", "table": "Logical_Switch_Port", "row": row, "uuid-name": format!("p{number}")})
        };
        let set = |numbers: Vec<usize>| {
            let named = numbers
                .into_iter()
                .map(|number| json!(["named-uuid", format!("p{number}")]));
            json!(["ports", "insert", ["set", named.collect::<Vec<_>>()]])
        };
        let mut operations: Vec<Value> = numbers.clone().map(insert).collect();
        operations.push(mutate("Logical_Switch", "switch", set(numbers.clone().collect())));
        let joining = numbers.clone().filter(|number| *number < members).collect();
        operations.push(mutate("Port_Group", "group", set(joining)));
        let answers = self.northbound(operations)?;
        let made = numbers.zip(answers).filter(|(number, _)| *number >= members);
        for (_, answer) in made {
            let id = answer["uuid"][1].as_str().context("OVN's database gave no id")?;
            self.outsiders.push(id.to_owned());
        }
        Ok(())
    }

    /// How many flows the hypervisor has.
    fn flows(&self) -> anyhow::Result<usize> {
        let target = format!("unix:{}", self.path("br-int.mgmt"));
        let printed = output(Command::new("ovs-ofctl").args(["dump-aggregate", &target]))?;
        let count = printed.split("flow_count=").nth(1).map(str::trim);
        count
            .and_then(|count| count.parse().ok())
            .with_context(|| format!("Open vSwitch says {printed}"))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[ignore = "needs root and OVN's Debian packages"]
    fn one_more_member_gets_flows() {
        let times = super::join(50, 2);
        assert!(matches!(&times, Ok(times) if times.len() == 2), "{times:?}");
    }
}
