//! From the incumbent to us.

use std::{fs, io};

use eni_datapath::incumbent::{self, Chains, Incumbent};

use super::{
    MigrateError, Surroundings, checkpoint,
    facts::{Gathered, Node, gather},
    files,
    judge::{Verdict, judge},
    legacy::Legacy,
    record::Record,
    report::Report,
};
use crate::{
    clock, conflist,
    incumbent::AWS_CNI,
    settings::Settings,
    store::{self, Store, boot_id, lock},
};

/// Says what is there, what can be taken over and what not. Changes nothing.
pub(super) async fn check(settings: &Settings, surroundings: &Surroundings) -> Result<Report, MigrateError> {
    let node = Node::read().await?;
    // Without a database nobody has a lease of ours.
    let leases = store::leases(&settings.database).await.unwrap_or_default();
    let found = gather(settings, surroundings, &node, leases)?;
    let verdict = decide(settings, &found);
    let mut things = found.seen.leftovers();
    things.extend(found.legacy.lines());
    let summary = match (verdict.adoptions.len(), verdict.obstacles.len(), verdict.done) {
        (pods, 0, 0) => format!("{pods} pod(s) can be taken over"),
        (0, 0, done) => format!("{done} pod(s) are ours already, and none is left to take over"),
        (pods, 0, done) => format!("an import was begun: {done} pod(s) are ours, {pods} are left to take over"),
        (pods, obstacles, _) => format!("{obstacles} thing(s) stand against a take-over of {pods} pod(s)"),
    };
    Ok(Report::of(summary, verdict, things))
}

fn decide(settings: &Settings, found: &Gathered) -> Verdict {
    judge(&found.facts, conflist::NETWORK, clock::now(), settings.policy.cool_down)
}

/// Takes the node over, or says why not.
pub(super) async fn import(settings: &Settings, surroundings: &Surroundings) -> Result<Report, MigrateError> {
    let _lock = lock(&settings.database).await?;
    let node = Node::read().await?;
    let plans = node.plans(settings)?;
    let boot_id = boot_id()?;
    let now = clock::now();
    let opened = Store::open(&settings.database, &boot_id, now, now.after(settings.policy.cool_down)).await?;
    let (store, recorded) = opened;
    let found = gather(settings, surroundings, &node, recorded.leases)?;
    let verdict = decide(settings, &found);
    if !verdict.obstacles.is_empty() {
        return Ok(Report::of("the node was not taken over".to_owned(), verdict, Vec::new()));
    }
    remember(settings, &found, &boot_id)?;
    for (_, lease) in &verdict.adoptions {
        store.put(lease.clone()).await?;
    }
    for cooling in &verdict.cooling {
        store.cool(cooling.clone()).await?;
    }
    checkpoint::bar(surroundings.checkpoint(settings))
        .map_err(|error| files("barring the incumbent")(io::Error::other(error)))?;
    let adoptions: Vec<_> = verdict.adoptions.iter().map(|(adoption, _)| adoption.clone()).collect();
    let mut things = incumbent::adopt(&found.seen, &plans.0, &plans.1, &adoptions)?;
    found.legacy.remove().map_err(files("removing chains of iptables-legacy"))?;
    things.extend(found.legacy.lines().into_iter().map(|line| format!("remove {line}")));
    things.extend(incumbent::remove(&Incumbent::observe(&settings.veth_prefix)?)?);
    things.extend(remove_conflist(settings)?);
    let summary = format!("{} pod(s) were taken over; start ipamd serve now", verdict.adoptions.len() + verdict.done);
    Ok(Report::of(summary, verdict, things))
}

/// What an earlier try has removed already is in its record only.
fn remember(settings: &Settings, found: &Gathered, boot_id: &str) -> Result<(), MigrateError> {
    let before = found.record.clone().filter(|record| record.boot_id == boot_id).unwrap_or_default();
    let or = |new: String, old: String| if new.is_empty() { old } else { new };
    let pick = |new: &Legacy, old: Legacy| if new.is_empty() { old } else { new.clone() };
    let record = Record {
        boot_id: boot_id.to_owned(),
        checkpoint: or(found.original.clone(), before.checkpoint),
        chains: or(found.seen.chains().to_records(), before.chains),
        legacy: pick(&found.legacy, before.legacy),
    };
    record.write(&settings.database).map_err(files("writing the record of what is taken away"))
}

/// Returns the chains that an import of this boot took away; nothing when there was none.
pub(super) fn taken(record: Option<&Record>, boot_id: &str) -> Result<Option<(Chains, Legacy)>, MigrateError> {
    let Some(record) = record.filter(|record| record.boot_id == boot_id) else { return Ok(None) };
    let chains =
        record.chains.parse().map_err(|error| files("reading the record of chains")(io::Error::other(error)))?;
    Ok(Some((chains, record.legacy.clone())))
}

/// So that the runtime uses ours, once the daemon has written it, and `install` sees that the node is free.
fn remove_conflist(settings: &Settings) -> Result<Option<String>, MigrateError> {
    let Some(file) = settings.conf_dir.as_ref().map(|folder| folder.join(AWS_CNI)) else { return Ok(None) };
    match fs::remove_file(&file) {
        Ok(()) => Ok(Some(format!("remove {}", file.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(files(&format!("removing {}", file.display()))(error)),
    }
}
