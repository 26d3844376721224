//! What hosts report about ports, and what is said of routers' ports, which are on no host. A report that is late, about another host or about
//! nothing new is ignored.

use std::{convert::Infallible, sync::Arc};

use alcor_model::{PortRuntime, Resource};
use alcor_store::Tx;

use crate::{Env, RegionState, command::PortReport};

/// Takes reports. Gives how many changed something.
///
/// # Errors
/// None: what does not fit is ignored.
pub fn report(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    reports: Vec<PortReport>,
) -> Result<usize, Infallible> {
    let mut changed = 0;
    for report in reports {
        let Some(port) = tx.state().ports().get(&report.port_id) else {
            continue;
        };
        let current = (port.binding.since..=port.revision).contains(&report.applied_revision);
        if port.binding.host_id != report.host_id || !current {
            continue;
        }
        if let Some(known) = tx.state().runtimes().get(&report.port_id)
            && known.host_id == report.host_id
        {
            // A word about a router's port is not about one revision of it.
            let is_routers = report.host_id.is_empty();
            let same = (is_routers || known.applied_revision == report.applied_revision)
                && known.status == report.status
                && known.reason == report.reason;
            if same || known.applied_revision > report.applied_revision {
                continue;
            }
        }
        let runtime = PortRuntime {
            port_id: report.port_id,
            revision: tx.revision(),
            project_id: port.standard.project_id.clone(),
            host_id: report.host_id,
            applied_revision: report.applied_revision,
            status: report.status,
            reason: report.reason,
            reported_at: env.source.now(),
        };
        tx.put(Resource::PortRuntime(Arc::new(runtime)));
        changed += 1;
    }
    Ok(changed)
}
