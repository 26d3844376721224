//! The last incarnation of this host's agent, in a small file beside the local socket: a host whose clock was set back must not
//! say hello as if it came from the past.
//!
//! It only makes the newest agent win at once. A host that has lost the file (a reboot empties `/run`) is taken by the NCM as
//! soon as no session of the host lives any more; see `docs/protocol.md`. So nothing here is an error that stops an agent.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Longest content that is read: the digits of a u64 and a line feed.
const BYTES_MAX: u64 = 21;

/// The file beside the socket.
fn path_beside(socket: &Path) -> PathBuf {
    socket.with_extension("incarnation")
}

/// The incarnation of an agent that starts now, in microseconds since the Unix epoch: later than the last one's, even if the clock
/// was set back since.
pub fn next(last: Option<u64>, unix_us: u64) -> u64 {
    last.map_or(unix_us, |last| last.saturating_add(1).max(unix_us))
}

/// Gives the incarnation of an agent that starts now, and keeps it for the next one.
pub(crate) fn take(socket: &Path, unix_us: u64) -> u64 {
    let path = path_beside(socket);
    let incarnation = next(read(&path), unix_us);
    if let Err(error) = write(&path, incarnation) {
        tracing::warn!(
            path = %path.display(),
            %error,
            "the incarnation cannot be kept; if the clock is set back, the next agent waits for the end of this one's session"
        );
    }
    incarnation
}

/// What is there, if it is one number. Anything else is as good as nothing.
fn read(path: &Path) -> Option<u64> {
    let is_small = fs::metadata(path).ok()?.len() <= BYTES_MAX;
    let text = is_small.then(|| fs::read_to_string(path).ok())??;
    text.trim_end().parse().ok()
}

/// The whole number or the old one, never a part.
fn write(path: &Path, incarnation: u64) -> io::Result<()> {
    let fresh = path.with_extension("incarnation.new");
    fs::write(&fresh, format!("{incarnation}\n"))?;
    fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn socket(folder: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("alcor-{folder}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder.join("agent.sock")
    }

    #[test]
    fn it_grows_though_the_clock_goes_back() {
        let socket = socket("incarnation-grows");
        assert_eq!(take(&socket, 1_000), 1_000);
        assert_eq!(take(&socket, 400), 1_001);
        assert_eq!(take(&socket, 2_000), 2_000);
        assert_eq!(next(Some(u64::MAX), 5), u64::MAX);
        fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_is_no_number_is_nothing() {
        let socket = socket("incarnation-nothing");
        let file = path_beside(&socket);
        for text in ["", "x", "-4", "18446744073709551616", &"1".repeat(4_096)] {
            fs::write(&file, text).unwrap();
            assert_eq!(take(&socket, 7), 7, "{text:.30}");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(take(&socket, 7), 7, "it cannot be kept, and the agent starts");
        fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    }
}
