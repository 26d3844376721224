//! The connecting end: a channel to a server whose certificate says that it is what is looked for.

use std::{io, sync::Arc};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::{
    files::Tls,
    identity::{Names, Refused, Role, one_of},
};

/// No channel.
#[derive(Debug, Error)]
pub enum DialError {
    /// Certificates and the URL's scheme say different things.
    #[error("{url} must begin with {wanted}://, as there are {}certificates", match .wanted { &"https" => "", _ => "no " })]
    Scheme {
        /// The URL.
        url: String,
        /// `http` or `https`.
        wanted: &'static str,
    },
    /// Nobody is there, or not who should be.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
}

/// Connects to a server that has one of these roles.
///
/// # Errors
/// When the URL's scheme is not that of how it is done, nobody is there, or its certificate is not good.
pub async fn connect(
    endpoint: &Endpoint,
    tls: Option<&Tls>,
    servers: &'static [Role],
) -> Result<Channel, DialError> {
    check_scheme(endpoint, tls)?;
    let Some(tls) = tls.cloned() else {
        return Ok(endpoint.connect().await?);
    };
    let connector = tower::service_fn(move |uri| dial(uri, tls.clone(), servers));
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// A channel that is connected when it is needed, and again when it broke.
///
/// # Errors
/// When the URL's scheme is not that of how it is done.
pub fn connect_lazy(
    endpoint: &Endpoint,
    tls: Option<&Tls>,
    servers: &'static [Role],
) -> Result<Channel, DialError> {
    check_scheme(endpoint, tls)?;
    let Some(tls) = tls.cloned() else {
        return Ok(endpoint.connect_lazy());
    };
    let connector = tower::service_fn(move |uri| dial(uri, tls.clone(), servers));
    Ok(endpoint.connect_with_connector_lazy(connector))
}

fn check_scheme(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<(), DialError> {
    let wanted = if tls.is_some() { "https" } else { "http" };
    let uri = endpoint.uri();
    match uri.scheme_str() == Some(wanted) {
        true => Ok(()),
        false => Err(DialError::Scheme {
            url: uri.to_string(),
            wanted,
        }),
    }
}

async fn dial(uri: Uri, tls: Tls, servers: &'static [Role]) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::clone(&tls.current().client));
    let stream = connector.connect(name, stream).await?;
    // The handshake has verified the certificate and the name in the URL; neither says what the server is.
    let names = Names::of(stream.get_ref().1.peer_certificates().unwrap_or_default());
    match names.has_role(servers) {
        true => Ok(TokioIo::new(stream)),
        false => Err(io::Error::other(Refused {
            named: names.to_string(),
            wanted: one_of(servers),
        })),
    }
}
