//! The table of leases that have ended.

use std::path::Path;

use eni_proto::PodKey;
use ipam_core::Moment;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{StoreError, millis, moment};
use crate::tenure::{Ended, Question, Tenure};

/// The parts of a lease that the history keeps.
macro_rules! columns {
    () => {
        "network, container_id, interface, namespace, pod, uid, address, ipv6, eni, since_ms"
    };
}

const KEEP_ALL: &str =
    concat!("INSERT INTO history (", columns!(), ", until_ms, ended_by) SELECT ", columns!(), ", ?, ? FROM leases");
const KEEP_ONE: &str = concat!(
    "INSERT INTO history (",
    columns!(),
    ", until_ms, ended_by) SELECT ",
    columns!(),
    ", ?, ? FROM leases \
     WHERE network = ? AND container_id = ? AND interface = ?"
);
const TENURES: &str = concat!(
    "WITH held AS (SELECT ",
    columns!(),
    ", until_ms, ended_by FROM history \
     UNION ALL SELECT ",
    columns!(),
    ", NULL AS until_ms, NULL AS ended_by FROM leases), \
     each_address AS (SELECT network, container_id, interface, namespace, pod, uid, address, eni, since_ms, until_ms, ended_by FROM held \
     UNION ALL SELECT network, container_id, interface, namespace, pod, uid, ipv6 AS address, eni, since_ms, until_ms, ended_by \
     FROM held WHERE ipv6 <> '') SELECT * FROM each_address \
     WHERE (?1 IS NULL OR address = ?1) AND (?2 IS NULL OR (namespace = ?2 AND pod = ?3)) \
     AND (?4 IS NULL OR (since_ms <= ?5 AND (until_ms IS NULL OR until_ms > ?4))) ORDER BY since_ms, address"
);

/// Copies one lease, or all of them, as ended `at`. The caller removes them in the same transaction.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    key: Option<&PodKey>,
    at: Moment,
    why: Ended,
) -> Result<(), sqlx::Error> {
    let mut query = sqlx::query(if key.is_some() { KEEP_ONE } else { KEEP_ALL }).bind(millis(at)).bind(why.as_str());
    if let Some(key) = key {
        query = query.bind(key.network()).bind(key.container_id()).bind(key.interface());
    }
    query.execute(connection).await.map(drop)
}

/// Removes what ended before `oldest`, and all but about the last `most_rows`.
pub(super) async fn prune(
    connection: &mut SqliteConnection,
    oldest: Moment,
    most_rows: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM history WHERE until_ms < ?").bind(millis(oldest)).execute(&mut *connection).await?;
    // Ids only grow, so their distance bounds the number of rows without counting them.
    sqlx::query("DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - ?")
        .bind(i64::from(most_rows))
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns what the database at `path` knows of the question, oldest first. Reads only; a daemon may use it at the same time.
///
/// # Errors
/// [`StoreError::Open`] when there is no database, [`StoreError::Damaged`] when it has no history that can be read.
pub(crate) async fn tenures(path: &Path, question: &Question) -> Result<Vec<Tenure>, StoreError> {
    let mut connection = super::read::open_to_read(path).await?;
    let address = question.ip.map(|address| address.to_string());
    let (namespace, pod) = question.pod.clone().unzip();
    let rows = sqlx::query(TENURES)
        .bind(address)
        .bind(namespace)
        .bind(pod)
        .bind(question.at.map(|span| millis(span.first)))
        .bind(question.at.map(|span| millis(span.last)))
        .fetch_all(&mut connection)
        .await;
    let damaged = |source| StoreError::Damaged { path: path.display().to_string(), source };
    rows.map_err(damaged)?.iter().map(read).collect::<Result<_, _>>().map_err(damaged)
}

fn read(row: &SqliteRow) -> Result<Tenure, sqlx::Error> {
    let until: Option<i64> = row.try_get("until_ms")?;
    let ended_by: Option<String> = row.try_get("ended_by")?;
    Ok(Tenure {
        address: row.try_get("address")?,
        eni: row.try_get("eni")?,
        namespace: row.try_get("namespace")?,
        pod: row.try_get("pod")?,
        uid: row.try_get("uid")?,
        network: row.try_get("network")?,
        container_id: row.try_get("container_id")?,
        interface: row.try_get("interface")?,
        since: moment(row.try_get("since_ms")?),
        ended: until.map(moment).zip(ended_by),
    })
}
