//! What the NCM counts for its operators: the work of each step, and how full it is.

use alcor_metrics::{
    NCM_ANSWER_BYTES, NCM_ANSWERS, NCM_COMMIT_TO_SENT_SECONDS, NCM_COMMIT_TO_VISIBLE_SECONDS,
    NCM_DELTA_BYTES, NCM_DELTAS, NCM_GATEWAYS, NCM_GATEWAYS_IN_USE, NCM_GATEWAYS_TURNED, NCM_HOSTS,
    NCM_HOSTS_TOUCHED, NCM_LEARNERS_TOLD, NCM_NETWORKS_LOOKED_AT, NCM_QUEUE_DELTAS, NCM_RECEIPTS,
    NCM_RECEIVED_TO_VISIBLE_SECONDS, NCM_RESYNCS, NCM_REVISION, NCM_ROWS_ENCODED, NCM_ROWS_LOOKED_AT,
    NCM_ROWS_REFUSED, NCM_ROWS_SENT, NCM_SENT_TO_RECEIVED_SECONDS, NCM_SESSIONS, NCM_SWITCHES,
};

use crate::{
    core::{Ncm, Work},
    directory::Asked,
};

/// Counts what a step cost and what it learned.
pub(crate) fn step(work: &Work) {
    for (counter, count) in [
        (&NCM_ROWS_LOOKED_AT, work.rows_looked_at),
        (&NCM_NETWORKS_LOOKED_AT, work.networks_looked_at),
        (&NCM_HOSTS_TOUCHED, work.hosts_touched),
        (&NCM_LEARNERS_TOLD, work.learners_told),
        (&NCM_SWITCHES, work.switches),
        (&NCM_GATEWAYS_TURNED, work.gateways_turned),
        (&NCM_DELTAS, work.deltas),
        (&NCM_ROWS_SENT, work.rows_sent),
        (&NCM_ROWS_ENCODED, work.rows_encoded),
        (&NCM_DELTA_BYTES, work.bytes),
        (&NCM_RESYNCS, work.resyncs),
        (&NCM_RECEIPTS, work.receipts),
        (&NCM_ROWS_REFUSED, work.refused),
    ] {
        if count > 0 {
            counter.add([], count);
        }
    }
    if let Some(timing) = work.timing {
        let (committed, sent) = (timing.committed_us, timing.sent_us);
        let (received, visible) = (timing.received_us, timing.visible_us);
        NCM_COMMIT_TO_SENT_SECONDS.between_us([], committed, sent);
        NCM_SENT_TO_RECEIVED_SECONDS.between_us([], sent, received);
        NCM_RECEIVED_TO_VISIBLE_SECONDS.between_us([], received, visible);
        NCM_COMMIT_TO_VISIBLE_SECONDS.between_us([], committed, visible);
    }
}

/// Counts what answers were.
pub(crate) fn asked(asked: &Asked) {
    for (verdict, count) in [
        ("route", asked.routes),
        ("unknown", asked.unknown),
        ("deny", asked.denied),
        ("busy", asked.busy),
    ] {
        if count > 0 {
            NCM_ANSWERS.add([verdict], count);
        }
    }
    NCM_ANSWER_BYTES.add([], asked.bytes);
}

/// Shows how full the NCM is. Looks at every host, so once a tick is enough.
pub(crate) fn depths(core: &Ncm) {
    let depths = core.depths();
    NCM_HOSTS.set([], depths.hosts as u64);
    NCM_SESSIONS.set([], depths.sessions as u64);
    NCM_QUEUE_DELTAS.set([], depths.queued as u64);
    NCM_GATEWAYS.set([], depths.gateways as u64);
    NCM_GATEWAYS_IN_USE.set([], depths.gateways_in_use as u64);
    NCM_REVISION.set([], core.revision().0);
}
