//! The operations that every resource has, from its declaration.

use serde_json::{Value, json};

use super::{
    Operation,
    schema::{self, object, reference, type_name},
};
use crate::{
    query,
    resources::{MAX_TAG, Resource, tags::MAX_TAGS},
    state::MAX_BULK,
};

fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn row<R: Resource>(operation: Operation) -> Operation {
    operation.component(type_name(R::SINGULAR), schema::row(R::ATTRIBUTES))
}

fn wrapped<R: Resource>() -> Value {
    object([(R::SINGULAR, reference(&type_name(R::SINGULAR)))])
}

fn names<R: Resource>(which: impl Fn(bool, bool) -> bool) -> Vec<&'static str> {
    R::ATTRIBUTES
        .iter()
        .filter(|attribute| which(attribute.visible, attribute.sort))
        .map(|attribute| attribute.name)
        .collect()
}

/// `fields`, which may be there several times.
fn fields<R: Resource>(operation: Operation) -> Operation {
    let names = names::<R>(|visible, _| visible);
    operation.query("fields", schema::list(json!({"enum": names})))
}

const IF_MATCH: &str = "`revision_number=N`: refused with 412 when the resource has another revision number.";

fn if_match(operation: Operation) -> Operation {
    let pattern = json!({"type": "string", "pattern": "^revision_number=[0-9]{1,18}$"});
    operation.header("If-Match", IF_MATCH, pattern)
}

/// `GET` of a collection.
pub(crate) fn list<R: Resource>() -> Operation {
    let link = object([
        ("rel", json!({"enum": ["next", "previous"]})),
        ("href", json!({"type": "string", "format": "uri"})),
    ]);
    let rows = schema::list(reference(&type_name(R::SINGULAR)));
    let body = json!({
        "type": "object",
        "properties": {R::PLURAL: rows, format!("{}_links", R::PLURAL): schema::list(link)},
        "required": [R::PLURAL],
        "additionalProperties": false,
    });
    let mut operation = fields::<R>(row::<R>(Operation::new(format!("Lists {}", words(R::PLURAL)))));
    for attribute in R::ATTRIBUTES.iter().filter(|attribute| attribute.filter) {
        operation = operation.query(attribute.name, schema::list(schema::filter(attribute.kind)));
    }
    if R::TAGGED {
        for name in query::TAG_FILTERS {
            operation = operation.query(name, json!({"type": "string"}));
        }
    }
    if R::ATTRIBUTES
        .iter()
        .any(|attribute| attribute.name == "updated_at")
    {
        operation = operation.query(
            query::CHANGED_SINCE,
            json!({"type": "string", "format": "date-time"}),
        );
    }
    let sort_keys = names::<R>(|_, sort| sort);
    operation
        .query("sort_key", schema::list(json!({"enum": sort_keys})))
        .query("sort_dir", schema::list(json!({"enum": ["asc", "desc"]})))
        .query("limit", json!({"type": "integer", "minimum": 0}))
        .query("marker", schema::uuid())
        .query("page_reverse", json!({"type": "boolean"}))
        .answers(200, body)
}

/// What clients of ports may ask for.
const PREFER: &str = "`wait=N`: for ports that are bound to hosts, the reply comes when the hosts have reported what was \
    committed (`Preference-Applied: wait=N`), or after N seconds without them.";

/// `POST` to a collection.
pub(crate) fn create<R: Resource>() -> Operation {
    let name = type_name(R::SINGULAR);
    let create = format!("{name}Create");
    let one =
        json!({"type": "object", "properties": {R::SINGULAR: reference(&create)}, "required": [R::SINGULAR]});
    let many = json!({"type": "array", "items": reference(&create), "minItems": 1, "maxItems": MAX_BULK});
    let many = json!({"type": "object", "properties": {R::PLURAL: many}, "required": [R::PLURAL]});
    let made_many = object([(R::PLURAL, schema::list(reference(&name)))]);
    row::<R>(Operation::new(format!(
        "Makes one of the {}, or several: all or none",
        words(R::PLURAL)
    )))
    .component(create, schema::settable(R::ATTRIBUTES, true))
    .header(
        "Idempotency-Key",
        "A repeat with the same key and body gives the same reply and makes nothing.",
        json!({"type": "string", "pattern": "^[!-~]{1,255}$"}),
    )
    .header("Prefer", PREFER, json!({"type": "string"}))
    .body(json!({"anyOf": [one, many]}))
    .answers(201, json!({"anyOf": [wrapped::<R>(), made_many]}))
}

/// `GET` of one.
pub(crate) fn show<R: Resource>() -> Operation {
    fields::<R>(row::<R>(Operation::new(format!(
        "Shows one of the {}",
        words(R::PLURAL)
    ))))
    .answers(200, wrapped::<R>())
}

/// `PUT` of one.
pub(crate) fn update<R: Resource>() -> Operation {
    let update = format!("{}Update", type_name(R::SINGULAR));
    let body =
        json!({"type": "object", "properties": {R::SINGULAR: reference(&update)}, "required": [R::SINGULAR]});
    if_match(row::<R>(Operation::new(format!(
        "Changes one of the {}",
        words(R::PLURAL)
    ))))
    .component(update, schema::settable(R::ATTRIBUTES, false))
    .header("Prefer", PREFER, json!({"type": "string"}))
    .body(body)
    .answers(200, wrapped::<R>())
}

/// An action on one, with a body of its own; it answers what became of it.
pub(crate) fn action<R: Resource>(summary: &'static str, body: Value) -> Operation {
    row::<R>(Operation::new(summary))
        .body(body)
        .answers(200, wrapped::<R>())
}

/// `DELETE` of one.
pub(crate) fn delete<R: Resource>() -> Operation {
    if_match(Operation::new(format!("Deletes one of the {}", words(R::PLURAL)))).answers_empty(204)
}

/// `OPTIONS` of a collection.
pub(crate) fn options<R: Resource>() -> Operation {
    let truth = || json!({"type": "boolean"});
    let attribute = object([
        ("name", json!({"type": "string"})),
        ("type", json!({"type": "string"})),
        ("allow_post", truth()),
        ("allow_put", truth()),
        ("required", truth()),
        ("is_filter", truth()),
        ("is_sort_key", truth()),
        ("is_visible", truth()),
    ]);
    let body = object([
        ("name", json!({"const": R::SINGULAR})),
        ("attributes", schema::list(attribute)),
    ]);
    Operation::new(format!("The attributes of {}", words(R::PLURAL))).answers(200, body)
}

/// The routes of tags, by method and whether one tag is named.
pub(crate) mod tags {
    use super::{MAX_TAG, MAX_TAGS, Operation, Resource, if_match, json, object, schema, words};

    fn all() -> super::Value {
        let list = json!({"type": "array", "items": schema::text(MAX_TAG), "maxItems": MAX_TAGS, "uniqueItems": true});
        json!({"type": "object", "properties": {"tags": list}, "required": ["tags"]})
    }

    fn operation<R: Resource>(what: &str) -> Operation {
        Operation::new(format!("{what} of one of the {}", words(R::PLURAL)))
    }

    pub(crate) fn list<R: Resource>() -> Operation {
        operation::<R>("The tags").answers(200, object([("tags", schema::list(schema::text(MAX_TAG)))]))
    }
    pub(crate) fn add_all<R: Resource>() -> Operation {
        if_match(operation::<R>("Adds to the tags"))
            .body(all())
            .answers(200, all())
    }
    pub(crate) fn replace<R: Resource>() -> Operation {
        if_match(operation::<R>("Replaces the tags"))
            .body(all())
            .answers(200, all())
    }
    pub(crate) fn clear<R: Resource>() -> Operation {
        if_match(operation::<R>("Removes the tags")).answers_empty(204)
    }
    pub(crate) fn show<R: Resource>() -> Operation {
        operation::<R>("Whether a tag is among those").answers_empty(204)
    }
    pub(crate) fn add<R: Resource>() -> Operation {
        if_match(operation::<R>("Adds a tag to those")).answers_empty(201)
    }
    pub(crate) fn remove<R: Resource>() -> Operation {
        if_match(operation::<R>("Removes a tag from those")).answers_empty(204)
    }
}
