//! What became of each test, held against the committed lists.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tabled::{builder::Builder, settings::Style};

use super::lists::Lists;

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did what it should.
    Passed,
    /// It did not, or could not be started, or was lost.
    Failed,
    /// It said itself that it cannot be run here.
    Skipped,
}

/// One line of `report.py`.
#[derive(Clone, Debug, Deserialize)]
pub struct Result {
    id: String,
    outcome: Outcome,
    reason: String,
    details: String,
}

/// One selected test.
#[derive(Clone, Debug)]
pub struct Test {
    /// Its name, without what stands in brackets behind it.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it did not pass.
    pub reason: String,
    /// Traceback and requests of a failed one.
    pub details: String,
}

/// All selected tests.
#[derive(Debug)]
pub struct Report {
    tests: Vec<Test>,
}

/// A test's name without its attributes in brackets.
pub fn name(id: &str) -> &str {
    id.split('[').next().unwrap_or(id)
}

/// `module.Class` of a test.
fn class(name: &str) -> &str {
    name.split('(')
        .next()
        .and_then(|name| name.rsplit_once('.'))
        .map_or("", |(class, _)| class)
}

/// `module` of a test.
fn module(name: &str) -> &str {
    class(name).rsplit_once('.').map_or("", |(module, _)| module)
}

impl Report {
    /// Gives each selected test its result. A class that skips or fails in its set-up has one result for all its tests; a
    /// test without any was lost.
    pub fn new(selected: &[String], results: &[Result]) -> Self {
        let own: BTreeMap<&str, &Result> = results
            .iter()
            .map(|result| (result.id.as_str(), result))
            .collect();
        let set_ups: BTreeMap<&str, &Result> = results
            .iter()
            .filter_map(|result| {
                let class = result.id.strip_prefix("setUpClass (")?.strip_suffix(')')?;
                Some((class, result))
            })
            .collect();
        let tests = selected.iter().map(|id| {
            let name = name(id);
            let result = own.get(id.as_str()).or_else(|| set_ups.get(class(name)));
            Test {
                name: name.to_owned(),
                outcome: result.map_or(Outcome::Failed, |result| result.outcome),
                reason: result.map_or("no result: the run ended before".to_owned(), |r| r.reason.clone()),
                details: result.map_or(String::new(), |result| result.details.clone()),
            }
        });
        Self {
            tests: tests.collect(),
        }
    }

    /// Tests with this outcome.
    pub fn with(&self, outcome: Outcome) -> impl Iterator<Item = &Test> {
        self.tests.iter().filter(move |test| test.outcome == outcome)
    }

    fn count(&self, outcome: Outcome, prefix: &str) -> usize {
        self.with(outcome)
            .filter(|test| test.name.starts_with(prefix))
            .count()
    }

    /// Tests that should have passed: neither did they, nor is it known why not.
    pub fn unexpected<'a>(&'a self, lists: &'a Lists) -> impl Iterator<Item = &'a Test> {
        let not_passed = self.tests.iter().filter(|test| test.outcome != Outcome::Passed);
        not_passed.filter(|test| lists.reason(&test.name).is_none())
    }

    /// Suites that were run whole (`all` are the names of all tests there are) and in which too few tests passed.
    pub fn below_floor(&self, lists: &Lists, all: &[String]) -> Vec<String> {
        let whole = |suite: &str| {
            all.iter().filter(|id| id.starts_with(suite)).count()
                == self
                    .tests
                    .iter()
                    .filter(|test| test.name.starts_with(suite))
                    .count()
        };
        let floors = lists.floors.iter().filter(|floor| whole(&floor.suite));
        let told = floors.filter_map(|floor| {
            let passed = self.count(Outcome::Passed, &floor.suite);
            (passed < floor.passed)
                .then(|| format!("{}: {passed} passed of at least {}", floor.suite, floor.passed))
        });
        told.collect()
    }

    /// Lines of the list of known tests that no longer say anything true: all they match has passed.
    pub fn stale(&self, lists: &Lists) -> Vec<String> {
        let said = lists.known.iter().filter(|known| {
            let mut matching = self
                .tests
                .iter()
                .filter(|test| known.pattern.is_match(&test.name))
                .peekable();
            matching.peek().is_some() && matching.all(|test| test.outcome == Outcome::Passed)
        });
        said.map(|known| known.pattern.to_string()).collect()
    }

    /// A table for people: a row for each module, and one for all.
    pub fn table(&self) -> String {
        let mut modules: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for test in &self.tests {
            let row = modules.entry(module(&test.name)).or_default();
            row[test.outcome as usize] += 1;
        }
        let mut table = Builder::default();
        table.push_record(["module", "passed", "failed", "skipped"]);
        let mut all = [0; 3];
        for (module, counts) in &modules {
            table.push_record([vec![(*module).to_owned()], counts.map(|n| n.to_string()).to_vec()].concat());
            for (sum, count) in all.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        table.push_record([vec!["all".to_owned()], all.map(|n| n.to_string()).to_vec()].concat());
        table.build().with(Style::sharp()).to_string()
    }

    /// Counts, and names with reasons of what did not pass.
    pub fn json(&self, lists: &Lists) -> Value {
        let of = |outcome| -> Vec<Value> {
            let told = self.with(outcome).map(|test| {
                let reason = lists.reason(&test.name).unwrap_or(&test.reason);
                json!({"test": test.name, "reason": reason, "known": lists.reason(&test.name).is_some()})
            });
            told.collect()
        };
        let suites = lists.floors.iter().map(|floor| {
            let counts =
                [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(|o| self.count(o, &floor.suite));
            let [passed, failed, skipped] = counts;
            (
                floor.suite.clone(),
                json!({"passed": passed, "failed": failed, "skipped": skipped}),
            )
        });
        json!({
            "passed": self.count(Outcome::Passed, ""),
            "failed": self.count(Outcome::Failed, ""),
            "skipped": self.count(Outcome::Skipped, ""),
            "suites": suites.collect::<serde_json::Map<_, _>>(),
            "failures": of(Outcome::Failed),
            "skips": of(Outcome::Skipped),
        })
    }
}
