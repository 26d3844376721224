//! `/v2.0/agents`: Alcor's hosts, as clients of Neutron know them. A host has one agent, which does all that Neutron's
//! several do. Whether it lives is asked of the [`crate::HostDirectory`]; nothing of that is stored.

use std::{collections::BTreeMap, sync::Arc};

use alcor_model::{Host, effective::HostSummary};
use alcor_region::host::{self, HostUpdate};
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get, put},
};
use http::{HeaderMap, Method, StatusCode, Uri};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    MAX_TEXT,
    plain::{self, Collection},
};
use crate::{
    attributes::{Attribute, Kind},
    auth::Who,
    authorize::authorize_on,
    body::JsonBody,
    error::ApiError,
    field::Field,
    openapi::Operation,
    parse::Parsed,
    query::{self, Fields},
    router::{Route, route},
    state::ApiState,
};

const PATH: &str = "/v2.0/agents";
const MEMBER: &str = "/v2.0/agents/{id}";

/// The type of all agents: what runs on a host is none of Neutron's own, and clients that look for one of those to do
/// something with it must not find it.
const AGENT_TYPE: &str = "Alcor agent";
/// The program.
const BINARY: &str = "alcor-agent";
/// There is no message queue; agents are not called by a topic.
const TOPIC: &str = "N/A";

/// A host with what is known of its agent.
#[derive(Clone)]
struct AgentView {
    host: Arc<Host>,
    said: Option<HostSummary>,
}

type V = AgentView;

impl AgentView {
    fn id(&self) -> Uuid {
        Host::agent_id(&self.host.name)
    }

    fn alive(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.alive)
    }

    /// A controller that has just started knows no more than that the host was there when it registered.
    fn time(&self, of: impl Fn(&HostSummary) -> Option<Timestamp>) -> Field<'static> {
        let time = self.said.as_ref().and_then(of).unwrap_or(self.host.created_at);
        Field::Json(json!(shown_time(time)))
    }

    fn configurations(&self) -> Value {
        let said = self.said.as_ref();
        json!({
            "tunneling_ip": self.host.tunnel_ip,
            "tunnel_types": ["vxlan"],
            "dataplane": said.and_then(|said| said.dataplane.as_deref()),
            "devices": said.map_or(0, |said| said.ports),
        })
    }
}

/// As Neutron writes the times of agents, and of nothing else: without a zone, in UTC.
fn shown_time(time: Timestamp) -> String {
    let time = time.to_zoned(TimeZone::UTC);
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Such a time has so many characters.
const TIME: Kind = Kind::Text(19);

const AGENTS: Collection<V> = Collection {
    singular: "agent",
    plural: "agents",
    table: &[
        Attribute::new("id", Kind::Uuid, |v: &V| Field::Uuid(v.id())).listed(),
        Attribute::new("agent_type", Kind::Text(MAX_TEXT), |_: &V| {
            Field::Text(AGENT_TYPE)
        })
        .listed(),
        Attribute::new("binary", Kind::Text(MAX_TEXT), |_: &V| Field::Text(BINARY)).listed(),
        Attribute::new("topic", Kind::Text(MAX_TEXT), |_: &V| Field::Text(TOPIC)).listed(),
        Attribute::new("host", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.host.name)).listed(),
        Attribute::new("admin_state_up", Kind::Bool, |v: &V| {
            Field::Bool(v.host.admin_state_up)
        })
        .changeable()
        .listed(),
        Attribute::new("created_at", TIME, |v: &V| v.time(|_| None)).sortable(),
        Attribute::new("started_at", TIME, |v: &V| v.time(|said| said.started_at)).sortable(),
        Attribute::new("heartbeat_timestamp", TIME, |v: &V| {
            v.time(|said| said.last_seen_at)
        })
        .sortable(),
        Attribute::new("alive", Kind::Bool, |v: &V| Field::Bool(v.alive())).listed(),
        Attribute::new("configurations", Kind::ShownObject, |v: &V| {
            Field::Json(v.configurations())
        }),
        Attribute::new("description", Kind::TextOrNull(MAX_TEXT), |v: &V| {
            Field::Text(&v.host.description)
        })
        .changeable()
        .listed(),
        Attribute::new("availability_zone", Kind::Text(MAX_TEXT), |v: &V| {
            Field::Text(&v.host.availability_zone)
        })
        .listed(),
    ],
    id: AgentView::id,
};

/// The routes.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, PATH, get(list)).doc(|| plain::doc::list(&AGENTS, "Lists the agents")),
        route(Method::GET, MEMBER, get(show)).doc(|| plain::doc::show(&AGENTS, "Shows an agent")),
        route(Method::PUT, MEMBER, put(update)).doc(|| plain::doc::update(&AGENTS, "Changes an agent")),
        route(Method::DELETE, MEMBER, delete(remove))
            .doc(|| Operation::new("Forgets an agent that is down").answers_empty(204)),
    ]
}

/// The agent of an id as a client wrote it, for who may see agents: to others none is there.
async fn view(api: &ApiState, who: &Who, id: &str) -> Result<V, ApiError> {
    let not_found = || query::not_found(AGENTS.singular, id);
    authorize_on(api, who, "get_agent", &()).map_err(|_| not_found())?;
    let snapshot = api.region().snapshot();
    let host = Uuid::parse_str(id)
        .ok()
        .and_then(|id| snapshot.state.host_of_agent(id))
        .ok_or_else(not_found)?;
    let said = api.hosts().host(&host.name).await;
    Ok(AgentView {
        host: Arc::clone(host),
        said: said.map(|said| said.summary),
    })
}

async fn list(
    State(api): State<ApiState>,
    who: Who,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let mut views = Vec::new();
    if authorize_on(&api, &who, "get_agent", &()).is_ok() {
        let said = api.hosts().hosts().await;
        let mut said: BTreeMap<String, HostSummary> =
            said.into_iter().map(|said| (said.name.clone(), said)).collect();
        let snapshot = api.region().snapshot();
        views.extend(snapshot.state.hosts().iter().map(|host| AgentView {
            host: Arc::clone(host),
            said: said.remove(&host.name),
        }));
    }
    AGENTS.answer_list(&api, &headers, &uri, views)
}

async fn show(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let fields = AGENTS.fields(&uri)?;
    AGENTS.answer_one(StatusCode::OK, &view(&api, &who, &id).await?, &fields)
}

async fn update(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    let mut given = AGENTS.given(&mut body)?;
    let mut view = view(&api, &who, &id).await?;
    authorize_on(&api, &who, "update_agent", &())?;
    let update = HostUpdate {
        admin_state_up: given.get("admin_state_up"),
        description: given.take("description").map(|description| match description {
            Parsed::Text(text) => text,
            _ => String::new(),
        }),
    };
    let id = view.id();
    view.host = api
        .region()
        .write(move |tx, _| host::update(tx, id, update))
        .await?;
    AGENTS.answer_one(StatusCode::OK, &view, &Fields::all(AGENTS.table))
}

async fn remove(State(api): State<ApiState>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    let view = view(&api, &who, &id).await?;
    authorize_on(&api, &who, "delete_agent", &())?;
    // The rows of a host that lives are what others reach its ports by.
    if view.alive() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "AgentInUse",
            format!(
                "Agent {} is alive on host {}; stop it before it is deleted.",
                view.id(),
                view.host.name
            ),
        ));
    }
    let id = view.id();
    api.region().write(move |tx, _| host::delete(tx, id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
