//! Every metric, once.

use crate::{Counter, Gauge, Histogram, Info, Type};

/// Bounds of times in seconds: a commit takes tens of microseconds to milliseconds, a host far away a second.
const SECONDS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];
/// Bounds of numbers of things that are done at once.
const SIZES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
];

/// `Type NAME [labels] = "name", (bounds,) "help";`
macro_rules! metrics {
    (@type Counter) => { Type::Counter };
    (@type Gauge) => { Type::Gauge };
    (@type Histogram $bounds:ident) => { Type::Histogram($bounds) };
    ($($kind:ident $(<$bounds:ident>)? $id:ident [$($label:literal),*] = $name:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: $kind<{ const LABELS: &[&str] = &[$($label),*]; LABELS.len() }> = $kind(Info {
                name: $name,
                kind: metrics!(@type $kind $($bounds)?),
                labels: &[$($label),*],
                help: $help,
            });
        )*

        /// All of them, in the order of the table.
        pub static ALL: &[&Info] = &[$(&$id.0),*];
    };
}

metrics! {
    Histogram<SECONDS> API_REQUEST_SECONDS ["method", "route", "status"] = "alcor_api_request_seconds",
        "Time from the head of an API request to the head of its reply, by method, route and class of status.";
    Gauge API_REQUESTS_IN_PROGRESS [] = "alcor_api_requests_in_progress",
        "API requests that are being worked on.";
    Counter API_WAITS ["outcome"] = "alcor_api_waits_total",
        "Requests with Prefer: wait, by outcome: reported, late (the time was over), nothing (no host to wait for).";

    Histogram<SECONDS> STORE_COMMIT_SECONDS [] = "alcor_store_commit_seconds",
        "Time of one database transaction, with what makes it durable.";
    Counter STORE_COMMITS ["outcome"] = "alcor_store_commits_total",
        "Database transactions, by outcome: done, failed. One that failed and turned out to be there counts as both.";
    Counter STORE_CHANGES [] = "alcor_store_changes_total",
        "Rows written or deleted by transactions that are done.";
    Histogram<SIZES> STORE_BATCH_COMMANDS [] = "alcor_store_batch_commands",
        "Commands in one batch, those that were refused too.";
    Histogram<SIZES> STORE_BATCH_CHANGES [] = "alcor_store_batch_changes",
        "Rows in one transaction.";
    Gauge STORE_QUEUE_COMMANDS [] = "alcor_store_queue_commands",
        "Commands that waited for the writer when its last batch was full or had taken all.";
    Gauge STORE_REVISION [] = "alcor_store_revision",
        "Number of the last commit.";

    Gauge LINK_FEEDS [] = "alcor_link_feeds",
        "NCMs in other processes that follow the controller's feed.";
    Counter LINK_SUBSCRIPTIONS ["began"] = "alcor_link_subscriptions_total",
        "Feeds that NCMs in other processes asked for, by how they began: resumed (from where the NCM was), snapshot.";
    Counter LINK_LAGGED [] = "alcor_link_lagged_total",
        "Feeds whose NCM fell behind what is retained, and got a snapshot.";
    Counter LINK_ROWS ["in"] = "alcor_link_rows_total",
        "Rows sent to NCMs in other processes, by what they were in: snapshot, change.";

    Gauge NCM_REVISION [] = "alcor_ncm_revision",
        "Commit that the NCM's views are of.";
    Gauge NCM_HOSTS [] = "alcor_ncm_hosts",
        "Hosts that the NCM knows.";
    Gauge NCM_SESSIONS [] = "alcor_ncm_sessions",
        "Hosts that have a session: those that are alive.";
    Counter NCM_HELLOS [] = "alcor_ncm_hellos_total",
        "Sessions that agents began.";
    Counter NCM_SESSIONS_ENDED ["by"] = "alcor_ncm_sessions_ended_total",
        "Sessions that ended, by who ended them: agent, ncm.";
    Gauge NCM_QUEUE_REQUESTS [] = "alcor_ncm_queue_requests",
        "Messages and changes that wait for the NCM's core.";
    Gauge NCM_QUEUE_DELTAS [] = "alcor_ncm_queue_deltas",
        "Deltas and snapshots that wait for room in the windows of all hosts.";
    Gauge NCM_QUEUE_REPORTS [] = "alcor_ncm_queue_reports",
        "Reports that wait to be stored.";
    Counter NCM_ROWS_LOOKED_AT [] = "alcor_ncm_rows_looked_at_total",
        "Rows of views that the planner looked at to make deltas.";
    Counter NCM_NETWORKS_LOOKED_AT [] = "alcor_ncm_networks_looked_at_total",
        "Networks that the planner looked at to find out whom a change of rules concerns.";
    Counter NCM_HOSTS_TOUCHED [] = "alcor_ncm_hosts_touched_total",
        "Hosts that changes were planned for.";
    Counter NCM_LEARNERS_TOLD [] = "alcor_ncm_learners_told_total",
        "Hosts that were told of a change because they had asked for what changed.";
    Counter NCM_ANSWERS ["verdict"] = "alcor_ncm_answers_total",
        "Questions of hosts about addresses, by what they were answered with: route, unknown, deny, busy.";
    Counter NCM_ANSWER_BYTES [] = "alcor_ncm_answer_bytes_total",
        "Encoded bytes of these answers.";
    Counter NCM_SWITCHES [] = "alcor_ncm_switches_total",
        "Networks that became so large that hosts ask for neighbours, or so small that they are told of all.";
    Gauge NCM_GATEWAYS [] = "alcor_ncm_gateways",
        "Gateways that are registered.";
    Gauge NCM_GATEWAYS_IN_USE [] = "alcor_ncm_gateways_in_use",
        "Gateways that hosts may send by: heard, reached by the others of their set, and not being drained.";
    Counter NCM_GATEWAYS_TURNED [] = "alcor_ncm_gateways_turned_total",
        "Times a gateway came into use or went out of it.";
    Counter NCM_DELTAS [] = "alcor_ncm_deltas_total",
        "Deltas handed to the channel.";
    Counter NCM_ROWS_SENT [] = "alcor_ncm_rows_sent_total",
        "Rows in these deltas.";
    Counter NCM_ROWS_ENCODED [] = "alcor_ncm_rows_encoded_total",
        "Rows turned into bytes for these deltas: a row that many hosts are told of once.";
    Counter NCM_DELTA_BYTES [] = "alcor_ncm_delta_bytes_total",
        "Encoded bytes of these deltas.";
    Counter NCM_RESYNCS [] = "alcor_ncm_resyncs_total",
        "Full snapshots of a network for a host.";
    Counter NCM_RECEIPTS [] = "alcor_ncm_receipts_total",
        "Receipts of hosts.";
    Counter NCM_ROWS_REFUSED [] = "alcor_ncm_rows_refused_total",
        "Rows that hosts refused, as their receipts say.";
    Histogram<SECONDS> NCM_COMMIT_TO_SENT_SECONDS [] = "alcor_ncm_commit_to_sent_seconds",
        "From a change being durable to its delta being handed to the channel.";
    Histogram<SECONDS> NCM_SENT_TO_RECEIVED_SECONDS [] = "alcor_ncm_sent_to_received_seconds",
        "From there to the agent having it; between the clocks of two machines.";
    Histogram<SECONDS> NCM_RECEIVED_TO_VISIBLE_SECONDS [] = "alcor_ncm_received_to_visible_seconds",
        "From there to packets seeing it.";
    Histogram<SECONDS> NCM_COMMIT_TO_VISIBLE_SECONDS [] = "alcor_ncm_commit_to_visible_seconds",
        "All the way from a change being durable to packets seeing it; between the clocks of two machines.";

    Gauge AGENT_SESSION_OPEN [] = "alcor_agent_session_open",
        "1 while the agent has a session with its NCM.";
    Counter AGENT_SESSIONS [] = "alcor_agent_sessions_total",
        "Sessions that the agent tried to open.";
    Histogram<SECONDS> AGENT_APPLY_SECONDS [] = "alcor_agent_apply_seconds",
        "Time that the data plane took to bring a batch of rows into force.";
    Counter AGENT_ROWS ["outcome"] = "alcor_agent_rows_total",
        "Rows given to the data plane, by outcome: applied, refused.";
    Gauge AGENT_BACKLOG [] = "alcor_agent_backlog",
        "Pieces of work that wait for the data plane.";
    Counter AGENT_DROPS ["reason"] = "alcor_agent_drops_total",
        "Packets that the data plane dropped, by reason; read every 10 seconds.";

    Counter GATEWAY_PACKETS ["way"] = "alcor_gateway_packets_total",
        "Packets that a gateway passed on, by way: east_west (between hosts), north (to the outside), south (from there); read every 10 seconds.";
    Counter GATEWAY_BYTES ["way"] = "alcor_gateway_bytes_total",
        "Bytes of these packets, as they came.";

    Gauge AGENT_LEARNED [] = "alcor_agent_learned_neighbours",
        "Neighbours that have a lease, in networks that are on demand.";
    Gauge AGENT_HELD [] = "alcor_agent_held_packets",
        "Packets that wait for an answer of the NCM.";
    Counter AGENT_QUESTIONS ["kind"] = "alcor_agent_questions_total",
        "Questions to the NCM, by kind: packet (one waits for the answer), renewal (of a lease).";
    Counter AGENT_ANSWERS ["verdict"] = "alcor_agent_answers_total",
        "Answers of the NCM, by verdict: route, unknown, deny, busy, malformed.";
    Counter AGENT_RELEASED [] = "alcor_agent_released_packets_total",
        "Packets to addresses that no row told which went on: at once, or when they had been held.";
    Counter AGENT_UNRESOLVED_DROPS ["reason"] = "alcor_agent_unresolved_drops_total",
        "Packets to addresses that no row told which were dropped, by reason.";
    Counter AGENT_EVICTED [] = "alcor_agent_evicted_neighbours_total",
        "Neighbours with a lease that went because there were too many.";
    Histogram<SECONDS> AGENT_RESOLVE_SECONDS [] = "alcor_agent_resolve_seconds",
        "From the first packet to an address that no row told until it went on.";

    Counter TLS_REFUSED ["reason"] = "alcor_tls_refused_total",
        "Refused by their certificates, by reason: handshake (a connection with no good certificate), role (nobody of that kind may ask this), name (a session that claims to be another host or gateway).";

    Gauge BUILD_INFO ["version"] = "alcor_build_info",
        "1; the version is the label.";
    Gauge PROCESS_RESIDENT_BYTES [] = "alcor_process_resident_bytes",
        "Memory of the process that is in RAM.";
}
