//! A real router (FRR: zebra, bgpd, bfdd) inside a namespace of a lab. It shares nothing with one that the machine may run: sockets, pid
//! files and configuration are in the lab's folder, and the lab's end stops the daemons.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use alcor_lab::{Lab, Namespace, eventually};
use serde_json::Value;

use crate::region::PATIENCE;

/// Where Debian has the daemons.
const PROGRAMS: &str = "/usr/lib/frr";
/// In the order that they need each other.
const DAEMONS: [&str; 3] = ["zebra", "bfdd", "bgpd"];
/// Who the daemons run as; the package makes both.
const USER: &str = "frr";

/// A router.
pub(crate) struct Frr {
    /// Has its sockets.
    folder: PathBuf,
}

impl Frr {
    /// Starts the daemons and gives them a configuration as `frr.conf` has it.
    pub(crate) fn start(lab: &Lab, namespace: &Namespace, name: &str, configuration: &str) -> Self {
        let folder = lab.dir().join(format!("frr-{name}"));
        let path = folder.to_str().unwrap();
        alcor_lab::run("install", &["-d", "-o", USER, "-g", USER, path]).unwrap();
        for daemon in DAEMONS {
            start_daemon(lab, namespace, name, &folder, daemon);
        }
        let frr = Self { folder };
        let file = frr.folder.join("frr.conf");
        fs::write(&file, configuration).unwrap();
        let printed = frr.vtysh(&["-f", file.to_str().unwrap()]);
        assert!(!printed.contains('%'), "frr.conf is refused: {printed}");
        frr
    }

    /// The answer to a `show` command that can give JSON.
    pub(crate) fn show(&self, command: &str) -> Value {
        let printed = self.vtysh(&["-c", &format!("show {command} json")]);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{command}: {error}: {printed}"))
    }

    fn vtysh(&self, arguments: &[&str]) -> String {
        let sockets = ["--vty_socket", self.folder.to_str().unwrap()];
        let output = alcor_lab::run("vtysh", &[&sockets, arguments].concat()).unwrap();
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        format!("{out}{err}")
    }
}

fn start_daemon(lab: &Lab, namespace: &Namespace, router: &str, folder: &Path, daemon: &str) {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut arguments = vec![
        "--vty_socket".to_owned(),
        folder.display().to_string(),
        format!("--socket={}", file("zserv.api")),
        format!("--pid_file={}", file(&format!("{daemon}.pid"))),
        // There is none: the configuration comes by vtysh, as FRR's own start gives it.
        format!("--config_file={}", file(&format!("{daemon}.conf"))),
        "--vty_port=0".to_owned(),
    ];
    if daemon == "bfdd" {
        arguments.push(format!("--bfdctl={}", file("bfdd.sock")));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let program = Path::new(PROGRAMS).join(daemon);
    let label = format!("{router}-{daemon}");
    let mut process = lab.spawn(Some(namespace), &label, &program, &arguments).unwrap();
    eventually(&format!("{label} to listen"), PATIENCE, || {
        if let Some(status) = process.ended() {
            return Err(format!("it ended ({status}): {}", process.output()));
        }
        UnixStream::connect(folder.join(format!("{daemon}.vty"))).map_err(|error| error.to_string())
    })
    .unwrap();
}
