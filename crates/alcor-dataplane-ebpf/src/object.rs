//! The compiled programs, when this build has them.

use std::io::ErrorKind;

use alcor_dataplane::DataplaneError;
use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, SchedClassifier},
};

use crate::{EbpfConfig, error, kernel::PINNED, neighbours, pins::Pins};

#[cfg(kernel_programs)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("ALCOR_PROGRAMS")));
#[cfg(not(kernel_programs))]
static OBJECT: Option<&[u8]> = None;

/// How often a program is loaded until it is.
const LOAD_TRIES: u32 = 5;

/// On the ingress of ports' devices.
pub(crate) const FROM_PORT: &str = "from_port";
/// On the ingress of the tunnel device.
pub(crate) const FROM_TUNNEL: &str = "from_tunnel";
/// On the ingress of devices that lead to external networks.
pub(crate) const FROM_EXTERNAL: &str = "from_external";
/// For frames that were held; on no device.
pub(crate) const RELEASED: &str = "released";

/// Loads the programs, with the maps that are pinned or with new ones that are pinned now.
pub(crate) fn load(pins: &Pins, tunnel_ifindex: u32, config: &EbpfConfig) -> Result<Ebpf, DataplaneError> {
    let Some(object) = OBJECT else {
        let reason =
            "this alcor was built without kernel programs: run `cargo xtask setup`, then build again";
        return Err(error::kernel("loading the kernel programs", reason));
    };
    let trace = u32::from(config.trace);
    let mut loader = EbpfLoader::new();
    loader.override_global("TUNNEL_IFINDEX", &tunnel_ifindex, true);
    loader.override_global("TRACE", &trace, true);
    for name in neighbours::MAPS {
        loader.map_max_entries(name, config.max_neighbours);
    }
    for name in PINNED {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = loader
        .load(object)
        .map_err(|source| error::kernel("loading the kernel programs", source))?;
    for name in [FROM_PORT, FROM_TUNNEL, FROM_EXTERNAL, RELEASED] {
        let program = program(&mut ebpf, name)?;
        in_spite_of_signals(|| program.load())
            .map_err(|source| error::kernel(format!("loading the kernel program {name}"), source))?;
    }
    Ok(ebpf)
}

/// Loads a program; again when the kernel says so: its verifier stops for a signal to the thread.
pub(crate) fn in_spite_of_signals(
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), ProgramError> {
    for _ in 1..LOAD_TRIES {
        match load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
    load()
}

/// One of the programs.
pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, DataplaneError> {
    let program = ebpf.program_mut(name).ok_or_else(|| {
        error::kernel(
            format!("looking for program {name}"),
            "the object does not have it",
        )
    })?;
    program
        .try_into()
        .map_err(|source: ProgramError| error::kernel(format!("looking for program {name}"), source))
}
