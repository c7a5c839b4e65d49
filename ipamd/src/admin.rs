//! What people and programs see of the daemon over HTTP: metrics, and introspection with the status page.
//!
//! Neither can hurt pods: a port that is taken is warned of and tried again, and an answer is made from one view of the loop.
//! Introspection changes nothing, is read by this node only unless somebody sets another address, and answers no name that a browser
//! could have been tricked into taking for ours.

pub(crate) mod documents;
mod gates;
mod page;
mod v1;

use std::{io, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use crate::{
    handle::Stage,
    metrics,
    settings::{Place, Settings},
    view::View,
};

/// Waits before a port that is taken is tried again: the former daemon of a rolling update ends within seconds.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// How long the loop may take to answer before that is shown as trouble.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    stage: watch::Receiver<Stage>,
    settings: Arc<Settings>,
}

impl Shared {
    /// The daemon as it is now; in words why it cannot be shown.
    async fn view(&self) -> Result<Box<View>, String> {
        let handle = match &*self.stage.borrow() {
            Stage::Starting(what) => return Err(format!("ipamd has not finished its start: {what}")),
            Stage::Serving(handle) => handle.clone(),
        };
        match tokio::time::timeout(PATIENCE, handle.view()).await {
            Ok(Ok(view)) => Ok(view),
            Ok(Err(stopped)) => Err(stopped.to_string()),
            Err(_) => Err(format!("the loop did not answer within {} s", PATIENCE.as_secs())),
        }
    }
}

/// Starts to serve what the settings ask for.
pub(crate) fn start(settings: &Settings, stage: &watch::Receiver<Stage>) {
    let shared = Shared { stage: stage.clone(), settings: Arc::new(settings.clone()) };
    if let Some(address) = settings.metrics {
        let router = Router::new().route("/metrics", get(show_metrics)).with_state(shared.clone());
        tokio::spawn(serve("metrics", Place::Tcp(address), router));
    }
    if let Some(place) = settings.introspection.clone() {
        tokio::spawn(serve("introspection", place, introspection(shared)));
    }
}

fn introspection(shared: Shared) -> Router {
    let mut router = Router::new()
        .route("/", get(page::show))
        .route("/healthz", get(gates::healthz))
        .route("/readyz", get(gates::readyz))
        .route("/metrics", get(show_metrics))
        .fallback(unknown);
    for path in v1::PATHS {
        router = router.route(path, get(v1::show));
    }
    for name in documents::NAMES {
        router = router.route(&format!("/v2/{name}"), get(show_document));
    }
    router.layer(middleware::from_fn(guarded)).with_state(shared)
}

async fn serve(what: &'static str, place: Place, router: Router) {
    let mut pause = FIRST_RETRY;
    loop {
        let ended = match &place {
            Place::Tcp(address) => match listen(*address).await {
                Ok(listener) => axum::serve(listener, router.clone()).await,
                Err(error) => Err(error),
            },
            Place::Unix(path) => match listen_unix(path) {
                Ok(listener) => axum::serve(listener, router.clone()).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = ended {
            tracing::warn!(what, ?place, %error, "IPAM-314 cannot be served there; pods are served all the same, and it is tried again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_RETRY);
    }
}

/// Listens; where the kernel has no IPv6, every address means every one of IPv4.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind(("0.0.0.0", address.port())).await
        }
        outcome => outcome,
    }
}

/// Listens for root and our own user only. What lies there is of a former daemon: the lock on the database shows that it is dead.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Refuses names that a foreign page could point at us (DNS rebinding), and forbids browsers what the page does not need.
async fn guarded(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_plain(host) {
        let why = "give an address or localhost as host: other names are not answered";
        return (StatusCode::FORBIDDEN, Json(json!({ "error": why }))).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Whether a Host header is an address, localhost, or absent, as over a Unix socket.
fn is_plain(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.is_empty() || name == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
}

async fn show_metrics(State(shared): State<Shared>) -> Response {
    let view = shared.view().await.ok();
    let text = metrics::render(view.as_deref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn show_document(State(shared): State<Shared>, request: Request) -> Response {
    let name = request.uri().path().trim_start_matches("/v2/").to_owned();
    match shared.view().await {
        Ok(view) => match documents::document(&name, &view) {
            Some(document) => Json(document).into_response(),
            None => unknown().await.into_response(),
        },
        Err(why) => unavailable(&why),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": why }))).into_response()
}

async fn unknown() -> (StatusCode, Json<Value>) {
    let mut paths = vec!["/".to_owned(), "/healthz".to_owned(), "/readyz".to_owned(), "/metrics".to_owned()];
    paths.extend(v1::PATHS.map(str::to_owned));
    paths.extend(documents::NAMES.map(|name| format!("/v2/{name}")));
    (StatusCode::NOT_FOUND, Json(json!({ "AvailableCommands": paths })))
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn only_addresses_and_localhost_are_answered() {
        for host in ["", "localhost", "localhost:61679", "127.0.0.1:61679", "10.0.0.5", "[::1]:61679", "[::1]"] {
            assert!(is_plain(host), "{host}");
        }
        for host in ["evil.example", "evil.example:61679", "127.0.0.1.evil.example", "localhost.evil", "a:b:c"] {
            assert!(!is_plain(host), "{host}");
        }
    }
}
