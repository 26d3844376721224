//! The routes, as one table, and what surrounds every request: span, timeout, answers to paths that are nothing.

use alcor_model::{Network, Port, RbacPolicy, Subnet};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, options, post, put},
};
use http::{Method, StatusCode};
use tracing::Instrument;

use crate::{
    admin, discovery,
    error::ApiError,
    resources::{Resource, handlers, quota, tags},
    state::ApiState,
};

/// One method of one path.
pub struct Route {
    method: Method,
    path: String,
    handler: MethodRouter<ApiState>,
}

/// Makes a route. Parts of the path in braces are parameters.
pub fn route(method: Method, path: impl Into<String>, handler: MethodRouter<ApiState>) -> Route {
    Route {
        method,
        path: path.into(),
        handler,
    }
}

fn resource_routes<R: Resource>() -> Vec<Route> {
    let collection = format!("/v2.0/{}", R::PATH);
    let member = format!("{collection}/{{id}}");
    let mut routes = vec![
        route(Method::GET, &collection, get(handlers::list::<R>)),
        route(Method::POST, &collection, post(handlers::create::<R>)),
        route(Method::OPTIONS, &collection, options(handlers::options::<R>)),
        route(Method::GET, &member, get(handlers::show::<R>)),
        route(Method::PUT, &member, put(handlers::update::<R>)),
        route(Method::DELETE, &member, delete(handlers::delete::<R>)),
    ];
    if R::TAGGED {
        let tags_path = format!("{member}/tags");
        let tag_path = format!("{tags_path}/{{tag}}");
        routes.extend([
            route(Method::GET, &tags_path, get(tags::list::<R>)),
            route(Method::PUT, &tags_path, put(tags::replace::<R>)),
            route(Method::DELETE, &tags_path, delete(tags::clear::<R>)),
            route(Method::GET, &tag_path, get(tags::show::<R>)),
            route(Method::PUT, &tag_path, put(tags::add::<R>)),
            route(Method::DELETE, &tag_path, delete(tags::remove::<R>)),
        ]);
    }
    routes.extend(R::extra_routes());
    routes
}

fn routes() -> Vec<Route> {
    let mut routes = vec![
        route(Method::GET, "/", get(discovery::versions)),
        route(Method::GET, "/v2.0", get(discovery::resources)),
        route(Method::GET, "/v2.0/", get(discovery::resources)),
        route(Method::GET, "/v2.0/extensions", get(discovery::extensions)),
        route(
            Method::GET,
            "/v2.0/extensions/{alias}",
            get(discovery::extension_by_alias),
        ),
        route(Method::GET, "/healthz", get(discovery::healthz)),
        route(Method::GET, "/alcor/v1/hosts", get(admin::hosts)),
        route(Method::GET, "/alcor/v1/hosts/{name}", get(admin::host)),
        route(
            Method::GET,
            "/alcor/v1/ports/{id}/status",
            get(admin::port_status),
        ),
    ];
    routes.extend(resource_routes::<Network>());
    routes.extend(resource_routes::<Subnet>());
    routes.extend(resource_routes::<Port>());
    routes.extend(quota::routes());
    routes.extend(resource_routes::<RbacPolicy>());
    routes
}

/// Every method and path that is served, for tests and documents.
pub fn route_table() -> Vec<(Method, String)> {
    routes()
        .into_iter()
        .map(|route| (route.method, route.path))
        .collect()
}

/// The whole API as a service.
pub fn router(state: ApiState) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, route| {
            router.route(&route.path, route.handler)
        })
        .fallback(|| async { ApiError::no_such_path() })
        .method_not_allowed_fallback(|method: Method| async move {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "HTTPMethodNotAllowed",
                format!("The method {method} is not allowed for this resource."),
            )
        })
        .layer(from_fn_with_state(state.clone(), surround))
        .with_state(state)
}

async fn surround(State(api): State<ApiState>, request: Request, next: Next) -> Response {
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
