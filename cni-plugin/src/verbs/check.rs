//! CHECK: lease and kernel held against what ADD reported.

use std::path::Path;

use eni_datapath::{Difference, ExpectedEnd, ExpectedPod, PodWiring, check_branch_pod, check_pod, is_branch_pod};
use eni_proto::{PodAddresses, PodKey, PodNetwork};

use crate::{
    daemon,
    error::{self, CniError},
    request::{Attachment, Config, End, Previous},
};

/// Succeeds when all is as ADD reported it. Changes nothing.
///
/// The daemon may be away: then the kernel's differences are told, or, if there are none, that the lease could not be compared.
pub(super) async fn check(
    config: &Config,
    attachment: &Attachment,
    parts: &[(PodKey, Previous)],
) -> Result<(), CniError> {
    let (mut differences, mut away) = (Vec::new(), None);
    let on_branch = is_branch_pod(&config.veth_prefix, &attachment.key, &attachment.pod);
    if on_branch.map_err(|error| error::not_checked(&error))? {
        return of_branch(config, attachment, parts).await;
    }
    for (key, previous) in parts {
        let lease = daemon::lease(config, key).await;
        let expected = expected(attachment, key, previous, lease.as_ref().ok().and_then(Option::as_ref));
        differences.extend(check_pod(&expected).map_err(|error| error::not_checked(&error))?);
        match lease {
            Ok(lease) => differences.extend(of_lease(previous, lease.as_ref())),
            Err(error) => away = Some(error),
        }
    }
    match (away, differences.is_empty()) {
        (Some(away), true) => Err(away),
        (None, true) => Ok(()),
        (_, false) => {
            let texts: Vec<_> = differences.iter().map(ToString::to_string).collect();
            Err(error::different(&attachment.key, &texts))
        }
    }
}

/// The same for a pod on a branch ENI, of which the daemon keeps no record, but knows at any time.
async fn of_branch(config: &Config, attachment: &Attachment, parts: &[(PodKey, Previous)]) -> Result<(), CniError> {
    let netns = attachment.netns.as_deref().unwrap_or(Path::new(""));
    let granted = daemon::add(config, attachment, &netns.to_string_lossy()).await.map_err(|none| none.error)?;
    let mut differences = Vec::new();
    for ((key, network), (_, previous)) in granted.interfaces.into_iter().zip(parts) {
        differences.extend(of_lease(previous, Some(&network)));
        let wiring = PodWiring { key, pod: attachment.pod.clone(), network, netns: netns.to_owned() };
        match &granted.branch {
            Some(branch) => {
                let found = check_branch_pod(&wiring, branch).map_err(|error| error::not_checked(&error))?;
                differences.extend(found);
            }
            None => differences.push(Difference::new("branch ENI", "that of the pod", "none")),
        }
    }
    let texts: Vec<_> = differences.iter().map(ToString::to_string).collect();
    if texts.is_empty() { Ok(()) } else { Err(error::different(&attachment.key, &texts)) }
}

fn expected<'a>(
    attachment: &'a Attachment,
    key: &'a PodKey,
    previous: &'a Previous,
    lease: Option<&PodNetwork>,
) -> ExpectedPod<'a> {
    let granted_mtu = lease.map(|lease| lease.mtu.into());
    ExpectedPod {
        key,
        netns: attachment.netns.as_deref().unwrap_or(Path::new("")),
        // What serves only for the pod's way out is not reported.
        addresses: lease.map(|lease| lease.addresses).filter(|own| same(*own, previous)).unwrap_or(previous.addresses),
        eni_mark: lease.map(|lease| lease.eni_mark),
        default_route: previous.default_route,
        // A plugin behind us may set the pod's end to another MTU, and could not report it before version 1.1.0.
        pod: ExpectedEnd { name: None, ..end(&previous.pod) },
        host: ExpectedEnd { mtu: previous.host.mtu.or(granted_mtu), ..end(&previous.host) },
    }
}

fn end(end: &End) -> ExpectedEnd<'_> {
    ExpectedEnd { name: end.name.as_deref(), mac: end.mac, mtu: end.mtu }
}

fn of_lease(previous: &Previous, lease: Option<&PodNetwork>) -> Option<Difference> {
    match lease {
        Some(lease) if same(lease.addresses, previous) => None,
        Some(lease) => Some(Difference::new("lease", previous.addresses, lease.addresses)),
        None => Some(Difference::new("lease", previous.addresses, "none")),
    }
}

fn same(granted: PodAddresses, previous: &Previous) -> bool {
    granted.of_vpc().eq(previous.addresses.all())
}
