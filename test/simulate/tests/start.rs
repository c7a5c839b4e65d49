//! Nodes that start at once on one account's budget: how long it takes, and that nobody is left behind.

use std::time::Duration;

use simulate::{account::Api, cluster::Outcome, run::Common};

fn start(manager: &str, instance_type: &str, nodes: usize, pods: usize) -> Outcome {
    let common = Common::new(7, instance_type).expect("a known type");
    common.start(manager, nodes, pods).expect("a known manager")
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(start("eni", "m5.xlarge", 40, 10), start("eni", "m5.xlarge", 40, 10));
    assert_eq!(start("aws-eni", "m5.xlarge", 40, 10), start("aws-eni", "m5.xlarge", 40, 10));
}

#[test]
fn a_few_nodes_serve_their_pods_within_seconds_and_no_sandbox_fails() {
    for manager in ["eni", "ip"] {
        let run = start(manager, "m5.xlarge", 20, 10);
        assert_eq!((run.unserved, run.refusals), (0, 0), "{manager}");
        assert!(run.pods.worst.as_secs() < 5, "{manager}: {:?}", run.pods);
    }
}

#[test]
fn a_start_of_150_nodes_is_quicker_than_under_the_policies_of_the_aws_cni() {
    let ours = start("eni", "m5.4xlarge", 150, 30);
    for theirs in ["aws-eni", "aws-ip"] {
        let theirs = start(theirs, "m5.4xlarge", 150, 30);
        assert!(ours.all_running < theirs.all_running, "{:?} {:?}", ours.all_running, theirs.all_running);
        assert!(ours.refusals < theirs.refusals);
    }
}

#[test]
fn a_crowd_waits_hardly_longer_than_the_budget_demands_and_no_node_is_left_behind() {
    const NODES: usize = 600;
    // The longest pause before a call is tried again, and the calls of the last node.
    let last_try = Duration::from_secs(35);
    let bounds = Common::new(7, "m5.xlarge").expect("a known type").bounds("eni", NODES, 10);
    for (manager, bound) in [("ip", bounds.fewest_calls), ("eni", bounds.any_way)] {
        let run = start(manager, "m5.xlarge", NODES, 10);
        assert!(run.all_running <= bound + last_try, "{manager}: {:?} {bound:?}", run.all_running);
        if manager == "ip" {
            let calls =
                run.calls.iter().find(|(api, _)| *api == Api::AssignPrivateIpAddresses).expect("all are listed").1;
            assert_eq!(calls.passed, NODES as u64, "a pod that was refused is planned for before it comes again");
        }
    }
}
