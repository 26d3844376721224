//! A result as one page: thresholds and violations first, then plots, then every number. It needs no other file.

use std::fmt::Write as _;

use super::{
    Level, Point, Report, name_of,
    plot::{Line, Plot, Scale, escape, short},
};
use crate::figures::Over;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --bad: #c0392b; --good: #1e8449 }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid var(--line) }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.bad { color: var(--bad); font-weight: 600 } .good { color: var(--good); font-weight: 600 }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 1.2rem }
figure { margin: 0 } figcaption { font-weight: 600; margin-bottom: .3rem } svg { width: 100%; height: auto }
svg text { font-size: 12px; fill: currentColor } .grid { stroke: var(--line) }
.legend { font-size: 13px } .legend span { margin-right: 1rem } .legend i { display: inline-block; width: 1.4rem; margin-right: .3rem; vertical-align: middle }
pre, code { font: 13px ui-monospace, monospace } pre { overflow-x: auto } .none { opacity: .7 }
";

/// The page of a report, compared with an earlier one.
pub(super) fn page(report: &Report, baseline: Option<&Report>) -> String {
    let mut page = String::new();
    let name = escape(&report.scenario);
    _ = write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>{name}</title><style>{STYLE}</style>"
    );
    let word = match report.passed() {
        true => "<span class=good>passed</span>",
        false => "<span class=bad>did not pass</span>",
    };
    _ = write!(
        page,
        "<h1>{name}: {word}</h1><p>{}</p><p><code>{}</code></p>",
        summary(report),
        escape(&report.repeat)
    );
    thresholds(&mut page, report);
    violations(&mut page, report);
    page.push_str("<h2>Plots</h2><div class=plots>");
    for plot in plots(report, baseline) {
        page.push_str(&plot.svg());
    }
    page.push_str("</div>");
    numbers(&mut page, report, baseline);
    page.push_str("</html>\n");
    page
}

/// What was run, in a sentence or two.
fn summary(report: &Report) -> String {
    let (seed, (hosts, full), events) = (report.seed, report.hosts, report.events);
    match report.level {
        Level::VirtualTime => format!(
            "Seed {seed}: {hosts} hosts, {full} of them with a real agent and data plane; {events} events in {:.0} virtual seconds, which took {:.1} s on one of {} CPUs. Virtual times come from the scenario's delays; CPU times are this machine's.",
            report.virtual_s, report.wall_s, report.cpus
        ),
        Level::Sockets => format!(
            "Seed {seed}: a controller and an NCM as processes, {hosts} agents without data planes over real sockets, {events} API calls in {:.1} s. All of them share {} CPUs, and times are real. Memory is the NCM's.",
            report.wall_s, report.cpus
        ),
    }
}

fn thresholds(page: &mut String, report: &Report) {
    if report.thresholds.is_empty() {
        return;
    }
    page.push_str("<h2>Thresholds</h2><table><tr><th>figure<th>is<th>must be<th></tr>");
    for judged in &report.thresholds {
        let value = judged.value.map_or("nothing".to_owned(), short);
        let (class, word) = if judged.passed {
            ("good", "pass")
        } else {
            ("bad", "FAIL")
        };
        _ = write!(
            page,
            "<tr><td>{}<td class=n>{value}<td>{}<td class={class}>{word}</tr>",
            escape(&judged.figure),
            judged.bounds()
        );
    }
    page.push_str("</table>");
}

fn violations(page: &mut String, report: &Report) {
    if report.violations.is_empty() {
        return;
    }
    page.push_str("<h2 class=bad>Violations</h2>");
    for violation in &report.violations {
        if report.level == Level::Sockets {
            _ = write!(page, "<p>{}</p>", escape(&violation.what));
            continue;
        }
        _ = write!(
            page,
            "<p><b>After event {}:</b> {}</p><details><summary>the events before</summary><pre>{}</pre></details><p><code>{}</code></p>",
            violation.event,
            escape(&violation.what),
            escape(&violation.before.join("\n")),
            escape(&report.replay(violation.event))
        );
    }
}

/// Percentiles of one distribution over the size of networks.
fn over_size(report: &Report, of: Over, scale: f64) -> Vec<(&'static str, Vec<(f64, f64)>)> {
    let points = |value: fn(&crate::figures::Summary) -> u64| {
        let series = report.series.iter().filter(|series| series.of == of);
        let point = |series: &super::Series| {
            (
                super::number(series.network_size),
                super::number(value(&series.summary)) / scale,
            )
        };
        series.map(point).collect()
    };
    vec![
        ("half of them", points(|summary| summary.p50)),
        ("99 of 100", points(|summary| summary.p99)),
    ]
}

fn size_plot(
    report: &Report,
    baseline: Option<&Report>,
    of: Over,
    (title, y_name): (&str, &str),
    scale: f64,
) -> Plot {
    let before = baseline.map(|baseline| over_size(baseline, of, scale));
    let mut lines = Vec::new();
    for (place, (name, points)) in over_size(report, of, scale).into_iter().enumerate() {
        lines.push(Line {
            name: name.to_owned(),
            points,
            is_baseline: false,
        });
        let old = before.as_ref().and_then(|before| before.get(place));
        lines.extend(old.map(|(name, points)| Line {
            name: format!("{name}, baseline"),
            points: points.clone(),
            is_baseline: true,
        }));
    }
    Plot {
        title: title.to_owned(),
        x_name: "ports of the network".to_owned(),
        y_name: y_name.to_owned(),
        x: Scale::Log,
        y: Scale::Even,
        lines,
    }
}

fn time_plot(report: &Report, baseline: Option<&Report>, title: &str, y_name: &str, value: Value) -> Plot {
    let line = |report: &Report, name: &str, is_baseline| Line {
        name: name.to_owned(),
        points: report
            .timeline
            .iter()
            .map(|point| (point.virtual_s, value(point)))
            .collect(),
        is_baseline,
    };
    let mut lines = vec![line(report, "this run", false)];
    lines.extend(baseline.map(|baseline| line(baseline, "baseline", true)));
    Plot {
        title: title.to_owned(),
        x_name: match report.level {
            Level::VirtualTime => "virtual seconds",
            Level::Sockets => "seconds",
        }
        .to_owned(),
        y_name: y_name.to_owned(),
        x: Scale::Even,
        y: Scale::Even,
        lines,
    }
}

type Value = fn(&Point) -> f64;

fn plots(report: &Report, baseline: Option<&Report>) -> Vec<Plot> {
    let (ms, memory, events) = match report.level {
        Level::VirtualTime => ("virtual ms", "Memory of the simulation", "Events"),
        Level::Sockets => ("ms", "Memory of the NCM", "API calls"),
    };
    let sizes = [
        (
            Over::ProgrammedUs,
            ("From a command to the row in force on the host", ms),
            1e3,
        ),
        (Over::ActiveUs, ("From a command to ACTIVE", ms), 1e3),
        (
            Over::HostsPerChange,
            ("Hosts that are told of one change of a port", "hosts"),
            1.0,
        ),
        (
            Over::RowsPerChange,
            ("Rows sent for one change of a port", "rows"),
            1.0,
        ),
        (
            Over::LookedAtPerChange,
            ("Rows looked at for one change of a port", "rows"),
            1.0,
        ),
        (
            Over::CpuNsPerChange,
            ("CPU time of the NCM for one change of a port", "microseconds"),
            1e3,
        ),
        (
            Over::LearnedPerHost,
            ("Neighbours that a host has, where it asks for them", "rows"),
            1.0,
        ),
    ];
    let measured = |of: Over| report.series.iter().any(|series| series.of == of);
    let sizes = sizes.into_iter().filter(|(of, ..)| measured(*of));
    let sizes = sizes.map(|(of, names, scale)| size_plot(report, baseline, of, names, scale));
    let times: [(&str, &str, Value); 4] = [
        (memory, "MiB", |point| point.rss_mib),
        ("Ports", "ports", |point| point.ports),
        ("Hosts with a session", "hosts", |point| point.sessions),
        (events, "so far", |point| point.events),
    ];
    let times = times.map(|(title, y_name, value)| time_plot(report, baseline, title, y_name, value));
    sizes.chain(times).collect()
}

fn numbers(page: &mut String, report: &Report, baseline: Option<&Report>) {
    page.push_str("<h2>Figures</h2><table><tr><th>figure<th>value");
    if let Some(baseline) = baseline {
        _ = write!(page, "<th>baseline (seed {})<th>change", baseline.seed);
    }
    page.push_str("</tr>");
    for (name, value) in &report.figures {
        _ = write!(page, "<tr><td>{}<td class=n>{}", escape(name), short(*value));
        if let Some(baseline) = baseline {
            let old = baseline.figures.get(name);
            let shown = old.map_or("nothing".to_owned(), |old| short(*old));
            let change = old.filter(|old| **old != 0.0).map_or(String::new(), |old| {
                format!("{:+.1} %", (value / old - 1.0) * 100.0)
            });
            _ = write!(page, "<td class=n>{shown}<td class=n>{change}");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table><h2>Distributions by size of the network</h2><table><tr><th>of<th>ports<th>values<th>p50<th>p90<th>p99<th>largest</tr>");
    for series in &report.series {
        let summary = &series.summary;
        let cells = [summary.count, summary.p50, summary.p90, summary.p99, summary.max];
        let cells = cells.map(|value| format!("<td class=n>{}", short(super::number(value))));
        _ = write!(
            page,
            "<tr><td>{}<td class=n>{}{}</tr>",
            name_of(series.of),
            short(super::number(series.network_size)),
            cells.concat()
        );
    }
    page.push_str("</table>");
}
