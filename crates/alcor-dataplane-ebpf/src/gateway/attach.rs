//! The program on devices: how it is attached, links that outlive the process, and what the node's own stack must be told.

use std::{fmt, fs, io, path::PathBuf};

use alcor_dataplane::DataplaneError;
use alcor_dataplane_abi::gateway_layout::{DEVICE_EXTERNAL, DeviceValue};
use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::{XdpLink, XdpLinkId},
};

use super::GatewayConfig;
use crate::{device, error, pins::Pins};

/// `rp_filter`: whoever sends must be reachable, by whatever device.
const LOOSE_RP_FILTER: &str = "2";

/// How the program runs on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// In the driver, before the kernel makes a packet of what has come.
    Native,
    /// In the kernel's stack, on any device: slower.
    Generic,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Attachment {
    /// `native` or `generic`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn mode(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Native, Self::Generic]
            .into_iter()
            .find(|attachment| attachment.as_str() == name)
    }
}

/// A link that is pinned.
struct Pinned {
    path: PathBuf,
    ifindex: u32,
    attachment: Attachment,
}

/// Names of pins are `IFINDEX_ATTACHMENT`.
fn pinned(pins: &Pins) -> Result<Vec<Pinned>, DataplaneError> {
    let folder = pins.link_folder();
    let entries = fs::read_dir(&folder).map_err(|source| error::io("reading", &folder, source))?;
    let parse = |path: PathBuf| {
        let (ifindex, attachment) = path.file_name()?.to_str()?.split_once('_')?;
        Some(Pinned {
            ifindex: ifindex.parse().ok()?,
            attachment: Attachment::of_name(attachment)?,
            path,
        })
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| parse(entry.path()))
        .collect())
}

/// Puts the program on the devices, by interface index, and takes it from all others. Where an earlier process left it, it is replaced
/// without a gap.
pub(super) fn attach(
    pins: &Pins,
    program: &mut Xdp,
    config: &GatewayConfig,
    devices: &[(u32, String)],
) -> Result<Vec<(String, Attachment)>, DataplaneError> {
    let mut found = pinned(pins)?;
    let mut attached = Vec::new();
    for (ifindex, name) in devices {
        let old = found.iter().position(|pin| pin.ifindex == *ifindex);
        let old = old.map(|at| found.swap_remove(at));
        let adopted = match &old {
            Some(pin) => adopt(program, pin)?,
            None => false,
        };
        let attachment = match old {
            Some(pin) if adopted => pin.attachment,
            _ => attach_anew(pins, program, config, *ifindex, name)?,
        };
        tracing::info!(device = %name, %attachment, "the gateway program is on the device");
        attached.push((name.clone(), attachment));
    }
    for pin in found {
        remove(&pin.path)?;
    }
    Ok(attached)
}

/// Takes the program from all devices.
pub(super) fn detach_all(pins: &Pins) -> Result<(), DataplaneError> {
    pinned(pins)?.iter().try_for_each(|pin| remove(&pin.path))
}

fn remove(path: &PathBuf) -> Result<(), DataplaneError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error::io("removing", path, source)),
        _ => Ok(()),
    }
}

/// Puts the program on a link that is pinned; false when its device is gone, and then the pin too.
fn adopt(program: &mut Xdp, pin: &Pinned) -> Result<bool, DataplaneError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        error::kernel(format!("taking over the link {}", pin.path.display()), source)
    };
    let link = PinnedLink::from_pin(&pin.path).map_err(|source| failed(source.into()))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|source| failed(source.into()))?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // Its file descriptor may go: the pin holds it.
            drop(file_link(program, id)?);
            Ok(true)
        }
        Err(source) if is_device_gone(&source) => {
            tracing::info!(%source, link = %pin.path.display(), "the device of a link is gone");
            remove(&pin.path)?;
            Ok(false)
        }
        Err(source) => Err(failed(source.into())),
    }
}

/// True when the kernel says that a link has lost its device. Whatever else it refuses leaves the link, and what it does, as they are.
fn is_device_gone(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(refused) => {
            matches!(
                refused.io_error.raw_os_error(),
                Some(libc::ENOLINK | libc::ENODEV)
            )
        }
        _ => false,
    }
}

fn attach_anew(
    pins: &Pins,
    program: &mut Xdp,
    config: &GatewayConfig,
    ifindex: u32,
    name: &str,
) -> Result<Attachment, DataplaneError> {
    // What a veth sends in native mode is lost unless its other end helps, which nobody here can see to.
    let wanted: &[Attachment] = match config.attachment {
        Some(Attachment::Native) => &[Attachment::Native],
        Some(Attachment::Generic) => &[Attachment::Generic],
        None if device::look(name)?.is_veth => &[Attachment::Generic],
        None => &[Attachment::Native, Attachment::Generic],
    };
    let mut refused = None;
    for attachment in wanted {
        match program.attach_to_if_index(ifindex, attachment.mode()) {
            Ok(id) => {
                let path = pins.link_folder().join(format!("{ifindex}_{attachment}"));
                let link = file_link(program, id)?;
                let pinned = link.pin(&path).map(drop);
                return pinned
                    .map(|()| *attachment)
                    .map_err(|source| error::kernel(format!("pinning {}", path.display()), source));
            }
            Err(source) => {
                tracing::info!(device = %name, %attachment, %source, "the device does not take the program so");
                refused = Some(source);
            }
        }
    }
    let reason = refused.map_or_else(String::new, |source| source.to_string());
    Err(error::device(
        name,
        format!("the gateway program cannot be attached: {reason}"),
    ))
}

fn file_link(program: &mut Xdp, id: XdpLinkId) -> Result<FdLink, DataplaneError> {
    let link = program
        .take_link(id)
        .map_err(|source| error::kernel("taking a link", source))?;
    FdLink::try_from(link).map_err(|source| error::kernel("taking a link", source))
}

/// Settings of the node's own stack. It forwards what the program passes to it because a MAC is not known yet. What goes into the underlay is from
/// the tunnel address, whichever device it came in by, hence `accept_local`; what goes to the outside came in by the underlay's device and
/// is from an address that no unicast route leads to, hence no `rp_filter` there. On a device that leads to the outside only, the loose check does.
/// The larger number of a device's and of `all` counts.
pub(super) fn prepare_stack(devices: &[(String, DeviceValue)]) -> Result<(), DataplaneError> {
    set("net/ipv4/ip_forward", "1")?;
    for setting in ["rp_filter", "send_redirects"] {
        set(&format!("net/ipv4/conf/all/{setting}"), "0")?;
    }
    for (name, value) in devices {
        let is_outside = value.flags == DEVICE_EXTERNAL;
        let check = if is_outside { LOOSE_RP_FILTER } else { "0" };
        for (setting, value) in [
            ("rp_filter", check),
            ("send_redirects", "0"),
            ("accept_local", "1"),
            // A sender that names its way would get past the program's look at the routes.
            ("accept_source_route", "0"),
        ] {
            set(&format!("net/ipv4/conf/{name}/{setting}"), value)?;
        }
    }
    Ok(())
}

fn set(setting: &str, value: &str) -> Result<(), DataplaneError> {
    let path = PathBuf::from("/proc/sys").join(setting);
    fs::write(&path, value).map_err(|source| error::io("setting", &path, source))
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn only_a_link_without_its_device_is_given_up() {
        let refused = |number| {
            ProgramError::SyscallError(SyscallError {
                call: "bpf_link_update",
                io_error: io::Error::from_raw_os_error(number),
            })
        };
        assert!(
            [libc::ENOLINK, libc::ENODEV]
                .map(refused)
                .iter()
                .all(is_device_gone)
        );
        for number in [libc::EPERM, libc::EINVAL, libc::EBUSY, libc::ENOMEM] {
            assert!(!is_device_gone(&refused(number)));
        }
        assert!(!is_device_gone(&ProgramError::NotLoaded));
    }
}
