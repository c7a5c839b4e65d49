//! The five demands: `WARM_TARGET=auto` beside the AWS CNI's settings, and the figures in README.md.

use std::{thread, time::Duration};

use simulate::{
    report::{Comparison, seconds},
    run::Common,
    trace::{Demand, Shape},
};

const README: &str = include_str!("../README.md");

fn common(instance_type: &str) -> Common {
    Common::new(1, instance_type).expect("a known type")
}

fn in_readme(line: &str) {
    assert!(README.contains(line), "README.md lacks this line; put it there if it is right:\n{line}");
}

#[test]
fn auto_holds_a_fifth_idle_at_most_and_less_than_one_pod_in_a_hundred_waits() {
    // The others take minutes here: `make simulate TRACE=all` tells their columns.
    let names = ["auto".to_owned()];
    let common = common("m5.xlarge");
    let compare = |shape: Shape| common.compare_on(&names, &shape.trace(20, common.room(), 1));
    let comparisons: Vec<(Shape, Comparison)> = thread::scope(|scope| {
        let compare = &compare;
        let threads = Shape::ALL.map(|shape| scope.spawn(move || (shape, compare(shape))));
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for (shape, comparison) in comparisons {
        in_readme(&comparison.markdown(shape.name(), simulate::report::Run::cell));
        let auto = comparison.runs.first().expect("auto is the first");
        assert!(auto.outcome.idle_per_mille() <= 200, "{}: {}", shape.name(), auto.cell());
        assert_eq!(auto.outcome.pods.p99, Duration::ZERO, "{}", shape.name());
    }
}

#[test]
fn a_start_takes_as_long_as_the_readme_says() {
    let names = ["eni", "ip", "prefix", "aws-eni", "aws-ip", "aws-prefix"].map(str::to_owned);
    let start = common("m5.4xlarge").compare_starts(&names, 150, 30);
    in_readme(&start.markdown("until all pods run", simulate::report::Run::cell));
    in_readme(&start.markdown("median wait of a pod", |run| seconds(run.outcome.pods.median)));
    in_readme(&start.markdown("failed sandboxes", |run| run.outcome.refusals.to_string()));
    in_readme(&start.markdown("EC2 calls", |run| run.outcome.all_calls().passed.to_string()));
}

#[test]
fn no_node_is_given_more_pods_than_it_may_have() {
    let common = common("m5.4xlarge");
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
