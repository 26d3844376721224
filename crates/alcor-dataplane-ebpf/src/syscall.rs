//! Operations of `bpf(2)` that aya has not: many entries of a map at once, taking an entry out, and emptying a place of an
//! array of maps. Not here: what entries mean.
#![allow(unsafe_code)]

use std::{
    io,
    marker::PhantomData,
    mem,
    os::fd::{AsFd, AsRawFd},
    panic::resume_unwind,
    thread,
};

use aya::{
    Pod,
    maps::{ArrayOfMaps, Map, MapData, MapError},
};
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Entries of one call that changes or reads many.
pub(crate) const BATCH: usize = 4096;
/// Entries that are worth a thread of their own. Nearly all of the time that an entry takes is waiting for memory.
const PART_MIN: usize = 512;
/// Threads that put the parts of a batch.
const THREADS_MAX: usize = 4;
/// What the kernel says of a map that has no such command; user space has no name for it.
const ENOTSUPP: i32 = 524;

/// How far a batch came, and what stopped it.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// Entries that were done, from the beginning.
    pub(crate) done: usize,
    pub(crate) error: io::Error,
}

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

/// True when the kernel does not know the command, or not for this kind of map.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | ENOTSUPP | libc::EOPNOTSUPP)
    )
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

fn check_size<T>(size: u32) -> io::Result<()> {
    if size as usize == size_of::<T>() {
        return Ok(());
    }
    let wanted = size_of::<T>();
    Err(io::Error::other(format!(
        "keys or values of {size} bytes, not {wanted}"
    )))
}

/// An array of maps. Its places are its keys.
pub(crate) struct Places {
    map: Map,
    fd: u32,
}

impl TryFrom<Map> for Places {
    type Error = MapError;

    fn try_from(map: Map) -> Result<Self, MapError> {
        let Map::ArrayOfMaps(data) = &map else {
            return Err(io::Error::other("not an array of maps").into());
        };
        check_size::<u32>(data.info()?.key_size())?;
        let fd = fd_of(data);
        Ok(Self { map, fd })
    }
}

impl Places {
    /// The map in a place.
    pub(crate) fn get(&self, place: u32) -> Result<MapData, MapError> {
        ArrayOfMaps::<_, MapData>::try_from(&self.map)?.get(&place, 0)
    }

    /// Puts a map into a place.
    pub(crate) fn set(&mut self, place: u32, map: &MapData) -> Result<(), MapError> {
        ArrayOfMaps::<_, MapData>::try_from(&mut self.map)?.set(place, map, 0)
    }

    /// Empties a place; false when it is empty.
    pub(crate) fn clear(&self, place: u32) -> io::Result<bool> {
        let mut attr = empty();
        attr.__bindgen_anon_2.map_fd = self.fd;
        attr.__bindgen_anon_2.key = (&raw const place) as u64;
        // SAFETY: the kernel reads one key, of the size that was compared with the map's.
        match unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) } {
            Err(error) if is_missing(&error) => Ok(false),
            done => done.map(|()| true),
        }
    }
}

/// A hash map of which many entries are read or changed at once. A kernel that cannot do that is asked entry by entry.
pub(crate) struct Table<K, V> {
    map: MapData,
    limit: u32,
    /// That put a batch together.
    threads: usize,
    entry: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> TryFrom<Map> for Table<K, V> {
    type Error = MapError;

    fn try_from(map: Map) -> Result<Self, MapError> {
        let Map::HashMap(map) = map else {
            return Err(io::Error::other("not a hash map").into());
        };
        let info = map.info()?;
        let sizes = check_size::<K>(info.key_size()).and_then(|()| check_size::<V>(info.value_size()));
        sizes?;
        Ok(Self {
            limit: info.max_entries(),
            map,
            threads: thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX)),
            entry: PhantomData,
        })
    }
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Entries that it has room for.
    pub(crate) const fn limit(&self) -> u32 {
        self.limit
    }

    /// The entry of a key.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        self.value_by(bpf_cmd::BPF_MAP_LOOKUP_ELEM, key)
    }

    /// Removes the entry of a key and returns it.
    pub(crate) fn take(&self, key: &K) -> io::Result<Option<V>> {
        match self.value_by(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, key) {
            Err(error) if is_unsupported(&error) => {
                let value = self.get(key)?;
                self.remove(key)?;
                Ok(value)
            }
            done => done,
        }
    }

    fn value_by(&self, command: bpf_cmd, key: &K) -> io::Result<Option<V>> {
        let mut value = mem::MaybeUninit::<V>::uninit();
        let mut attr = self.attr(key);
        attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
        // SAFETY: the kernel reads a key and writes a value of the sizes that were compared with the map's.
        match unsafe { bpf(command, &mut attr) } {
            // SAFETY: the kernel has written it; any bytes are a value of this type.
            Ok(()) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts an entry.
    pub(crate) fn put(&self, key: &K, value: &V) -> io::Result<()> {
        let mut attr = self.attr(key);
        attr.__bindgen_anon_2.__bindgen_anon_1.value = (&raw const *value) as u64;
        // SAFETY: the kernel reads a key and a value of the sizes that were compared with the map's.
        unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }
    }

    /// Removes an entry; false when it is not there.
    pub(crate) fn remove(&self, key: &K) -> io::Result<bool> {
        // SAFETY: the kernel reads a key of the size that was compared with the map's.
        match unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut self.attr(key)) } {
            Err(error) if is_missing(&error) => Ok(false),
            done => done.map(|()| true),
        }
    }

    fn attr(&self, key: &K) -> bpf_attr {
        let mut attr = empty();
        attr.__bindgen_anon_2.map_fd = fd_of(&self.map);
        attr.__bindgen_anon_2.key = (&raw const *key) as u64;
        attr
    }

    fn batch(&self, count: usize) -> bpf_attr {
        let mut attr = empty();
        attr.batch.map_fd = fd_of(&self.map);
        attr.batch.count = count as u32;
        attr
    }

    /// Puts entries; no key stands twice. Many are put by several threads at once.
    pub(crate) fn put_all(&self, keys: &[K], values: &[V]) -> Result<(), Stopped>
    where
        K: Sync,
        V: Sync,
    {
        let part = keys.len().div_ceil(self.threads).max(PART_MIN);
        let mut parts = keys.chunks(part).zip(values.chunks(part)).enumerate();
        let Some((_, (keys, values))) = parts.next() else {
            return Ok(());
        };
        let put = |(number, (keys, values))| {
            self.put_part(keys, values).map_err(|stopped| Stopped {
                done: number * part + stopped.done,
                error: stopped.error,
            })
        };
        thread::scope(|scope| {
            let others: Vec<_> = parts
                .map(|some| {
                    let thread = thread::Builder::new().name("neighbours".to_owned());
                    thread.spawn_scoped(scope, move || put(some)).map_err(|_| some)
                })
                .collect();
            put((0, (keys, values)))?;
            // The first that stopped says how far all before it came.
            others.into_iter().try_for_each(|other| match other {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(some) => put(some),
            })
        })
    }

    fn put_part(&self, keys: &[K], values: &[V]) -> Result<(), Stopped> {
        let count = keys.len().min(values.len());
        let mut attr = self.batch(count);
        attr.batch.keys = keys.as_ptr() as u64;
        attr.batch.values = values.as_ptr() as u64;
        let one = |at: usize| match (keys.get(at), values.get(at)) {
            (Some(key), Some(value)) => self.put(key, value),
            _ => Ok(()),
        };
        // SAFETY: there are `count` keys and values, of the sizes that were compared with the map's.
        unsafe { change(bpf_cmd::BPF_MAP_UPDATE_BATCH, attr, count, one) }
    }

    /// Removes entries, whether they are there or not.
    pub(crate) fn remove_all(&self, keys: &[K]) -> Result<(), Stopped> {
        let mut begin = 0;
        while let Some(rest) = keys.get(begin..).filter(|rest| !rest.is_empty()) {
            let mut attr = self.batch(rest.len());
            attr.batch.keys = rest.as_ptr() as u64;
            let one = |at: usize| match rest.get(at) {
                Some(key) => self.remove(key).map(drop),
                None => Ok(()),
            };
            // SAFETY: there are as many keys as is said, of the size that was compared with the map's.
            match unsafe { change(bpf_cmd::BPF_MAP_DELETE_BATCH, attr, rest.len(), one) } {
                Ok(()) => break,
                Err(stopped) if is_missing(&stopped.error) => begin += stopped.done + 1,
                Err(stopped) => {
                    return Err(Stopped {
                        done: begin + stopped.done,
                        error: stopped.error,
                    });
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with all entries, some at a time. One that comes or goes meanwhile may be seen or not.
    pub(crate) fn read(&self, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut cursor = 0u32;
        let mut is_first = true;
        let mut room = BATCH;
        let (mut keys, mut values) = (Vec::<K>::new(), Vec::<V>::new());
        loop {
            keys.reserve(room);
            values.reserve(room);
            let mut next = 0u32;
            let mut attr = self.batch(room);
            attr.batch.in_batch = if is_first { 0 } else { (&raw const cursor) as u64 };
            attr.batch.out_batch = (&raw mut next) as u64;
            attr.batch.keys = keys.as_mut_ptr() as u64;
            attr.batch.values = values.as_mut_ptr() as u64;
            // SAFETY: the kernel writes at most `room` keys and values, of the sizes that were compared with the map's and
            // for which there is room, and one word about where to go on.
            let outcome = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
            let is_last = match &outcome {
                Ok(()) => false,
                Err(error) if is_missing(error) => true,
                // More entries in one place of the hash than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < BATCH << 6 => {
                    room *= 2;
                    continue;
                }
                Err(error) if is_first && is_unsupported(error) => return self.read_each(each),
                Err(_) => return outcome,
            };
            // SAFETY: a field of integers.
            let count = (unsafe { attr.batch.count } as usize).min(room);
            // SAFETY: the kernel has written as many entries as it says; any bytes are a value of these types.
            unsafe {
                keys.set_len(count);
                values.set_len(count);
            }
            keys.iter().zip(&values).for_each(|(key, value)| each(key, value));
            keys.clear();
            values.clear();
            if is_last {
                return Ok(());
            }
            cursor = next;
            is_first = false;
        }
    }

    fn read_each(&self, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut last: Option<K> = None;
        loop {
            let mut next = mem::MaybeUninit::<K>::uninit();
            let mut attr = empty();
            attr.__bindgen_anon_2.map_fd = fd_of(&self.map);
            attr.__bindgen_anon_2.key = last.as_ref().map_or(0, |key| (&raw const *key) as u64);
            attr.__bindgen_anon_2.__bindgen_anon_1.next_key = next.as_mut_ptr() as u64;
            // SAFETY: the kernel reads a key, or none, and writes one, of the size that was compared with the map's.
            match unsafe { bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) } {
                Err(error) if is_missing(&error) => return Ok(()),
                done => done?,
            }
            // SAFETY: the kernel has written it; any bytes are a value of this type.
            let key = unsafe { next.assume_init() };
            if let Some(value) = self.get(&key)? {
                each(&key, &value);
            }
            last = Some(key);
        }
    }
}

/// Changes many entries, or `one` by one where the kernel cannot.
///
/// # Safety
/// The attributes must point to `count` keys of the map's size, and to as many values if the command wants values.
unsafe fn change(
    command: bpf_cmd,
    mut attr: bpf_attr,
    count: usize,
    one: impl Fn(usize) -> io::Result<()>,
) -> Result<(), Stopped> {
    if count == 0 {
        return Ok(());
    }
    // SAFETY: as the caller says.
    let Err(error) = (unsafe { bpf(command, &mut attr) }) else {
        return Ok(());
    };
    if is_unsupported(&error) {
        return (0..count).try_for_each(|done| one(done).map_err(|error| Stopped { done, error }));
    }
    // SAFETY: a field of integers. The kernel says there how many it has done.
    let done = unsafe { attr.batch.count } as usize;
    Err(Stopped {
        // Left as it was: refused before the first.
        done: if done < count { done } else { 0 },
        error,
    })
}
