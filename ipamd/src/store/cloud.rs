//! What outlives the machine: changes at EC2 before and after they are done, and the ENIs as they were known last.
//!
//! Each write is durable when it is acknowledged (fsync): there are few, and each is worth it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipam_core::{
    Action, IntentId, Limits, Moment, SubnetId,
    ports::{Cidr4, Interface, NodeIdentity},
};
use sqlx::{Connection, Row, SqliteConnection};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{Acknowledge, CHECKPOINT_PERIOD, StoreError, forms::Form, millis};
use crate::{kube::decide::Wanted, waits};

/// How long a settled change is kept, for people who ask what happened.
const SETTLED_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What an earlier run knew of the cloud.
#[derive(Debug, Default)]
pub(crate) struct KnownCloud {
    /// Changes that were begun and never settled, oldest first.
    pub(crate) open: Vec<(IntentId, Action)>,
    /// Whether there were such changes that this version cannot read.
    pub(crate) illegible: bool,
    /// The node's ENIs, by id.
    pub(crate) interfaces: Vec<Interface>,
    /// Who the node was. Absent: never written, by another boot, or unreadable.
    pub(crate) node: Option<NodeIdentity>,
    /// What its instance type can carry, as EC2 said. Absent: never asked.
    pub(crate) limits: Option<Limits>,
    /// Networks of the subnets that were asked for.
    pub(crate) networks: BTreeMap<SubnetId, Cidr4>,
    /// What Kubernetes wanted.
    pub(crate) wanted: Wanted,
    /// The settings that were given to the last run, by name: people's commands are often started without its environment.
    pub(crate) given: BTreeMap<String, String>,
}

/// One durable write.
#[derive(Debug)]
pub(super) enum CloudWrite {
    Begin { intent: IntentId, action: String, now: Moment },
    Settle { intent: IntentId, outcome: String, now: Moment, interfaces: Vec<Interface> },
    Interfaces(Vec<Interface>),
    Node(Box<NodeIdentity>),
    Limits(Limits),
    Networks(BTreeMap<SubnetId, Cidr4>),
    Wanted(Wanted),
    Given(BTreeMap<String, String>),
    Forget,
}

/// Writes one by one, in the order of the queue.
///
/// Also moves the write-ahead log into the database some time after it has grown, so that no ADD has to; `written` tells of leases.
pub(super) async fn write_all(
    mut connection: SqliteConnection,
    mut queue: mpsc::UnboundedReceiver<(CloudWrite, Acknowledge)>,
    written: Arc<Notify>,
) {
    // Nothing while nothing is written: a daemon that has nothing to do sleeps.
    let mut checkpoint = None;
    let soon = || Some(Instant::now() + CHECKPOINT_PERIOD);
    loop {
        tokio::select! {
            next = queue.recv() => {
                let Some((write, caller)) = next else { return };
                let outcome = waits::during("the database, to write what concerns EC2", write_one(&mut connection, write)).await;
                checkpoint = checkpoint.or_else(soon);
                drop(caller.send(outcome.map_err(StoreError::Write)));
            }
            () = written.notified(), if checkpoint.is_none() => checkpoint = soon(),
            () = async { tokio::time::sleep_until(checkpoint.unwrap_or_else(Instant::now)).await }, if checkpoint.is_some() => {
                checkpoint = None;
                if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut connection).await {
                    tracing::warn!(error = %error, "the write-ahead log could not be moved into the database");
                }
            }
        }
    }
}

async fn write_one(connection: &mut SqliteConnection, write: CloudWrite) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    match write {
        CloudWrite::Begin { intent, action, now } => {
            sqlx::query("INSERT OR REPLACE INTO intents (id, action, created_ms) VALUES (?, ?, ?)")
                .bind(intent.0)
                .bind(action)
                .bind(millis(now))
                .execute(&mut *transaction)
                .await?;
        }
        CloudWrite::Settle { intent, outcome, now, interfaces } => {
            settle(&mut transaction, &intent, outcome, now).await?;
            replace(&mut transaction, &interfaces).await?;
        }
        CloudWrite::Interfaces(interfaces) => replace(&mut transaction, &interfaces).await?,
        CloudWrite::Node(node) => fact(&mut transaction, "node", node.write()).await?,
        CloudWrite::Limits(limits) => fact(&mut transaction, "limits", limits.write()).await?,
        CloudWrite::Networks(networks) => fact(&mut transaction, "networks", networks.write()).await?,
        CloudWrite::Wanted(wanted) => fact(&mut transaction, "wanted", wanted.write()).await?,
        CloudWrite::Given(given) => fact(&mut transaction, "settings", given.write()).await?,
        CloudWrite::Forget => {
            let clear = "DELETE FROM interfaces; DELETE FROM intents; DELETE FROM facts WHERE name IN ('node', 'limits', 'networks', 'wanted')";
            sqlx::raw_sql(clear).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await
}

async fn settle(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    outcome: String,
    now: Moment,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE intents SET settled_ms = ?, outcome = ? WHERE id = ?")
        .bind(millis(now))
        .bind(outcome)
        .bind(&intent.0)
        .execute(&mut *connection)
        .await?;
    let oldest = now.as_millis().saturating_sub(u64::try_from(SETTLED_KEPT.as_millis()).unwrap_or(u64::MAX));
    sqlx::query("DELETE FROM intents WHERE settled_ms < ?")
        .bind(millis(Moment::from_millis(oldest)))
        .execute(connection)
        .await?;
    Ok(())
}

async fn replace(connection: &mut SqliteConnection, interfaces: &[Interface]) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM interfaces").execute(&mut *connection).await?;
    for interface in interfaces {
        sqlx::query("INSERT INTO interfaces VALUES (?, ?)")
            .bind(interface.id.as_str())
            .bind(interface.write())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn fact(connection: &mut SqliteConnection, name: &str, value: String) -> Result<(), sqlx::Error> {
    let write = sqlx::query("INSERT OR REPLACE INTO facts VALUES (?, ?)").bind(name).bind(value);
    write.execute(connection).await.map(drop)
}

/// Reads what an earlier run knew. What cannot be understood is left out and told: EC2 knows it too, and is looked at.
pub(super) async fn read(connection: &mut SqliteConnection) -> Result<KnownCloud, sqlx::Error> {
    let open = sqlx::query("SELECT id, action AS body FROM intents WHERE settled_ms IS NULL ORDER BY created_ms, id");
    let interfaces = sqlx::query("SELECT eni AS id, body FROM interfaces ORDER BY eni");
    let facts = sqlx::query(
        "SELECT name AS id, value AS body FROM facts WHERE name IN ('node', 'limits', 'networks', 'wanted', 'settings')",
    );
    let mut known = KnownCloud::default();
    for row in open.fetch_all(&mut *connection).await? {
        let id: String = row.try_get("id")?;
        match understood(&id, row.try_get("body")?) {
            Some(action) => known.open.push((IntentId(id), action)),
            None => {
                known.illegible = true;
                let settle =
                    sqlx::query("UPDATE intents SET settled_ms = created_ms, outcome = 'illegible' WHERE id = ?");
                settle.bind(id).execute(&mut *connection).await?;
            }
        }
    }
    for row in interfaces.fetch_all(&mut *connection).await? {
        known.interfaces.extend(understood::<Interface>(row.try_get("id")?, row.try_get("body")?));
    }
    for row in facts.fetch_all(connection).await? {
        match row.try_get("id")? {
            "node" => known.node = understood("node", row.try_get("body")?),
            "wanted" => known.wanted = understood("wanted", row.try_get("body")?).unwrap_or_default(),
            "settings" => known.given = understood("settings", row.try_get("body")?).unwrap_or_default(),
            "networks" => known.networks = understood("networks", row.try_get("body")?).unwrap_or_default(),
            name => known.limits = understood(name, row.try_get("body")?),
        }
    }
    Ok(known)
}

fn understood<T: Form>(name: &str, text: &str) -> Option<T> {
    match T::read(text) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(name, text, error = %error, "a record of an earlier run is not understood; EC2 is asked instead");
            None
        }
    }
}
