//! Every answer that a test gets is held against the API's document: the route exists, the status is one that it names,
//! the body has the schema that it declares. And what was exercised is noted, for the test that nothing was forgotten.

use std::{
    io::Write,
    sync::{LazyLock, Mutex},
};

use alcor_api::openapi;
use serde_json::{Map, Value};

static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);

/// The folder where exercised routes are noted, one file a test program; `cargo xtask test` sets it.
pub const HITS: &str = "ALCOR_TEST_ROUTE_HITS";

/// The path template that the router chooses: fixed parts win over parameters.
pub fn template(path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or(path);
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &&String| {
        let wanted: Vec<&str> = template.split('/').collect();
        wanted.len() == parts.len()
            && wanted
                .iter()
                .zip(&parts)
                .all(|(want, have)| (want.starts_with('{') && !have.is_empty()) || want == have)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    paths
        .keys()
        .filter(fits)
        .min_by_key(|template| {
            template
                .split('/')
                .map(|part| part.starts_with('{'))
                .collect::<Vec<_>>()
        })
        .cloned()
}

/// Holds an answer against the document.
pub fn check(method: &str, path: &str, status: u16, body: &Value) {
    let Some(template) = template(path) else {
        assert!(
            status >= 400,
            "{method} {path} answers {status} and is not in the document"
        );
        return;
    };
    let Some(operation) = DOCUMENT["paths"][&template].get(method.to_ascii_lowercase()) else {
        assert!(
            status >= 400,
            "{method} {template} answers {status} and is not in the document"
        );
        return;
    };
    let response = &operation["responses"][status.to_string()];
    assert!(
        response.is_object(),
        "{method} {template} answers {status}, which its document does not name: {body}"
    );
    if let Some(schema) = response.pointer("/content/application~1json/schema")
        && let Err(reason) = fits(schema, body)
    {
        panic!(
            "{method} {template} answers {status} with a body that is not as documented: {reason}\n{body:#}"
        );
    }
    if status < 400 || status == 501 {
        note(method, &template);
    }
}

/// Notes an endpoint that did what it is for.
fn note(method: &str, template: &str) {
    static SEEN: Mutex<Option<(std::fs::File, std::collections::BTreeSet<String>)>> = Mutex::new(None);
    let Ok(folder) = std::env::var(HITS) else {
        return;
    };
    let mut seen = SEEN.lock().unwrap();
    let (file, lines) = seen.get_or_insert_with(|| {
        let path = std::path::Path::new(&folder).join(std::process::id().to_string());
        (
            std::fs::File::create(path).unwrap(),
            std::collections::BTreeSet::new(),
        )
    });
    let line = format!("{method} {template}\n");
    if lines.insert(line.clone()) {
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Whether a value has a schema. Knows exactly the words that the document uses; another word is an error, so that
/// nothing in it is passed over.
pub fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    let words = schema.as_object().ok_or("a schema is no object")?;
    for (word, given) in words {
        if !keyword(word, given, words, value)? {
            let shown: String = value.to_string().chars().take(200).collect();
            return Err(format!("{shown} is not {word} {given}"));
        }
    }
    Ok(())
}

fn keyword(word: &str, given: &Value, words: &Map<String, Value>, value: &Value) -> Result<bool, String> {
    let count = |text: &str| text.chars().count() as u64;
    Ok(match word {
        "$ref" => {
            let pointer = given
                .as_str()
                .and_then(|text| text.strip_prefix('#'))
                .ok_or("a reference")?;
            let schema = DOCUMENT
                .pointer(pointer)
                .ok_or(format!("{pointer} is not there"))?;
            fits(schema, value)
                .map(|()| true)
                .map_err(|reason| format!("{pointer}: {reason}"))?
        }
        "anyOf" => {
            let reasons: Vec<String> = given
                .as_array()
                .ok_or("anyOf")?
                .iter()
                .filter_map(|one| fits(one, value).err())
                .collect();
            if reasons.len() == given.as_array().map_or(0, Vec::len) {
                return Err(reasons.join(" and "));
            }
            true
        }
        "type" => match given.as_str() {
            Some(one) => is_type(one, value),
            None => given
                .as_array()
                .ok_or("type")?
                .iter()
                .filter_map(Value::as_str)
                .any(|one| is_type(one, value)),
        },
        "enum" => given.as_array().ok_or("enum")?.contains(value),
        "const" => given == value,
        "minimum" => value
            .as_f64()
            .is_none_or(|number| given.as_f64().is_some_and(|least| number >= least)),
        "maximum" => value
            .as_f64()
            .is_none_or(|number| given.as_f64().is_some_and(|most| number <= most)),
        "maxLength" => value
            .as_str()
            .is_none_or(|text| given.as_u64().is_some_and(|most| count(text) <= most)),
        "minLength" => value
            .as_str()
            .is_none_or(|text| given.as_u64().is_some_and(|least| count(text) >= least)),
        "maxItems" => value
            .as_array()
            .is_none_or(|list| given.as_u64().is_some_and(|most| list.len() as u64 <= most)),
        "minItems" => value
            .as_array()
            .is_none_or(|list| given.as_u64().is_some_and(|least| list.len() as u64 >= least)),
        "uniqueItems" => value
            .as_array()
            .is_none_or(|list| list.iter().enumerate().all(|(n, one)| !list[..n].contains(one))),
        "format" => value
            .as_str()
            .is_none_or(|text| has_format(given.as_str().unwrap_or_default(), text)),
        "pattern" => match value.as_str() {
            Some(text) => regex::Regex::new(given.as_str().ok_or("pattern")?)
                .map_err(|error| error.to_string())?
                .is_match(text),
            None => true,
        },
        "items" => {
            for (place, one) in value.as_array().into_iter().flatten().enumerate() {
                fits(given, one).map_err(|reason| format!("[{place}]: {reason}"))?;
            }
            true
        }
        "properties" => {
            for (name, schema) in given.as_object().ok_or("properties")? {
                if let Some(one) = value.get(name) {
                    fits(schema, one).map_err(|reason| format!("{name}: {reason}"))?;
                }
            }
            true
        }
        "required" => {
            let missing = given
                .as_array()
                .ok_or("required")?
                .iter()
                .find(|name| value.get(name.as_str().unwrap_or_default()).is_none());
            if let Some(name) = missing {
                return Err(format!("{name} is missing"));
            }
            true
        }
        "additionalProperties" => {
            let known = words.get("properties").and_then(Value::as_object);
            for (name, one) in value.as_object().into_iter().flatten() {
                if known.is_some_and(|known| known.contains_key(name)) {
                    continue;
                }
                match given {
                    Value::Bool(true) => {}
                    Value::Bool(false) => return Err(format!("'{name}' is not declared")),
                    schema => fits(schema, one).map_err(|reason| format!("{name}: {reason}"))?,
                }
            }
            true
        }
        "description" => true,
        other => return Err(format!("the check does not know the word '{other}'")),
    })
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn has_format(format: &str, text: &str) -> bool {
    match format {
        "uuid" => uuid::Uuid::parse_str(text).is_ok_and(|uuid| uuid.to_string() == text),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "uri" => text.starts_with("http://") || text.starts_with("https://"),
        _ => false,
    }
}
