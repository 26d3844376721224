//! Refusals of the kernel, as the data plane reports them.

use std::io;

use alcor_dataplane::DataplaneError;
use aya::maps::MapError;

/// "`action` failed", and why.
pub(crate) fn kernel(
    action: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DataplaneError {
    DataplaneError::Kernel {
        action: action.into(),
        source: source.into(),
    }
}

/// A device that cannot be used.
pub(crate) fn device(device: &str, reason: impl Into<String>) -> DataplaneError {
    DataplaneError::Device {
        device: device.to_owned(),
        reason: reason.into(),
    }
}

/// A map operation that failed; a full map is a limit that is reached.
pub(crate) fn map(what: &'static str, limit: u32, source: MapError) -> DataplaneError {
    match os_error(&source) {
        Some(libc::E2BIG | libc::ENOSPC) => DataplaneError::Full {
            what,
            limit: limit as usize,
        },
        _ => kernel(format!("changing the kernel's table of {what}s"), source),
    }
}

/// As [`map`], of an operation of our own.
pub(crate) fn table(what: &'static str, limit: u32, source: io::Error) -> DataplaneError {
    map(what, limit, MapError::IoError(source))
}

fn os_error(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        MapError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

/// True when a removal found nothing to remove.
pub(crate) fn is_missing(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || os_error(error) == Some(libc::ENOENT)
}

/// Adds a path to an I/O error.
pub(crate) fn io(action: &str, path: &std::path::Path, source: io::Error) -> DataplaneError {
    kernel(format!("{action} {}", path.display()), source)
}
