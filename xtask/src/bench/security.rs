//! Security groups: what it costs, and how long it takes until it is enforced, when a member joins, leaves, or a rule comes.
//! Then one more member of the same large group in OVN, where that can run.

use serde_json::Value;

use super::{Figures, example, median, ovn, rounded};

/// Members of the group that OVN is compared with.
const COMPARED: usize = 10_000;

pub(super) fn bench(quick: bool) -> anyhow::Result<Figures> {
    let printed = example("alcor-ncm", "bench_security", quick, &[])?;
    let mut figures: Figures = serde_json::from_str(&printed)?;
    eprintln!(
        "Region, feed and NCM are real; hosts are in the same process, two of them with a model data plane."
    );
    let samples = if quick { 3 } else { 10 };
    match ovn::join(COMPARED, samples) {
        Ok(times) => {
            let theirs = median(times);
            let ours = figures
                .get(&format!("join_ms_p50_{COMPARED}"))
                .and_then(Value::as_f64);
            figures.insert(format!("ovn_join_ms_p50_{COMPARED}"), rounded(theirs));
            let Some(ours) = ours.filter(|ours| *ours > 0.0) else {
                anyhow::bail!("the benchmark printed no time for {COMPARED} members");
            };
            figures.insert("ovn_join_ratio".into(), rounded(theirs / ours));
            eprintln!(
                "one more member of {COMPARED}: OVN {theirs:.1} ms (one hypervisor, userspace Open vSwitch, databases on local sockets), Alcor {ours:.2} ms"
            );
        }
        Err(error) => eprintln!("OVN did not run, so there is no comparison: {error:#}"),
    }
    Ok(figures)
}
