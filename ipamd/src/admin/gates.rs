//! Whether the daemon lives, and whether it is ready: gates with names, each with what is missing.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ipam_core::engine::WaitingFor;
use serde_json::json;

use super::Shared;
use crate::{handle::Stage, view::View};

/// A condition of being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gate {
    name: &'static str,
    /// What is missing. Absent: the gate is open.
    missing: Option<String>,
}

fn gates(view: &View) -> [Gate; 3] {
    let first = |kind| view.status.waiting.iter().find(|waiting| waiting.kind == kind).map(ToString::to_string);
    let pool = (!view.status.serves).then(|| {
        let why: Vec<_> = view.status.waiting.iter().map(ToString::to_string).collect();
        format!(
            "no pod can be served: {}",
            if why.is_empty() { "nothing is known yet".to_owned() } else { why.join("; ") }
        )
    });
    [
        Gate { name: "start", missing: None },
        Gate { name: "pool", missing: pool },
        Gate { name: "kernel", missing: first(WaitingFor::Kernel) },
    ]
}

/// Says whether the daemon is at work: whether the loop answers. A start that waits for something is alive.
pub(super) async fn healthz(State(shared): State<Shared>) -> Response {
    if let Stage::Starting(what) = &*shared.stage.borrow() {
        return Json(json!({ "alive": true, "starting": what })).into_response();
    }
    match shared.view().await {
        Ok(_) => Json(json!({ "alive": true })).into_response(),
        Err(why) => super::unavailable(&why),
    }
}

/// Says whether pods can be served, and which gate is shut.
pub(super) async fn readyz(State(shared): State<Shared>) -> Response {
    let gates = match shared.view().await {
        Ok(view) => gates(&view).to_vec(),
        Err(why) => vec![Gate { name: "start", missing: Some(why) }],
    };
    let ready = gates.iter().all(|gate| gate.missing.is_none());
    let list: Vec<_> = gates
        .iter()
        .map(|gate| json!({ "name": gate.name, "open": gate.missing.is_none(), "missing": gate.missing }))
        .collect();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": ready, "gates": list }))).into_response()
}
