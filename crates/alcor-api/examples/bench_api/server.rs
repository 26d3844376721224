//! Alcor's server, in a process of its own: this program started again.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use alcor_api::{ApiConfig, ApiState, NoHosts, serve};
use alcor_region::{Region, RegionConfig};
use alcor_store::SqliteEngine;
use tokio::net::TcpListener;

use super::Result;

/// Serves a region in a folder until standard input ends.
pub fn run(folder: &Path) -> Result<()> {
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

fn open_region(folder: &Path) -> Result<Region> {
    let engine = SqliteEngine::open(&folder.join("alcor.db"))?;
    Ok(Region::open(Box::new(engine), RegionConfig::default())?)
}

/// A server that runs; ends when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts one on an empty region.
    pub fn start() -> Result<Self> {
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
fn target_folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.parent().map_or_else(std::env::temp_dir, Path::to_path_buf)
}
