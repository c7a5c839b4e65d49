//! The lease database: SQLite in WAL mode, one writer for leases, one for what concerns the cloud.
//!
//! Leases are committed without an fsync: they survive the death of this process, and after a reboot no sandbox lives
//! that could need them (the boot id decides). Intents and migrations are committed with an fsync, because an ENI
//! outlives the machine. Writes of leases that arrive together share one commit.

mod cloud;
mod forms;
mod history;
mod leases;
mod place;
mod read;
mod schema;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use eni_proto::PodKey;
use ipam_core::{
    Action, CoolDown, IntentId, Lease, Limits, Moment, SubnetId,
    ports::{Cidr4, Interface, NodeIdentity},
};
use sqlx::{
    ConnectOptions, SqliteConnection,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::{Notify, mpsc, oneshot};

use self::{cloud::CloudWrite, forms::Form, leases::LeaseWrite};
pub(crate) use self::{
    cloud::KnownCloud,
    history::tenures,
    place::{PlaceError, boot_id, lock, set_aside},
    read::{check, known, leases},
};
use crate::{kube::decide::Wanted, tenure::Ended};

/// How long one writer waits for the other before SQLite gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a write the write-ahead log is moved into the database. Until then it only grows: 4 KiB for each commit.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(20);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file or its folder cannot be opened.
    #[error("IPAM-304 the database {path} cannot be opened; check that the path is a writable file on a local disk")]
    Open {
        /// Path of the database.
        path: String,
        /// SQLite's or the system's reason.
        source: sqlx::Error,
    },
    /// The content is not what SQLite or our own schema allows.
    #[error("IPAM-305 the database {path} is damaged")]
    Damaged {
        /// Path of the database.
        path: String,
        /// What is wrong.
        source: sqlx::Error,
    },
    /// A newer ipamd has written it.
    #[error("IPAM-305 the database {path} was written by a newer ipamd")]
    Newer {
        /// Path of the database.
        path: String,
        /// Which migration is unknown.
        source: MigrateError,
    },
    /// A write failed.
    #[error("IPAM-206 the database refused a write")]
    Write(#[source] sqlx::Error),
    /// The writer has stopped.
    #[error("IPAM-206 the database writer has stopped")]
    Stopped,
}

impl StoreError {
    /// Whether the file should be set aside and its content rebuilt from kernel and EC2.
    pub(crate) fn calls_for_a_new_file(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Newer { .. })
    }
}

/// What a start finds in the database.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// Leases of this boot.
    pub(crate) leases: Vec<Lease>,
    /// Cool-downs that may still run.
    pub(crate) cooling: Vec<CoolDown>,
    /// Whether the earlier run was of this boot.
    pub(crate) same_boot: bool,
    /// What an earlier run knew of the cloud.
    pub(crate) cloud: KnownCloud,
}

/// The open database. Cheap to clone; all clones share the two connections.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    leases: mpsc::UnboundedSender<(LeaseWrite, Acknowledge)>,
    cloud: mpsc::UnboundedSender<(CloudWrite, Acknowledge)>,
    /// There is something that will be over one day: an ended lease, or an address that rests.
    aging: Arc<Notify>,
}

type Acknowledge = oneshot::Sender<Result<(), StoreError>>;

impl Store {
    /// Opens or creates the database and returns it with what it holds.
    ///
    /// Leases of another boot are turned into cool-downs that end at `cool_until`: no sandbox of theirs lives, but peers may
    /// still send to their addresses.
    ///
    /// # Errors
    /// [`StoreError::Open`]: the operator must act. [`StoreError::Damaged`] and [`StoreError::Newer`]: set the file aside
    /// and open a new one.
    pub(crate) async fn open(
        path: &Path,
        boot_id: &str,
        now: Moment,
        cool_until: Moment,
    ) -> Result<(Self, Recorded), StoreError> {
        let mut durable = connect(path, SqliteSynchronous::Full).await?;
        schema::migrate(&mut durable, path).await?;
        let damaged = |source: sqlx::Error| StoreError::Damaged { path: path.display().to_string(), source };
        schema::quick_check(&mut durable).await.map_err(damaged)?;
        let same_boot = leases::begin_boot(&mut durable, boot_id, now, cool_until).await.map_err(damaged)?;
        let recorded = read::read_all(&mut durable, same_boot).await.map_err(damaged)?;
        let mut leases = connect(path, SqliteSynchronous::Normal).await?;
        sqlx::query("PRAGMA wal_autocheckpoint = 0").execute(&mut leases).await.map_err(damaged)?;
        let (lease_sender, lease_receiver) = mpsc::unbounded_channel();
        let (cloud_sender, cloud_receiver) = mpsc::unbounded_channel();
        let (written, aging) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        // What an earlier run left.
        aging.notify_one();
        tokio::spawn(leases::write_all(leases, lease_receiver, Arc::clone(&written)));
        tokio::spawn(cloud::write_all(durable, cloud_receiver, written));
        Ok((Self { leases: lease_sender, cloud: cloud_sender, aging }, recorded))
    }

    /// Queues a lease; the future resolves once it is committed. Queued in the order of the calls. Repeatable.
    pub(crate) fn put(&self, lease: Lease) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.leases, LeaseWrite::Put(Box::new(lease)))
    }

    /// Queues the end of a lease together with its place in the history and the cool-downs of its addresses. Queued in the order of
    /// the calls. Repeatable.
    pub(crate) fn release(
        &self,
        key: PodKey,
        cooling: Vec<CoolDown>,
        at: Moment,
        why: Ended,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.aging.notify_one();
        Self::queue(&self.leases, LeaseWrite::Release { key, cooling, at, why })
    }

    /// Queues a cool-down of an address that nobody had a lease for.
    pub(crate) fn cool(&self, cooling: CoolDown) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.aging.notify_one();
        Self::queue(&self.leases, LeaseWrite::Cool(cooling))
    }

    /// Waits until something was written since this was last waited for that [`Self::forget_cooled`] or [`Self::prune`] will
    /// remove; at once after a start. For one waiter.
    pub(crate) async fn aging(&self) {
        self.aging.notified().await;
    }

    /// Queues the removal of cool-downs that are over.
    pub(crate) fn forget_cooled(&self, now: Moment) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.leases, LeaseWrite::ForgetCooled { now })
    }

    /// Queues the removal of what ended before `oldest`, and of all but the last `most_rows` that ended.
    pub(crate) fn prune(
        &self,
        oldest: Moment,
        most_rows: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.leases, LeaseWrite::Prune { oldest, most_rows })
    }

    /// Writes durably (fsync) that `action` is about to be done.
    pub(crate) fn begin(
        &self,
        intent: &IntentId,
        action: &Action,
        now: Moment,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.cloud, CloudWrite::Begin { intent: intent.clone(), action: action.write(), now })
    }

    /// Writes durably how a change ended, together with the ENIs as they are now.
    pub(crate) fn settle(
        &self,
        intent: &IntentId,
        outcome: String,
        now: Moment,
        interfaces: Vec<Interface>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.cloud, CloudWrite::Settle { intent: intent.clone(), outcome, now, interfaces })
    }

    /// Keeps the ENIs as they are now for the next start.
    pub(crate) fn remember(
        &self,
        interfaces: Vec<Interface>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.cloud, CloudWrite::Interfaces(interfaces))
    }

    /// Keeps who this node is.
    pub(crate) fn remember_node(
        &self,
        node: &NodeIdentity,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.cloud, CloudWrite::Node(Box::new(node.clone())))
    }

    /// Keeps what EC2 said of the instance type.
    pub(crate) fn remember_limits(
        &self,
        limits: Limits,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.cloud, CloudWrite::Limits(limits))
    }

    /// Keeps what Kubernetes wants of the pool.
    ///
    /// # Errors
    /// When it could not be written.
    pub(crate) fn remember_wanted(
        &self,
        wanted: &Wanted,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.cloud, CloudWrite::Wanted(wanted.clone()))
    }

    /// Keeps the networks of the zone's subnets.
    pub(crate) fn remember_networks(
        &self,
        networks: &BTreeMap<SubnetId, Cidr4>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.cloud, CloudWrite::Networks(networks.clone()))
    }

    /// Keeps the settings that were given, for people's commands.
    pub(crate) fn remember_settings(
        &self,
        given: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.cloud, CloudWrite::Given(given.clone()))
    }

    /// Forgets all that is known of the cloud: it was written by another instance.
    pub(crate) fn forget_cloud(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        Self::queue(&self.cloud, CloudWrite::Forget)
    }

    fn queue<W: Send + 'static>(
        queue: &mpsc::UnboundedSender<(W, Acknowledge)>,
        write: W,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<W> {
        let (acknowledge, acknowledged) = oneshot::channel();
        // A closed queue drops `acknowledge`, which is what the caller sees.
        let _ = queue.send((write, acknowledge));
        async { acknowledged.await.map_err(|_| StoreError::Stopped)? }
    }
}

async fn connect(path: &Path, synchronous: SqliteSynchronous) -> Result<SqliteConnection, StoreError> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(BUSY_TIMEOUT)
        .connect()
        .await
        .map_err(|source| {
            let path = path.display().to_string();
            if is_damage(&source) { StoreError::Damaged { path, source } } else { StoreError::Open { path, source } }
        })
}

/// Tells whether SQLite says "not a database" (26) or "malformed" (11). Source: sqlite.org/rescode.html.
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code().map(|code| code.into_owned()));
    let primary = code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    matches!(primary, Some(11 | 26))
}

/// SQLite has no unsigned integers; a moment fits for the next 292 million years.
fn millis(moment: Moment) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
}

fn moment(millis: i64) -> Moment {
    Moment::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests;
