//! The routes, as one table, and what surrounds every request: span, timeout, answers to paths that are nothing.

use std::{collections::BTreeMap, sync::LazyLock, time::Instant};

use alcor_metrics::{API_REQUEST_SECONDS, API_REQUESTS_IN_PROGRESS};
use alcor_model::{
    AddressGroup, AddressScope, DefaultSecurityGroupRule, FloatingIp, Network, NetworkSegmentRange, Port,
    RbacPolicy, SecurityGroup, SecurityGroupRule, Segment, Subnet, SubnetPool,
};
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn, from_fn_with_state, map_request},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, options, post, put},
};
use http::{Method, StatusCode, Uri};
use tracing::Instrument;

use crate::{
    admin,
    auth::authenticate,
    discovery,
    error::ApiError,
    openapi::{self, Operation},
    resources::{
        Resource, agent, auto_topology, availability_zone, create, gateway, handlers,
        network_ip_availability, port_forwarding, quota, service_provider, tags,
    },
    state::ApiState,
    trace,
};

/// One method of one path.
pub struct Route {
    method: Method,
    path: String,
    handler: MethodRouter<ApiState>,
    operation: Option<fn() -> Operation>,
    keeps_replies: bool,
    lists: Option<Collection>,
}

impl Route {
    /// Says what the route takes and answers, for the API's document.
    #[must_use]
    pub fn doc(mut self, operation: fn() -> Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// It does what a client asks for with one `Idempotency-Key` once; others refuse the header.
    pub(crate) fn keeps_replies(mut self) -> Self {
        self.keeps_replies = true;
        self
    }

    /// It lists the rows of a collection.
    fn lists(mut self, collection: Collection) -> Self {
        self.lists = Some(collection);
        self
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path; parts in braces are parameters.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it takes and answers; nothing is known of a route that does not say.
    pub fn operation(&self) -> Operation {
        self.operation
            .map_or_else(|| Operation::new("Not described"), |operation| operation())
    }

    /// Whether it says what it takes and answers.
    pub fn is_described(&self) -> bool {
        self.operation.is_some()
    }
}

/// Makes a route. Parts of the path in braces are parameters.
pub fn route(method: Method, path: impl Into<String>, handler: MethodRouter<ApiState>) -> Route {
    Route {
        method,
        path: path.into(),
        handler,
        operation: None,
        keeps_replies: false,
        lists: None,
    }
}

fn resource_routes<R: Resource>() -> Vec<Route> {
    let collection = format!("/v2.0/{}", R::PATH);
    let member = format!("{collection}/{{id}}");
    let mut routes = vec![
        route(Method::GET, &collection, get(handlers::list::<R>))
            .lists(Collection {
                singular: R::SINGULAR,
                plural: R::PLURAL,
                path: R::PATH,
                quota: R::QUOTA,
                tagged: R::TAGGED,
            })
            .doc(openapi::list::<R>),
        route(Method::POST, &collection, post(create::create::<R>))
            .keeps_replies()
            .doc(openapi::create::<R>),
        route(Method::OPTIONS, &collection, options(handlers::options::<R>)).doc(openapi::options::<R>),
        route(Method::GET, &member, get(handlers::show::<R>)).doc(openapi::show::<R>),
        route(Method::PUT, &member, put(handlers::update::<R>)).doc(openapi::update::<R>),
        route(Method::DELETE, &member, delete(handlers::delete::<R>)).doc(openapi::delete::<R>),
    ];
    if R::TAGGED {
        let all = format!("{member}/tags");
        let one = format!("{all}/{{tag}}");
        routes.extend([
            route(Method::GET, &all, get(tags::list::<R>)).doc(openapi::tags::list::<R>),
            route(Method::POST, &all, post(tags::add_all::<R>)).doc(openapi::tags::add_all::<R>),
            route(Method::PUT, &all, put(tags::replace::<R>)).doc(openapi::tags::replace::<R>),
            route(Method::DELETE, &all, delete(tags::clear::<R>)).doc(openapi::tags::clear::<R>),
            route(Method::GET, &one, get(tags::show::<R>)).doc(openapi::tags::show::<R>),
            route(Method::PUT, &one, put(tags::add::<R>)).doc(openapi::tags::add::<R>),
            route(Method::DELETE, &one, delete(tags::remove::<R>)).doc(openapi::tags::remove::<R>),
        ]);
    }
    routes.extend(R::extra_routes());
    routes
}

/// What the service says about itself, and Alcor's own routes.
fn own_routes() -> Vec<Route> {
    vec![
        route(Method::GET, "/", get(discovery::versions)).doc(discovery::doc::versions),
        route(Method::GET, "/v2.0", get(discovery::resources)).doc(discovery::doc::resources),
        route(Method::GET, "/v2.0/", get(discovery::resources)).doc(discovery::doc::resources),
        route(Method::GET, "/v2.0/extensions", get(discovery::extensions)).doc(discovery::doc::extensions),
        route(
            Method::GET,
            "/v2.0/extensions/{alias}",
            get(discovery::extension_by_alias),
        )
        .doc(discovery::doc::extension),
        route(Method::GET, "/healthz", get(discovery::healthz)).doc(discovery::doc::healthz),
        route(Method::GET, "/openapi.json", get(openapi::serve)).doc(discovery::doc::openapi),
        route(Method::GET, "/docs", get(openapi::page::serve)).doc(discovery::doc::page),
        route(Method::GET, "/alcor/v1/hosts", get(admin::hosts)).doc(admin::doc::hosts),
        route(Method::GET, "/alcor/v1/hosts/{name}", get(admin::host)).doc(admin::doc::host),
        route(
            Method::GET,
            "/alcor/v1/ports/{id}/status",
            get(admin::port_status),
        )
        .doc(admin::doc::port_status),
        route(Method::GET, "/alcor/v1/trace", get(trace::trace)).doc(trace::doc::trace),
    ]
}

/// Every route.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = own_routes();
    routes.extend(resource_routes::<Network>());
    routes.extend(resource_routes::<Subnet>());
    routes.extend(resource_routes::<Port>());
    routes.extend(resource_routes::<SecurityGroup>());
    routes.extend(resource_routes::<SecurityGroupRule>());
    routes.extend(resource_routes::<DefaultSecurityGroupRule>());
    routes.extend(resource_routes::<AddressGroup>());
    routes.extend(resource_routes::<alcor_model::Router>());
    routes.extend(resource_routes::<FloatingIp>());
    routes.extend(port_forwarding::routes());
    routes.extend(quota::routes());
    routes.extend(network_ip_availability::routes());
    routes.extend(agent::routes());
    routes.extend(gateway::routes());
    routes.extend(availability_zone::routes());
    routes.extend(service_provider::routes());
    routes.extend(auto_topology::routes());
    routes.extend(resource_routes::<NetworkSegmentRange>());
    routes.extend(resource_routes::<Segment>());
    routes.extend(resource_routes::<RbacPolicy>());
    routes.extend(resource_routes::<AddressScope>());
    routes.extend(resource_routes::<SubnetPool>());
    routes
}

/// A collection of resources of the Neutron API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection {
    /// `security_group`
    pub singular: &'static str,
    /// `security_groups`
    pub plural: &'static str,
    /// The last part of its path: `security-groups`.
    pub path: &'static str,
    /// The quota that bounds how many of them a project has.
    pub quota: Option<&'static str>,
    /// Whether its rows have tags.
    pub tagged: bool,
}

/// The collections that are declared, in the order of the routes.
pub fn collections() -> &'static [Collection] {
    static COLLECTIONS: LazyLock<Vec<Collection>> =
        LazyLock::new(|| routes().into_iter().filter_map(|route| route.lists).collect());
    &COLLECTIONS
}

/// Every method and path that is served, for tests and documents.
pub fn route_table() -> Vec<(Method, String)> {
    routes()
        .into_iter()
        .map(|route| (route.method, route.path))
        .collect()
}

/// The names of collections in paths, by how they are with hyphens only.
static SPELLINGS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let names = routes().into_iter().filter_map(|route| {
        let name = route.path.strip_prefix(API)?.split('/').next()?;
        Some(name.to_owned())
    });
    names.map(|name| (name.replace('_', "-"), name)).collect()
});

/// Below it are the collections.
const API: &str = "/v2.0/";

/// Clients write hyphens for underscores in the names of collections and the other way round, and Neutron takes both:
/// gives the path that there is.
fn spelled(path: &str) -> Option<String> {
    let below = path.strip_prefix(API)?;
    let name = below.split('/').next()?;
    let known = SPELLINGS.get(&name.replace('_', "-"))?;
    (known != name).then(|| format!("{API}{known}{}", &below[name.len()..]))
}

async fn spell(mut request: Request) -> Request {
    if let Some(path) = spelled(request.uri().path()) {
        let mut parts = request.uri().clone().into_parts();
        let whole = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        parts.path_and_query = whole.parse().ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The whole API as a service.
pub fn router(state: ApiState) -> Router {
    // What changes the path comes before what looks at it.
    Router::new()
        .fallback_service(inner(state))
        .layer(map_request(spell))
}

fn inner(state: ApiState) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, route| {
            let handler = if route.method == Method::POST && !route.keeps_replies {
                route.handler.layer(from_fn(create::refuse_key))
            } else {
                route.handler
            };
            router.route(&route.path, handler)
        })
        .fallback(|| async { ApiError::no_such_path() })
        .method_not_allowed_fallback(|method: Method| async move {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "HTTPMethodNotAllowed",
                format!("The method {method} is not allowed for this resource."),
            )
        })
        .layer(from_fn_with_state(state.clone(), authenticate))
        .layer(from_fn_with_state(state.clone(), surround))
        .with_state(state)
}

async fn surround(State(api): State<ApiState>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let _held = API_REQUESTS_IN_PROGRESS.hold([]);
    let method = method_word(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = answer(api, request, next).await;
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let class = class_word(response.status());
    API_REQUEST_SECONDS.seconds([method, route, class], began.elapsed());
    response
}

/// The label of requests for paths that are nothing.
const NO_ROUTE: &str = "none";

/// A method as a label: clients may invent any.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

fn class_word(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

async fn answer(api: ApiState, request: Request, next: Next) -> Response {
    let span = tracing::debug_span!("http", method = %request.method(), path = request.uri().path());
    async {
        let response = match tokio::time::timeout(api.config().request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "HTTPGatewayTimeout",
                "The request took too long. A change may still have been made; look before you try again.",
            )
            .into_response(),
        };
        if response.status().is_server_error() {
            tracing::warn!(status = response.status().as_u16(), "request failed");
        } else {
            tracing::debug!(status = response.status().as_u16(), "request answered");
        }
        response
    }
    .instrument(span)
    .await
}

#[cfg(test)]
mod tests {
    use super::spelled;

    #[test]
    fn both_spellings_of_a_collection_lead_to_it() {
        let there = |path: &str| spelled(path);
        assert_eq!(
            there("/v2.0/network-segment-ranges/7/tags/a-b_c").as_deref(),
            Some("/v2.0/network_segment_ranges/7/tags/a-b_c")
        );
        assert_eq!(
            there("/v2.0/security_groups").as_deref(),
            Some("/v2.0/security-groups")
        );
        for same in [
            "/v2.0/security-groups",
            "/v2.0/networks/a_b",
            "/v2.0/no_such",
            "/v2.0",
            "/docs",
        ] {
            assert_eq!(there(same), None, "{same}");
        }
    }
}
