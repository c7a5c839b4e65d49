//! CHECK: lease and kernel held against what ADD reported.

use std::path::Path;

use eni_datapath::{Difference, ExpectedEnd, ExpectedPod, check_pod};
use eni_proto::PodNetwork;

use crate::{
    daemon,
    error::{self, CniError},
    request::{Attachment, Config, End, Previous},
};

/// Succeeds when all is as ADD reported it. Changes nothing.
///
/// The daemon may be away: then the kernel's differences are told, or, if there are none, that the lease could not be compared.
pub(super) async fn check(config: &Config, attachment: &Attachment, previous: &Previous) -> Result<(), CniError> {
    let lease = daemon::lease(config, &attachment.key).await;
    let expected = expected(attachment, previous, lease.as_ref().ok().and_then(Option::as_ref));
    let mut differences = check_pod(&expected).map_err(|error| error::not_checked(&error))?;
    if let Ok(lease) = &lease {
        differences.extend(of_lease(previous, lease.as_ref()));
    }
    match (lease, differences.is_empty()) {
        (Err(away), true) => Err(away),
        (Ok(_), true) => Ok(()),
        (_, false) => {
            let texts: Vec<_> = differences.iter().map(ToString::to_string).collect();
            Err(error::different(&attachment.key, &texts))
        }
    }
}

fn expected<'a>(attachment: &'a Attachment, previous: &'a Previous, lease: Option<&PodNetwork>) -> ExpectedPod<'a> {
    let granted_mtu = lease.map(|lease| lease.mtu.into());
    ExpectedPod {
        key: &attachment.key,
        netns: attachment.netns.as_deref().unwrap_or(Path::new("")),
        address: previous.address,
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
        Some(lease) if lease.ipv4 == previous.address => None,
        Some(lease) => Some(Difference::new("lease", previous.address, lease.ipv4)),
        None => Some(Difference::new("lease", previous.address, "none")),
    }
}
