//! Whatever a client sends to whichever endpoint, the answer is never a fault of the server, and it is as documented.
//!
//! Calls are made from the API's document, so that a new resource is covered without a word here: right ones, and right
//! ones with something wrong in them. Ids come from what earlier answers showed, so that calls get far.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::collections::BTreeMap;

use alcor_api::openapi;
use common::Api;
use reqwest::Method;
use serde_json::{Map, Value, json};

/// Calls in one run.
const CALLS: usize = 4_000;
/// Ids that are remembered of each kind.
const MAX_IDS: usize = 64;

const TEXTS: &[&str] = &[
    "",
    " ",
    "true",
    "False",
    "0",
    "-1",
    "1.5",
    "18446744073709551616",
    "99999999999999999999999999",
    "10.0.0.0/24",
    "10.0.0.5",
    "10.0.0.255",
    "192.0.2.1",
    "::",
    "::/0",
    "0.0.0.0/0",
    "255.255.255.255/32",
    "fd00::/64",
    "fd00::1",
    "fa:16:3e:00:00:01",
    "ff:ff:ff:ff:ff:ff",
    "slaac",
    "tcp",
    "IPv4",
    "ingress",
    "asc",
    "*",
    "ip_address=10.0.0.5",
    "subnet_id=",
    "2020-01-01T00:00:00",
    "\u{0}",
    "é\u{202e}\u{1f600}",
    "' OR 1=1 --",
    "../../etc/passwd",
    "00000000-0000-0000-0000-000000000000",
];

/// SplitMix64: the same calls in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound.max(1) as u64).unwrap()
    }
    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Makes values by schema, and wrong ones.
struct Maker {
    dice: Dice,
    document: Value,
    /// Ids by the name of the attribute or collection that they were seen under.
    ids: BTreeMap<String, Vec<String>>,
}

impl Maker {
    fn text(&mut self) -> Value {
        match self.dice.below(8) {
            0 => json!("x".repeat(self.dice.below(400))),
            1 => json!(self.id("")),
            _ => json!(*self.dice.pick(TEXTS)),
        }
    }

    /// An id that was seen as `name` (`network_id`), or any.
    fn id(&mut self, name: &str) -> String {
        let name = name.trim_end_matches("_id");
        let named = self
            .ids
            .keys()
            .find(|key| !name.is_empty() && key.starts_with(name))
            .cloned();
        let keys: Vec<String> = self.ids.keys().cloned().collect();
        let key = match named {
            Some(key) if !self.dice.once_in(10) => key,
            _ if keys.is_empty() => return "00000000-0000-0000-0000-000000000000".to_owned(),
            _ => self.dice.pick(&keys).clone(),
        };
        let ids = self.ids[&key].clone();
        self.dice.pick(&ids).clone()
    }

    /// Something that no schema asked for.
    fn wild(&mut self, depth: usize) -> Value {
        match self.dice.below(9) {
            0 => Value::Null,
            1 => json!(self.dice.once_in(2)),
            2 => json!(self.dice.roll().cast_signed()),
            3 => json!(1e300),
            4 if depth > 0 => (0..self.dice.below(4)).map(|_| self.wild(depth - 1)).collect(),
            5 if depth > 0 => {
                let keys = ["id", "ip_address", "subnet_id", "start", "nexthop", ""];
                let pairs = (0..self.dice.below(4))
                    .map(|_| ((*self.dice.pick(&keys)).to_owned(), self.wild(depth - 1)));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
            _ => self.text(),
        }
    }

    /// A value of a schema most of the time. `name` is what it is for.
    fn value(&mut self, schema: &Value, name: &str) -> Value {
        if self.dice.once_in(25) {
            return self.wild(3);
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let schema = self.document.pointer(&reference[1..]).unwrap().clone();
            return self.value(&schema, name);
        }
        if let Some(options) = schema["anyOf"].as_array() {
            let option = self.dice.pick(options).clone();
            return self.value(&option, name);
        }
        if let Some(values) = schema["enum"].as_array() {
            return self.dice.pick(values).clone();
        }
        match schema["type"].as_str() {
            Some("boolean") => json!(self.dice.once_in(2)),
            Some("integer") => {
                let least = schema["minimum"].as_i64().unwrap_or(0);
                let span = schema["maximum"]
                    .as_i64()
                    .unwrap_or(least + 100)
                    .saturating_sub(least);
                let offset = self.dice.below(usize::try_from(span.clamp(0, 200)).unwrap() + 1);
                json!(least + i64::try_from(offset).unwrap())
            }
            Some("array") => (0..self.dice.below(3))
                .map(|_| self.value(&schema["items"], name))
                .collect(),
            Some("object") => self.object(schema),
            Some("null") => Value::Null,
            Some("string") => self.string(schema, name),
            _ => self.wild(2),
        }
    }

    fn object(&mut self, schema: &Value) -> Value {
        let mut object = Map::new();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, schema) in schema["properties"].as_object().cloned().unwrap_or_default() {
            let must = required.iter().any(|required| *required == name);
            if (must && !self.dice.once_in(30)) || self.dice.once_in(6) {
                object.insert(name.clone(), self.value(&schema, &name));
            }
        }
        if self.dice.once_in(40) {
            let key = *self.dice.pick(TEXTS);
            object.insert(key.to_owned(), self.wild(2));
        }
        Value::Object(object)
    }

    fn string(&mut self, schema: &Value, name: &str) -> Value {
        match schema["format"].as_str() {
            Some("uuid") => json!(self.id(name)),
            Some("ipv4") => json!(format!("10.0.0.{}", self.dice.below(256))),
            Some("ipv6") => json!(format!("fd00::{:x}", self.dice.below(256))),
            _ if schema["pattern"]
                .as_str()
                .is_some_and(|pattern| pattern.contains('/')) =>
            {
                json!(format!(
                    "10.{}.0.0/{}",
                    self.dice.below(256),
                    16 + self.dice.below(17)
                ))
            }
            _ if name.ends_with("_id") && !name.ends_with("project_id") && !name.ends_with("tenant_id") => {
                json!(self.id(name))
            }
            _ => self.text(),
        }
    }

    /// Remembers the ids of an answer, by the name that they are under.
    fn learn(&mut self, answer: &Value) {
        for (name, value) in answer.as_object().into_iter().flatten() {
            let rows = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            for id in rows.iter().filter_map(|row| row["id"].as_str()) {
                let name = name.trim_end_matches('s').to_owned();
                let ids = self.ids.entry(name).or_default();
                if ids.len() < MAX_IDS {
                    ids.push(id.to_owned());
                } else {
                    let place = self.dice.below(MAX_IDS);
                    ids[place] = id.to_owned();
                }
            }
        }
    }

    fn path(&mut self, template: &str) -> String {
        let collection = template.split('/').nth(2).unwrap_or_default().replace('-', "_");
        let parts: Vec<String> = template
            .split('/')
            .map(|part| match part {
                "{id}" if !self.dice.once_in(10) => self.id(collection.trim_end_matches('s')),
                part if part.starts_with('{') => {
                    let text = self.text().as_str().unwrap_or_default().to_owned();
                    let safe: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
                    if safe.is_empty() { "x".to_owned() } else { safe }
                }
                part => part.to_owned(),
            })
            .collect();
        parts.join("/")
    }

    fn query(&mut self, operation: &Value) -> Vec<(String, String)> {
        let parameters: Vec<Value> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "query")
            .cloned()
            .collect();
        let mut query = Vec::new();
        for _ in 0..self.dice.below(4) {
            if parameters.is_empty() || self.dice.once_in(12) {
                let name = (*self.dice.pick(TEXTS)).to_owned();
                query.push((name, self.text().as_str().unwrap_or_default().to_owned()));
                continue;
            }
            let parameter = self.dice.pick(&parameters).clone();
            let name = parameter["name"].as_str().unwrap().to_owned();
            let schema = match parameter["schema"]["type"].as_str() {
                Some("array") => parameter["schema"]["items"].clone(),
                _ => parameter["schema"].clone(),
            };
            let value = match self.value(&schema, &name) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            if name == "sort_key" {
                query.push(("sort_dir".to_owned(), "desc".to_owned()));
            }
            query.push((name, value));
        }
        query
    }
}

/// What each endpoint is called with: likely first the ones that make something.
fn endpoints(document: &Value) -> Vec<(Method, String, Value)> {
    let mut endpoints = Vec::new();
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            let method: Method = verb.to_ascii_uppercase().parse().unwrap();
            // Deletions are rarer, so that there is something to call.
            let times = match method {
                Method::POST => 4,
                Method::PUT => 3,
                Method::DELETE => 1,
                _ => 2,
            };
            endpoints.extend((0..times).map(|_| (method.clone(), path.clone(), operation.clone())));
        }
    }
    endpoints
}

#[tokio::test]
async fn nothing_that_a_client_sends_is_a_fault_of_the_server() {
    let api = Api::start().await;
    let document = openapi::document();
    let endpoints = endpoints(&document);
    let mut maker = Maker {
        dice: Dice(7),
        document,
        ids: BTreeMap::new(),
    };
    for cidr in ["10.0.0.0/24", "10.0.0.0/16", "fd00::/64"] {
        let (network, _) = api.network_with_subnet(cidr).await;
        api.make("port", json!({"network_id": network})).await;
        for plural in ["networks", "subnets", "ports"] {
            maker.learn(&api.get(&format!("/v2.0/{plural}")).await.1);
        }
    }
    let mut done = BTreeMap::<u16, usize>::new();
    for _ in 0..CALLS {
        let (method, template, operation) = maker.dice.pick(&endpoints).clone();
        let path = maker.path(&template);
        let query = maker.query(&operation);
        let body = operation
            .pointer("/requestBody/content/application~1json/schema")
            .cloned();
        let body = body.map(|schema| maker.value(&schema, ""));
        let raw = maker
            .dice
            .once_in(50)
            .then(|| vec![b'{'; maker.dice.below(2_000)]);
        let (status, answer) = api
            .send(method.clone(), &path, |request| match (&raw, &body) {
                (Some(raw), _) if method != Method::GET => request.query(&query).body(raw.clone()),
                (_, Some(body)) => request.query(&query).json(body),
                _ => request.query(&query),
            })
            .await;
        assert!(
            status < 500 || status == 501,
            "{method} {path} {query:?} {body:?} answers {status} {answer}"
        );
        *done.entry(status).or_default() += 1;
        maker.learn(&answer);
    }
    assert_eq!(api.get("/healthz").await.0, 200);
    let good: usize = done.range(200..300).map(|(_, times)| times).sum();
    assert!(good > CALLS / 10, "calls get far: {done:?}");
}
