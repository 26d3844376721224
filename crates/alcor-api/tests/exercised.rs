//! No endpoint without a test: run after all others, with what they noted (see `common::contract`). An endpoint counts
//! when a test asked it through real HTTP and it did what it is for; a refusal does not count.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::collections::BTreeSet;

use common::contract::HITS;

/// What is there because clients may ask, and is refused to everybody; the tests of segments look at the refusals.
const ALWAYS_REFUSED: [&str; 2] = ["POST /v2.0/segments", "DELETE /v2.0/segments/{id}"];

#[test]
#[ignore = "looks at what all other tests noted: `cargo xtask test` or `cargo xtask endpoints` runs it after them"]
fn no_endpoint_was_forgotten() {
    let folder = std::env::var(HITS).unwrap_or_else(|_| panic!("{HITS} must name the folder of the notes"));
    let noted: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let there: BTreeSet<String> = alcor_api::route_table()
        .into_iter()
        .map(|(method, path)| format!("{method} {path}"))
        .filter(|endpoint| !ALWAYS_REFUSED.contains(&endpoint.as_str()))
        .collect();
    let forgotten: Vec<&String> = there.difference(&noted).collect();
    assert!(forgotten.is_empty(), "no test exercises {forgotten:#?}");
    assert_eq!(noted.difference(&there).count(), 0, "notes of other routes");
}
