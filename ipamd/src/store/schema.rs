//! Which form the database has, and who may use it.
//!
//! A newer ipamd says in the database which is the oldest form that can still work with what it writes. So an ipamd that is put
//! back in place of its successor goes on with leases, cool-downs and history, as long as the successor only added to them.

use std::path::Path;

use sqlx::{
    Connection, SqliteConnection,
    migrate::{MigrateError, Migrator},
};

use super::StoreError;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The oldest form whose readers and writers understand a database of this one. Raise it with a migration that changes or
/// removes what there was; leave it with one that only adds tables, or columns that may be absent.
pub(super) const OLDEST_READER: i64 = 3;

/// Brings the database into our form, or leaves it in that of a newer ipamd that lets us work with it.
pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let path = path.display().to_string();
    let ours = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    let said = oldest_reader(connection).await;
    let lets_us = said.is_some_and(|oldest| oldest <= ours);
    let migrated = match lets_us {
        true => {
            let migrations = MIGRATIONS.migrations.clone();
            Migrator { migrations, ignore_missing: true, ..Migrator::DEFAULT }.run(&mut *connection).await
        }
        false => MIGRATIONS.run(&mut *connection).await,
    };
    match migrated {
        Ok(()) => {}
        Err(source @ (MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..))) => {
            return Err(StoreError::Newer { path, source });
        }
        Err(error) => return Err(StoreError::Damaged { path, source: sqlx::Error::Migrate(Box::new(error)) }),
    }
    if said == Some(OLDEST_READER) {
        // Each write waits for the disk, and a start for each write.
        return Ok(());
    }
    tell_oldest_reader(connection, ours).await.map_err(|source| StoreError::Damaged { path, source })
}

/// What the last ipamd with the newest form said. Absent: none did, or there is no database yet.
async fn oldest_reader(connection: &mut SqliteConnection) -> Option<i64> {
    let said = sqlx::query_scalar::<_, String>("SELECT value FROM facts WHERE name = 'oldest_reader'");
    said.fetch_optional(connection).await.ok()??.parse().ok()
}

/// Says who may work with this database, unless it has a newer form than ours: then that has been said.
async fn tell_oldest_reader(connection: &mut SqliteConnection, ours: i64) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let form: i64 =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(&mut *transaction).await?;
    if form == ours {
        sqlx::query("INSERT OR REPLACE INTO facts (name, value) VALUES ('oldest_reader', ?)")
            .bind(OLDEST_READER.to_string())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

/// Whether SQLite finds the file in order.
pub(super) async fn quick_check(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await?;
    if verdict == "ok" { Ok(()) } else { Err(sqlx::Error::Protocol(verdict)) }
}
