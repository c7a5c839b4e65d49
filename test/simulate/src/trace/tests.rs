use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Checks that a trace can be followed, and returns the most pods that a node had.
fn follow(trace: &Trace) -> usize {
    let mut nodes: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let (mut node_count, mut pods, mut most) = (0, vec![], 0);
    let mut ordered = trace.demands.clone();
    ordered.sort_by_key(|(at, _)| *at);
    for (at, demand) in ordered {
        assert!(at < trace.length);
        match demand {
            Demand::NodeUp => {
                nodes.insert(node_count, BTreeSet::new());
                node_count += 1;
            }
            Demand::NodeDown(node) => assert_eq!(nodes.remove(&node), Some(BTreeSet::new())),
            Demand::PodUp { node } => {
                let there = nodes.get_mut(&node).unwrap_or_else(|| panic!("{node} is not up at {at:?}"));
                there.insert(pods.len());
                most = most.max(there.len());
                pods.push(node);
            }
            Demand::PodDown(pod) => assert!(nodes.get_mut(&pods[pod]).unwrap().remove(&pod), "{pod} ends twice"),
        }
    }
    most
}

#[test]
fn every_trace_can_be_followed_and_stays_within_the_nodes_room() {
    for shape in Shape::ALL {
        for seed in 0..3 {
            let trace = shape.trace(6, 50, seed);
            let most = follow(&trace);
            assert!((20..=50).contains(&most), "{}: {most}", trace.name);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for shape in Shape::ALL {
        assert_eq!(shape.trace(4, 50, 9), shape.trace(4, 50, 9));
        assert_ne!(shape.trace(4, 50, 9), shape.trace(4, 50, 10));
    }
}

#[test]
fn an_autoscaler_adds_nodes_and_drains_them() {
    let trace = Shape::Churn.trace(10, 50, 1);
    let ups = trace.demands.iter().filter(|(_, demand)| *demand == Demand::NodeUp).count();
    let downs = trace.demands.iter().filter(|(_, demand)| matches!(demand, Demand::NodeDown(_))).count();
    assert!(ups > 6 && downs >= 3, "{ups} {downs}");
}
