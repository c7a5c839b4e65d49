//! The lease database: SQLite in WAL mode, one writer for leases, one for what concerns the cloud.
//!
//! Leases are committed without an fsync: they survive the death of this process, and after a reboot no sandbox lives
//! that could need them (the boot id decides). Intents and migrations are committed with an fsync, because an ENI
//! outlives the machine. Writes of leases that arrive together share one commit.

mod cloud;
mod forms;
mod history;
mod schema;

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc, time::Duration};

use eni_proto::{EniMark, Pod, PodAddresses, PodKey};
use ipam_core::{
    Action, CoolDown, IntentId, Lease, Limits, Moment, SubnetId,
    ports::{Cidr4, Interface, NodeIdentity},
};
use sqlx::{
    ConnectOptions, Connection, Row, SqliteConnection,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use tokio::sync::{Notify, mpsc, oneshot};

use self::{cloud::CloudWrite, forms::Form};
pub(crate) use self::{cloud::KnownCloud, history::tenures};
use crate::{history::Ended, kube::decide::Wanted, waits::Waits};

/// How long one writer waits for the other before SQLite gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a write the write-ahead log is moved into the database. Until then it only grows: 4 KiB for each commit.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(20);
/// Most lease writes in one commit: bounds the wait of the first.
const COMMIT_LIMIT: usize = 256;

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

#[derive(Debug)]
enum LeaseWrite {
    Put(Box<Lease>),
    Release { key: PodKey, cooling: Vec<CoolDown>, at: Moment, why: Ended },
    Cool(CoolDown),
    ForgetCooled { now: Moment },
    Prune { oldest: Moment, most_rows: u32 },
}

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
        let same_boot = begin_boot(&mut durable, boot_id, now, cool_until).await.map_err(damaged)?;
        let recorded = read_all(&mut durable, same_boot).await.map_err(damaged)?;
        let mut leases = connect(path, SqliteSynchronous::Normal).await?;
        sqlx::query("PRAGMA wal_autocheckpoint = 0").execute(&mut leases).await.map_err(damaged)?;
        let (lease_sender, lease_receiver) = mpsc::unbounded_channel();
        let (cloud_sender, cloud_receiver) = mpsc::unbounded_channel();
        let (written, aging) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        // What an earlier run left.
        aging.notify_one();
        tokio::spawn(write_leases(leases, lease_receiver, Arc::clone(&written)));
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

/// Voids the leases of an earlier boot; when they really ended nobody knows, certainly before `now`. Returns whether this is
/// still the same boot.
async fn begin_boot(
    connection: &mut SqliteConnection,
    boot_id: &str,
    now: Moment,
    cool_until: Moment,
) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let before: Option<String> =
        sqlx::query_scalar("SELECT value FROM facts WHERE name = 'boot_id'").fetch_optional(&mut *transaction).await?;
    let same = before.as_deref() == Some(boot_id);
    if !same {
        let all = "INSERT OR REPLACE INTO cooling (address, until_ms) \
                   SELECT address, ?1 FROM leases UNION ALL SELECT ipv6, ?1 FROM leases WHERE ipv6 <> ''";
        sqlx::query(all).bind(millis(cool_until)).execute(&mut *transaction).await?;
        history::keep(&mut transaction, None, now, Ended::Reboot).await?;
        sqlx::query("DELETE FROM leases").execute(&mut *transaction).await?;
        // The instance may have another type.
        sqlx::query("DELETE FROM facts WHERE name = 'limits'").execute(&mut *transaction).await?;
        sqlx::query("INSERT OR REPLACE INTO facts (name, value) VALUES ('boot_id', ?)")
            .bind(boot_id)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(same)
}

/// Returns the leases of the database at `path`. Reads only; a daemon may use it at the same time.
///
/// # Errors
/// [`StoreError::Open`] when there is no database, [`StoreError::Damaged`] when its leases cannot be read.
pub(crate) async fn leases(path: &Path) -> Result<Vec<Lease>, StoreError> {
    let rows = sqlx::query("SELECT * FROM leases ORDER BY address").fetch_all(&mut open_to_read(path).await?).await;
    let damaged = |source| StoreError::Damaged { path: path.display().to_string(), source };
    rows.map_err(damaged)?.iter().map(read_lease).collect::<Result<_, _>>().map_err(damaged)
}

async fn open_to_read(path: &Path) -> Result<SqliteConnection, StoreError> {
    let name = || path.display().to_string();
    let connected = SqliteConnectOptions::new().filename(path).read_only(true).connect().await;
    connected.map_err(|source| match is_damage(&source) {
        true => StoreError::Damaged { path: name(), source },
        false => StoreError::Open { path: name(), source },
    })
}

async fn read_all(connection: &mut SqliteConnection, same_boot: bool) -> Result<Recorded, sqlx::Error> {
    let leases = sqlx::query("SELECT * FROM leases ORDER BY address").fetch_all(&mut *connection).await?;
    let cooling = sqlx::query("SELECT address, until_ms FROM cooling").fetch_all(&mut *connection).await?;
    Ok(Recorded {
        same_boot,
        leases: leases.iter().map(read_lease).collect::<Result<_, _>>()?,
        cooling: cooling.iter().map(read_cooling).collect::<Result<_, _>>()?,
        cloud: cloud::read(connection).await?,
    })
}

fn read_lease(row: &SqliteRow) -> Result<Lease, sqlx::Error> {
    let text = |column| row.try_get::<&str, _>(column);
    let mark = u32::try_from(row.try_get::<i64, _>("eni_mark")?).ok().and_then(EniMark::new);
    Ok(Lease {
        key: PodKey::new(text("network")?, text("container_id")?, text("interface")?).map_err(decode)?,
        pod: Pod { namespace: text("namespace")?.into(), name: text("pod")?.into(), uid: text("uid")?.into() },
        netns: text("netns")?.into(),
        addresses: addresses(text("address")?, text("ipv6")?)?,
        eni: text("eni")?.parse().map_err(decode)?,
        eni_mark: mark.ok_or_else(|| sqlx::Error::Protocol("eni_mark is outside 0..=0x7f".to_owned()))?,
        since: moment(row.try_get("since_ms")?),
    })
}

/// `address` is of either family; `ipv6` is empty unless the pod has both.
fn addresses(address: &str, ipv6: &str) -> Result<PodAddresses, sqlx::Error> {
    match (address.parse().map_err(decode)?, ipv6) {
        (IpAddr::V4(ipv4), "") => Ok(ipv4.into()),
        (IpAddr::V4(ipv4), ipv6) => Ok(PodAddresses::Dual(ipv4, ipv6.parse().map_err(decode)?)),
        (IpAddr::V6(ipv6), _) => Ok(ipv6.into()),
    }
}

fn read_cooling(row: &SqliteRow) -> Result<CoolDown, sqlx::Error> {
    Ok(CoolDown {
        address: row.try_get::<&str, _>("address")?.parse().map_err(decode)?,
        until: moment(row.try_get("until_ms")?),
    })
}

fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// SQLite has no unsigned integers; a moment fits for the next 292 million years.
fn millis(moment: Moment) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
}

fn moment(millis: i64) -> Moment {
    Moment::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// Writes leases, as many as have arrived in one commit, and acknowledges each after the commit.
async fn write_leases(
    mut connection: SqliteConnection,
    mut queue: mpsc::UnboundedReceiver<(LeaseWrite, Acknowledge)>,
    written: Arc<Notify>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, COMMIT_LIMIT).await > 0 {
        let _waits = Waits::begin("the database, to write leases");
        let (writes, waiting): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        match commit_leases(&mut connection, &writes).await {
            Ok(()) => waiting.into_iter().for_each(|caller| drop(caller.send(Ok(())))),
            // One bad write fails the commit of all, so each gets a second try of its own.
            Err(_) => {
                for (write, caller) in writes.into_iter().zip(waiting) {
                    let outcome = commit_leases(&mut connection, &[write]).await;
                    drop(caller.send(outcome.map_err(StoreError::Write)));
                }
            }
        }
        written.notify_one();
    }
}

async fn commit_leases(connection: &mut SqliteConnection, writes: &[LeaseWrite]) -> Result<(), sqlx::Error> {
    if let [alone @ LeaseWrite::Put(_)] = writes {
        // One statement is a transaction by itself, and saves two ways to SQLite's thread and back on the path of an ADD.
        return write_lease(connection, alone).await;
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for write in writes {
        write_lease(&mut transaction, write).await?;
    }
    transaction.commit().await
}

async fn write_lease(connection: &mut SqliteConnection, write: &LeaseWrite) -> Result<(), sqlx::Error> {
    match write {
        LeaseWrite::Put(lease) => {
            // The key may be there already (same key, same answer); another key's address must not be (I1).
            sqlx::query(
                "INSERT INTO leases \
                 (network, container_id, interface, namespace, pod, uid, netns, address, ipv6, eni, eni_mark, since_ms) \
                 VALUES (?,?,?,?,?,?,?,?,?,?,?,?) \
                 ON CONFLICT (network, container_id, interface) DO UPDATE SET address = excluded.address, \
                 ipv6 = excluded.ipv6, \
                 eni = excluded.eni, eni_mark = excluded.eni_mark, netns = excluded.netns",
            )
            .bind(lease.key.network())
            .bind(lease.key.container_id())
            .bind(lease.key.interface())
            .bind(&lease.pod.namespace)
            .bind(&lease.pod.name)
            .bind(&lease.pod.uid)
            .bind(&lease.netns)
            .bind(lease.addresses.all().next().map(|address| address.to_string()))
            .bind(lease.addresses.all().nth(1).map_or_else(String::new, |address| address.to_string()))
            .bind(lease.eni.as_str())
            .bind(i64::from(lease.eni_mark.value()))
            .bind(millis(lease.since))
            .execute(connection)
            .await?;
        }
        LeaseWrite::Release { key, cooling, at, why } => release(connection, key, cooling, *at, *why).await?,
        LeaseWrite::Cool(cooling) => cool(connection, cooling).await?,
        LeaseWrite::ForgetCooled { now } => {
            sqlx::query("DELETE FROM cooling WHERE until_ms <= ?").bind(millis(*now)).execute(connection).await?;
        }
        LeaseWrite::Prune { oldest, most_rows } => history::prune(connection, *oldest, *most_rows).await?,
    }
    Ok(())
}

async fn release(
    connection: &mut SqliteConnection,
    key: &PodKey,
    cooling: &[CoolDown],
    at: Moment,
    why: Ended,
) -> Result<(), sqlx::Error> {
    history::keep(connection, Some(key), at, why).await?;
    sqlx::query("DELETE FROM leases WHERE network = ? AND container_id = ? AND interface = ?")
        .bind(key.network())
        .bind(key.container_id())
        .bind(key.interface())
        .execute(&mut *connection)
        .await?;
    for one in cooling {
        cool(&mut *connection, one).await?;
    }
    Ok(())
}

async fn cool(connection: &mut SqliteConnection, cooling: &CoolDown) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT OR REPLACE INTO cooling (address, until_ms) VALUES (?, ?)");
    insert.bind(cooling.address.to_string()).bind(millis(cooling.until)).execute(connection).await.map(drop)
}

#[cfg(test)]
mod tests;
