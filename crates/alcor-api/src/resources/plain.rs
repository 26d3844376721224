//! Lists of what is no row of the region with an owner: hosts as agents, availability zones, bindings of a port. They are
//! declared by the same attribute tables, and filtered, sorted and paged in the same way.

use http::{HeaderMap, StatusCode, Uri};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::handlers::{named, pairs, respond};
use crate::{
    attributes::{Attribute, Given, Verb},
    discovery::base_url,
    error::ApiError,
    query::{self, Fields, ListQuery},
    state::ApiState,
};

use axum::response::Response;

/// What is shown, as JSON: the chosen attributes in the table's order.
pub(super) struct PlainJson<'a, V: 'static> {
    pub view: &'a V,
    pub fields: &'a Fields<V>,
}

impl<V> Serialize for PlainJson<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for attribute in self.fields.iter() {
            map.serialize_entry(attribute.name, &(attribute.get)(self.view))?;
        }
        map.end()
    }
}

/// A collection: its names, its table, and what tells its members apart.
pub(super) struct Collection<V: 'static> {
    /// `agent`
    pub singular: &'static str,
    /// `agents`
    pub plural: &'static str,
    /// The declaration.
    pub table: &'static [Attribute<V>],
    /// What pages begin at; also of what shows no id.
    pub id: fn(&V) -> Uuid,
}

impl<V> Collection<V> {
    /// Reads the query of a list.
    ///
    /// # Errors
    /// 400 for what the collection does not have.
    pub fn query(&self, uri: &Uri) -> Result<ListQuery<V>, ApiError> {
        ListQuery::parse(self.table, &pairs(uri)?)
    }

    /// Which attributes the query of a single one asks for.
    ///
    /// # Errors
    /// 400 for what the collection does not have.
    pub fn fields(&self, uri: &Uri) -> Result<Fields<V>, ApiError> {
        let pairs = pairs(uri)?;
        query::check_show(self.table, &pairs)?;
        Ok(Fields::from_query(self.table, &pairs))
    }

    /// What the body of a change gives, under the singular name.
    ///
    /// # Errors
    /// 400 for what cannot be changed, or not to that.
    pub fn given(&self, body: &mut Map<String, Value>) -> Result<Given, ApiError> {
        Given::check(self.table, Verb::Put, named(body, self.singular)?)
    }

    /// Answers a list with one page of `views`, which come in whatever order.
    ///
    /// # Errors
    /// 400 for what the collection does not have, 404 when the marker is none of `views`.
    pub fn answer_list(
        &self,
        api: &ApiState,
        headers: &HeaderMap,
        uri: &Uri,
        mut views: Vec<V>,
    ) -> Result<Response, ApiError>
    where
        V: Clone,
    {
        let wanted = self.query(uri)?;
        views.sort_unstable_by_key(self.id);
        let marker = match &wanted.marker {
            Some(id) => {
                let of_marker = |view: &&V| Uuid::parse_str(id).is_ok_and(|id| (self.id)(view) == id);
                let found = views.iter().find(of_marker).cloned();
                Some(found.ok_or_else(|| query::not_found(self.singular, id))?)
            }
            None => None,
        };
        if wanted.page_reverse {
            views.reverse();
        }
        let page = query::page(&wanted, api.config().max_page, self.id, marker, views.into_iter());
        let ends = page.rows.first().zip(page.rows.last());
        let links = query::page_links(
            &format!("{}{}", base_url(headers), uri.path()),
            &pairs(uri)?,
            wanted.limit.is_some(),
            wanted.page_reverse,
            page.full,
            ends.map(|(first, last)| ((self.id)(first), (self.id)(last))),
        );
        let fields = &wanted.fields;
        let rows: Vec<PlainJson<'_, V>> = page.rows.iter().map(|view| PlainJson { view, fields }).collect();
        let mut body = Map::from_iter([(self.plural.to_owned(), json!(rows))]);
        if !links.is_empty() {
            let links: Vec<Value> = links
                .iter()
                .map(|(rel, href)| json!({"rel": rel, "href": href}))
                .collect();
            body.insert(format!("{}_links", self.plural), json!(links));
        }
        respond(StatusCode::OK, &body)
    }

    /// Answers with one under its singular name.
    ///
    /// # Errors
    /// None that values of these types can cause.
    pub fn answer_one(&self, status: StatusCode, view: &V, fields: &Fields<V>) -> Result<Response, ApiError> {
        respond(status, &json!({ self.singular: PlainJson { view, fields } }))
    }
}

/// What the API's document says of such lists.
pub(super) mod doc {
    use serde_json::{Value, json};

    use super::Collection;
    use crate::openapi::{
        Operation,
        schema::{self, object, reference, type_name},
    };

    fn named<V>(collection: &Collection<V>, summary: &'static str) -> Operation {
        let names: Vec<&str> = collection
            .table
            .iter()
            .filter(|attribute| attribute.visible)
            .map(|attribute| attribute.name)
            .collect();
        Operation::new(summary)
            .component(type_name(collection.singular), schema::row(collection.table))
            .query("fields", schema::list(json!({"enum": names})))
    }

    /// One under its singular name.
    pub(in crate::resources) fn wrapped<V>(collection: &Collection<V>) -> Value {
        object([(collection.singular, reference(&type_name(collection.singular)))])
    }

    /// A list.
    pub(in crate::resources) fn list<V>(collection: &Collection<V>, summary: &'static str) -> Operation {
        let link = object([
            ("rel", json!({"enum": ["next", "previous"]})),
            ("href", json!({"type": "string", "format": "uri"})),
        ]);
        let rows = schema::list(reference(&type_name(collection.singular)));
        let body = json!({
            "type": "object",
            "properties": {
                collection.plural: rows,
                format!("{}_links", collection.plural): schema::list(link),
            },
            "required": [collection.plural],
            "additionalProperties": false,
        });
        let mut operation = named(collection, summary);
        for attribute in collection.table.iter().filter(|attribute| attribute.filter) {
            operation = operation.query(attribute.name, schema::list(schema::filter(attribute.kind)));
        }
        let keys: Vec<&str> = collection
            .table
            .iter()
            .filter(|attribute| attribute.sort)
            .map(|attribute| attribute.name)
            .collect();
        operation
            .query("sort_key", schema::list(json!({"enum": keys})))
            .query("sort_dir", schema::list(json!({"enum": ["asc", "desc"]})))
            .query("limit", json!({"type": "integer", "minimum": 0}))
            .query("marker", schema::uuid())
            .query("page_reverse", json!({"type": "boolean"}))
            .answers(200, body)
    }

    /// One that is shown.
    pub(in crate::resources) fn show<V>(collection: &Collection<V>, summary: &'static str) -> Operation {
        named(collection, summary).answers(200, wrapped(collection))
    }

    /// One that is changed.
    pub(in crate::resources) fn update<V>(collection: &Collection<V>, summary: &'static str) -> Operation {
        Operation::new(summary)
            .component(type_name(collection.singular), schema::row(collection.table))
            .body(object([(
                collection.singular,
                schema::settable(collection.table, false),
            )]))
            .answers(200, wrapped(collection))
    }
}
