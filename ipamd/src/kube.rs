//! What Kubernetes is told, and what it is asked: of our own Node, one `ENIConfig`, and single pods of this node.
//!
//! None of it is on the way of an ADD, and none is needed to serve: an API server that is away, lags, hangs, denies or lies costs
//! what it would have told, and nothing else. The client is our own, of the parts that the AWS SDK brings along anyway: gets, patches
//! and a watch are little HTTP, and a large library would be most of the daemon's memory.
//!
//! What follows from what is in `kube/decide.rs`, without doing it.

mod annotate;
pub(crate) mod api;
mod cninode;
pub(crate) mod decide;
mod events;
mod objects;
pub(crate) mod place;
mod tell;
mod wanted;
mod watch;

use std::{path::PathBuf, sync::Arc};

use api::{Api, ApiError};
use decide::{About, EniConfigNames, Happened, Wanted};
use eni_proto::{Pod, PodKey};
use events::Events;
use ipam_core::{Lease, Policy, engine::EngineStatus, retry};
use objects::Node;
pub(crate) use objects::is_name;
use place::Place;
use serde_json::Value;
use tokio::sync::{mpsc, watch as seen};
use wanted::Network;

/// News that nobody has taken yet, at most; more is dropped.
const NEWS_WAITING: usize = 1024;

/// How Kubernetes is reached, and what of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KubeSettings {
    /// `MY_NODE_NAME`: our Node.
    pub(crate) node: String,
    /// `CLUSTER_ENDPOINT`: the API server. Absent: as kubelet tells each container.
    pub(crate) endpoint: Option<String>,
    /// `IPAMD_SERVICE_ACCOUNT_DIR`: folder of the service account's token and certificates.
    pub(crate) account: PathBuf,
    /// `ANNOTATE_POD_IP`: whether pods are annotated with their address.
    pub(crate) annotate: bool,
    /// `ENI_CONFIG_ANNOTATION_DEF`, `ENI_CONFIG_LABEL_DEF`: where the node names its `ENIConfig`. Absent: custom networking is off,
    /// or has its subnet from the settings.
    pub(crate) eni_config: Option<EniConfigNames>,
    /// `ENABLE_POD_ENI`: whether the VPC resource controller is asked for a trunk.
    pub(crate) branches: bool,
}

/// Something that happened to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// It got an address.
    Given {
        /// Its lease.
        key: PodKey,
        /// Who it is.
        pod: Pod,
        /// What it got.
        address: String,
    },
    /// Its lease has ended.
    Ended {
        /// Which.
        key: PodKey,
    },
    /// It got none.
    Refused {
        /// Who it is.
        pod: Pod,
        /// Why, for people.
        message: String,
    },
    /// Its address is on no interface of this node any more.
    Lost {
        /// Who it is.
        pod: Pod,
        /// What was lost, for people.
        message: String,
    },
}

/// The way of news to whom it may concern. Never waits; where Kubernetes is not used nobody listens.
#[derive(Debug, Clone)]
pub(crate) struct Newsroom {
    queue: Option<mpsc::Sender<News>>,
}

impl Newsroom {
    /// Passes the news on, unless too many wait.
    pub(crate) fn tell(&self, news: impl FnOnce() -> News) {
        if let Some(queue) = &self.queue
            && queue.try_send(news()).is_err()
        {
            tracing::debug!("news of a pod is not passed on to Kubernetes: too many wait");
        }
    }
}

/// The API server and our place in it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct KubeNode {
    pub(crate) api: Arc<Api>,
    pub(crate) name: String,
    /// So that nodes do not march in step.
    seed: u64,
}

impl KubeNode {
    /// A node of this name.
    pub(crate) fn at(api: Arc<Api>, name: &str) -> Self {
        Self { api, name: name.to_owned(), seed: retry::seed(name) }
    }

    /// Reads one pod, which has to be on this node. One get; for settings that need it only.
    ///
    /// # Errors
    /// Any [`ApiError`]; 404 too for a pod of another node, or another pod of that name.
    pub(crate) async fn pod(&self, pod: &Pod) -> Result<Value, ApiError> {
        let unknown = |why: &str| ApiError::Refused { code: 404, message: why.to_owned(), retry_after: None };
        if !objects::is_name(&pod.namespace) || !objects::is_name(&pod.name) {
            return Err(unknown("that is no pod's name"));
        }
        let object = self.api.get(&format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name)).await?;
        if object["spec"]["nodeName"] != self.name || objects::name(&object) != pod.name {
            return Err(unknown("it is not on this node"));
        }
        if !pod.uid.is_empty() && object["metadata"]["uid"] != pod.uid {
            return Err(unknown("it is another pod of that name"));
        }
        Ok(object)
    }
}

/// Kubernetes, as far as this node is concerned.
#[derive(Debug)]
pub(crate) struct Kube {
    node: KubeNode,
    settings: KubeSettings,
    nodes: seen::Receiver<Option<Arc<Node>>>,
    network: seen::Receiver<Network>,
    news: mpsc::Receiver<News>,
    /// What an earlier run knew: all that is new is stored.
    known: Wanted,
    /// What the daemon started with.
    begun_with: Wanted,
}

/// Begins to follow our Node, and completes the policy with what Kubernetes wants; `known` is what an earlier run knew of that.
pub(crate) async fn begin(
    settings: Option<&KubeSettings>,
    policy: Policy,
    known: Wanted,
    waiting: impl Fn(String),
) -> (Option<Kube>, Newsroom, Policy) {
    let (kube, newsroom) = start(settings);
    let Some(mut kube) = kube else { return (None, newsroom, policy) };
    kube.known = known.clone();
    let wanted = kube.wanted(known, waiting).await;
    kube.begun_with = wanted.clone();
    let policy = wanted.complete(policy, kube.settings.eni_config.is_some());
    (Some(kube), newsroom, policy)
}

/// Begins to follow our Node, if there is an API server. Says in one line when Kubernetes is not used.
fn start(settings: Option<&KubeSettings>) -> (Option<Kube>, Newsroom) {
    let settings = settings.ok_or_else(|| "MY_NODE_NAME is not set".to_owned());
    let kube = settings.and_then(|settings| {
        let place = Place::find(settings, |name| std::env::var(name).ok())?;
        Ok((settings.clone(), Api::at(&place)?, place))
    });
    match kube {
        Ok((settings, api, place)) => {
            tracing::info!(server = place.server, node = settings.node, "Kubernetes is told how the pool stands");
            let (queue, news) = mpsc::channel(NEWS_WAITING);
            (Some(Kube::follow(settings, api, news)), Newsroom { queue: Some(queue) })
        }
        Err(why) => {
            tracing::info!(why, "Kubernetes is not used: no condition, events, ENIConfig or max pods");
            (None, Newsroom { queue: None })
        }
    }
}

impl Kube {
    fn follow(settings: KubeSettings, api: Api, news: mpsc::Receiver<News>) -> Self {
        let node = KubeNode::at(Arc::new(api), &settings.node);
        let (node_seen, nodes) = seen::channel(None);
        tokio::spawn(wanted::follow_node(node.clone(), node_seen));
        let (network_seen, network) = seen::channel(Err("the API server has not answered yet".to_owned()));
        if let Some(names) = settings.eni_config.clone() {
            tokio::spawn(wanted::follow_eni_config(node.clone(), names, nodes.clone(), network_seen));
        }
        if settings.branches {
            tokio::spawn(cninode::follow(node.clone(), settings.eni_config.clone(), nodes.clone()));
        }
        Self { node, settings, nodes, network, news, known: Wanted::default(), begun_with: Wanted::default() }
    }

    /// The API server and our place in it.
    pub(crate) fn node(&self) -> KubeNode {
        self.node.clone()
    }

    /// Returns what Kubernetes wants: at once what an earlier run knew, where that is enough. Without it a node with custom
    /// networking waits for its `ENIConfig`, and says so: in the node's own subnet its pods would be in the wrong place.
    async fn wanted(&mut self, before: Wanted, waiting: impl Fn(String)) -> Wanted {
        if self.settings.eni_config.is_none() || before.network.is_some() {
            return before;
        }
        loop {
            let network = self.network.borrow_and_update().clone();
            match &network {
                Ok(_) => return wanted::wanted(&before, self.nodes.borrow().as_deref(), &network),
                Err(why) => {
                    let reason = format!("IPAM-331 custom networking waits for this node's ENIConfig: {why}");
                    tracing::warn!(reason, "the start waits");
                    waiting(reason);
                }
            }
            if self.network.changed().await.is_err() {
                // Nobody will tell any more: the daemon is stopping.
                return std::future::pending().await;
            }
        }
    }

    /// Tells Kubernetes how the pool stands, for as long as the daemon runs, and lets `remember` keep what it wants. Returns what it
    /// wants, now and later.
    pub(crate) fn serve<S, L, R>(
        self,
        pool: impl Fn() -> S + Send + 'static,
        leases: L,
        remember: impl Fn(Wanted) -> R + Send + Sync + 'static,
    ) -> seen::Receiver<Wanted>
    where
        S: Future<Output = Option<EngineStatus>> + Send + 'static,
        L: Future<Output = Vec<Lease>> + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let Self { node, settings, nodes, network, news, known, begun_with } = self;
        let events = Events::start(node.clone());
        tokio::spawn(tell::follow(node.clone(), nodes.clone(), pool, events.clone()));
        let notes = settings.annotate.then(|| mpsc::channel(NEWS_WAITING)).unzip();
        if let Some(notes) = notes.1 {
            tokio::spawn(async move {
                let leases = leases.await.into_iter().map(|lease| (lease.key, lease.pod, lease.addresses.to_string()));
                annotate::follow(node, leases.collect(), notes).await;
            });
        }
        tokio::spawn(pass_on(news, events, notes.0));
        let (wish, wanted) = seen::channel(begun_with);
        tokio::spawn(keep_policy(nodes, network, known, move |wanted: Wanted| {
            wish.send_replace(wanted.clone());
            remember(wanted)
        }));
        wanted
    }
}

/// Hands each piece of news to whom it concerns.
async fn pass_on(mut news: mpsc::Receiver<News>, events: Events, notes: Option<mpsc::Sender<News>>) {
    while let Some(news) = news.recv().await {
        match news {
            News::Refused { pod, message } => {
                let happened = Happened { reason: "PodAddressRefused", is_bad: true, message };
                events.tell(About::Pod(pod), happened);
            }
            News::Lost { pod, message } => {
                let happened = Happened { reason: "PodNetworkLost", is_bad: true, message };
                events.tell(About::Pod(pod), happened);
            }
            note @ (News::Given { .. } | News::Ended { .. }) => {
                if let Some(notes) = &notes {
                    // It waits for nothing slow: only its queue.
                    drop(notes.send(note).await);
                }
            }
        }
    }
}

/// Changes the policy whenever Kubernetes wants something else.
async fn keep_policy<F: Future<Output = ()>>(
    mut nodes: seen::Receiver<Option<Arc<Node>>>,
    mut network: seen::Receiver<Network>,
    mut known: Wanted,
    change: impl Fn(Wanted) -> F,
) {
    let mut last = network.borrow().clone();
    loop {
        let said = network.borrow_and_update().clone();
        let wanted = wanted::wanted(&known, nodes.borrow_and_update().as_deref(), &said);
        if wanted != known {
            tracing::info!(?wanted, "Kubernetes wants the pool otherwise");
            change(wanted.clone()).await;
            known = wanted;
        }
        if let Err(why) = &said
            && said != last
            && known.network.is_some()
        {
            tracing::error!(why, "IPAM-331 this node's ENIConfig cannot be used; the last good one stands");
        }
        last = said;
        let network_changed = async {
            if network.changed().await.is_err() {
                // Without custom networking nobody tells.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            changed = nodes.changed() => if changed.is_err() { return },
            () = network_changed => {}
        }
    }
}

#[cfg(test)]
mod tests;
