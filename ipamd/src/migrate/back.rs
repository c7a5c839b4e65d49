//! From us to the incumbent.

use std::{collections::BTreeSet, fs, io, path::Path};

use eni_datapath::incumbent::{self, Chains, Incumbent};
use ipam_core::Lease;

use super::{
    MigrateError, Surroundings,
    checkpoint::{self, Found},
    facts::Node,
    files,
    import::taken,
    judge::Obstacle,
    legacy::Legacy,
    record::Record,
    report::Report,
};
use crate::{
    conflist,
    incumbent::running,
    install,
    settings::Settings,
    store::{self, boot_id, lock, set_aside},
};

/// Gives the node back: all that the incumbent needs is in place before anything of ours goes.
pub(super) async fn back(settings: &Settings, surroundings: &Surroundings) -> Result<Report, MigrateError> {
    let _lock = lock(&settings.database).await?;
    let node = Node::read().await?;
    let (_, enis) = node.plans(settings)?;
    let leases = match settings.database.exists() {
        true => store::leases(&settings.database).await?,
        false => Vec::new(),
    };
    let obstacles = obstacles(&leases, running(surroundings.checkpoint(settings)));
    if !obstacles.is_empty() {
        let summary = "the node was not given back".to_owned();
        return Ok(Report { summary, obstacles, ..Report::default() });
    }
    let boot_id = boot_id()?;
    let record = Record::read(&settings.database).map_err(files("reading the record of the import"))?;
    let mut notes = Vec::new();
    let (chains, legacy) = taken(record.as_ref(), &boot_id)?.unwrap_or_else(|| {
        notes.push(
            "the incumbent's chains of this boot are not known: what pods send out of the VPC waits until it runs"
                .to_owned(),
        );
        (Chains::default(), Legacy::default())
    });
    // The runtime makes and deletes no pods from now on, until the incumbent writes its own.
    remove_conflist(settings)?;
    // The daemon may have been stopped before it removed what the last DELs left to it.
    eni_datapath::delete_ended()
        .map_err(|error| files("deleting the interfaces of pods that have ended")(io::Error::other(error)))?;
    let seen = Incumbent::observe(&settings.veth_prefix)?;
    let given = give(surroundings.checkpoint(settings), &leases, &seen)?;
    let mut things = incumbent::restore(&seen, &enis, &chains)?;
    let present = Legacy::observe().map_err(files("reading chains of iptables-legacy"))?;
    if present.is_empty() && !legacy.is_empty() {
        legacy.restore().map_err(files("restoring chains of iptables-legacy"))?;
        things.extend(legacy.lines().into_iter().map(|line| format!("restore {line}")));
    }
    things.extend(incumbent::withdraw(&Incumbent::observe(&settings.veth_prefix)?, &enis)?);
    for file in install::files(settings) {
        remove_file(&file)?;
    }
    if let Some(aside) = set_aside(&settings.database)? {
        things.push(format!("set the database aside as {}", aside.display()));
    }
    Record::remove(&settings.database).map_err(files("removing the record of the import"))?;
    let summary = format!("{given} pod(s) were given back; start amazon-vpc-cni-k8s on this node now");
    Ok(Report { summary, notes, things, ..Report::default() })
}

fn obstacles(leases: &[Lease], running: Option<String>) -> Vec<Obstacle> {
    let running = running.map(|sign| Obstacle {
        code: "IPAM-351",
        what: format!("amazon-vpc-cni-k8s runs here already ({sign}); take its DaemonSet off this node first"),
    });
    let further = leases.iter().filter(|lease| lease.key.interface() != "eth0").map(|lease| Obstacle {
        code: "IPAM-359",
        what: format!(
            "pod {} has a further interface {}, which the incumbent has no place for",
            lease.pod,
            lease.key.interface()
        ),
    });
    running.into_iter().chain(further).collect()
}

/// Writes the leases whose pods are in the kernel, unless an earlier try has done so.
fn give(path: &Path, leases: &[Lease], seen: &Incumbent) -> Result<usize, MigrateError> {
    let failed = |error| files("writing the incumbent's leases")(io::Error::other(error));
    let labels = incumbent::labelled(seen);
    let ours = labels.values().filter_map(|alias| alias.addresses.v4());
    let its = seen.pods().into_iter().map(|pod| pod.address);
    let living: BTreeSet<_> = ours.chain(its).collect();
    let kept: Vec<Lease> =
        leases.iter().filter(|lease| lease.addresses.v4().is_some_and(|own| living.contains(&own))).cloned().collect();
    let given = matches!(checkpoint::read(path), Ok(Found::Its(..)));
    if !(given && labels.is_empty()) {
        checkpoint::give(path, &kept).map_err(failed)?;
    }
    Ok(living.len())
}

fn remove_conflist(settings: &Settings) -> Result<(), MigrateError> {
    settings.conf_dir.as_ref().map_or(Ok(()), |folder| remove_file(&folder.join(conflist::FILE)))
}

fn remove_file(file: &std::path::Path) -> Result<(), MigrateError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(files(&format!("removing {}", file.display()))(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
