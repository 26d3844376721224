//! `cargo xtask bench api`: durable single-port creations a second over HTTP with 1, 16 and 64 clients, and in bulk.
//!
//! The API with a region on an SQLite file on disk runs in a process of its own (this program started again); the
//! clients share one thread in this one and write HTTP/1.1 by hand, so that they take little of the cores they share
//! with the server. Every client keeps its connection and waits for each answer. Talk goes to standard error; the
//! last line of standard output is one JSON object.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use alcor_api::{ApiConfig, ApiState, NoHosts, serve};
use alcor_region::{Region, RegionConfig};
use alcor_store::SqliteEngine;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Ports in one bulk request.
const BULK: usize = 100;
/// Clients that send bulk requests.
const BULK_CLIENTS: usize = 8;
/// Addresses in the subnet: more than any run takes.
const SUBNET: &str = "10.0.0.0/8";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--serve") => server(Path::new(arguments.get(1).ok_or("--serve wants a folder")?)),
        _ => {
            let quick = arguments.iter().any(|argument| argument == "--quick");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(bench(quick))
        }
    }
}

fn server(folder: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let region = open_region(folder)?;
        let state = ApiState::new(region, Arc::new(NoHosts), ApiConfig::noauth("bench"));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        // The parent ends this process by closing its standard input.
        let ended = async {
            let mut byte = [0_u8; 1];
            let _ =
                tokio::task::spawn_blocking(move || std::io::Read::read(&mut std::io::stdin(), &mut byte))
                    .await;
        };
        Ok(serve(listener, state, ended).await?)
    })
}

struct Server {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir_in(target_folder())?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self {
            address: line.trim().parse()?,
            child,
            _folder: folder,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Where the executable is: on a disk, which the system's folder for temporary files may not be.
fn target_folder() -> std::path::PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.parent().map_or_else(std::env::temp_dir, Path::to_path_buf)
}

/// One keep-alive connection.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(1 << 17),
        })
    }

    /// Sends a whole request and reads the whole answer, which must be 201; gives the body's place in the buffer.
    async fn send(&mut self, request: &[u8]) -> Result<std::ops::Range<usize>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some(body) = whole_answer(&self.buffer) {
                if !self.buffer.starts_with(b"HTTP/1.1 201") {
                    return Err(String::from_utf8_lossy(&self.buffer).into_owned().into());
                }
                return Ok(body);
            }
        }
    }
}

/// The place of the body, once it is all there.
fn whole_answer(buffer: &[u8]) -> Option<std::ops::Range<usize>> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    })?;
    (buffer.len() >= head + length).then_some(head..head + length)
}

fn request(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn network(address: SocketAddr) -> Result<String> {
    let mut client = Client::connect(address).await?;
    let body = client
        .send(&request("/v2.0/networks", r#"{"network":{"name":"bench"}}"#))
        .await?;
    let answer: serde_json::Value = serde_json::from_slice(&client.buffer[body])?;
    let id = answer["network"]["id"].as_str().ok_or("no id")?.to_owned();
    let subnet = format!(r#"{{"subnet":{{"network_id":"{id}","cidr":"{SUBNET}","ip_version":4}}}}"#);
    client.send(&request("/v2.0/subnets", &subnet)).await?;
    Ok(id)
}

struct Figures {
    ports_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Drives so many clients for so long, each with the same request over and over.
async fn drive(
    address: SocketAddr,
    clients: usize,
    request: Vec<u8>,
    ports: usize,
    time: Duration,
) -> Result<Figures> {
    let request: Arc<[u8]> = request.into();
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(Client::connect(address).await?);
    }
    let begin = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut client| {
            let request = Arc::clone(&request);
            tokio::spawn(async move {
                let mut times_us = Vec::new();
                while begin.elapsed() < time {
                    let sent = Instant::now();
                    client.send(&request).await?;
                    times_us.push(sent.elapsed().as_micros());
                }
                Result::Ok(times_us)
            })
        })
        .collect();
    let mut times_us = Vec::new();
    for task in tasks {
        times_us.extend(task.await??);
    }
    let ports_per_s = (times_us.len() * ports) as f64 / begin.elapsed().as_secs_f64();
    times_us.sort_unstable();
    let quantile = |q: f64| {
        let index = ((times_us.len().max(1) - 1) as f64 * q).round() as usize;
        times_us.get(index).map_or(0.0, |us| *us as f64 / 1000.0)
    };
    Ok(Figures {
        ports_per_s,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
    })
}

async fn bench(quick: bool) -> Result<()> {
    let time = if quick {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(5)
    };
    let server = Server::start()?;
    let id = network(server.address).await?;
    let port = format!(r#"{{"network_id":"{id}","name":"bench","device_id":"vm"}}"#);
    let single = request("/v2.0/ports", &format!(r#"{{"port":{port}}}"#));
    let bulk = request(
        "/v2.0/ports",
        &format!(r#"{{"ports":[{}]}}"#, vec![port.as_str(); BULK].join(",")),
    );
    eprintln!(
        "durable port creations; server in its own process (2 threads), clients in 1 thread, SQLite on disk"
    );
    eprintln!("{:<26}{:>12}{:>12}{:>12}", "", "ports/s", "p50 ms", "p99 ms");
    let mut rates = Vec::new();
    let mut last = None;
    for clients in [1, 16, 64] {
        let figures = drive(server.address, clients, single.clone(), 1, time).await?;
        print_row(&format!("single, {clients} clients"), &figures);
        rates.push(figures.ports_per_s);
        last = Some(figures);
    }
    let figures = drive(server.address, BULK_CLIENTS, bulk, BULK, time).await?;
    print_row(&format!("bulk of {BULK}, {BULK_CLIENTS} clients"), &figures);
    let (p50_ms, p99_ms) = last.map_or((0.0, 0.0), |figures| (figures.p50_ms, figures.p99_ms));
    println!(
        "{}",
        serde_json::json!({
            "single_1": rates[0].round(),
            "single_16": rates[1].round(),
            "single_64": rates[2].round(),
            "bulk_100": figures.ports_per_s.round(),
            "p50_ms": p50_ms,
            "p99_ms": p99_ms,
        })
    );
    Ok(())
}

fn print_row(name: &str, figures: &Figures) {
    eprintln!(
        "{name:<26}{:>12.0}{:>12.2}{:>12.2}",
        figures.ports_per_s, figures.p50_ms, figures.p99_ms
    );
}

fn open_region(folder: &Path) -> Result<Region> {
    let engine = SqliteEngine::open(&folder.join("alcor.db"))?;
    Ok(Region::open(Box::new(engine), RegionConfig::default())?)
}
