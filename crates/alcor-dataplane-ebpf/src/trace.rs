//! Runs one frame through the loaded programs and says what they made of it. For tests: needs a data plane
//! opened with [`crate::EbpfConfig::trace`].

use std::time::Duration;

use alcor_dataplane::{DataplaneError, DropReason, Ingress, PuntReason, Verdict, packet::ETH_LEN};
use alcor_dataplane_abi::layout::{IPV4, IPV6, verdict};
use alcor_model::{Id, Port, Vni};
use aya::programs::{TestRun, TestRunOptions};
use bytes::Bytes;

use crate::{
    EbpfDataplane, device, error, layout,
    object::{self, FROM_EXTERNAL, FROM_PORT, FROM_TUNNEL, RELEASED},
    skb::{self, IFINDEX, set_bytes, set_word},
};

/// Offsets in a packet's context: the mark, the priority, the control block (five words), the time stamp.
const MARK: usize = 8;
const PRIORITY: usize = 32;
const CB: usize = 48;
const TSTAMP: usize = 152;
/// Frames grow by at most this much.
const ROOM: usize = 256;

fn word(context: &skb::Context, at: usize) -> u32 {
    let bytes = context.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    u32::from_ne_bytes(bytes.unwrap_or_default())
}

impl EbpfDataplane {
    /// Moves the clock of traced packets, which stands at zero otherwise.
    pub fn advance(&mut self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.clock_ns = self.clock_ns.map(|now| now.saturating_add(by));
    }

    /// What the programs make of a frame of at least 15 bytes; nothing is sent. The port needs a device.
    ///
    /// # Errors
    /// When the ingress has no device, or the kernel refuses to run the frame.
    pub fn trace(&mut self, ingress: &Ingress, frame: &[u8]) -> Result<Verdict, DataplaneError> {
        let mut context = skb::EMPTY;
        let name = match ingress {
            Ingress::Port(port) => {
                let device = self.devices.get(port).ok_or(DataplaneError::NoDevice(*port))?;
                set_word(&mut context, IFINDEX, device.ifindex);
                FROM_PORT
            }
            Ingress::Tunnel {
                source,
                vni,
                label,
                forwarded,
            } => {
                set_word(&mut context, MARK, *vni);
                let (family, ip) = layout::address(*source);
                let origin = u32::from(*forwarded) << 31 | family << 16 | u32::from(*label);
                set_word(&mut context, CB, origin);
                set_bytes(&mut context, CB + 4, &ip);
                FROM_TUNNEL
            }
            Ingress::External { device, .. } => {
                let ifindex = device::ifindex(device);
                let ifindex = ifindex.ok_or_else(|| error::device(device, "there is no such device"))?;
                set_word(&mut context, IFINDEX, ifindex);
                FROM_EXTERNAL
            }
        };
        self.run(name, context, frame)
    }

    /// As [`Self::trace`], for a frame of the port that was held and is released.
    ///
    /// # Errors
    /// As there.
    pub fn trace_release(&mut self, port: Id<Port>, frame: &[u8]) -> Result<Verdict, DataplaneError> {
        let device = self.devices.get(&port).ok_or(DataplaneError::NoDevice(port))?;
        let mut context = skb::EMPTY;
        set_word(&mut context, IFINDEX, device.ifindex);
        self.run(RELEASED, context, frame)
    }

    fn run(
        &mut self,
        program: &str,
        mut context: skb::Context,
        frame: &[u8],
    ) -> Result<Verdict, DataplaneError> {
        set_bytes(
            &mut context,
            TSTAMP,
            &self.clock_ns.unwrap_or_default().to_ne_bytes(),
        );
        let mut data_out = vec![0; frame.len() + ROOM];
        let mut context_out = skb::EMPTY;
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut data_out),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::new()
        };
        let result = object::program(&mut self.ebpf, program)?
            .test_run(options)
            .map_err(|source| error::kernel("running a frame", source))?;
        data_out.truncate(result.data_size_out as usize);
        self.verdict(&context_out, data_out.into()).ok_or_else(|| {
            error::kernel(
                "reading a verdict",
                "it makes no sense; was the data plane opened with trace?",
            )
        })
    }

    fn verdict(&self, context: &skb::Context, frame: Bytes) -> Option<Verdict> {
        let code = word(context, CB);
        let reason = code & 0xffff;
        Some(match code >> 16 {
            verdict::DROP => Verdict::Drop(DropReason::from_u32(reason)?),
            verdict::PUNT => Verdict::Punt(PuntReason::from_u32(reason)?),
            verdict::REPLY => Verdict::Reply { frame },
            verdict::PASS => Verdict::Pass,
            verdict::EXTERNAL => Verdict::External {
                device: device::look_at_index(word(context, CB + 4))?.name,
                nexthop: word(context, CB + 8).to_ne_bytes().into(),
                packet: frame.get(ETH_LEN..)?.to_vec().into(),
            },
            verdict::DELIVER => {
                let ifindex = word(context, CB + 4);
                let (port, _) = self
                    .devices
                    .iter()
                    .find(|(_, device)| device.ifindex == ifindex)?;
                Verdict::Deliver { port: *port, frame }
            }
            verdict::TUNNEL | verdict::FORWARD => {
                let bytes: [u8; 16] = context.get(CB + 4..CB + 20)?.try_into().ok()?;
                // An IPv4 address is followed by zeroes; test addresses of IPv6 are not.
                let family = if bytes.ends_with(&[0; 12]) { IPV4 } else { IPV6 };
                Verdict::Tunnel {
                    host: layout::ip(family, bytes),
                    vni: Vni::try_from(word(context, MARK)).ok()?,
                    label: word(context, PRIORITY) as u16,
                    forwarded: code >> 16 == verdict::FORWARD,
                    frame,
                }
            }
            _ => return None,
        })
    }
}
