//! `WARM_TARGET=auto` on the five demands: little is idle and nobody waits.

use simulate::{
    run::Common,
    trace::{Demand, Shape},
};

#[test]
fn auto_holds_a_fifth_idle_at_most_and_less_than_one_pod_in_a_hundred_waits() {
    let common = Common::new(1, "m5.xlarge").expect("a known type");
    for shape in Shape::ALL {
        let trace = shape.trace(20, common.room(), 1);
        let run = common.trace("auto", &trace).expect("a known manager");
        assert!(run.idle_per_mille() <= 200, "{}: {} per mille idle", trace.name, run.idle_per_mille());
        assert!(run.pods.p99.is_zero(), "{}: {:?}", trace.name, run.pods);
    }
}

#[test]
fn no_node_is_given_more_pods_than_it_may_have() {
    let common = Common::new(1, "m5.4xlarge").expect("a known type");
    for shape in Shape::ALL {
        let trace = shape.trace(3, common.room(), 1);
        let (mut pods, mut on_nodes, mut most) = (vec![], vec![0; 1000], 0);
        for (_, demand) in &trace.demands {
            match demand {
                Demand::PodUp { node } => {
                    pods.push(*node);
                    on_nodes[*node] += 1;
                    most = most.max(on_nodes[*node]);
                }
                Demand::PodDown(pod) => on_nodes[pods[*pod]] -= 1,
                Demand::NodeUp | Demand::NodeDown(_) => {}
            }
        }
        assert!(most <= usize::from(common.max_pods), "{}: {most}", trace.name);
    }
}
