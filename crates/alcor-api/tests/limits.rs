//! What is too much is refused with one clear error, before anything is done.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::collections::BTreeSet;

use common::{Api, assert_refused, text};
use reqwest::Method;
use serde_json::{Value, json};

/// Collections that clients make rows in, as `(path, plural)`.
fn collections() -> Vec<(String, String)> {
    let document = alcor_api::openapi::document();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .filter(|(path, verbs)| {
            !path.contains('{') && verbs.get("options").is_some() && verbs.get("post").is_some()
        })
        .map(|(path, verbs)| {
            let list = verbs["get"]
                .pointer("/responses/200/content/application~1json/schema/required/0")
                .unwrap();
            (path.clone(), text(list))
        })
        .collect()
}

#[tokio::test]
async fn bulks_are_bounded_everywhere() {
    let api = Api::start_with(|config| config.max_bulk = 3).await;
    for (path, plural) in collections() {
        let answer = api.post(&path, json!({plural.as_str(): [{}, {}, {}, {}]})).await;
        let expected = "4 resources in one request are more than the limit of 3";
        assert_refused(&answer, 400, "HTTPBadRequest", expected);
        let empty = api.post(&path, json!({plural.as_str(): []})).await;
        assert_refused(&empty, 400, "HTTPBadRequest", "Resources required");
    }
}

#[tokio::test]
async fn ten_thousand_in_one_request_are_all_or_none() {
    let api = Api::start().await;
    let many = |count: usize| json!({"networks": vec![json!({}); count]});
    assert_refused(
        &api.post("/v2.0/networks", many(10_001)).await,
        400,
        "HTTPBadRequest",
        "10001 resources in one request are more than the limit of 10000",
    );
    let mut last_is_wrong = vec![json!({}); 9_999];
    last_is_wrong.push(json!({"mtu": -1}));
    assert_eq!(
        api.post("/v2.0/networks", json!({"networks": last_is_wrong}))
            .await
            .0,
        400
    );
    assert_eq!(api.get("/v2.0/networks?limit=1").await.1["networks"], json!([]));
}

#[tokio::test]
async fn deep_json_is_refused_and_costs_no_stack() {
    let api = Api::start().await;
    for deep in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!("{{\"network\":{}", "[".repeat(100_000)),
    ] {
        let answer = api
            .send(Method::POST, "/v2.0/networks", |request| request.body(deep))
            .await;
        assert_refused(&answer, 400, "HTTPBadRequest", "Malformed request body");
    }
}

#[tokio::test]
async fn of_a_key_that_is_there_twice_the_last_one_counts() {
    let api = Api::start().await;
    let answer = api
        .send(Method::POST, "/v2.0/networks", |request| {
            request.body(r#"{"network": {"name": "a", "name": "b"}, "network": {"name": "c"}}"#)
        })
        .await;
    assert_eq!((answer.0, &answer.1["network"]["name"]), (201, &json!("c")));
}

#[tokio::test]
async fn queries_are_bounded() {
    let api = Api::start().await;
    for (path, plural) in collections() {
        let many = "name=a&".repeat(2_001);
        assert_refused(
            &api.get(&format!("{path}?{many}")).await,
            400,
            "HTTPBadRequest",
            "more than 2000 parameters",
        );
        let (status, body) = api.get(&format!("{path}?limit=99999999999999999999")).await;
        assert_eq!((status, body[&plural].is_array()), (200, true), "{path}");
        for bad in [
            "limit=-1",
            "limit=",
            "limit=1e3",
            "sort_key=id",
            "sort_key=id&sort_dir=up",
            "zip=1",
            "%00=1",
        ] {
            assert_eq!(api.get(&format!("{path}?{bad}")).await.0, 400, "{path}?{bad}");
        }
        let unknown = "00000000-0000-0000-0000-000000000000";
        for bad in [
            format!("?marker={unknown}"),
            format!("/{unknown}"),
            "/zip".to_owned(),
            "/%00".to_owned(),
        ] {
            let answer = api.get(&format!("{path}{bad}")).await;
            assert_eq!(answer.0, 404, "{path}{bad}: {}", answer.1);
        }
        assert_eq!(api.get(&format!("{path}/{unknown}?zip=1")).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn texts_are_bounded_and_without_nul() {
    let api = Api::start().await;
    for (name, reason) in [
        ("x".repeat(256), "exceeds maximum length of 255"),
        ("a\0b".to_owned(), "contains a NUL character"),
    ] {
        let answer = api
            .post("/v2.0/networks", json!({"network": {"name": name}}))
            .await;
        assert_refused(&answer, 400, "HTTPBadRequest", reason);
    }
    let wide = "\u{1f600}".repeat(255);
    let made = api
        .make(
            "network",
            json!({"name": wide, "description": "\u{202e}\u{0}".trim_end_matches('\0')}),
        )
        .await;
    assert_eq!(made["name"], json!(wide));
    let (_, found) = api
        .send(Method::GET, "/v2.0/networks", |request| {
            request.query(&[("name", &wide)])
        })
        .await;
    assert_eq!(found["networks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused_everywhere() {
    let api = Api::start().await;
    for (path, _) in collections() {
        for (body, reason) in [
            ("", "Resource body required"),
            ("[]", "Body contains invalid data"),
            ("{}", "Unable to find '"),
            ("\"a\"", "Body contains invalid data"),
            ("{", "Malformed request body"),
            ("{} {}", "Malformed request body"),
            ("\u{feff}{}", "Malformed request body"),
        ] {
            let answer = api.send(Method::POST, &path, |request| request.body(body)).await;
            assert_refused(&answer, 400, "HTTPBadRequest", reason);
        }
        let latin = api
            .send(Method::POST, &path, |request| {
                request.body(vec![b'"', 0xe9, b'"'])
            })
            .await;
        assert_refused(&latin, 400, "HTTPBadRequest", "Malformed request body");
    }
}

/// Every collection answers lists and says what its attributes are; what it says is what it shows.
#[tokio::test]
async fn every_collection_tells_its_attributes() {
    let api = Api::start().await;
    for (path, plural) in collections() {
        let (status, body) = api.call(Method::OPTIONS, &path, None).await;
        assert_eq!(status, 200, "{path}");
        let attributes = body["attributes"].as_array().unwrap();
        let names: BTreeSet<String> = attributes
            .iter()
            .map(|attribute| text(&attribute["name"]))
            .collect();
        assert_eq!(names.len(), attributes.len(), "{path}: a name is there twice");
        assert_eq!(api.get(&path).await.0, 200, "{plural}");
        for attribute in attributes
            .iter()
            .filter(|attribute| attribute["is_sort_key"] == true)
        {
            let name = text(&attribute["name"]);
            for direction in ["asc", "desc"] {
                let sorted = format!("{path}?sort_key={name}&sort_dir={direction}&sort_key=id&sort_dir=asc");
                assert_eq!(api.get(&sorted).await.0, 200, "{sorted}");
            }
        }
        for attribute in attributes
            .iter()
            .filter(|attribute| attribute["is_filter"] == true)
        {
            let name = text(&attribute["name"]);
            let good = match attribute["type"].as_str() {
                Some("boolean") => "TRUE",
                Some("integer") => "1",
                Some("cidr") => "10.0.0.0/24",
                _ if name == "fixed_ips" => "ip_address=10.0.0.1",
                _ => "00000000-0000-0000-0000-000000000000",
            };
            let filtered = format!("{path}?{name}={good}&{name}={good}");
            let answer = api.get(&filtered).await;
            assert_eq!(answer.0, 200, "{filtered}: {}", answer.1);
        }
    }
}

fn ids(body: &Value, plural: &str) -> Vec<String> {
    body[plural]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| text(&row["id"]))
        .collect()
}

#[tokio::test]
async fn pages_in_any_order_have_each_row_once() {
    let api = Api::start().await;
    for name in ["b", "a", "c", "a", "b", "a", "a"] {
        api.make("network", json!({"name": name, "admin_state_up": name != "a"}))
            .await;
    }
    for order in [
        "",
        "sort_key=name&sort_dir=asc",
        "sort_key=name&sort_dir=desc&sort_key=id&sort_dir=desc",
        "sort_key=admin_state_up&sort_dir=asc&sort_key=name&sort_dir=desc",
    ] {
        let all = ids(&api.get(&format!("/v2.0/networks?{order}")).await.1, "networks");
        assert_eq!(all.len(), 7);
        for (reverse, rel) in [("", "next"), ("&page_reverse=True", "previous")] {
            let mut path = format!("/v2.0/networks?{order}&limit=2{reverse}");
            let mut walked = Vec::new();
            loop {
                let (status, body) = api.get(&path).await;
                assert_eq!(status, 200, "{path}");
                let page = ids(&body, "networks");
                if reverse.is_empty() {
                    walked.extend(page)
                } else {
                    walked.splice(0..0, page);
                }
                let link = body["networks_links"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|link| link["rel"] == rel);
                match link {
                    Some(link) => path = text(&link["href"]).replace(&api.url(""), ""),
                    None => break,
                }
            }
            assert_eq!(walked, all, "{order}{reverse}");
        }
    }
}

#[tokio::test]
async fn lists_can_be_asked_for_what_changed() {
    let api = Api::start().await;
    let made = api.make("network", json!({"name": "a"})).await;
    let count = async |query: &str| {
        let (status, body) = api.get(&format!("/v2.0/networks?changed_since={query}")).await;
        assert_eq!(status, 200, "{body}");
        body["networks"].as_array().unwrap().len()
    };
    assert_eq!(count(&text(&made["updated_at"])).await, 1);
    assert_eq!(count("2020-01-01T00:00:00").await, 1);
    assert_eq!(count("2020-01-01T00:00:00Z").await, 1);
    assert_eq!(count("2220-01-01T00:00:00").await, 0);
    assert_refused(
        &api.get("/v2.0/networks?changed_since=yesterday").await,
        400,
        "InvalidInput",
        "changed_since must be in the following format: YYYY-MM-DDTHH:MM:SS",
    );
}

#[tokio::test]
async fn ports_are_made_with_tags_and_others_are_not() {
    let api = Api::start().await;
    let network = text(&api.make("network", json!({})).await["id"]);
    let port = |tags: Value| json!({"port": {"network_id": network, "tags": tags}});
    let (status, body) = api.post("/v2.0/ports", port(json!(["b", "a"]))).await;
    assert_eq!((status, &body["port"]["tags"]), (201, &json!(["a", "b"])));
    for (tags, reason) in [
        (json!(["a", "a"]), "Duplicate items in the list: 'a'"),
        (json!("a"), "'a' is not a list"),
        (json!(["x".repeat(256)]), "exceeds maximum length of 255"),
        (
            (0..51).map(|n| json!(n.to_string())).collect(),
            "exceed the per-resource limit of 50",
        ),
    ] {
        let answer = api.post("/v2.0/ports", port(tags)).await;
        assert_refused(&answer, 400, "HTTPBadRequest", reason);
    }
    let tagged = json!({"network": {"tags": ["a"]}});
    assert_refused(
        &api.post("/v2.0/networks", tagged).await,
        400,
        "HTTPBadRequest",
        "Attribute 'tags' not allowed in POST",
    );
}

/// Tags of everything that has some: added, replaced, filtered by, bounded.
#[tokio::test]
async fn every_tagged_collection_has_the_routes_of_tags() {
    let routes: BTreeSet<(String, String)> = alcor_api::route_table()
        .into_iter()
        .map(|(method, path)| (method.to_string(), path))
        .collect();
    for collection in alcor_api::collections() {
        let path = format!("/v2.0/{}/{{id}}/tags", collection.path);
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let there = routes.contains(&(method.to_owned(), path.clone()));
            assert_eq!(there, collection.tagged, "{method} {path}");
        }
    }
}
