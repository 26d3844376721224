//! Frames that were held go on their way: through the program for them, as if their port sent them now. Nothing is put
//! on the port's device, so nothing else sees them there.

use alcor_dataplane::DataplaneError;
use aya::{
    Ebpf,
    programs::{TestRun, TestRunOptions},
};

use crate::{
    checksum, error,
    object::{self, RELEASED},
    skb,
};

/// Sends a held frame of the port whose device this is.
pub(crate) fn release(ebpf: &mut Ebpf, ifindex: u32, frame: &[u8]) -> Result<(), DataplaneError> {
    let mut frame = frame.to_vec();
    checksum::complete(&mut frame);
    let mut context = skb::EMPTY;
    skb::set_word(&mut context, skb::IFINDEX, ifindex);
    let options = TestRunOptions {
        data_in: Some(&frame),
        ctx_in: Some(&context),
        ..TestRunOptions::new()
    };
    let run = object::program(ebpf, RELEASED)?.test_run(options);
    run.map(drop)
        .map_err(|source| error::kernel("releasing a held frame", source))
}
