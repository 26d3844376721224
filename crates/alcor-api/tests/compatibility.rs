//! `docs/compatibility.md` says what is there: no more and no less than the code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

use std::collections::{BTreeMap, BTreeSet};

use alcor_api::{extensions::EXTENSIONS, route_table};

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compatibility.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows between two comments: what is in the first column, and the word in the second.
fn rows(section: &str) -> BTreeMap<String, String> {
    let page = page();
    let after = page.split(&format!("<!-- {section} -->")).nth(1).unwrap();
    let table = after.split(&format!("<!-- end of {section} -->")).next().unwrap();
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').to_owned();
        assert!(
            ["works", "differs", "not there"].contains(&cells[2]),
            "{name} is neither one nor the other: {}",
            cells[2]
        );
        assert!(
            cells[2] == "works" || !cells[3].is_empty(),
            "{name} {} without a reason",
            cells[2]
        );
        assert_eq!(
            rows.insert(name.clone(), cells[2].to_owned()),
            None,
            "{name} is there twice"
        );
    }
    rows
}

fn there(rows: &BTreeMap<String, String>) -> BTreeSet<String> {
    rows.iter()
        .filter(|(_, here)| *here != "not there")
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn every_extension_is_in_the_table_and_the_other_way_round() {
    let code: BTreeSet<String> = EXTENSIONS
        .iter()
        .map(|extension| extension.alias.to_owned())
        .collect();
    assert_eq!(code.len(), EXTENSIONS.len(), "an alias is there twice");
    assert_eq!(
        there(&rows("extensions")),
        code,
        "left: the table, right: the code"
    );
}

#[test]
fn every_collection_is_in_the_table_and_the_other_way_round() {
    let code: BTreeSet<String> = route_table()
        .into_iter()
        .filter_map(|(_, path)| Some(path.strip_prefix("/v2.0/")?.split('/').next()?.to_owned()))
        .filter(|collection| !collection.is_empty())
        .collect();
    assert_eq!(
        there(&rows("collections")),
        code,
        "left: the table, right: the code"
    );
}
