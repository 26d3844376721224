//! A lean HTTP/1.1 client over one kept connection: requests are written by hand, so that the load takes little of the
//! cores it shares with the server. It speaks to any server of the Neutron API.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Result;

/// One kept connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(1 << 17),
        })
    }

    /// Sends a whole request and reads the whole answer, which must be a success; gives the body.
    pub async fn send(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let body = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some(body) = whole_answer(&self.buffer) {
                break body;
            }
        };
        if !self.buffer.starts_with(b"HTTP/1.1 2") {
            return Err(String::from_utf8_lossy(&self.buffer).into_owned().into());
        }
        Ok(&self.buffer[body])
    }

    /// Sends a request whose answer is JSON.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Value> {
        Ok(serde_json::from_slice(self.send(request).await?)?)
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
    });
    // An answer with neither length nor body is one to a deletion.
    let length = length.or_else(|| text.starts_with("HTTP/1.1 204").then_some(0))?;
    (buffer.len() >= head + length).then_some(head..head + length)
}

/// A request as it goes over the wire.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
