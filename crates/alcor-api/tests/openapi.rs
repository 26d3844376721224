//! The document: whole, consistent, served, and the same as the committed one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::collections::BTreeSet;

use alcor_api::{openapi, route_table};
use common::Api;
use serde_json::Value;

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, verbs)| {
            let verbs = verbs.as_object().unwrap();
            verbs
                .iter()
                .map(move |(verb, operation)| (verb.to_ascii_uppercase(), path.clone(), operation))
        })
        .collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = openapi::document();
    let described: BTreeSet<(String, String)> = operations(&document)
        .into_iter()
        .map(|(verb, path, _)| (verb, path))
        .collect();
    let routes: BTreeSet<(String, String)> = route_table()
        .into_iter()
        .map(|(method, path)| (method.to_string(), path))
        .collect();
    assert_eq!(described, routes);
    let bare: Vec<String> = operations(&document)
        .into_iter()
        .filter(|(_, _, operation)| operation["summary"] == "Not described")
        .map(|(verb, path, _)| format!("{verb} {path}"))
        .collect();
    assert_eq!(bare, Vec::<String>::new(), "these routes lack .doc(...)");
}

#[test]
fn names_of_operations_are_unique_and_references_lead_somewhere() {
    let document = openapi::document();
    let mut names = BTreeSet::new();
    for (verb, path, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap();
        assert!(
            names.insert(name.to_owned()),
            "{verb} {path}: {name} is there twice"
        );
        let parameters = operation["parameters"].as_array().unwrap();
        let distinct: BTreeSet<String> = parameters
            .iter()
            .map(|parameter| format!("{} {}", parameter["in"], parameter["name"]))
            .collect();
        assert_eq!(distinct.len(), parameters.len(), "{verb} {path}");
    }
    let mut places = vec![&document];
    while let Some(value) = places.pop() {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        match value {
            Value::Object(map) => places.extend(map.values()),
            Value::Array(list) => places.extend(list),
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_document_and_its_page_are_served() {
    let api = Api::start().await;
    let (status, body) = api.get("/openapi.json").await;
    assert_eq!((status, &body), (200, &openapi::document()));
    assert_eq!(body["openapi"], "3.1.0");
    let page = api.client.get(api.url("/docs")).send().await.unwrap();
    assert_eq!(page.status().as_u16(), 200);
    assert!(
        page.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("default-src 'none'")
    );
    let text = page.text().await.unwrap();
    assert!(
        text.contains("openapi.json") && !text.contains("src="),
        "the page needs nothing from elsewhere"
    );
    assert_eq!(api.get("/docs").await.0, 200);
}

#[test]
fn the_committed_document_is_this_one() {
    let committed = include_str!("../../../docs/openapi.json");
    assert!(
        committed == openapi::text(),
        "docs/openapi.json is old: cargo run -p alcor-api --example openapi > docs/openapi.json"
    );
}
