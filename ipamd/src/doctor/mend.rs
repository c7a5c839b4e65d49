//! What `ipamd doctor --repair` does: what is ours in the kernel, and nothing else.

use std::collections::BTreeSet;

use eni_datapath::Outcome;

use crate::{errors::chain, inspect::Sources, settings::Settings};

/// Mends, and returns what was done or refused, one thing a line.
pub(super) fn all(settings: &Settings, sources: &Sources) -> Vec<String> {
    let plans = &sources.plans;
    let repairs = eni_datapath::repair(plans.host.as_ref(), &plans.enis(), &settings.veth_prefix);
    let mut done: Vec<String> = match repairs {
        Ok(repairs) => repairs
            .into_iter()
            .map(|repair| match repair.outcome {
                Outcome::Refused(why) => format!("could not be mended: {}: {why}", repair.what),
                Outcome::Mended | Outcome::LeftAlone(_) | Outcome::Taken => format!("mended: {}", repair.what),
            })
            .collect(),
        Err(error) => vec![format!("could not be mended: {}", chain(&error))],
    };
    done.extend(loose(settings, sources));
    done
}

/// Takes away what leads to an address that no lease and no link has.
fn loose(settings: &Settings, sources: &Sources) -> Vec<String> {
    let pods = eni_datapath::observe_pods(&settings.veth_prefix);
    let (Ok(leases), Ok(pods)) = (&sources.leases, &pods) else { return Vec::new() };
    let aliases = pods.links.iter().filter_map(|link| link.alias.as_ref());
    let held: BTreeSet<_> = leases
        .iter()
        .flat_map(|lease| lease.addresses.all())
        .chain(aliases.flat_map(|alias| alias.addresses.all()))
        .collect();
    let leading: BTreeSet<_> = pods.routes.keys().chain(pods.marks.keys()).copied().collect();
    let forget = |address| match eni_datapath::forget_address(address) {
        Ok(_) => format!("mended: nothing leads to {address} any more, which nobody has"),
        Err(error) => format!("could not be mended: {address}: {}", chain(&error)),
    };
    leading.difference(&held).copied().map(forget).collect()
}
