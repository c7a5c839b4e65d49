//! `ANNOTATE_POD_IP`: writes each pod's address into its annotation `vpc.amazonaws.com/pod-ips`, for controllers that cannot wait
//! until kubelet reports it. What could not be written is written later.

use std::{collections::BTreeMap, time::Duration};

use eni_proto::{Pod, PodKey};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    KubeNode, News,
    api::{ApiError, Patch},
    objects::{is_name, version},
    watch::Pace,
};

const ANNOTATION: &str = "vpc.amazonaws.com/pod-ips";
/// Only the pod's first interface is its address for Kubernetes.
const FIRST_INTERFACE: &str = "eth0";
/// What waits to be written at most: more pods than a node carries.
const MOST: usize = 4000;

/// What a pod's annotation shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    pod: Pod,
    address: String,
    /// Whether the pod has it; else the annotation is emptied, if it is this address still.
    has: bool,
}

/// Writes what the news say, for ever. `leases` are those of now.
pub(super) async fn follow(node: KubeNode, leases: Vec<(PodKey, Pod, String)>, mut news: mpsc::Receiver<News>) {
    let mut holders: BTreeMap<PodKey, (Pod, String)> = BTreeMap::new();
    let mut wishes: BTreeMap<Pod, Wish> = BTreeMap::new();
    let (mut pace, mut away) = (Pace::new(0), false);
    for (key, pod, address) in leases {
        note(News::Given { key, pod, address }, &mut holders, &mut wishes);
    }
    loop {
        let Some(wish) = wishes.values().next().cloned() else {
            let Some(news) = news.recv().await else { return };
            note(news, &mut holders, &mut wishes);
            continue;
        };
        let wait = match write(&node, &wish).await {
            Ok(()) => {
                (pace, away) = (Pace::new(0), false);
                wishes.remove(&wish.pod);
                Duration::ZERO
            }
            Err(error) => {
                if !away {
                    tracing::warn!(%error, pod = %wish.pod, "IPAM-330 a pod could not be annotated with its address; that is tried again");
                }
                away = true;
                pace.wait(Some(&error))
            }
        };
        let until = tokio::time::Instant::now() + wait;
        while let Ok(Some(news)) = tokio::time::timeout_at(until, news.recv()).await {
            note(news, &mut holders, &mut wishes);
        }
    }
}

fn note(news: News, holders: &mut BTreeMap<PodKey, (Pod, String)>, wishes: &mut BTreeMap<Pod, Wish>) {
    let wish = match news {
        News::Given { key, pod, address } if key.interface() == FIRST_INTERFACE => {
            holders.insert(key, (pod.clone(), address.clone()));
            Wish { pod, address, has: true }
        }
        News::Ended { key } => match holders.remove(&key) {
            Some((pod, address)) => Wish { pod, address, has: false },
            None => return,
        },
        News::Given { .. } | News::Refused { .. } | News::Lost { .. } => return,
    };
    if is_name(&wish.pod.namespace) && is_name(&wish.pod.name) && wishes.len() < MOST {
        wishes.insert(wish.pod.clone(), wish);
    }
}

/// Writes one annotation. A pod that is gone, or is another one of the same name, needs none.
async fn write(node: &KubeNode, wish: &Wish) -> Result<(), ApiError> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", wish.pod.namespace, wish.pod.name);
    let patch = if wish.has {
        annotation(wish, &wish.address, None)
    } else {
        let pod = match node.api.get(&path).await {
            Ok(pod) => pod,
            Err(error) if error.code() == Some(404) => return Ok(()),
            Err(error) => return Err(error),
        };
        if pod["metadata"]["annotations"][ANNOTATION] != wish.address {
            return Ok(());
        }
        annotation(wish, "", Some(version(&pod)))
    };
    match node.api.patch(&path, Patch::Merge, &patch).await {
        Ok(_) => Ok(()),
        Err(error) => match error.code() {
            // It is gone, or nothing that can be annotated.
            Some(400 | 404 | 405 | 410 | 422) => Ok(()),
            // We named its uid only: it is another pod. Else it has changed meanwhile, and is looked at again.
            Some(409) if wish.has => Ok(()),
            _ => Err(error),
        },
    }
}

fn annotation(wish: &Wish, text: &str, version: Option<String>) -> Value {
    let mut metadata = json!({"annotations": {ANNOTATION: text}});
    if !wish.pod.uid.is_empty() {
        metadata["uid"] = json!(wish.pod.uid);
    }
    if let Some(version) = version {
        metadata["resourceVersion"] = json!(version);
    }
    json!({"metadata": metadata})
}
