//! `POST /v2.0/{plural}`: one resource under its singular name, or many, all or nothing, under the plural; and once only
//! when the client names its request with an `Idempotency-Key`.

use std::sync::Arc;

use alcor_model::Id;
use alcor_region::{
    RegionConfig, RegionState,
    command::Caller,
    once::{Once, OnceError},
};
use alcor_store::Snapshot;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Resource, ShownJson, View,
    handlers::{ListJson, Wrapped, internal, object_of, respond, respond_with, settled},
};
use crate::{
    auth::Who,
    authorize::{Shown, checked_creation},
    body::JsonBody,
    error::ApiError,
    parse,
    state::ApiState,
    wait::Wait,
};

/// The header with the client's name of its request.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of a reply that was kept.
const REPEATED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key in characters.
const MAX_KEY: usize = 255;
/// Digests of requests are UUIDs in this namespace: stable across restarts and versions.
const REQUESTS: Uuid = Uuid::from_u128(0x9d1c_0f3e_0f5b_4f6e_9a53_6a1f_4c2d_7be1);

/// What the body asks for.
enum Wanted<R: Resource> {
    One(R::Create),
    Many(Vec<R::Create>),
}

fn command<R: Resource>(
    api: &ApiState,
    who: &Who,
    state: &RegionState,
    value: Value,
) -> Result<R::Create, ApiError> {
    let object = object_of(value, R::SINGULAR)?;
    R::create_from(checked_creation::<R>(api, who, state, object)?)
}

fn wanted<R: Resource>(
    api: &ApiState,
    who: &Who,
    mut body: Map<String, Value>,
) -> Result<Wanted<R>, ApiError> {
    let max = api.config().max_bulk;
    let state = &api.region().snapshot().state;
    if let Some(value) = body.remove(R::SINGULAR) {
        return command::<R>(api, who, state, value).map(Wanted::One);
    }
    let values = match body.remove(R::PLURAL) {
        Some(Value::Array(values)) if !values.is_empty() => values,
        Some(_) => return Err(ApiError::bad_request("Resources required")),
        None => {
            return Err(ApiError::bad_request(format!(
                "Unable to find '{}' in request body",
                R::SINGULAR
            )));
        }
    };
    if values.len() > max {
        return Err(ApiError::bad_request(format!(
            "{} resources in one request are more than the limit of {max}",
            values.len()
        )));
    }
    values
        .into_iter()
        .map(|value| command::<R>(api, who, state, unwrapped(value, R::SINGULAR)))
        .collect::<Result<_, _>>()
        .map(Wanted::Many)
}

/// An element of many, which clients may wrap as they wrap one: `{"network": {..}}`.
fn unwrapped(value: Value, singular: &str) -> Value {
    match value {
        Value::Object(mut object)
            if object.len() == 1 && object.get(singular).is_some_and(Value::is_object) =>
        {
            object.remove(singular).unwrap_or_default()
        }
        value => value,
    }
}

/// What was made, as the reply has it.
struct Made<'a, R: Resource> {
    views: Vec<View<R>>,
    one: bool,
    shown: &'a Shown<'a, R>,
}

impl<'a, R: Resource> Made<'a, R> {
    fn of(
        rows: Vec<Arc<R>>,
        one: bool,
        shown: &'a Shown<'a, R>,
        snapshot: &Arc<Snapshot<RegionState>>,
        caller: &Arc<Caller>,
        config: &Arc<RegionConfig>,
    ) -> Self {
        let views = rows
            .into_iter()
            .map(|row| View::new(row, snapshot, caller, config))
            .collect();
        Self { views, one, shown }
    }
}

impl<R: Resource> Serialize for Made<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = self.shown;
        match self.views.first() {
            Some(view) if self.one => Wrapped(R::SINGULAR, ShownJson { view, shown }).serialize(serializer),
            _ => {
                let list = ListJson {
                    views: &self.views,
                    shown,
                };
                Wrapped(R::PLURAL, list).serialize(serializer)
            }
        }
    }
}

/// The handler.
pub(crate) async fn create<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let asked = asked::<R>(&headers, &who, &body)?;
    let (commands, one) = match wanted::<R>(&api, &who, body)? {
        Wanted::One(command) => (vec![command], true),
        Wanted::Many(commands) => (commands, false),
    };
    let Some(asked) = asked else {
        let rows = api.region().create::<R>(&who.caller, commands).await?;
        let granted = settled(&api, &headers, &rows).await;
        let snapshot = api.region().snapshot();
        let shown = Shown::all(&api, &who);
        let mut response = respond(
            StatusCode::CREATED,
            &Made::of(rows, one, &shown, &snapshot, &who.caller, api.region().config()),
        )?;
        granted.inspect(|wait| wait.granted(&mut response));
        return Ok(response);
    };
    let (viewing, viewer) = (api.clone(), who.clone());
    let render = move |rows, snapshot: Arc<Snapshot<RegionState>>| {
        let shown = Shown::all(&viewing, &viewer);
        let made = Made::of(
            rows,
            one,
            &shown,
            &snapshot,
            &viewer.caller,
            viewing.region().config(),
        );
        let body = serde_json::to_string(&made).map_err(|error| OnceError::NoReply(error.to_string()))?;
        Ok((StatusCode::CREATED.as_u16(), body))
    };
    let reply = api
        .region()
        .create_once::<R, _>(&who.caller, commands, asked, render)
        .await?;
    let status = StatusCode::from_u16(reply.status).map_err(|error| internal(&error))?;
    let rows = kept_rows::<R>(&api, &headers, &reply.body);
    let granted = settled(&api, &headers, &rows).await;
    let mut response = respond_with(status, reply.body.into_bytes());
    let repeated = HeaderValue::from_static(if reply.repeated { "true" } else { "false" });
    response.headers_mut().insert(REPEATED, repeated);
    granted.inspect(|wait| wait.granted(&mut response));
    Ok(response)
}

/// The rows that a kept reply is about, when its client would like to wait for them. The reply itself stays that of the
/// commit, so that each repeat gets the same.
fn kept_rows<R: Resource>(api: &ApiState, headers: &HeaderMap, body: &str) -> Vec<Arc<R>> {
    if Wait::asked(headers).is_none() {
        return Vec::new();
    }
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let many = body[R::PLURAL].as_array().into_iter().flatten();
    let snapshot = api.region().snapshot();
    many.chain(body.get(R::SINGULAR))
        .filter_map(|row| Uuid::parse_str(row["id"].as_str()?).ok())
        .filter_map(|id| R::table(&snapshot.state).get(&Id::from_uuid(id)).cloned())
        .collect()
}

/// What makes this request the same as another one; nothing when the client gave it no key.
fn asked<R: Resource>(
    headers: &HeaderMap,
    who: &Who,
    body: &Map<String, Value>,
) -> Result<Option<Once>, ApiError> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let text = key.to_str().unwrap_or_default();
    if keys.next().is_some()
        || text.is_empty()
        || text.len() > MAX_KEY
        || !text.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(ApiError::bad_parameter(
            "idempotency-key",
            &format!("The key must be given once and have 1 to {MAX_KEY} characters of ASCII without spaces"),
        ));
    }
    // What is shown depends on who asks, so another kind of caller is another request.
    let what =
        serde_json::to_vec(&(R::PATH, &who.credentials.roles, body)).map_err(|error| internal(&error))?;
    Ok(Some(Once {
        project_id: who.caller.project_id.clone(),
        key: text.to_owned(),
        request: Uuid::new_v5(&REQUESTS, &what).to_string(),
    }))
}

/// Refuses a key where replies are not kept: who sends one relies on it.
pub(crate) async fn refuse_key(request: Request, next: Next) -> Result<Response, ApiError> {
    if let Some(key) = request.headers().get(KEY) {
        return Err(ApiError::bad_parameter(
            "idempotency-key",
            &format!(
                "The key {} was given, but replies of this request are not kept",
                parse::cut(key.to_str().unwrap_or_default())
            ),
        ));
    }
    Ok(next.run(request).await)
}
