//! A small scenario with the real processes over real sockets, with everything going wrong that can there: what agents have and what the API
//! shows is as people made it.

use std::path::PathBuf;

use alcor_sim::{
    region::{self, Places},
    scenario::Scenario,
};

const SCENARIO: &str = "
seed = 1
rounds = 2
duration_s = 4
settle_s = 60
hosts = { count = 30 }
networks = { sizes = [120, 20, 10, 10, 5], projects = 2 }
ncm = { eager_rows_max = 1_000 }
traffic = { probes = 40 }
churn = { create_per_s = 10, delete_per_s = 10, update_per_s = 5, migrate_per_s = 20 }
faults = { cut_per_s = 5, ncm_restart_per_s = 0.25, controller_restart_per_s = 0.25, outage_s = 1 }
";

#[tokio::test(flavor = "multi_thread")]
async fn what_hosts_have_is_what_was_made_whatever_is_killed() {
    let scenario = Scenario::parse("here", SCENARIO).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let places = Places {
        alcor: PathBuf::from(env!("CARGO_BIN_EXE_alcor")),
        folder: folder.path().to_owned(),
    };
    let outcome = region::run(&scenario, &places, &mut |_, _| ()).await.unwrap();
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    let count = |name: &str| outcome.figures.totals().get(name).copied().unwrap_or_default();
    let counted = [
        "created",
        "deleted",
        "migrated",
        "ncm_restarts",
        "controller_restarts",
        "outages",
    ]
    .map(count);
    assert_eq!(counted, [80, 80, 160, 2, 2, 2]);
    assert!(count("probes_delivered") >= 70, "{:?}", outcome.figures.totals());
    assert!(count("probes_asked") >= 10, "hosts of the large network ask");
    // Every break of a session is followed by another.
    assert!(count("sessions") > 30 + count("sessions_cut"));
}

#[tokio::test]
async fn what_only_virtual_time_can_do_is_refused_before_anything_starts() {
    let text = SCENARIO.replace("cut_per_s = 5", "clock_jump_per_s = 1");
    let scenario = Scenario::parse("here", &text).unwrap();
    let places = Places {
        alcor: PathBuf::from("/nowhere/alcor"),
        folder: PathBuf::from("/nowhere"),
    };
    let refused = region::run(&scenario, &places, &mut |_, _| ()).await;
    let refused = refused.map(drop).unwrap_err().to_string();
    assert!(refused.contains("faults.clock_jump_per_s"), "{refused}");
}
