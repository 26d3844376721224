//! A port's id, and so the name of its device.

use alcor_model::{Id, Port};

use crate::{Env, RegionError, RegionState};

/// How many starts of an id are tried from the time on, and how many random ones after that.
const ID_TRIES: u128 = 64;
/// Where the part of an id begins that a device name shows.
const PREFIX_SHIFT: u32 = 88;
const PREFIX_MAX: u128 = (1 << 40) - 1;

/// A new port's id: a UUID of version 8 that begins with 40 bits of fine time and goes on with random bits.
///
/// Nova and Neutron name a port's device after the first ten hexadecimal digits of its id, 40 bits. In a UUIDv7 a
/// step of these is a quarter of a second, so ports made together would share one device name. Here a step is
/// 3.6 microseconds (they begin anew after 46 days), and nobody gets digits that another port has. Rows made
/// together still lie together in the database.
pub(super) fn new_id(state: &RegionState, env: &Env) -> Result<Id<Port>, RegionError> {
    let micros = u128::try_from(env.source.now().as_microsecond()).unwrap_or_default();
    let ticks = micros * (1 << 24) / 60_000_000;
    let later = (0..ID_TRIES).map(|step| ticks + step);
    let anywhere = (0..ID_TRIES).map(|_| u128::from(env.source.random() >> 24));
    let prefix = later
        .chain(anywhere)
        .map(|prefix| prefix & PREFIX_MAX)
        .find(|prefix| !has_prefix(state, *prefix))
        .ok_or(RegionError::DeviceNameGenerationFailure)?;
    let random = u128::from(env.source.random()) << 24 | u128::from(env.source.random() & 0xff_ffff);
    Ok(Id::from_uuid(uuid::Uuid::new_v8(
        (prefix << PREFIX_SHIFT | random).to_be_bytes(),
    )))
}

/// Whether a port's id begins with these 40 bits.
fn has_prefix(state: &RegionState, prefix: u128) -> bool {
    // No id of version 8 has only zeros behind the prefix, so everything with the prefix comes after this one.
    let first = Id::from_uuid(uuid::Uuid::from_u128(prefix << PREFIX_SHIFT));
    state
        .ports()
        .after(&first)
        .next()
        .is_some_and(|next| next.id.uuid().as_u128() >> PREFIX_SHIFT == prefix)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use alcor_model::Resource;
    use alcor_store::State as _;

    use super::*;
    use crate::{RegionConfig, env::Source};

    /// Time stands still, and there are few random numbers.
    struct Few(std::sync::atomic::AtomicU64);
    impl Source for Few {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
        fn uuid(&self) -> uuid::Uuid {
            uuid::Uuid::nil()
        }
        fn random(&self) -> u64 {
            // Each number twice, in the bits that become the start of an id.
            (self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) / 4) << 40
        }
    }

    #[test]
    fn ports_made_in_one_moment_have_device_names_of_their_own() {
        let env = Env {
            config: Arc::new(RegionConfig::default()),
            source: Arc::new(Few(0.into())),
        };
        let mut state = RegionState::default();
        let mut names = BTreeSet::new();
        for _ in 0..100 {
            let id = new_id(&state, &env).unwrap();
            let port: Port = serde_json::from_value(serde_json::json!({
                "id": id, "revision": 1, "project_id": "p", "name": "", "description": "", "tags": [],
                "created_at": "1970-01-01T00:00:00Z", "updated_at": "1970-01-01T00:00:00Z", "revision_number": 1,
                "network_id": uuid::Uuid::nil(), "mac_address": "fa:16:3e:00:00:01", "fixed_ips": [],
                "allowed_address_pairs": [], "admin_state_up": true, "device_id": "", "device_owner": "",
                "port_security_enabled": true, "dns_name": "",
                "binding": {"host_id": "", "vnic_type": "normal", "profile": {}, "since": 1}
            }))
            .unwrap();
            state.put(Resource::Port(Arc::new(port)));
            assert!(names.insert(Port::device_name(id)), "{id}");
        }
    }
}
