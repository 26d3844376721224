//! Controller, NCM and agent as three processes: what one of them misses while it is dead or the other is, it catches up with.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use alcor_lab::eventually;
use alcor_proto::v1::Hello;
use alcor_southbound::client::{ChannelError, connect};
use alcor_tls::{Tls, TlsFiles};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::blocking::Client;
use serde_json::{Value, json};

/// How long anything may take to come true; it is asserted that it does, not when.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process, until dropped.
struct Part(Child);

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// `alcor certs`; what it says, or its error.
fn certs(what: &[&str], dir: &Path, flags: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alcor"));
    let output = command
        .arg("certs")
        .args(what)
        .arg(dir)
        .args(flags)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

/// The three parts and where they listen.
struct Region {
    client: Client,
    files: tempfile::TempDir,
    api: String,
    feed: String,
    southbound: String,
    directory: String,
    metrics: BTreeMap<&'static str, String>,
    /// Folder of certificates, when the parts speak TLS.
    certs: Option<PathBuf>,
}

impl Region {
    fn new() -> Self {
        Self {
            client: Client::builder().no_proxy().build().unwrap(),
            files: tempfile::tempdir().unwrap(),
            api: free(),
            feed: free(),
            southbound: free(),
            directory: free(),
            metrics: ["controller", "ncm", "agent"].map(|role| (role, free())).into(),
            certs: None,
        }
    }

    /// With a certificate for each part, made as an operator does.
    fn certified() -> Self {
        let mut region = Self::new();
        let dir = region.files.path().join("certs");
        certs(&["ca"], &dir, &[]).unwrap();
        for holder in [
            &["--controller=c1", "--ip=127.0.0.1"][..],
            &["--ncm=n1", "--dns=localhost", "--ip=127.0.0.1"],
            &["--host=h1"],
            &["--host=h2"],
        ] {
            let said = certs(&["issue"], &dir, holder).unwrap();
            assert!(said.contains("[tls]") && !said.contains("PRIVATE"), "{said}");
        }
        region.certs = Some(dir);
        region
    }

    fn url(&self, address: &str) -> String {
        let scheme = if self.certs.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// The flags of who has this certificate.
    fn tls(&self, stem: &str) -> Vec<String> {
        let files = self.certs.iter().flat_map(|dir| {
            [
                ("ca", "ca.pem".into()),
                ("certificate", format!("{stem}.pem")),
                ("key", format!("{stem}.key")),
            ]
            .map(|(flag, file): (_, String)| format!("--tls-{flag}={}", dir.join(file).display()))
        });
        files.collect()
    }

    fn start(&self, role: &str, args: &[String]) -> Part {
        let child = Command::new(env!("CARGO_BIN_EXE_alcor"))
            .arg(role)
            .arg("--log=warn")
            .args(args)
            .env("ALCOR_METRICS__LISTEN", &self.metrics[role])
            .stdin(Stdio::null())
            .spawn();
        Part(child.unwrap())
    }

    fn controller(&self) -> Part {
        let args = [
            "--noauth".to_owned(),
            format!("--api-listen={}", self.api),
            format!("--feed-listen={}", self.feed),
            format!("--ncm={}", self.url(&self.directory)),
            format!("--data-dir={}", self.files.path().display()),
        ];
        let part = self.start("controller", &[&args, &self.tls("controller-c1")[..]].concat());
        eventually("the API answers", PATIENCE, || {
            self.get("/v2.0/networks").map(drop)
        })
        .unwrap();
        part
    }

    fn ncm(&self) -> Part {
        let args = [
            format!("--controller={}", self.url(&self.feed)),
            format!("--listen={}", self.southbound),
            format!("--directory-listen={}", self.directory),
        ];
        self.start("ncm", &[&args, &self.tls("ncm-n1")[..]].concat())
    }

    fn agent(&self) -> Part {
        let args = [
            "--host=h1".to_owned(),
            "--dataplane=model".to_owned(),
            format!("--ncm={}", self.url(&self.southbound)),
            format!("--socket={}", self.files.path().join("agent.sock").display()),
        ];
        self.start("agent", &[&args, &self.tls("host-h1")[..]].concat())
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let reply = self.client.get(format!("http://{}{path}", self.api)).send();
        let reply = reply.map_err(|error| error.to_string())?;
        let status = reply.status();
        let body: Value = reply.json().map_err(|error| error.to_string())?;
        match status.is_success() {
            true => Ok(body),
            false => Err(format!("{status} {body}")),
        }
    }

    fn make(&self, singular: &str, attributes: Value) -> String {
        let request = self.client.post(format!("http://{}/v2.0/{singular}s", self.api));
        let reply = request.json(&json!({ singular: attributes })).send().unwrap();
        assert_eq!(reply.status().as_u16(), 201);
        let body: Value = reply.json().unwrap();
        body[singular]["id"].as_str().unwrap().to_owned()
    }

    /// Makes a port on the host and gives it the device that every machine has.
    fn port(&self, network: &str) -> String {
        let port = self.make("port", json!({"network_id": network, "binding:host_id": "h1"}));
        let socket = self.files.path().join("agent.sock");
        eventually("the agent takes the device", PATIENCE, || {
            let text = |error: std::io::Error| error.to_string();
            let mut stream = UnixStream::connect(&socket).map_err(text)?;
            let attach = json!({"attach": {"port_id": port, "device": "lo", "wait_ms": 0}});
            writeln!(stream, "{attach}").map_err(text)?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).map_err(text)?;
            match answer.contains("condition") {
                true => Ok(()),
                false => Err(answer),
            }
        })
        .unwrap();
        port
    }

    fn until(&self, what: &str, path: &str, says: impl Fn(&Value) -> bool) -> Value {
        let mut answer = Value::Null;
        eventually(what, PATIENCE, || {
            answer = self.get(path)?;
            match says(&answer) {
                true => Ok(()),
                false => Err(answer.to_string()),
            }
        })
        .unwrap();
        answer
    }

    fn until_active(&self, port: &str) {
        let path = format!("/v2.0/ports/{port}");
        self.until("the port is active", &path, |body| {
            body["port"]["status"] == json!("ACTIVE")
        });
    }

    /// The value of a series of one part; zero when it has none.
    fn count(&self, role: &str, series: &str) -> f64 {
        let url = format!("http://{}/metrics", self.metrics[role]);
        let text = self.client.get(url).send().unwrap().text().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

const RESUMED: &str = r#"alcor_link_subscriptions_total{began="resumed"}"#;
const SNAPSHOT: &str = r#"alcor_link_subscriptions_total{began="snapshot"}"#;

fn assert_count(region: &Region, role: &str, series: &str, wanted: f64) {
    let count = region.count(role, series);
    assert!((count - wanted).abs() < 0.5, "{series} is {count}, not {wanted}");
}

#[test]
fn each_part_may_die_and_come_back() {
    let region = Region::new();
    let controller = region.controller();
    let ncm = region.ncm();
    let _agent = region.agent();
    let network = region.make("network", json!({}));
    region.make(
        "subnet",
        json!({"network_id": network, "cidr": "10.0.0.0/24", "ip_version": 4}),
    );
    let first = region.port(&network);
    region.until_active(&first);
    let path = format!("/alcor/v1/ports/{first}/status");
    let state = region.get(&path).unwrap();
    assert_eq!(
        (&state["stale"], &state["host_alive"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(state["applied_revision"], state["intended_revision"]);
    assert!(state["timing"]["visible_us"].as_u64().unwrap() > 0);
    let host = region.get("/alcor/v1/hosts/h1").unwrap();
    assert_eq!((&host["alive"], &host["ports"]), (&json!(true), &json!(1)));
    let trace = format!("/alcor/v1/trace?from={first}&to=10.0.0.1&protocol=tcp&destination_port=22");
    assert!(region.get(&trace).unwrap()["stages"].is_array());

    // The NCM is killed. The API answers from what was kept, and says so; what is made now waits.
    drop(ncm);
    let hosts = region.until("the list is stale", "/alcor/v1/hosts", |body| {
        body["hosts"][0]["stale"] == json!(true)
    });
    assert_eq!(hosts["hosts"][0]["name"], json!("h1"));
    let state = region.get(&path).unwrap();
    assert_eq!(
        (&state["stale"], &state["status"]),
        (&json!(true), &json!("ACTIVE"))
    );
    assert_eq!(region.get("/alcor/v1/hosts/h1").unwrap()["ports"], json!(1));
    assert!(region.get(&trace).unwrap_err().starts_with("503"));
    assert!(region.get("/alcor/v1/hosts/h2").unwrap_err().starts_with("404"));
    let second = region.port(&network);
    let ncm = region.ncm();
    region.until_active(&second);
    region.until("the host is known", "/alcor/v1/hosts/h1", |host| {
        host["stale"] == json!(false) && host["alive"] == json!(true) && host["pending"] == json!(0)
    });
    assert_count(&region, "controller", SNAPSHOT, 2.0);

    // The controller is killed. The agent's session goes on, and the feed from where it was.
    drop(controller);
    let controller = region.controller();
    let third = region.port(&network);
    region.until_active(&third);
    assert_count(&region, "controller", RESUMED, 1.0);
    assert_count(&region, "controller", SNAPSHOT, 0.0);
    assert_count(&region, "ncm", "alcor_ncm_hellos_total", 1.0);

    // Another region's controller at the same address: its commits are not those that the NCM knows.
    drop(controller);
    std::fs::remove_file(region.files.path().join("alcor.sqlite")).unwrap();
    for rest in ["-wal", "-shm"] {
        // They are there when the controller had no time to tidy up.
        let _ = std::fs::remove_file(region.files.path().join(format!("alcor.sqlite{rest}")));
    }
    let newer = region.controller();
    region.until(
        "the host says hello to the new region",
        "/alcor/v1/hosts",
        |body| body["hosts"][0]["ports"] == json!(0),
    );
    assert_count(&region, "controller", SNAPSHOT, 1.0);

    // Told to stop, they do, though others hold streams to them.
    for (what, mut part) in [("the controller stops", newer), ("the NCM stops", ncm)] {
        let pid = Pid::from_raw(part.0.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        eventually(what, PATIENCE, || match part.0.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    }
}

/// Somebody with h2's certificate, or with none, says hello as h1: why it is refused.
fn lie(region: &Region, files: Option<&TlsFiles>) -> String {
    let tls = files.map(|files| Tls::load(files).unwrap());
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", region.southbound);
    let hello = Hello {
        host: "h1".into(),
        incarnation: u64::MAX,
        tunnel_ip: vec![192, 0, 2, 66].into(),
        ..Hello::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(connect(&url, tls.as_ref(), hello)) {
        Err(ChannelError::Ended(status)) => status.message().to_owned(),
        Err(error) => error.to_string(),
        Ok(_) => panic!("it has a session"),
    }
}

#[test]
fn with_certificates_nobody_speaks_for_another() {
    let region = Region::certified();
    let dir = region.certs.clone().unwrap();
    let h2 = TlsFiles {
        ca: dir.join("ca.pem"),
        certificate: dir.join("host-h2.pem"),
        key: dir.join("host-h2.key"),
    };
    for key in ["ca.key", "host-h2.key"] {
        let mode = std::fs::metadata(dir.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let before = std::fs::read(&h2.key).unwrap();
    let refused = certs(&["issue"], &dir, &["--host=h2"]).unwrap_err();
    assert!(refused.contains("--force"), "{refused}");
    assert_eq!(std::fs::read(&h2.key).unwrap(), before);
    let refused = certs(&["issue"], &dir, &["--ncm=n2"]).unwrap_err();
    assert!(refused.contains("--ip or --dns"), "{refused}");

    let _controller = region.controller();
    let _ncm = region.ncm();
    let _agent = region.agent();
    let network = region.make("network", json!({}));
    region.make(
        "subnet",
        json!({"network_id": network, "cidr": "10.0.0.0/24", "ip_version": 4}),
    );
    let first = region.port(&network);
    region.until_active(&first);
    let hosts = region.get("/alcor/v1/hosts").unwrap();
    assert_eq!(
        hosts["hosts"][0]["stale"],
        json!(false),
        "the controller may ask: {hosts}"
    );

    let why = lie(&region, Some(&h2));
    assert!(
        why.contains("names alcor://host/h2; alcor://host/h1 is needed"),
        "{why}"
    );
    lie(&region, None);
    assert_count(&region, "ncm", r#"alcor_tls_refused_total{reason="name"}"#, 1.0);
    eventually("the plain connection is counted", PATIENCE, || {
        let series = r#"alcor_tls_refused_total{reason="handshake"}"#;
        match region.count("ncm", series) {
            0.0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .unwrap();
    assert_count(&region, "ncm", "alcor_ncm_hellos_total", 1.0);
    let host = region.get("/alcor/v1/hosts/h1").unwrap();
    assert_eq!(host["alive"], json!(true), "{host}");
    let second = region.port(&network);
    region.until_active(&second);

    // An agent says by itself that its certificate is another host's.
    let wrong = Command::new(env!("CARGO_BIN_EXE_alcor"))
        .args(["agent", "--host=h1", "--dataplane=model"])
        .args(region.tls("host-h2"))
        .env("ALCOR_METRICS__ENABLED", "false")
        .output()
        .unwrap();
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        !wrong.status.success() && said.contains("alcor://host/h1 is needed"),
        "{said}"
    );
}
