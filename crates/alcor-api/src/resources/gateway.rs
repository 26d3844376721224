//! `/alcor/v1/gateways`: the gateways, for operators. They register themselves; here they are drained before maintenance, and
//! forgotten when they are gone for good. Whether one lives is asked of the [`crate::HostDirectory`]; nothing of that is
//! stored.

use std::sync::Arc;

use alcor_model::{
    GatewayNode,
    effective::{GatewayState, HostState},
};
use alcor_region::gateway::{self, GatewayUpdate};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get, put},
};
use futures::future::join_all;
use http::{HeaderMap, Method, StatusCode, Uri};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    MAX_TEXT,
    plain::{self, Collection},
};
use crate::{
    admin::RULE,
    attributes::{Attribute, Kind},
    auth::Who,
    authorize::authorize_on,
    body::JsonBody,
    error::ApiError,
    field::Field,
    openapi::Operation,
    query::{self, Fields},
    router::{Route, route},
    state::ApiState,
};

const PATH: &str = "/alcor/v1/gateways";
const MEMBER: &str = "/alcor/v1/gateways/{id}";
const STATE: &str = "/alcor/v1/gateways/{id}/state";

/// A gateway with what the NCM says of it.
#[derive(Clone)]
struct GatewayView {
    row: Arc<GatewayNode>,
    said: Option<HostState>,
}

type V = GatewayView;

impl GatewayView {
    fn id(&self) -> Uuid {
        self.row.id.uuid()
    }

    /// Whether hosts send by it.
    fn in_use(&self) -> bool {
        let usage = self.said.as_ref().and_then(|said| said.gateway.as_ref());
        usage.is_some_and(|usage| usage.in_use)
    }

    fn alive(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.summary.alive)
    }

    fn last_seen(&self) -> Option<Timestamp> {
        self.said.as_ref().and_then(|said| said.summary.last_seen_at)
    }
}

const GATEWAYS: Collection<V> = Collection {
    singular: "gateway",
    plural: "gateways",
    table: &[
        Attribute::new("id", Kind::Uuid, |v: &V| Field::Uuid(v.id())).listed(),
        Attribute::new("name", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.name)).listed(),
        Attribute::new("set", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.set)).listed(),
        Attribute::new("tunnel_ip", Kind::IpOrNull, |v: &V| Field::Ip(v.row.tunnel_ip)).listed(),
        Attribute::new("draining", Kind::Bool, |v: &V| Field::Bool(v.row.draining))
            .changeable()
            .listed(),
        Attribute::new("alive", Kind::Bool, |v: &V| Field::Bool(v.alive())).listed(),
        Attribute::new("in_use", Kind::Bool, |v: &V| Field::Bool(v.in_use())).listed(),
        Attribute::new("created_at", Kind::Time, |v: &V| Field::Time(v.row.created_at)).sortable(),
        Attribute::new("last_seen_at", Kind::TextOrNull(MAX_TEXT), |v: &V| {
            v.last_seen().map_or(Field::Null, Field::Time)
        }),
    ],
    id: GatewayView::id,
};

/// The routes.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, PATH, get(list)).doc(|| plain::doc::list(&GATEWAYS, "Lists the gateways")),
        route(Method::GET, MEMBER, get(show)).doc(|| plain::doc::show(&GATEWAYS, "Shows a gateway")),
        route(Method::PUT, MEMBER, put(update))
            .doc(|| plain::doc::update(&GATEWAYS, "Drains a gateway, or takes it into use again")),
        route(Method::DELETE, MEMBER, delete(remove))
            .doc(|| Operation::new("Forgets a gateway that is down").answers_empty(204)),
        route(Method::GET, STATE, get(state)).doc(doc::state),
    ]
}

/// The gateway of an id as a client wrote it.
async fn view(api: &ApiState, who: &Who, id: &str) -> Result<V, ApiError> {
    authorize_on(api, who, RULE, &())?;
    let snapshot = api.region().snapshot();
    let row = id
        .parse()
        .ok()
        .and_then(|id| snapshot.state.gateway_nodes().get(&id))
        .ok_or_else(|| query::not_found(GATEWAYS.singular, id))?;
    Ok(with_word(api, Arc::clone(row)).await)
}

async fn with_word(api: &ApiState, row: Arc<GatewayNode>) -> V {
    let said = api.hosts().host(&row.name).await;
    GatewayView { row, said }
}

async fn list(
    State(api): State<ApiState>,
    who: Who,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    authorize_on(&api, &who, RULE, &())?;
    let snapshot = api.region().snapshot();
    let rows = snapshot.state.gateway_nodes().iter().cloned();
    // All at once: an NCM that is away is waited for once.
    let views = join_all(rows.map(|row| with_word(&api, row))).await;
    GATEWAYS.answer_list(&api, &headers, &uri, views)
}

async fn show(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let fields = GATEWAYS.fields(&uri)?;
    GATEWAYS.answer_one(StatusCode::OK, &view(&api, &who, &id).await?, &fields)
}

async fn update(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    let mut given = GATEWAYS.given(&mut body)?;
    let mut view = view(&api, &who, &id).await?;
    let update = GatewayUpdate {
        draining: given.get("draining"),
    };
    let id = view.row.id;
    view.row = api
        .region()
        .write(move |tx, _| gateway::update(tx, id, &update))
        .await?;
    GATEWAYS.answer_one(StatusCode::OK, &view, &Fields::all(GATEWAYS.table))
}

async fn remove(State(api): State<ApiState>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    let view = view(&api, &who, &id).await?;
    // One that lives would register again, and hosts use it meanwhile.
    if view.alive() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "GatewayInUse",
            format!(
                "Gateway {} is alive; stop its process before it is deleted.",
                view.row.name
            ),
        ));
    }
    let id = view.row.id;
    api.region().write(move |tx, _| gateway::delete(tx, id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn state(State(api): State<ApiState>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    let view = view(&api, &who, &id).await?;
    Ok(Json(GatewayState::new(&view.row, view.said)).into_response())
}

mod doc {
    use serde_json::json;

    use crate::{
        admin::doc::{neighbour, number, text},
        openapi::{
            Operation,
            schema::{ip, list, nullable, object, reference, uuid},
        },
    };

    pub(super) fn state() -> Operation {
        let boolean = || json!({"type": "boolean"});
        let time = || nullable(json!({"type": "string", "format": "date-time"}));
        let members = [
            ("id", uuid()),
            ("name", text()),
            ("set", text()),
            ("tunnel_ip", ip()),
            ("draining", boolean()),
            ("alive", boolean()),
            ("in_use", boolean()),
            ("reason", nullable(text())),
            ("complete", number()),
            ("unreachable", list(ip())),
            ("last_seen_at", time()),
            ("started_at", time()),
            ("dataplane", nullable(text())),
            ("pending", number()),
            ("errors", number()),
            ("queued", number()),
            ("resyncs", number()),
            ("networks", list(neighbour())),
            ("stale", boolean()),
        ];
        Operation::new("Shows what a gateway really has")
            .component("GatewayState", object(members))
            .answers(200, reference("GatewayState"))
    }
}
