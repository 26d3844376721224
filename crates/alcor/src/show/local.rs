//! What the agent of this host says of its data plane: connections and dropped packets, read from its local socket.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use alcor_model::{Id, Port};
use anyhow::Context as _;
use serde_json::{Value, json};
use tabled::builder::Builder;

use super::text;
use crate::stdout;

/// How long the agent may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read, in bytes: all connections of a port, with room to spare.
const MAX_ANSWER: u64 = 256 << 20;

/// `alcor show connections`
///
/// # Errors
/// When no agent answers, or with an error.
pub fn connections(port: Id<Port>, socket: &Path, as_json: bool) -> anyhow::Result<()> {
    let answer = ask(socket, &json!({"connections": {"port_id": port}}))?;
    let connections = &answer["connections"];
    if as_json {
        return stdout::json(connections);
    }
    let columns = [
        "protocol",
        "own address",
        "",
        "other address",
        "state",
        "label",
        "epoch",
        "forgotten in",
    ];
    let mut table = Builder::default();
    table.push_record(columns);
    for line in connections.as_array().into_iter().flatten() {
        table.push_record(connection(line));
    }
    stdout::table(table)
}

fn connection(line: &Value) -> [String; 8] {
    let side = |ip: &str, port: &str| {
        let ip = text(&line[ip]);
        match ip.contains(':') {
            true => format!("[{ip}]:{}", line[port]),
            false => format!("{ip}:{}", line[port]),
        }
    };
    [
        protocol(&line["protocol"]),
        side("own_ip", "own_port"),
        if line["began_here"] == true { "->" } else { "<-" }.to_owned(),
        side("other_ip", "other_port"),
        text(&line["state"]),
        text(&line["label"]),
        text(&line["epoch"]),
        format!("{} s", line["expires_in_s"]),
    ]
}

fn protocol(number: &Value) -> String {
    match number.as_u64() {
        Some(1) => "icmp".to_owned(),
        Some(6) => "tcp".to_owned(),
        Some(17) => "udp".to_owned(),
        Some(58) => "icmpv6".to_owned(),
        Some(132) => "sctp".to_owned(),
        _ => number.to_string(),
    }
}

/// `alcor show drops`
///
/// # Errors
/// When no agent answers, or with an error.
pub fn drops(port: Option<Id<Port>>, socket: &Path, as_json: bool) -> anyhow::Result<()> {
    let mut answer = ask(socket, &json!({"drops": {}}))?;
    let Value::Array(mut lines) = answer["drops"].take() else {
        anyhow::bail!("the agent's answer is not readable: {answer}");
    };
    if let Some(port) = port {
        lines.retain(|line| line["port_id"] == json!(port));
    }
    if as_json {
        return stdout::json(&lines);
    }
    let mut table = Builder::default();
    table.push_record(["port", "reason", "packets"]);
    for line in &lines {
        table.push_record([
            text(&line["port_id"]),
            text(&line["reason"]),
            text(&line["packets"]),
        ]);
    }
    stdout::table(table)
}

/// `alcor show gateway`
///
/// # Errors
/// When no gateway answers, or with an error.
pub fn gateway(socket: &Path, as_json: bool) -> anyhow::Result<()> {
    let answer = ask(socket, &json!({"gateway": {}}))?;
    let gateway = &answer["gateway"];
    if as_json {
        return stdout::json(gateway);
    }
    let lines = |list: &str, columns: &[&str]| {
        let mut table = Builder::default();
        table.push_record(columns.iter().copied());
        for line in gateway[list].as_array().into_iter().flatten() {
            table.push_record(columns.iter().map(|column| text(&line[*column])));
        }
        stdout::table(table)
    };
    lines("devices", &["device", "mode"])?;
    let mut table = Builder::default();
    table.push_record(["through", "packets", "bytes"]);
    for way in ["east_west", "north", "south"] {
        let count = |what: &str| text(&gateway["load"][format!("{way}_{what}")]);
        table.push_record([way.to_owned(), count("packets"), count("bytes")]);
    }
    stdout::table(table)?;
    lines("nat", &["router", "connections", "limit", "refused"])
}

/// One line to the agent, one back.
fn ask(socket: &Path, request: &Value) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!(
            "no agent answers at {}; this is asked on the port's own host (--socket names another one)",
            socket.display()
        )
    })?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER))
        .read_line(&mut line)
        .context("the agent did not answer in time")?;
    let answer: Value = serde_json::from_str(&line).context("the agent's answer is not readable")?;
    if let Some(error) = answer["error"].as_str() {
        anyhow::bail!("the agent says: {error}");
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_one_line() {
        let line = json!({
            "own_ip": "fd00::1", "own_port": 22, "other_ip": "10.0.0.9", "other_port": 40_000, "protocol": 6,
            "began_here": false, "state": "established", "label": 2, "epoch": 7, "expires_in_s": 9
        });
        let cells = connection(&line);
        assert_eq!(
            cells,
            [
                "tcp",
                "[fd00::1]:22",
                "<-",
                "10.0.0.9:40000",
                "established",
                "2",
                "7",
                "9 s"
            ]
        );
    }
}
