//! What one method of one path takes and answers.

use std::borrow::Cow;

use http::Method;
use serde_json::{Map, Value, json};

use super::{path_parameters, schema};
use crate::router::Route;

/// What one method of one path takes and answers, for the document and for the tests that hold replies against it.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// One line for people.
    pub summary: Cow<'static, str>,
    /// Parameters of the query and headers.
    pub parameters: Vec<Value>,
    /// The schema of the body; none when there is no body.
    pub body: Option<Value>,
    /// Status codes of success with the schema of their body; none where there is no body.
    pub answers: Vec<(u16, Option<Value>)>,
    /// Named schemas that the others refer to.
    pub components: Vec<(String, Value)>,
    /// The media type of answers.
    pub media: Option<&'static str>,
}

impl Operation {
    /// An operation that takes and answers nothing yet.
    pub fn new(summary: impl Into<Cow<'static, str>>) -> Self {
        Self {
            summary: summary.into(),
            ..Self::default()
        }
    }

    /// It takes a body.
    #[must_use]
    pub fn body(mut self, schema: Value) -> Self {
        self.body = Some(schema);
        self
    }

    /// It answers with a JSON body.
    #[must_use]
    pub fn answers(mut self, status: u16, schema: Value) -> Self {
        self.answers.push((status, Some(schema)));
        self
    }

    /// It answers without a body.
    #[must_use]
    pub fn answers_empty(mut self, status: u16) -> Self {
        self.answers.push((status, None));
        self
    }

    /// It has a parameter in the query.
    #[must_use]
    pub fn query(mut self, name: &str, schema: Value) -> Self {
        self.parameters
            .push(json!({"name": name, "in": "query", "schema": schema}));
        self
    }

    /// It reads a header.
    #[must_use]
    pub fn header(mut self, name: &str, description: &str, schema: Value) -> Self {
        self.parameters
            .push(json!({"name": name, "in": "header", "description": description, "schema": schema}));
        self
    }

    /// Answers are not JSON.
    #[must_use]
    pub fn media(mut self, media: &'static str) -> Self {
        self.media = Some(media);
        self
    }

    /// It names a schema that others refer to.
    #[must_use]
    pub fn component(mut self, name: impl Into<String>, schema: Value) -> Self {
        self.components.push((name.into(), schema));
        self
    }

    /// The operation as OpenAPI writes it.
    pub(super) fn to_json(&self, route: &Route) -> Value {
        let mut parameters: Vec<Value> = path_parameters(route)
            .into_iter()
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
            .collect();
        parameters.extend(self.parameters.iter().cloned());
        let mut operation = json!({
            "operationId": operation_id(route),
            "summary": self.summary,
            "tags": [tag(route.path())],
            "parameters": parameters,
            "responses": self.responses(route.method()),
        });
        if let (Some(body), Some(map)) = (&self.body, operation.as_object_mut()) {
            map.insert(
                "requestBody".to_owned(),
                json!({"required": true, "content": {"application/json": {"schema": body}}}),
            );
        }
        operation
    }

    fn responses(&self, method: &Method) -> Map<String, Value> {
        let mut responses = Map::new();
        let media = self.media.unwrap_or("application/json");
        for (status, schema) in &self.answers {
            let mut response = json!({"description": reason(*status)});
            if let (Some(schema), Some(map)) = (schema, response.as_object_mut()) {
                map.insert("content".to_owned(), json!({media: {"schema": schema}}));
            }
            responses.insert(status.to_string(), response);
        }
        for status in refusals(method) {
            // Who is not known is told so in Keystone's form.
            let error = if *status == 401 { "Unauthorized" } else { "Error" };
            let content = json!({"application/json": {"schema": schema::reference(error)}});
            responses
                .entry(status.to_string())
                .or_insert_with(|| json!({"description": reason(*status), "content": content}));
        }
        responses
    }
}

/// The refusals that any operation of a method may answer with.
const fn refusals(method: &Method) -> &'static [u16] {
    match *method {
        Method::GET | Method::OPTIONS => &[400, 401, 403, 404, 503, 504],
        Method::DELETE => &[400, 401, 403, 404, 409, 412, 413, 503, 504],
        _ => &[400, 401, 403, 404, 409, 412, 413, 415, 503, 504],
    }
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Other")
}

/// The collection that a path belongs to, for people who look for something.
fn tag(path: &str) -> &str {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next()) {
        (Some("alcor"), _) => "hosts",
        (Some("v2.0"), Some(collection)) => collection,
        _ => "about",
    }
}

/// `get_networks_id`: unique, because method and path are.
fn operation_id(route: &Route) -> String {
    let path: String = route
        .path()
        .trim_start_matches('/')
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                ' '
            }
        })
        .collect();
    let words: Vec<&str> = std::iter::once(route.method().as_str())
        .chain(path.split_whitespace())
        .collect();
    let mut id = words.join("_").to_ascii_lowercase().replace("_v2_0_", "_");
    if route.path().len() > 1 && route.path().ends_with('/') {
        id.push('_');
    }
    id
}
