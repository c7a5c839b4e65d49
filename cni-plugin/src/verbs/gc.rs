//! GC: ends every attachment of the network that the runtime does not list.

use std::collections::BTreeSet;

use eni_datapath::{del_pod, end_branch_pod, labelled_pods, settled_branch_pods};
use eni_proto::{Pod, PodKey};

use super::release;
use crate::{
    daemon,
    error::{self, CniError},
    request::Config,
};

/// Ends what is not in `valid`; nothing at all when the runtime gave no list.
///
/// The daemon decides first: it knows which lease was given while the runtime made its list, and keeps that. Then the kernel side
/// of what has no lease any more goes. Without the daemon each attachment ends as by DEL, with a note. Of pods on branch ENIs the daemon
/// has no record: those that are older than a minute end. One failure does not stop the rest; all are reported together.
pub(super) async fn gc(config: &Config, valid: Option<&[PodKey]>) -> Result<(), CniError> {
    let Some(valid) = valid else { return Ok(()) };
    let decided = daemon::gc(config, valid).await.is_ok();
    let listed: BTreeSet<&PodKey> = valid.iter().collect();
    let labelled = labelled_pods().map_err(|error| error::unseen(&error))?;
    // The runtime knows of a pod's first interface only.
    let is_listed = |key: &PodKey| {
        let first = key.first();
        listed.contains(key) || listed.contains(&first) && key.came_with(&first)
    };
    let unwanted = labelled.into_iter().filter(|key| key.network() == config.name && !is_listed(key));
    let mut errors: Vec<CniError> = Vec::new();
    for key in unwanted {
        if decided && is_leased(config, &key).await {
            continue;
        }
        if let Err(error) = end(config, &key, decided).await {
            errors.push(error);
        }
    }
    let on_branches = settled_branch_pods().map_err(|error| error::unseen(&error))?;
    let unwanted = on_branches.iter().filter(|key| key.network() == config.name && !is_listed(key));
    errors.extend(unwanted.filter_map(|key| end_branch_pod(key).err()).map(|error| error::not_removed(&error)));
    joined(errors)
}

/// In doubt it is: what the daemon cannot tell now, the next GC will.
async fn is_leased(config: &Config, key: &PodKey) -> bool {
    !matches!(daemon::lease(config, key).await, Ok(None))
}

async fn end(config: &Config, key: &PodKey, released: bool) -> Result<(), CniError> {
    let removed = del_pod(&config.veth_prefix, key, &Pod::default(), None);
    removed.map_err(|error| error::not_removed(&error))?;
    if released { Ok(()) } else { release(config, key).await }
}

fn joined(errors: Vec<CniError>) -> Result<(), CniError> {
    let mut errors = errors.into_iter();
    let Some(mut first) = errors.next() else { return Ok(()) };
    for other in errors {
        first.msg = format!("{}; {}", first.msg, other.msg);
    }
    Err(first)
}
