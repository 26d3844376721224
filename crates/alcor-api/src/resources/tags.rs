//! `/v2.0/{plural}/{id}/tags`: the tags of any resource.

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use alcor_model::Id;
use alcor_region::RegionError;

use super::{
    Resource,
    handlers::{checked_tag, respond, uuid, view},
};
use crate::{
    auth::Who, authorize::authorize_tags, body::JsonBody, error::ApiError, parse, query, state::ApiState,
};

/// Most tags of one resource (Neutron's limit).
pub const MAX_TAGS: usize = 50;

/// How often a change of one tag is tried again when somebody else changed the resource at the same time.
const MAX_RETRIES: usize = 8;

fn no_such_tag(tag: &str) -> ApiError {
    let message = format!("Tag {} could not be found.", parse::cut(tag));
    ApiError::new(StatusCode::NOT_FOUND, "TagNotFound", message)
}

/// Changes the list of tags as `change` says, on the newest state; `None` means that nothing is to be done.
async fn change<R: Resource>(
    api: &ApiState,
    (who, verb): (&Who, &str),
    id: &str,
    if_match: Option<u64>,
    change: impl Fn(&[String]) -> Result<Option<Vec<String>>, ApiError>,
) -> Result<Vec<String>, ApiError> {
    let uuid = uuid::<R>(id)?;
    for attempt in 0..=MAX_RETRIES {
        let view = view::<R>(api, &who.caller, id)?;
        authorize_tags(api, who, verb, &view)?;
        let standard = view.row.standard();
        let Some(mut tags) = change(&standard.tags)? else {
            return Ok(standard.tags.clone());
        };
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > MAX_TAGS {
            return Err(ApiError::bad_parameter(
                R::PLURAL,
                &format!("The number of tags exceed the per-resource limit of {MAX_TAGS}"),
            ));
        }
        let expected = if_match.unwrap_or(standard.revision_number);
        match api
            .region()
            .update::<R>(
                &who.caller,
                Id::from_uuid(uuid),
                R::update_of_tags(tags),
                Some(expected),
            )
            .await
        {
            Ok(row) => return Ok(row.standard().tags.clone()),
            Err(RegionError::RevisionNumberConstraintFailed { .. })
                if if_match.is_none() && attempt < MAX_RETRIES => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::unavailable(
        "The resource changes too often; try again.",
        1,
    ))
}

/// `GET /tags`
pub(crate) async fn list<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let view = view::<R>(&api, &who.caller, &id)?;
    authorize_tags(&api, &who, "get", &view)?;
    respond(StatusCode::OK, &json!({"tags": view.row.standard().tags}))
}

/// `PUT /tags`: replaces all.
pub(crate) async fn replace<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    let if_match = query::if_match(headers.get(header::IF_MATCH))?;
    let tags = tags_of(&mut body)?;
    change::<R>(&api, (&who, "update"), &id, if_match, |_| Ok(Some(tags.clone()))).await?;
    respond(StatusCode::OK, &json!({"tags": tags}))
}

/// `POST /tags`: adds to those that are there. The answer is what was given, as Neutron's.
pub(crate) async fn add_all<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    let if_match = query::if_match(headers.get(header::IF_MATCH))?;
    let tags = tags_of(&mut body)?;
    let add = |have: &[String]| {
        let new = tags.iter().any(|tag| !have.contains(tag));
        Ok(new.then(|| have.iter().chain(&tags).cloned().collect()))
    };
    change::<R>(&api, (&who, "create"), &id, if_match, add).await?;
    respond(StatusCode::OK, &json!({"tags": tags}))
}

/// The tags of a body.
fn tags_of(body: &mut Map<String, Value>) -> Result<Vec<String>, ApiError> {
    match body.remove("tags") {
        Some(list) => {
            parse::unique_texts(&list, super::MAX_TAG).map_err(|reason| ApiError::invalid_input(&reason))
        }
        None => Err(ApiError::invalid_input("Invalid tags body")),
    }
}

/// `DELETE /tags`: removes all.
pub(crate) async fn clear<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let if_match = query::if_match(headers.get(header::IF_MATCH))?;
    change::<R>(&api, (&who, "delete"), &id, if_match, |tags| {
        Ok((!tags.is_empty()).then(Vec::new))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /tags/{tag}`: 204 when it is there.
pub(crate) async fn show<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let view = view::<R>(&api, &who.caller, &id)?;
    authorize_tags(&api, &who, "get", &view)?;
    if view.row.standard().tags.contains(&tag) {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(no_such_tag(&tag))
    }
}

/// `PUT /tags/{tag}`: adds one.
pub(crate) async fn add<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path((id, tag)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    checked_tag(&tag)?;
    let if_match = query::if_match(headers.get(header::IF_MATCH))?;
    let add = |tags: &[String]| {
        Ok((!tags.contains(&tag)).then(|| tags.iter().cloned().chain([tag.clone()]).collect()))
    };
    change::<R>(&api, (&who, "update"), &id, if_match, add).await?;
    Ok(StatusCode::CREATED.into_response())
}

/// `DELETE /tags/{tag}`: removes one.
pub(crate) async fn remove<R: Resource>(
    State(api): State<ApiState>,
    who: Who,
    Path((id, tag)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let if_match = query::if_match(headers.get(header::IF_MATCH))?;
    let remove = |tags: &[String]| {
        if !tags.contains(&tag) {
            return Err(no_such_tag(&tag));
        }
        Ok(Some(tags.iter().filter(|have| **have != tag).cloned().collect()))
    };
    change::<R>(&api, (&who, "delete"), &id, if_match, remove).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
