//! Operations of `bpf(2)` that aya has not: emptying a place of an array of maps.
//! Not here: what entries mean.
#![allow(unsafe_code)]

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd},
};

use aya::{Pod, maps::MapData};
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// # Safety
/// What the attributes point to must be valid for what the command does with it.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<()> {
    // SAFETY: the attributes are as large as is said; the caller answers for what they point to.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            &raw mut *attr,
            size_of::<bpf_attr>(),
        )
    };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn fd_of(map: &MapData) -> u32 {
    // Descriptors that are open are not negative.
    map.fd().as_fd().as_raw_fd().unsigned_abs()
}

const fn empty() -> bpf_attr {
    // SAFETY: a union of integers; the kernel wants what is not used to be zero.
    unsafe { mem::zeroed() }
}

/// Removes an entry.
pub(crate) fn delete<K: Pod>(map: &MapData, key: &K) -> io::Result<()> {
    check_size::<K>(map.info().map(|info| info.key_size()))?;
    let mut attr = empty();
    attr.__bindgen_anon_2.map_fd = fd_of(map);
    attr.__bindgen_anon_2.key = (&raw const *key) as u64;
    // SAFETY: the kernel reads one key, whose size is the map's.
    unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) }
}

fn check_size<T>(size: Result<u32, aya::maps::MapError>) -> io::Result<()> {
    match size {
        Ok(size) if size as usize == size_of::<T>() => Ok(()),
        Ok(size) => Err(io::Error::other(format!(
            "entries of {size} bytes, not {}",
            size_of::<T>()
        ))),
        Err(error) => Err(io::Error::other(error)),
    }
}
