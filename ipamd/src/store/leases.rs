//! Writes leases: those that arrive together share one commit, and those of an earlier boot are void.

use std::sync::Arc;

use eni_proto::PodKey;
use ipam_core::{CoolDown, Lease, Moment};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Notify, mpsc};

use super::{Acknowledge, StoreError, history, millis};
use crate::{tenure::Ended, waits::Waits};

/// Most lease writes in one commit: bounds the wait of the first.
const COMMIT_LIMIT: usize = 256;

#[derive(Debug)]
pub(super) enum LeaseWrite {
    Put(Box<Lease>),
    Release { key: PodKey, cooling: Vec<CoolDown>, at: Moment, why: Ended },
    Cool(CoolDown),
    ForgetCooled { now: Moment },
    Prune { oldest: Moment, most_rows: u32 },
}

/// Voids the leases of an earlier boot; when they really ended nobody knows, certainly before `now`. Returns whether this is
/// still the same boot.
pub(super) async fn begin_boot(
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

/// Writes leases, as many as have arrived in one commit, and acknowledges each after the commit.
pub(super) async fn write_all(
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
