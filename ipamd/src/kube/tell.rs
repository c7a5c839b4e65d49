//! Keeps the node's condition and startup taint as the pool stands, and tells of its turns.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ipam_core::engine::EngineStatus;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    KubeNode,
    api::{ApiError, Patch},
    decide::{self, About, Course},
    events::Events,
    objects::Node,
    watch::Pace,
};
use crate::clock;

/// How often the pool is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// The same until the taint is gone.
const FIRST_PERIOD: Duration = Duration::from_secs(1);
/// What the server took is not sent again for so long, even if it does not show it.
const TAKEN_FOR: Duration = Duration::from_secs(60);

/// Something that the node is to be like, and when that may be asked for again.
#[derive(Debug)]
struct Errand {
    pace: Pace,
    not_before: Option<Instant>,
    /// Whether people know that it does not work.
    told: bool,
}

impl Errand {
    const fn new() -> Self {
        Self { pace: Pace::new(1), not_before: None, told: false }
    }

    fn may(&self) -> bool {
        self.not_before.is_none_or(|at| at <= Instant::now())
    }

    fn is_done(&mut self) {
        *self = Self::new();
    }

    fn answered(&mut self, what: &str, outcome: Result<(), &ApiError>) {
        let wait = match outcome {
            Ok(()) => TAKEN_FOR,
            Err(error) => {
                if !self.told {
                    tracing::warn!(%error, "IPAM-330 {what} could not be written; that is tried again");
                }
                self.told = true;
                self.pace.wait(Some(error))
            }
        };
        self.not_before = Some(Instant::now() + wait);
    }
}

/// Tells Kubernetes how the pool stands, until there is none.
pub(super) async fn follow<F: Future<Output = Option<EngineStatus>>>(
    node: KubeNode,
    mut seen: watch::Receiver<Option<Arc<Node>>>,
    pool: impl Fn() -> F,
    events: Events,
) {
    let (mut course, mut known) = (Course::default(), None);
    let (mut condition, mut taint) = (Errand::new(), Errand::new());
    loop {
        let period = if known.as_ref().is_some_and(has_taint) { FIRST_PERIOD } else { PERIOD };
        let news = tokio::time::timeout(period, seen.changed()).await;
        if matches!(news, Ok(Err(_))) {
            return;
        }
        if news.is_ok() {
            known = newer(known, seen.borrow_and_update().clone());
        }
        let Some(pool) = pool().await else { return };
        let max_pods = known.as_ref().and_then(|known: &Arc<Node>| known.max_pods);
        let before = course.health;
        course = course.next(&pool, max_pods, clock::now());
        let uid = known.as_ref().map_or_else(|| node.name.clone(), |known| known.uid.clone());
        if let Some(happened) = decide::turn(before, course.health, &pool) {
            tracing::warn!(message = happened.message, "the pool has turned");
            events.tell(About::Node { name: node.name.clone(), uid }, happened);
        }
        if let Some(now) = known.clone() {
            known = Some(write_condition(&node, now, course, &pool, &mut condition).await);
        }
        if let Some(now) = known.clone() {
            known = Some(untaint(&node, now, course, &mut taint).await);
        }
    }
}

fn has_taint(node: &Arc<Node>) -> bool {
    node.taints.iter().any(|taint| taint["key"] == decide::TAINT)
}

/// Of what a patch returned and what the watch shows, the newer one; the watch's where that cannot be told.
fn newer(known: Option<Arc<Node>>, seen: Option<Arc<Node>>) -> Option<Arc<Node>> {
    let version = |node: &Option<Arc<Node>>| node.as_ref()?.version.parse::<u64>().ok();
    let same = known.as_ref().map(|known| &known.uid) == seen.as_ref().map(|seen| &seen.uid);
    if same && version(&known) > version(&seen) { known } else { seen }
}

async fn write_condition(
    node: &KubeNode,
    known: Arc<Node>,
    course: Course,
    pool: &EngineStatus,
    errand: &mut Errand,
) -> Arc<Node> {
    let Some(patch) = decide::condition(&known, course.health, pool, clock::now()) else {
        errand.is_done();
        return known;
    };
    if !errand.may() {
        return known;
    }
    let path = format!("/api/v1/nodes/{}/status", node.name);
    let outcome = node.api.patch(&path, Patch::Strategic, &patch).await;
    errand.answered("the node's condition", outcome.as_ref().map(drop));
    outcome.map_or(known, |object| taken(node, &object))
}

async fn untaint(node: &KubeNode, known: Arc<Node>, course: Course, errand: &mut Errand) -> Arc<Node> {
    let Some(patch) = decide::untaint(&known, course.health) else {
        errand.is_done();
        return known;
    };
    if !errand.may() {
        return known;
    }
    let path = format!("/api/v1/nodes/{}", node.name);
    match node.api.patch(&path, Patch::Merge, &patch).await {
        Ok(object) => {
            tracing::info!(taint = decide::TAINT, "the startup taint is gone: pods can be served");
            errand.answered("the node's taints", Ok(()));
            taken(node, &object)
        }
        // Somebody else has changed the node: it is looked at, and tried again soon.
        Err(error) if error.code() == Some(409) => {
            errand.answered("the node's taints", Err(&error));
            node.api.get(&path).await.map_or(known, |object| taken(node, &object))
        }
        Err(error) => {
            errand.answered("the node's taints", Err(&error));
            known
        }
    }
}

/// The node as an answer shows it; nothing of it if that is another object.
fn taken(node: &KubeNode, object: &Value) -> Arc<Node> {
    let read = Node::read(object);
    Arc::new(if read.name == node.name { read } else { Node::default() })
}
