//! Tells people what happened: Event objects at pods and at the node. Nobody waits for that, and what cannot be told is dropped.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    KubeNode,
    decide::{self, About, Happened},
    objects::is_name,
};
use crate::clock;

/// What waits to be told at most; more is dropped.
const WAITING: usize = 256;
/// The same is told again only after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(300);
/// Between two events.
const APART: Duration = Duration::from_millis(500);
/// After a failure nothing is told for so long.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// The way for what is to be told. Cheap to clone; never waits.
#[derive(Debug, Clone)]
pub(super) struct Events {
    queue: mpsc::Sender<(About, Happened)>,
}

impl Events {
    /// Begins to tell.
    pub(super) fn start(node: KubeNode) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        tokio::spawn(tell(node, waiting));
        Self { queue }
    }

    /// Tells soon, if nothing hinders that.
    pub(super) fn tell(&self, about: About, happened: Happened) {
        let can_be_told = match &about {
            About::Node { name, .. } => is_name(name),
            About::Pod(pod) => is_name(&pod.namespace) && is_name(&pod.name),
        };
        if can_be_told && self.queue.try_send((about, happened)).is_err() {
            tracing::debug!("an event is not told: too many wait");
        }
    }
}

async fn tell(node: KubeNode, mut waiting: mpsc::Receiver<(About, Happened)>) {
    let mut told: BTreeMap<(About, &'static str), Instant> = BTreeMap::new();
    let (mut number, mut away) = (0, false);
    while let Some((about, happened)) = waiting.recv().await {
        told.retain(|_, at| at.elapsed() < AGAIN_AFTER);
        let what = (about, happened.reason);
        if told.contains_key(&what) {
            continue;
        }
        number += 1;
        let (collection, object) = decide::event(&what.0, &happened, &node.name, number, clock::now());
        match node.api.create(&collection, &object).await {
            Ok(_) => {
                away = false;
                told.insert(what, Instant::now());
                tokio::time::sleep(APART).await;
            }
            // The namespace is gone, or is going.
            Err(error) if matches!(error.code(), Some(404 | 409 | 422)) => {}
            Err(error) => {
                if !away {
                    tracing::warn!(%error, reason = happened.reason, "IPAM-330 an event could not be told; those that follow may be lost too");
                }
                away = true;
                tokio::time::sleep(LEFT_ALONE).await;
            }
        }
    }
}
