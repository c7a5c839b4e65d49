//! What Kubernetes says of how the pool is to be: the node's max pods, and its `ENIConfig` where custom networking is on.
//!
//! Each stands until Kubernetes says something else that makes sense, also over restarts: an API server that is away, denies or lies
//! changes nothing.

use std::sync::Arc;

use ipam_core::CustomNetwork;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    KubeNode,
    api::ApiError,
    decide::{EniConfigNames, Wanted, eni_config},
    objects::{self, Node, is_name},
    watch as one,
};

const NODES: &str = "/api/v1/nodes";
const ENI_CONFIGS: &str = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";

/// An `ENIConfig` as it was seen last, or why there is none.
pub(super) type Network = Result<CustomNetwork, String>;

/// Follows our own Node, for ever.
pub(super) async fn follow_node(node: KubeNode, seen: watch::Sender<Option<Arc<Node>>>) {
    let mut away = false;
    let see = |what: one::Seen<'_>| match what {
        Ok(object) => {
            if away {
                tracing::info!("the API server answers again");
            }
            away = false;
            if object.is_none() {
                tracing::warn!(
                    node = node.name,
                    "IPAM-330 the API server knows no such node; MY_NODE_NAME may be wrong"
                );
            }
            let read = object.map(|object| Arc::new(Node::read(object)));
            seen.send_if_modified(|before| {
                let differs = *before != read;
                *before = read;
                differs
            });
        }
        Err(error) => complain(&mut away, "our node", error),
    };
    one::follow(&node.api, NODES, &node.name, node.seed, see).await;
}

/// Says once that something cannot be read.
pub(super) fn complain(away: &mut bool, what: &str, error: &ApiError) {
    if *away {
        tracing::debug!(%error, what, "the API server is asked again");
    } else {
        tracing::warn!(%error, "IPAM-330 {what} cannot be read from Kubernetes; what is known stands, and pods are served");
    }
    *away = true;
}

/// Follows the `ENIConfig` that our node names, for ever.
pub(super) async fn follow_eni_config(
    node: KubeNode,
    names: EniConfigNames,
    mut nodes: watch::Receiver<Option<Arc<Node>>>,
    seen: watch::Sender<Network>,
) {
    let mut name = None;
    loop {
        let now = nodes.borrow_and_update().as_ref().map(|node| eni_config(node, &names).to_owned());
        name = now.or(name);
        let followed = async {
            match name.as_deref() {
                Some(name) if is_name(name) => follow_one(&node, name, &seen).await,
                Some(name) => {
                    tell(&seen, Err(super::api::readable(&format!("`{name}` is no name of an ENIConfig"))));
                    std::future::pending().await
                }
                None => std::future::pending().await,
            }
        };
        // Only a node that names another one ends it.
        let other = nodes.wait_for(|node| {
            let named = node.as_ref().map(|node| eni_config(node, &names));
            named.is_some() && named != name.as_deref()
        });
        tokio::select! {
            () = followed => {}
            ended = other => if ended.is_err() { return },
        }
    }
}

async fn follow_one(node: &KubeNode, name: &str, seen: &watch::Sender<Network>) {
    let mut away = false;
    let see = |what: one::Seen<'_>| match what {
        Ok(object) => {
            away = false;
            tell(seen, read(name, object));
        }
        Err(error) => {
            complain(&mut away, &format!("ENIConfig {name}"), error);
            seen.send_if_modified(|before| {
                // Whoever waits for the first one is told why there is none.
                let waits = before.is_err();
                if waits {
                    *before = Err(format!("ENIConfig {name}: {error}"));
                }
                waits
            });
        }
    };
    one::follow(&node.api, ENI_CONFIGS, name, node.seed, see).await;
}

fn read(name: &str, object: Option<&Value>) -> Network {
    let object = object.ok_or_else(|| format!("there is no ENIConfig {name}"))?;
    objects::custom_network(object).map_err(|wrong| format!("ENIConfig {name}: {wrong}"))
}

fn tell(seen: &watch::Sender<Network>, network: Network) {
    seen.send_if_modified(|before| {
        let differs = *before != network;
        *before = network;
        differs
    });
}

/// What is wanted now, after what was.
pub(super) fn wanted(before: &Wanted, node: Option<&Node>, network: &Network) -> Wanted {
    Wanted {
        max_pods: node.and_then(|node| node.max_pods).or(before.max_pods),
        network: network.as_ref().ok().cloned().or_else(|| before.network.clone()),
    }
}
