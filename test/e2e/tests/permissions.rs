//! Each permission of ipamd's role, taken away in turn: the daemon says which one is missing. So none is in the role for nothing.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{collections::BTreeSet, fs, path::Path};

use e2e::Cluster;
use lab::wait;
use tokio::task::JoinSet;

mod stage;

use stage::{PATIENCE, cluster_of};

type Settings = &'static [(&'static str, &'static str)];

/// A daemon that has nothing yet.
const NOTHING: Settings = &[];
/// Three ENIs more than a node begins with.
const MANY: Settings = &[("WARM_IP_TARGET", "50")];
const FEW: Settings = &[("WARM_IP_TARGET", "2")];
const BOTH_FAMILIES: Settings = &[("ENABLE_IPv6", "true")];
/// Several prefixes on the first ENI.
const MANY_PREFIXES: Settings = &[("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_PREFIX_TARGET", "6")];
const FEW_PREFIXES: Settings = &[("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_PREFIX_TARGET", "1")];

/// Action, the settings of the daemon that is allowed everything, and those of the next one, which is refused the action.
#[rustfmt::skip]
const NEEDS: [(&str, Settings, Settings); 12] = [
    ("DescribeNetworkInterfaces",       NOTHING,       FEW),
    ("DescribeSubnets",                 NOTHING,       MANY),
    ("DescribeInstanceTypes",           NOTHING,       FEW),
    ("CreateNetworkInterface",          NOTHING,       MANY),
    ("CreateTags",                      NOTHING,       MANY),
    ("AttachNetworkInterface",          NOTHING,       MANY),
    ("ModifyNetworkInterfaceAttribute", NOTHING,       MANY),
    ("AssignPrivateIpAddresses",        NOTHING,       MANY),
    ("AssignIpv6Addresses",             NOTHING,       BOTH_FAMILIES),
    ("UnassignPrivateIpAddresses",      MANY_PREFIXES, FEW_PREFIXES),
    ("DetachNetworkInterface",          MANY,          FEW),
    ("DeleteNetworkInterface",          MANY,          FEW),
];

#[tokio::test(flavor = "multi_thread")]
async fn with_any_one_permission_refused_the_daemon_names_it() {
    let mut runs = JoinSet::new();
    for (action, before, after) in NEEDS {
        runs.spawn(async move { named(action, before, after).await });
    }
    runs.join_all().await;
}

async fn named(action: &str, before: Settings, after: Settings) {
    // The limits of a type that is in our own table are not asked for.
    let instance_type = if action == "DescribeInstanceTypes" { "x99.4xlarge" } else { "m5.xlarge" };
    let cluster = cluster_of(instance_type, 1, before).await;
    let worker = &cluster.workers[0];
    if !before.is_empty() {
        worker.start_daemon().unwrap();
        let wanted = if before == MANY { 50 } else { 90 };
        worker.until_ready(wanted, PATIENCE).await.unwrap();
        assert!(worker.stop_daemon(PATIENCE).await.unwrap());
    }
    deny(&cluster, action);
    after.iter().for_each(|(name, value)| worker.set(name, value));
    worker.start_daemon().unwrap();
    let says = || async {
        let log = worker.daemon_log();
        let mut refused = log.lines().filter(|line| line.contains("UnauthorizedOperation"));
        refused.find(|line| line.contains(action)).map(str::to_owned).ok_or(log)
    };
    let line = wait::until(PATIENCE * 2, &format!("the daemon to name {action}"), says).await.unwrap();
    assert!(line.contains("WARN") || line.contains("ERROR"), "{line}");
}

fn deny(cluster: &Cluster, action: &str) {
    cluster.cloud.sim().unwrap().with(|world, _| world.deny(action));
}

/// The role in Terraform has exactly these actions, and its README has a word on each that changes something.
#[test]
fn the_role_in_terraform_has_each_of_them_and_nothing_else() {
    let module = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../terraform/modules/iam"));
    let code = fs::read_to_string(module.join("main.tf")).unwrap();
    let readme = fs::read_to_string(module.join("README.md")).unwrap();
    let is_action = |word: &&str| word.chars().next().is_some_and(char::is_uppercase);
    let action = |part: &str| part.split('"').next().unwrap_or_default().to_owned();
    // Condition keys as ec2:Vpc and ec2:CreateAction begin like actions and stand before an equals sign.
    let named: BTreeSet<String> = code
        .split("\"ec2:")
        .skip(1)
        .filter(|part| {
            is_action(part) && !part.split('"').nth(1).is_some_and(|rest| rest.trim_start().starts_with('='))
        })
        .map(action)
        .collect();
    assert_eq!(named, NEEDS.iter().map(|(action, ..)| (*action).to_owned()).collect());
    for (action, ..) in NEEDS {
        assert!(readme.contains(action), "README.md of terraform/modules/iam says nothing of {action}");
    }
}
