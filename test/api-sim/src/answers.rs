//! Requests and their answers.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{Query, Request, State as Extracted},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use crate::{ApiSim, Asked, Mood, store::Unpatched};

/// Longer than the daemon waits for an answer.
const LAG: Duration = Duration::from_secs(12);
const LARGEST: usize = 1 << 20;
/// No watch lasts longer.
const LONGEST_WATCH: Duration = Duration::from_secs(600);
const STRATEGIC: &str = "application/strategic-merge-patch+json";

#[derive(Debug, Default)]
struct Asking {
    name: Option<String>,
    watch: bool,
    version: Option<u64>,
    lasts: Option<Duration>,
}

impl Asking {
    fn of(pairs: &[(String, String)]) -> Self {
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let selected = value("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name="));
        Self {
            name: selected.map(str::to_owned),
            watch: matches!(value("watch"), Some("1" | "true")),
            version: value("resourceVersion").and_then(|text| text.parse().ok()),
            lasts: value("timeoutSeconds").and_then(|text| text.parse().ok()).map(Duration::from_secs),
        }
    }
}

pub(crate) async fn answer(
    Extracted(sim): Extracted<ApiSim>,
    Query(pairs): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let asking = Asking::of(&pairs);
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, LARGEST).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = parts.uri.path().to_owned();
    let verb = if asking.watch { "WATCH".to_owned() } else { parts.method.to_string() };
    let (mood, trusted) = {
        let mut state = sim.state();
        state.asked.push(Asked { verb, path: path.clone(), body: body.clone() });
        let wanted = state.token.as_ref().map(|token| format!("Bearer {token}"));
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let trusted = wanted.is_none_or(|wanted| given == Some(wanted.as_str()));
        let mood = state.next.pop_front().unwrap_or(state.mood);
        (mood, trusted)
    };
    let mut response = match bad(mood, &parts.method).await {
        Some(response) => response,
        None if !trusted => status(StatusCode::UNAUTHORIZED, "Unauthorized", "no valid token"),
        None if asking.watch => watch(sim, path, asking),
        None if mood == Mood::Doubles && parts.method == Method::GET => sim.doubled(&path, &asking),
        None => sim.respond(&parts.method, &path, &asking, &parts.headers, body),
    };
    if let Ok(name) = "api-sim (not a real API server)".parse() {
        response.headers_mut().insert(header::SERVER, name);
    }
    response
}

async fn bad(mood: Mood, method: &Method) -> Option<Response> {
    match mood {
        Mood::Well | Mood::Doubles => None,
        Mood::Conflicts if *method != Method::PATCH => None,
        Mood::Conflicts => Some(status(StatusCode::CONFLICT, "Conflict", "the object has been modified")),
        Mood::Hangs => std::future::pending().await,
        Mood::Lags => {
            tokio::time::sleep(LAG).await;
            None
        }
        Mood::Denies => Some(status(StatusCode::FORBIDDEN, "Forbidden", "this user cannot do that")),
        Mood::Distrusts => Some(status(StatusCode::UNAUTHORIZED, "Unauthorized", "the token has expired")),
        Mood::Fails => Some(status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "etcd is away")),
        Mood::Busy => {
            let mut response = status(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "please wait");
            response.headers_mut().insert(header::RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
            Some(response)
        }
        Mood::Garbles => Some("<html><body>gateway</body></html>".into_response()),
        Mood::BreaksOff => {
            let parts = [Ok(Bytes::from_static(b"{\"kind\":\"NodeList\",\"it")), Err(std::io::Error::other("cut"))];
            Some(Response::new(Body::from_stream(tokio_stream::iter(parts))))
        }
        Mood::Lies => {
            let other = json!({"metadata": {"name": "somebody-else", "uid": "x", "resourceVersion": "1"},
                "spec": {"taints": "many"}, "status": {"allocatable": {"pods": "-7"}, "conditions": 4}});
            Some(
                axum::Json(json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": [other]}))
                    .into_response(),
            )
        }
        Mood::Floods => {
            let chunk = Bytes::from(vec![b' '; 1 << 20]);
            Some(Response::new(Body::from_stream(tokio_stream::iter(
                std::iter::repeat_n(chunk, 64).map(Ok::<_, std::io::Error>),
            ))))
        }
    }
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": message});
    (code, axum::Json(body)).into_response()
}

impl ApiSim {
    fn respond(&self, method: &Method, path: &str, asking: &Asking, headers: &HeaderMap, body: Value) -> Response {
        match *method {
            Method::GET => self.read(path, asking),
            Method::PATCH => {
                let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
                self.patch(path, &body, kind == Some(STRATEGIC))
            }
            Method::POST => self.create(path, body),
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "api-sim does not know that"),
        }
    }

    fn read(&self, path: &str, asking: &Asking) -> Response {
        let state = self.state();
        if path == "/version" {
            return axum::Json(json!({"gitVersion": "v0.0.0-api-sim"})).into_response();
        }
        if let Some(object) = state.store.get(path) {
            return axum::Json(object.clone()).into_response();
        }
        let Some(name) = &asking.name else {
            return status(StatusCode::NOT_FOUND, "NotFound", "there is no such object");
        };
        let items: Vec<_> = state.store.get(&format!("{path}/{name}")).into_iter().cloned().collect();
        let version = state.store.version.to_string();
        axum::Json(json!({"kind": "List", "metadata": {"resourceVersion": version}, "items": items})).into_response()
    }

    /// The object that was asked for, and another one of its name.
    fn doubled(&self, path: &str, asking: &Asking) -> Response {
        let name = asking.name.clone().unwrap_or_default();
        let first = self.get(&format!("{path}/{name}")).unwrap_or_default();
        let second = json!({"metadata": {"name": name, "uid": "another"}, "spec": {"subnet": "subnet-666"}});
        axum::Json(json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": [first, second]}))
            .into_response()
    }

    fn patch(&self, path: &str, patch: &Value, strategic: bool) -> Response {
        let object_path = path.strip_suffix("/status").unwrap_or(path);
        let outcome = self.state().store.patch(object_path, patch, strategic);
        self.changed.notify_waiters();
        match outcome {
            Ok(object) => axum::Json(object).into_response(),
            Err(Unpatched::NotFound) => status(StatusCode::NOT_FOUND, "NotFound", "there is no such object"),
            Err(Unpatched::Conflict) => status(StatusCode::CONFLICT, "Conflict", "the object has been modified"),
        }
    }

    fn create(&self, path: &str, object: Value) -> Response {
        let Some(name) = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned) else {
            return status(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", "metadata.name is missing");
        };
        let path = format!("{path}/{name}");
        let mut state = self.state();
        if state.store.get(&path).is_some() {
            return status(StatusCode::CONFLICT, "AlreadyExists", "it is there already");
        }
        state.store.put(&path, object.clone());
        (StatusCode::CREATED, axum::Json(object)).into_response()
    }
}

/// One line for each change, from the version that was asked for.
fn watch(sim: ApiSim, path: String, asking: Asking) -> Response {
    let (lines, body) = mpsc::channel(16);
    tokio::spawn(async move {
        sim.state().watchers += 1;
        let _ = tell_changes(&sim, &path, &asking, &lines).await;
        sim.state().watchers -= 1;
    });
    Response::new(Body::from_stream(ReceiverStream::new(body)))
}

type Line = Result<Bytes, std::io::Error>;

/// Nobody listens any more.
struct Gone;

async fn tell_changes(sim: &ApiSim, path: &str, asking: &Asking, lines: &mpsc::Sender<Line>) -> Result<(), Gone> {
    let ends = Instant::now() + asking.lasts.unwrap_or(LONGEST_WATCH);
    let began = sim.state().cuts;
    let mut seen = asking.version.unwrap_or(0);
    loop {
        let changed = sim.changed.notified();
        tokio::pin!(changed);
        // From here on no change is missed.
        changed.as_mut().enable();
        let (changes, expired, cut) = {
            let state = sim.state();
            let changes = state.store.since(seen, path);
            (changes, seen < state.store.oldest, state.cuts > began)
        };
        if expired {
            let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired",
                "message": "too old resource version"}});
            return send(lines, &gone).await;
        }
        for change in changes {
            seen = change.version;
            let named = change.path.rsplit('/').next();
            if asking.name.as_deref().is_none_or(|name| named == Some(name)) {
                send(lines, &json!({"type": change.kind, "object": change.object})).await?;
            }
        }
        if cut {
            return Ok(());
        }
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(ends) => return Ok(()),
            () = lines.closed() => return Err(Gone),
        }
    }
}

async fn send(lines: &mpsc::Sender<Line>, event: &Value) -> Result<(), Gone> {
    lines.send(Ok(Bytes::from(format!("{event}\n")))).await.map_err(|_| Gone)
}
