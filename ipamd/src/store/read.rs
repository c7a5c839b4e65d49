//! Reads what the database holds.

use std::{net::IpAddr, path::Path};

use eni_proto::{EniMark, Pod, PodAddresses, PodKey};
use ipam_core::{CoolDown, Lease};
use sqlx::{
    ConnectOptions, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use super::{KnownCloud, Recorded, StoreError, cloud, is_damage, moment, schema};

/// Returns the leases of the database at `path`. Reads only; a daemon may use it at the same time.
///
/// # Errors
/// [`StoreError::Open`] when there is no database, [`StoreError::Damaged`] when its leases cannot be read.
pub(crate) async fn leases(path: &Path) -> Result<Vec<Lease>, StoreError> {
    let rows = sqlx::query("SELECT * FROM leases ORDER BY address").fetch_all(&mut open_to_read(path).await?).await;
    let damaged = |source| StoreError::Damaged { path: path.display().to_string(), source };
    rows.map_err(damaged)?.iter().map(read_lease).collect::<Result<_, _>>().map_err(damaged)
}

/// Returns what the daemon wrote of node, ENIs and settings into the database at `path`. Reads only.
///
/// # Errors
/// As [`leases`].
pub(crate) async fn known(path: &Path) -> Result<KnownCloud, StoreError> {
    let known = cloud::read(&mut open_to_read(path).await?).await;
    known.map_err(|source| StoreError::Damaged { path: path.display().to_string(), source })
}

/// Looks whether the database at `path` is in order. Reads only; a daemon may use it at the same time.
///
/// # Errors
/// As [`leases`].
pub(crate) async fn check(path: &Path) -> Result<(), StoreError> {
    let verdict = schema::quick_check(&mut open_to_read(path).await?).await;
    verdict.map_err(|source| StoreError::Damaged { path: path.display().to_string(), source })
}

pub(super) async fn open_to_read(path: &Path) -> Result<SqliteConnection, StoreError> {
    let name = || path.display().to_string();
    let connected = SqliteConnectOptions::new().filename(path).read_only(true).connect().await;
    connected.map_err(|source| match is_damage(&source) {
        true => StoreError::Damaged { path: name(), source },
        false => StoreError::Open { path: name(), source },
    })
}

pub(super) async fn read_all(connection: &mut SqliteConnection, same_boot: bool) -> Result<Recorded, sqlx::Error> {
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
