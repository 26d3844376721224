//! Runs one frame through the loaded program and says what it made of it. For tests: needs a gateway opened with
//! [`GatewayConfig::trace`].

use std::time::Duration;

use alcor_dataplane::{
    DataplaneError, DropReason,
    gateway::{GatewayVerdict, Side},
};
use alcor_dataplane_abi::gateway_layout::{DEVICE_EXTERNAL, DEVICE_UNDERLAY, DeviceValue, verdict};
use aya::{
    maps::{Array, MapData, MapError},
    programs::{TestRun, TestRunOptions},
};
use bytes::Bytes;

#[cfg(doc)]
use super::GatewayConfig;
use super::{XdpGateway, object};
use crate::{error, layout::Plain};

/// Where the program looks for the clock, and for the most bytes of a packet that the way to the outside takes.
const CLOCK: u32 = 0;
const WAY_MTU: u32 = 1;
/// The device that traced frames come from.
const LOOPBACK: u32 = 1;
/// Frames grow by at most this much.
const ROOM: usize = 256;
const ETH_LEN: usize = 14;

impl XdpGateway {
    /// Moves the clock of traced frames, which stands at zero otherwise.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn advance(&mut self, by: Duration) -> Result<(), DataplaneError> {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let now = self.clock_ns.unwrap_or_default().saturating_add(by);
        self.clock_ns = Some(now);
        self.tell(CLOCK, now)
    }

    /// Sets the most bytes of a packet that the way to the outside takes, for traced frames; any at first.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_way_mtu(&mut self, mtu: u16) -> Result<(), DataplaneError> {
        self.tell(WAY_MTU, u64::from(mtu))
    }

    /// Tells the program what only a test knows.
    fn tell(&mut self, what: u32, value: u64) -> Result<(), DataplaneError> {
        let mut clock: Array<&mut MapData, u64> = self
            .ebpf
            .map_mut("gw_clock")
            .ok_or_else(|| error::kernel("setting the clock", "the program has none"))?
            .try_into()
            .map_err(|source: MapError| error::kernel("setting the clock", source))?;
        let set = clock.set(what, value, 0);
        set.map_err(|source| error::kernel("setting the clock", source))
    }

    /// Removes translations of which one half is missing, and was the last time too. Happens by itself where packets are not traced.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_halves(&mut self) -> Result<(), DataplaneError> {
        super::nat::lock(&self.nat).remove_halves()
    }

    /// What the program makes of a frame of 14 to about 3,500 bytes; nothing is sent.
    ///
    /// # Errors
    /// When the kernel refuses to run the frame.
    pub fn trace(&mut self, side: &Side, frame: &[u8]) -> Result<GatewayVerdict, DataplaneError> {
        let mut flags = 0;
        for (is_there, role) in [(side.underlay, DEVICE_UNDERLAY), (side.external, DEVICE_EXTERNAL)] {
            flags |= if is_there { role } else { 0 };
        }
        let device = DeviceValue {
            flags,
            mac: side.mac.0,
            pad: [0; 2],
        };
        let put = self.devices.insert(LOOPBACK, Plain(device), 0);
        put.map_err(|source| error::kernel("changing the gateway's devices", source))?;
        let mut data_out = vec![0; frame.len() + ROOM];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut data_out),
            ..TestRunOptions::new()
        };
        let result = object::program(&mut self.ebpf)?
            .test_run(options)
            .map_err(|source| error::kernel("running a frame", source))?;
        data_out.truncate(result.data_size_out as usize);
        of(result.return_value, data_out.into()).ok_or_else(|| {
            error::kernel(
                "reading a verdict",
                "it makes no sense; was the gateway opened with trace?",
            )
        })
    }
}

fn of(code: u32, frame: Bytes) -> Option<GatewayVerdict> {
    Some(match code >> 16 {
        verdict::DROP => GatewayVerdict::Drop(DropReason::from_u32(code & 0xffff)?),
        verdict::PASS => GatewayVerdict::Pass,
        verdict::REPLY => GatewayVerdict::Reply(frame),
        verdict::UNDERLAY => GatewayVerdict::Underlay(frame.slice(ETH_LEN.min(frame.len())..)),
        verdict::OUTSIDE => GatewayVerdict::Outside(frame.slice(ETH_LEN.min(frame.len())..)),
        _ => return None,
    })
}
