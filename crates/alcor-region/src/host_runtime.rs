//! What an NCM last knew of its hosts, kept so that a controller that starts again still knows it.

use std::{convert::Infallible, sync::Arc};

use alcor_model::{HostRuntime, Resource};
use alcor_store::Tx;

use crate::RegionState;

/// Takes what is known of hosts; of hosts that are not registered, nothing. Gives how many rows changed.
///
/// # Errors
/// None: what does not fit is ignored.
pub fn note(tx: &mut Tx<'_, RegionState>, hosts: Vec<HostRuntime>) -> Result<usize, Infallible> {
    let mut changed = 0;
    for mut host in hosts {
        if tx.state().hosts().get(&host.name).is_none() {
            continue;
        }
        // The same but for the number of the commit that wrote it.
        let same = tx.state().host_runtimes().get(&host.name).is_some_and(|known| {
            host.revision = known.revision;
            **known == host
        });
        if !same {
            tx.put(Resource::HostRuntime(Arc::new(host)));
            changed += 1;
        }
    }
    Ok(changed)
}
