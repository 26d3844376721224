//! Hosts: they register themselves through the NCM.

use std::{net::IpAddr, sync::Arc};

use alcor_model::{Host, Resource};
use alcor_store::Tx;

use crate::{Env, RegionError, RegionState};

/// Longest host name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Registers a host, or notes its new tunnel address. Writes nothing when nothing changed.
///
/// # Errors
/// A name or an address that cannot be.
pub fn register(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    name: &str,
    tunnel_ip: IpAddr,
) -> Result<Arc<Host>, RegionError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(RegionError::InvalidInput(format!(
            "a host name has 1 to {NAME_BYTES_MAX} printable characters"
        )));
    }
    if tunnel_ip.is_unspecified() || tunnel_ip.is_multicast() {
        return Err(RegionError::InvalidInput(format!(
            "host {name}: {tunnel_ip} cannot be a tunnel address"
        )));
    }
    let created_at = match tx.state().hosts().get(&name.to_owned()) {
        Some(host) if host.tunnel_ip == tunnel_ip => return Ok(Arc::clone(host)),
        Some(host) => host.created_at,
        None => env.source.now(),
    };
    let host = Arc::new(Host {
        name: name.to_owned(),
        revision: tx.revision(),
        tunnel_ip,
        created_at,
    });
    tx.put(Resource::Host(Arc::clone(&host)));
    Ok(host)
}
