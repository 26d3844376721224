//! What tempest is to run, what is known not to pass and why, and how many must pass: `tempest-*.txt` of
//! `xtask/openstack`.

use std::fs;

use anyhow::Context as _;
use regex::Regex;

use crate::openstack::venv::file;

/// A pattern of test names, and why these tests do not pass.
#[derive(Debug)]
pub struct Known {
    /// Matches names without what stands in brackets.
    pub pattern: Regex,
    /// Why.
    pub reason: String,
}

/// A suite and how many of its tests must pass in a whole run.
#[derive(Debug)]
pub struct Floor {
    /// What the names of its tests begin with.
    pub suite: String,
    /// So many must pass.
    pub passed: usize,
}

/// The committed lists.
#[derive(Debug)]
pub struct Lists {
    /// Tests that match none of these are not run.
    pub allow: Vec<Regex>,
    /// Tests that do not pass, with reasons. They are run all the same.
    pub known: Vec<Known>,
    /// What a whole run must reach.
    pub floors: Vec<Floor>,
}

impl Lists {
    /// Reads them.
    ///
    /// # Errors
    /// When a file is missing or a line of it is not as it must be.
    pub fn read() -> anyhow::Result<Self> {
        let allow = each_line("tempest-allow.txt", |line| Ok(Regex::new(line)?))?;
        let known = each_line("tempest-known.txt", |line| {
            let (pattern, reason) = line.split_once(" # ").context("no reason behind ` # `")?;
            Ok(Known {
                pattern: Regex::new(&format!("^(?:{})", pattern.trim()))?,
                reason: reason.trim().to_owned(),
            })
        })?;
        let floors = each_line("tempest-floor.txt", |line| {
            let (suite, passed) = line.split_once(' ').context("no number behind the suite")?;
            Ok(Floor {
                suite: suite.to_owned(),
                passed: passed.trim().parse()?,
            })
        })?;
        Ok(Self { allow, known, floors })
    }

    /// Why this test does not pass, if that is known.
    pub fn reason(&self, name: &str) -> Option<&str> {
        let known = self.known.iter().find(|known| known.pattern.is_match(name));
        known.map(|known| known.reason.as_str())
    }
}

/// Lines that are neither empty nor comments.
fn each_line<T>(name: &str, parse: impl Fn(&str) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    let text = fs::read_to_string(file(name)).with_context(|| format!("reading {name}"))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| parse(line).with_context(|| format!("{name}: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_lists_can_be_read_and_every_known_test_has_a_reason() {
        let lists = Lists::read().unwrap();
        assert!(!lists.allow.is_empty());
        assert!(lists.known.iter().all(|known| !known.reason.is_empty()));
        assert!(lists.floors.iter().all(|floor| floor.passed > 0));
    }
}
