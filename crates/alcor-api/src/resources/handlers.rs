//! List, show, create, change, delete: written once, driven by a resource's declaration.

use alcor_model::Id;
use alcor_region::command::Caller;
use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use uuid::Uuid;

use super::{MAX_TEXT, Resource, ShownJson, View};
use crate::{
    attributes::{Given, Verb},
    auth::Who,
    authorize::{self, Shown},
    body::JsonBody,
    discovery::base_url,
    error::ApiError,
    parse,
    query::{self, Fields, ListQuery},
    state::ApiState,
    wait::Wait,
};

/// A list's body.
pub(super) struct ListJson<'a, R: 'static> {
    pub views: &'a [View<R>],
    pub shown: &'a Shown<'a, R>,
}

impl<R: Resource> Serialize for ListJson<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.views.len()))?;
        for view in self.views {
            list.serialize_element(&ShownJson {
                view,
                shown: self.shown,
            })?;
        }
        list.end()
    }
}

/// An object with one member, which is how Neutron wraps everything.
pub(super) struct Wrapped<'a, T>(pub &'a str, pub T);

impl<T: Serialize> Serialize for Wrapped<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

/// A list with links to the pages around it.
struct Paged<'a, R: 'static> {
    list: ListJson<'a, R>,
    plural: &'a str,
    links: &'a [(&'static str, String)],
}

impl<R: Resource> Serialize for Paged<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.plural, &self.list)?;
        if !self.links.is_empty() {
            let links: Vec<Value> = self
                .links
                .iter()
                .map(|(rel, href)| json!({"rel": rel, "href": href}))
                .collect();
            map.serialize_entry(&format!("{}_links", self.plural), &links)?;
        }
        map.end()
    }
}

/// What the code excludes and cannot prove.
pub(super) fn internal(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "HTTPInternalServerError",
        error.to_string(),
    )
}

pub(super) fn respond(status: StatusCode, body: &impl Serialize) -> Result<Response, ApiError> {
    let bytes = serde_json::to_vec(body).map_err(|error| internal(&error))?;
    Ok(respond_with(status, bytes))
}

/// A reply whose JSON is there already.
pub(super) fn respond_with(status: StatusCode, json: Vec<u8>) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], json).into_response()
}

pub(super) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    match Query::try_from_uri(uri) {
        Ok(Query(pairs)) => Ok(pairs),
        Err(error) => Err(ApiError::bad_request(format!(
            "The query cannot be read: {error}."
        ))),
    }
}

/// The row of an id as a client wrote it, if the caller sees it.
pub(super) fn view<R: Resource>(api: &ApiState, caller: &Arc<Caller>, id: &str) -> Result<View<R>, ApiError> {
    let snapshot = api.region().snapshot();
    Uuid::parse_str(id)
        .ok()
        .and_then(|uuid| R::table(&snapshot.state).get(&Id::from_uuid(uuid)).cloned())
        .filter(|row| row.visible(caller, &snapshot.state))
        .map(|row| View::new(row, &snapshot, caller, api.region().config()))
        .ok_or_else(|| query::not_found(R::SINGULAR, id))
}

/// The row of an id as a client wrote it, if the region and the policy let the caller see it.
pub(super) fn seen<R: Resource>(api: &ApiState, who: &Who, id: &str) -> Result<View<R>, ApiError> {
    let view = view::<R>(api, &who.caller, id)?;
    if authorize::sees(api, who, &view) {
        Ok(view)
    } else {
        Err(query::not_found(R::SINGULAR, id))
    }
}

/// `GET /v2.0/{plural}`, on a thread that may take its time: a filter without an index looks at every row.
pub(crate) async fn list<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    R::before_list(api.region(), project_looked_at(&who.caller, &uri)?).await?;
    let listing = tokio::task::spawn_blocking(move || list_now::<R>(&api, &who, &headers, &uri));
    listing.await.map_err(|error| internal(&error))?
}

/// Whose rows a list is about: those of the project that an administrator names, else the caller's own.
fn project_looked_at(caller: &Caller, uri: &Uri) -> Result<String, ApiError> {
    let named = pairs(uri)?.into_iter().find(|(key, value)| {
        caller.is_admin && matches!(key.as_str(), "project_id" | "tenant_id") && value.len() <= MAX_TEXT
    });
    Ok(named.map_or_else(|| caller.project_id.clone(), |(_, project_id)| project_id))
}

/// What is shown, and the query without what the caller must not ask by.
fn shown<'a, R: Resource>(
    api: &'a ApiState,
    who: &'a Who,
    mut wanted: ListQuery<View<R>>,
) -> Result<(Shown<'a, R>, ListQuery<View<R>>), ApiError> {
    let fields = std::mem::replace(&mut wanted.fields, Fields::all(R::ATTRIBUTES));
    let shown = Shown::new(api, who, fields);
    if let Some((attribute, _)) = wanted
        .sorts
        .iter()
        .find(|(attribute, _)| shown.hides(attribute.name))
    {
        return Err(query::no_sort_key(attribute.name));
    }
    Ok((shown, wanted))
}

fn list_now<R: Resource>(
    api: &ApiState,
    who: &Who,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let pairs = pairs(uri)?;
    let wanted = ListQuery::<View<R>>::parse(R::ATTRIBUTES, &pairs)?;
    let (shown, wanted) = shown::<R>(api, who, wanted)?;
    let caller = &who.caller;
    let snapshot = api.region().snapshot();
    let state = &snapshot.state;
    let of_row = |row| View::new(row, &snapshot, caller, api.region().config());
    let marker = match &wanted.marker {
        Some(id) => Some(seen::<R>(api, who, id)?),
        None => None,
    };
    let from = marker
        .as_ref()
        .filter(|_| wanted.sorts.is_empty())
        .map(|marker| marker.row.uuid());
    let candidates = R::candidates(state, &wanted, from, caller)
        .filter(|row| row.visible(caller, state))
        .map(of_row)
        .filter(|view| shown.has(view))
        // What the policy hides from the caller in every row cannot be found out by filters either.
        .take_while(|_| !wanted.filters_by(|attribute| shown.hides(attribute)));
    let page = query::page(
        &wanted,
        api.config().max_page,
        |view| view.row.uuid(),
        marker,
        candidates,
    );
    let ends = page
        .rows
        .first()
        .zip(page.rows.last())
        .map(|(first, last)| (first.row.uuid(), last.row.uuid()));
    let links = query::page_links(
        &format!("{}{}", base_url(headers), uri.path()),
        &pairs,
        wanted.limit.is_some(),
        wanted.page_reverse,
        page.full,
        ends,
    );
    let list = ListJson {
        views: &page.rows,
        shown: &shown,
    };
    respond(
        StatusCode::OK,
        &Paged {
            list,
            plural: R::PLURAL,
            links: &links,
        },
    )
}

/// `GET /v2.0/{plural}/{id}`
pub(crate) async fn show<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let pairs = pairs(&uri)?;
    query::check_show(R::ATTRIBUTES, &pairs)?;
    let fields = Fields::from_query(R::ATTRIBUTES, &pairs);
    let view = seen::<R>(&api, &who, &id)?;
    one(StatusCode::OK, &view, &Shown::new(&api, &who, fields))
}

/// The object of this name in a request's body.
///
/// # Errors
/// 400 when there is none, as Neutron says it.
pub(super) fn named(body: &mut Map<String, Value>, name: &str) -> Result<Map<String, Value>, ApiError> {
    let value = body
        .remove(name)
        .ok_or_else(|| ApiError::bad_request(format!("Unable to find '{name}' in request body")))?;
    object_of(value, name)
}

pub(super) fn object_of(value: Value, name: &str) -> Result<Map<String, Value>, ApiError> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(ApiError::bad_request(format!(
            "Object '{name}' contains invalid data"
        ))),
    }
}

/// Answers with one row under its singular name.
pub(super) fn one<R: Resource>(
    status: StatusCode,
    view: &View<R>,
    shown: &Shown<'_, R>,
) -> Result<Response, ApiError> {
    respond(status, &Wrapped(R::SINGULAR, ShownJson { view, shown }))
}

/// An id in a path; whatever is not a UUID names nothing.
pub(super) fn uuid<R: Resource>(id: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(id).map_err(|_| query::not_found(R::SINGULAR, id))
}

/// `PUT /v2.0/{plural}/{id}`
pub(crate) async fn update<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    let uuid = uuid::<R>(&id)?;
    let if_match = query::if_match(headers.get(header::IF_MATCH))?;
    let object = named(&mut body, R::SINGULAR)?;
    let before = match view::<R>(&api, &who.caller, &id) {
        Ok(before) => before,
        // What no row could be changed to is said first, as in Neutron; it tells nothing of this one.
        Err(unseen) => {
            Given::check(R::ATTRIBUTES, Verb::Put, object)?;
            return Err(unseen);
        }
    };
    let update = R::update_from(authorize::checked_change(&api, &who, &before, object)?)?;
    let row = api
        .region()
        .update::<R>(&who.caller, Id::from_uuid(uuid), update, if_match)
        .await?;
    let granted = settled(&api, &headers, std::slice::from_ref(&row)).await;
    let view = View::new(row, &api.region().snapshot(), &who.caller, api.region().config());
    let mut response = one(StatusCode::OK, &view, &Shown::all(&api, &who))?;
    granted.inspect(|wait| wait.granted(&mut response));
    Ok(response)
}

/// Waits for the hosts of committed rows when the client would like that; the wish, when it was granted.
pub(super) async fn settled<R: Resource>(
    api: &ApiState,
    headers: &HeaderMap,
    rows: &[Arc<R>],
) -> Option<Wait> {
    let wait = Wait::asked(headers)?;
    let awaited = rows.iter().filter_map(|row| row.awaited()).collect();
    wait.settle(api, awaited).await.then_some(wait)
}

/// `DELETE /v2.0/{plural}/{id}`
pub(crate) async fn delete<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let uuid = uuid::<R>(&id)?;
    if headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length != "0")
    {
        return Err(ApiError::bad_request("Request body is not supported in DELETE."));
    }
    let if_match = query::if_match(headers.get(header::IF_MATCH))?;
    let before = view::<R>(&api, &who.caller, &id)?;
    authorize::authorize(&api, &who, &format!("delete_{}", R::RULE), &before)?;
    api.region()
        .delete::<R>(&who.caller, Id::from_uuid(uuid), if_match)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `OPTIONS /v2.0/{plural}`: the declaration, for programs that write forms and documents.
pub(crate) async fn options<R: Resource>() -> Result<Response, ApiError> {
    let attributes: Vec<Value> = R::ATTRIBUTES
        .iter()
        .map(|attribute| {
            json!({
                "name": attribute.name,
                "type": attribute.kind.name(),
                "allow_post": attribute.post,
                "allow_put": attribute.put,
                "required": attribute.required,
                "is_filter": attribute.filter,
                "is_sort_key": attribute.sort,
                "is_visible": attribute.visible,
            })
        })
        .collect();
    let mut response = respond(
        StatusCode::OK,
        &json!({"name": R::SINGULAR, "attributes": attributes}),
    )?;
    response.headers_mut().insert(
        header::ALLOW,
        HeaderValue::from_static("GET, HEAD, OPTIONS, POST"),
    );
    Ok(response)
}

/// Refuses text in a path that is too long to be a tag, or that databases do not keep.
pub(super) fn checked_tag(tag: &str) -> Result<(), ApiError> {
    if tag.contains('\0') {
        return Err(ApiError::invalid_input(&format!(
            "'{}' contains a NUL character",
            parse::cut(tag)
        )));
    }
    if tag.chars().count() > super::MAX_TAG {
        return Err(ApiError::invalid_input(&format!(
            "'{}' exceeds maximum length of {}",
            parse::cut(tag),
            super::MAX_TAG
        )));
    }
    Ok(())
}
