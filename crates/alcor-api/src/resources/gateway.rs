//! `/alcor/v1/gateways`: the gateways, for operators. They register themselves; here they are drained before maintenance, and
//! forgotten when they are gone for good. Whether one lives, and how much goes through it, is asked of the
//! [`crate::HostDirectory`]; nothing of that is stored. `/alcor/v1/gateway-sets`: the sets that they form.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use alcor_model::{
    GatewayNode,
    effective::{GatewayLine, GatewayState, LoadLine},
};
use alcor_region::gateway::{self, GatewayUpdate};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get, put},
};
use http::{HeaderMap, Method, StatusCode, Uri};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
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
const SETS: &str = "/alcor/v1/gateway-sets";

/// A gateway with what the NCM says of it.
#[derive(Clone)]
struct GatewayView {
    row: Arc<GatewayNode>,
    said: Option<GatewayLine>,
    /// The NCM does not answer.
    stale: bool,
}

type V = GatewayView;

impl GatewayView {
    fn id(&self) -> Uuid {
        self.row.id.uuid()
    }

    /// Whether hosts send by it.
    fn in_use(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.in_use)
    }

    fn alive(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.alive)
    }

    fn last_seen(&self) -> Option<Timestamp> {
        self.said.as_ref().and_then(|said| said.last_seen_at)
    }

    /// A number of its load; null: not known.
    fn load(&self, number: impl Fn(&LoadLine) -> Option<u64>) -> Field<'_> {
        let load = self.said.as_ref().and_then(|said| said.load.as_ref());
        load.and_then(number).map_or(Field::Null, Field::Int)
    }
}

/// What a count may be.
const COUNT: Kind = Kind::IntOrNull(0, u64::MAX);

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
        Attribute::new("stale", Kind::Bool, |v: &V| Field::Bool(v.stale)),
        Attribute::new("packets_per_s", COUNT, |v: &V| v.load(|load| load.packets_per_s)).sortable(),
        Attribute::new("bytes_per_s", COUNT, |v: &V| v.load(|load| load.bytes_per_s)).sortable(),
        Attribute::new("dropped", COUNT, |v: &V| v.load(|load| Some(load.dropped))).sortable(),
        Attribute::new("drops_per_s", COUNT, |v: &V| v.load(|load| load.drops_per_s)).sortable(),
        Attribute::new("nat_refused", COUNT, |v: &V| {
            v.load(|load| Some(load.nat_refused))
        })
        .sortable(),
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
        route(Method::GET, SETS, get(sets)).doc(doc::sets),
    ]
}

/// The row of an id as a client wrote it.
fn row(api: &ApiState, who: &Who, id: &str) -> Result<Arc<GatewayNode>, ApiError> {
    authorize_on(api, who, RULE, &())?;
    let snapshot = api.region().snapshot();
    let row = id.parse().ok();
    let row = row.and_then(|id| snapshot.state.gateway_nodes().get(&id));
    row.cloned()
        .ok_or_else(|| query::not_found(GATEWAYS.singular, id))
}

async fn view(api: &ApiState, who: &Who, id: &str) -> Result<V, ApiError> {
    let row = row(api, who, id)?;
    Ok(with_words(api, [row]).await.remove(0))
}

/// Gateways with what the NCM says of them.
async fn with_words(api: &ApiState, rows: impl IntoIterator<Item = Arc<GatewayNode>>) -> Vec<V> {
    let said = api.hosts().gateways().await;
    let stale = said.is_none();
    let said = said.into_iter().flatten();
    let mut said: HashMap<String, GatewayLine> = said.map(|line| (line.name.clone(), line)).collect();
    let view = |row: Arc<GatewayNode>| GatewayView {
        said: said.remove(&row.name),
        row,
        stale,
    };
    rows.into_iter().map(view).collect()
}

/// All gateways with what the NCM says of them.
async fn all(api: &ApiState) -> Vec<V> {
    let snapshot = api.region().snapshot();
    with_words(api, snapshot.state.gateway_nodes().iter().cloned()).await
}

async fn list(
    State(api): State<ApiState>,
    who: Who,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    authorize_on(&api, &who, RULE, &())?;
    GATEWAYS.answer_list(&api, &headers, &uri, all(&api).await)
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
    let row = row(&api, &who, &id)?;
    let said = api.hosts().host(&row.name).await;
    Ok(Json(GatewayState::new(&row, said)).into_response())
}

/// A set, by its members.
#[derive(Serialize)]
struct GatewaySet<'a> {
    name: &'a str,
    /// Members that hosts send by; null where the NCM does not answer.
    in_use: Option<usize>,
    /// Networks that the set forwards for.
    networks: Option<usize>,
    members: Vec<Member<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    id: Uuid,
    name: &'a str,
    draining: bool,
    alive: Option<bool>,
    in_use: Option<bool>,
}

impl<'a> GatewaySet<'a> {
    fn new(name: &'a str, members: &[&'a V]) -> Self {
        let is_known = members.iter().all(|view| !view.stale);
        let known = |is: bool| is_known.then_some(is);
        let member = |view: &&'a V| Member {
            id: view.id(),
            name: &view.row.name,
            draining: view.row.draining,
            alive: known(view.alive()),
            in_use: known(view.in_use()),
        };
        let in_use = members.iter().filter(|view| view.in_use()).count();
        // Each member has all networks of the set, and perhaps some that it is giving up.
        let networks = members.iter().filter_map(|view| view.said.as_ref());
        Self {
            name,
            in_use: is_known.then_some(in_use),
            networks: networks.map(|said| said.networks).min(),
            members: members.iter().map(member).collect(),
        }
    }
}

async fn sets(State(api): State<ApiState>, who: Who) -> Result<Response, ApiError> {
    authorize_on(&api, &who, RULE, &())?;
    let views = all(&api).await;
    let mut sets: BTreeMap<&str, Vec<&V>> = BTreeMap::new();
    for view in &views {
        sets.entry(&view.row.set).or_default().push(view);
    }
    for members in sets.values_mut() {
        members.sort_unstable_by_key(|view| &view.row.name);
    }
    let sets: Vec<GatewaySet<'_>> = sets
        .iter()
        .map(|(name, members)| GatewaySet::new(name, members))
        .collect();
    Ok(Json(json!({"gateway_sets": sets})).into_response())
}

mod doc {
    use serde_json::{Value, json};

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
            ("load", nullable(reference("GatewayLoad"))),
        ];
        Operation::new("Shows what a gateway really has")
            .component("GatewayLoad", load())
            .component("GatewayState", object(members))
            .answers(200, reference("GatewayState"))
    }

    fn load() -> Value {
        let rate = || nullable(number());
        let time = || json!({"type": "string", "format": "date-time"});
        let way = object([
            (
                "way",
                json!({"type": "string", "enum": ["east_west", "north", "south"]}),
            ),
            ("packets", number()),
            ("bytes", number()),
            ("packets_per_s", rate()),
            ("bytes_per_s", rate()),
        ]);
        let dropped = object([
            ("reason", text()),
            ("packets", number()),
            ("packets_per_s", rate()),
        ]);
        let router = object([
            ("router_id", uuid()),
            ("connections", number()),
            ("limit", number()),
            ("refused", number()),
        ]);
        let nat = object([
            ("routers", number()),
            ("connections", number()),
            ("refused", number()),
            ("busiest", list(router)),
        ]);
        let device = object([
            ("device", text()),
            (
                "mode",
                json!({"type": "string", "enum": ["native", "generic", "unknown"]}),
            ),
        ]);
        object([
            ("said_at", time()),
            ("heard_since", time()),
            ("interval_ms", nullable(number())),
            ("passed", list(way)),
            ("drops", list(dropped)),
            ("replies", number()),
            ("probes", number()),
            ("nat", nat),
            ("neighbours", number()),
            ("neighbours_room", nullable(number())),
            ("devices", list(device)),
            ("layout", nullable(number())),
        ])
    }

    pub(super) fn sets() -> Operation {
        let boolean = || json!({"type": "boolean"});
        let member = object([
            ("id", uuid()),
            ("name", text()),
            ("draining", boolean()),
            ("alive", nullable(boolean())),
            ("in_use", nullable(boolean())),
        ]);
        let set = object([
            ("name", text()),
            ("in_use", nullable(number())),
            ("networks", nullable(number())),
            ("members", list(member)),
        ]);
        Operation::new("Lists the sets of gateways")
            .component("GatewaySet", set)
            .answers(200, object([("gateway_sets", list(reference("GatewaySet")))]))
    }
}
