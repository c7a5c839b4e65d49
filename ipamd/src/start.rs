//! The daemon's start, step by step, and its end.
//!
//! Order matters: the lock first, so that nobody else touches the database; then the socket, so that ADDs wait instead of
//! failing; then what needs the network. ADDs are served from the moment the loop runs. At the end, what is under way is finished,
//! and ADDs that wait for an address are sent to the next daemon.

mod node;
mod recover;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ipam_aws::{AwsEc2, AwsImds, AwsSettings};
use ipam_core::{
    Moment, Policy,
    engine::{self, Engine},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
};

use self::recover::{Recovered, Sources};
use crate::{
    admin, branches, clock, conflist, connections, ended,
    errors::{SystemError, chain},
    handle::{Handle, Stage},
    host::HostNet,
    kube::{self, Kube, Newsroom, decide::Wanted},
    live,
    metadata::{self, Descriptions},
    metrics::{self, METRICS, ec2::Counted},
    migrate, orphans, policy_agent,
    reconcile::{self, Outside},
    released, reports, sandboxes, server,
    settings::{HistoryBounds, Settings},
    socket::{self, SocketError},
    store::{PlaceError, Recorded, Store, StoreError, boot_id, lock, set_aside},
    waits,
};

/// How long calls under way may take after a signal to stop. A DEL takes milliseconds, but an ADD may wait for an address.
const CALM_END: Duration = Duration::from_millis(200);
/// How long after that the process may live on.
const HURRIED_END: Duration = Duration::from_secs(2);
/// The database is rid of what is over this long after something ended or began to rest, or longer where it rests longer.
const HOUSEKEEPING_PAUSE: Duration = Duration::from_secs(30);
/// So often at least: the history ages by itself.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(3600);

/// Why the daemon could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The place of the database cannot be used.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The gRPC server ended by itself.
    #[error("IPAM-302 the gRPC server on the socket ended")]
    Server(#[source] tonic::transport::Error),
    /// The system refused something that every start needs.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Runs the daemon until it is told to stop. `policies` is what the settings say of the pool, now and later; `given` are the texts of
/// the settings that somebody set.
///
/// # Errors
/// What the operator has to mend; everything that can get better by itself is waited for instead.
pub(crate) async fn serve(
    settings: Settings,
    given: BTreeMap<String, String>,
    policies: watch::Receiver<Policy>,
) -> Result<(), StartError> {
    let _lock = lock(&settings.database).await?;
    let boot_id = boot_id()?;
    let database = format!("the database {}", settings.database.display());
    let (store, recorded) = waits::during(database, open_store(&settings, &boot_id)).await?;
    let listener = socket::listen(&settings.socket)?;
    tokio::spawn(remember(store.clone(), given, recorded.cloud.given.clone()));
    tracing::info!(socket = %settings.socket.display(), leases = recorded.leases.len(), "listening");
    let (stage, stages) = watch::channel(Stage::Starting("the start has just begun".to_owned()));
    let (hurry, hurries) = watch::channel(false);
    let links_left = Arc::new(Notify::new());
    admin::start(&settings, &stages);
    tokio::spawn(reports::follow(settings.socket.clone()));
    let server = server::serve(
        listener,
        settings.clone(),
        stages,
        hurries.clone(),
        Arc::clone(&links_left),
        told_to_stop(hurry)?,
    );
    let begun = async {
        Box::pin(begin(settings, policies, (store, recorded), &stage, links_left)).await?;
        std::future::pending().await
    };
    tokio::select! {
        ended = server => ended.map_err(StartError::Server),
        failed = Box::pin(begun) => failed,
        () = out_of_patience(hurries) => Ok(()),
    }
}

/// Keeps the settings that were given, unless they are as `before`: every write waits for the disk.
async fn remember(store: Store, given: BTreeMap<String, String>, before: BTreeMap<String, String>) {
    if given != before
        && let Err(error) = store.remember_settings(&given).await
    {
        tracing::warn!(error = %chain(&error), "the settings could not be stored; `ipamd doctor` knows only its own");
    }
}

/// Resolves when a signal asks for the end; a moment later, who still waits is told to `hurry`.
fn told_to_stop(hurry: watch::Sender<bool>) -> Result<impl Future<Output = ()>, StartError> {
    let listen = |kind, what| signal(kind).map_err(|source| SystemError { what, source });
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping: calls under way are finished first");
        tokio::spawn(async move {
            tokio::time::sleep(CALM_END).await;
            hurry.send_replace(true);
            hurry.closed().await;
        });
    })
}

/// Resolves some time after the hurry began.
async fn out_of_patience(mut hurries: watch::Receiver<bool>) {
    drop(hurries.wait_for(|hurry| *hurry).await);
    tokio::time::sleep(HURRIED_END).await;
    tracing::warn!("some calls did not end; stopping all the same");
}

/// Opens the database. One that is damaged or too new is set aside, never erased, and its leases are read back from the kernel.
async fn open_store(settings: &Settings, boot_id: &str) -> Result<(Store, Recorded), StartError> {
    let now = clock::now();
    let cool_until = now.after(settings.policy.cool_down);
    let error = match Store::open(&settings.database, boot_id, now, cool_until).await {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    if !error.calls_for_a_new_file() {
        return Err(error.into());
    }
    let aside = set_aside(&settings.database)?;
    tracing::error!(error = %chain(&error), kept_as = aside.map(|path| tracing::field::display(path.display().to_string())), "database set aside; leases are read back from the kernel and EC2");
    Ok(Store::open(&settings.database, boot_id, now, cool_until).await?)
}

/// Finds out who this node is and what the kernel holds, and starts the loop.
async fn begin(
    settings: Settings,
    policies: watch::Receiver<Policy>,
    (store, mut recorded): (Store, Recorded),
    stage: &watch::Sender<Stage>,
    links_left: Arc<Notify>,
) -> Result<(), StartError> {
    let imds = Arc::new(AwsImds::new());
    let node = node::identity(&*imds, &recorded, stage).await;
    let ec2 = Arc::new(counted(AwsEc2::new(AwsSettings::for_region(&node.region))));
    let mut known = node::known_cloud(&store, &node, std::mem::take(&mut recorded.cloud)).await;
    let limits = node::limits(&*ec2, &node, settings.policy.access, (&store, &known), stage).await;
    tracing::info!(instance = %node.instance, instance_type = node.instance_type, max_enis = limits.max_enis, addresses_per_eni = limits.addresses_per_eni, "node identified");
    let host = waits::during("the kernel", kernel(&settings)).await?;
    let (kube, newsroom, policy) = kubernetes(&settings, std::mem::take(&mut known.wanted), stage).await;
    let enis = Descriptions { access: policy.access, ec2: &*ec2, imds: &imds, node: &node };
    let sources = Sources { settings: &settings, host: &host, enis, store: &store, stage, newsroom: &newsroom };
    let Recovered { leases, cooling } = sources.recover(recorded, &known.interfaces).await;
    let released = connections::start(cooling.iter().map(|cooling| cooling.address).collect());
    let start = engine::Start {
        node: node.clone(),
        policy: policy.clone(),
        limits,
        leases,
        cooling,
        intent_prefix: format!("{}-{:x}", node.instance, clock::now().as_millis()),
        intents_open: known.illegible || !known.open.is_empty(),
    };
    let with_eni_config = settings.kube.as_ref().is_some_and(|kube| kube.eni_config.is_some());
    let (released_dir, history, period) = (settings.released_dir.clone(), settings.history, settings.metadata_period);
    let cool_down = settings.policy.cool_down;
    let (granted, new_leases) = mpsc::unbounded_channel();
    let (told, shown, prefix) = (settings.clone(), node.clone(), settings.veth_prefix.clone());
    let lost_sandboxes = settings.runtime.clone();
    let outside = Outside {
        ec2,
        imds: imds.clone(),
        store: store.clone(),
        host: host.clone(),
        node,
        settings,
        networks: Mutex::new(known.networks.clone()),
        granted,
        released,
        newsroom,
        kube: kube.as_ref().map(Kube::node),
    };
    let handle = reconcile::start(Engine::new(start, clock::now()), outside, known);
    settle_in(told, &handle, host.clone());
    let wanted = kube.map(|kube| tell_kubernetes(kube, &handle, &store));
    tokio::spawn(live::follow(live::Sources { settings: policies, wanted, with_eni_config }, policy, handle.clone()));
    released::honour(&released_dir, &handle).await;
    tokio::spawn(ended::follow(host.clone(), links_left));
    if let Some(runtime) = lost_sandboxes {
        tokio::spawn(sandboxes::follow(runtime, handle.clone(), host.clone(), prefix.clone()));
    }
    tokio::spawn(orphans::follow(handle.clone(), host, prefix, new_leases));
    tokio::spawn(released::follow(released_dir, handle.clone()));
    tokio::spawn(metadata::follow(imds, handle.clone(), period, shown));
    tokio::spawn(housekeeping(store, history, cool_down));
    // Set once: a process starts once.
    let _ = METRICS.served_after.set(metrics::age().unwrap_or_default());
    stage.send_replace(Stage::Serving(handle));
    Ok(())
}

/// Begins to follow our Node; says in `stage` what that waits for.
async fn kubernetes(
    settings: &Settings,
    known: Wanted,
    stage: &watch::Sender<Stage>,
) -> (Option<Kube>, Newsroom, Policy) {
    let waiting = |reason| drop(stage.send_replace(Stage::Starting(reason)));
    kube::begin(settings.kube.as_ref(), settings.policy.clone(), known, waiting).await
}

/// Tells Kubernetes of the pool from now on, and keeps what it wants for the next start.
fn tell_kubernetes(kube: Kube, handle: &Handle, store: &Store) -> watch::Receiver<Wanted> {
    let (pool, leases, store) = (handle.clone(), handle.clone(), store.clone());
    let pool = move || {
        let pool = pool.clone();
        async move { pool.status().await.ok() }
    };
    let remember = move |wanted: Wanted| {
        let stored = store.remember_wanted(&wanted);
        async move {
            if let Err(error) = stored.await {
                tracing::error!(error = %chain(&error), "what Kubernetes wants could not be stored");
            }
        }
    };
    kube.serve(pool, async move { leases.leases().await.unwrap_or_default() }, remember)
}

/// Starts the kernel's thread, and makes the node ready for pods on branch ENIs, or as it was before.
async fn kernel(settings: &Settings) -> Result<HostNet, StartError> {
    let host = HostNet::start(&settings.veth_prefix)
        .map_err(|source| SystemError { what: "what keeps the network", source })?;
    if let Err(error) = host.prepare_branches(settings.branches).await {
        tracing::error!(error = %chain(&error), "the node could not be made ready for pods on branch ENIs");
    }
    Ok(host)
}

/// EC2, with its calls and its limiter in the metrics.
fn counted(ec2: AwsEc2) -> Counted<AwsEc2> {
    let ec2 = Arc::new(ec2);
    let uses = Arc::clone(&ec2);
    // Set once: a process starts once.
    let _ = METRICS.limiter.set(Box::new(move || uses.uses()));
    Counted(ec2)
}

/// Once the node can serve, the runtime may use it, and what others have left goes.
fn settle_in(settings: Settings, handle: &Handle, host: HostNet) {
    if settings.branches.is_some() {
        tokio::spawn(branches::sweep(host));
    }
    if let Some(folder) = settings.conf_dir.clone() {
        tokio::spawn(conflist::publish(folder, settings.clone(), handle.clone()));
    }
    if let Some(agent) = settings.policy_agent.clone() {
        tokio::spawn(policy_agent::serve(agent, settings.policy.further_cards, handle.clone()));
    }
    tokio::spawn(migrate::sweep::once(settings, handle.clone()));
}

/// Work that nobody waits for.
async fn housekeeping(store: Store, history: HistoryBounds, cool_down: Duration) {
    loop {
        drop(tokio::time::timeout(HOUSEKEEPING_PERIOD, store.aging()).await);
        tokio::time::sleep(cool_down.max(HOUSEKEEPING_PAUSE)).await;
        let now = clock::now();
        let forgotten = store.forget_cooled(now);
        let oldest = Moment::from_millis(now.as_millis().saturating_sub(history.age_milliseconds()));
        let pruned = store.prune(oldest, history.rows);
        for outcome in [forgotten.await, pruned.await] {
            if let Err(error) = outcome {
                tracing::warn!(error = %chain(&error), "what is over could not be removed from the database");
            }
        }
    }
}
