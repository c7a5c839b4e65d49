//! A forwarded packet, from a pod over its node to a peer in the VPC, with 1 to 737 pods' worth of state, in IPv4 and IPv6; beside the
//! host's own namespace, and beside the usual layout, which has two rules for each pod.
//!
//! Each state has a node of its own, and they are measured in turn, so that the machine's moods meet all alike. One pod is
//! wired for real; of the others the node has what forwarding looks at: the route in the pods' table and the map element.
//!
//! All of it, the peer too, runs on one core. With two, the scheduler decides for each pair of sockets whether an answer wakes another core,
//! which takes longer than the way itself and says nothing of pods.

use e2e::Trouble;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use simulate::plot::{Curve, Panel};

use crate::{
    report::{Good, Row, Samples},
    stage::{NODE, PEER, PEER_V6, POD, POD_V6, Stage},
    traffic::Way,
};

/// Pods on a node.
const STATES: [usize; 5] = [1, 30, 110, 250, 737];
/// Device index of the ENI that owns the pods' addresses.
pub(crate) const ENI: u8 = 1;

/// What a node is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Ours,
    /// The incumbent's: a rule to and a rule from each pod, routes in `main`, and its chains.
    Rules,
}

/// What is measured of each course.
const FIGURES: [Figure; 4] = [
    Figure { name: "rtt", unit: "us", good: Good::Low, title: "round trip, us", paired: false },
    Figure { name: "ns", unit: "ns", good: Good::Low, title: "one packet, ns of CPU", paired: true },
    Figure { name: "tcp", unit: "Gbit/s", good: Good::High, title: "one TCP stream, Gbit/s", paired: true },
    Figure { name: "conn", unit: "1/s", good: Good::High, title: "new TCP connections a second", paired: true },
];

struct Figure {
    name: &'static str,
    unit: &'static str,
    good: Good,
    title: &'static str,
    /// Whether each round gives one sample.
    paired: bool,
}

/// One line of the picture: a layout and a family with each number of pods, or the host by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Ours,
    OursV6,
    Usual,
    Host,
}

const LINES: [(Line, &str, &str); 4] = [
    (Line::Ours, "", "ours, IPv4"),
    (Line::OursV6, "v6_", "ours, IPv6"),
    (Line::Usual, "usual_", "two rules for each pod"),
    (Line::Host, "host_", "the host itself, no pod"),
];

/// What is measured on one node in one family.
struct Course {
    line: Line,
    stage: usize,
    way: Way,
    samples: [Samples; FIGURES.len()],
}

/// Measures `rounds` of each state in turn.
pub(crate) fn measure(rounds: usize) -> Result<(Vec<Row>, Vec<Panel>), Trouble> {
    let on_one_core = || {
        stay_on_one_core()?;
        compare(rounds)
    };
    // A thread of its own, because what it starts inherits its core.
    let measured = std::thread::scope(|scope| scope.spawn(on_one_core).join());
    measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Keeps this thread, and those that it starts from now on, on the last core that it may use.
fn stay_on_one_core() -> Result<(), Trouble> {
    let this = Pid::from_raw(0);
    let stay = || {
        let allowed = sched_getaffinity(this)?;
        let last = (0..CpuSet::count()).rev().find(|core| allowed.is_set(*core) == Ok(true));
        let mut one = CpuSet::new();
        one.set(last.ok_or(nix::Error::ENODEV)?)?;
        sched_setaffinity(this, &one)
    };
    stay().map_err(|error| Trouble::os("stay on one core")(error.into()))
}

fn compare(rounds: usize) -> Result<(Vec<Row>, Vec<Panel>), Trouble> {
    println!("a forwarded packet: {rounds} rounds with {STATES:?} pods, beside the usual layout and the host itself");
    let layouts = [Layout::Ours, Layout::Rules].into_iter().flat_map(|layout| STATES.map(|pods| (layout, pods)));
    let stages: Vec<Stage> = layouts.map(|(layout, pods)| Stage::build(layout, pods)).collect::<Result<_, _>>()?;
    let mut courses: Vec<Course> = LINES.into_iter().flat_map(|(line, _, _)| courses(line)).collect();
    for round in 1..=rounds {
        for course in &mut courses {
            let (stage, way) = (&stages[course.stage], course.way);
            let [round_trips, packets, streams, connections] = &mut course.samples;
            stage.ping(way, round_trips)?;
            packets.add(stage.flood(way)?);
            streams.add(stage.stream(way)?);
            connections.add(stage.connections(way)?);
        }
        if round % 10 == 0 {
            println!("  {round} of {rounds}");
        }
    }
    Ok((rows(&courses), (0..FIGURES.len()).map(|figure| panel(&courses, figure)).collect()))
}

fn courses(line: Line) -> Vec<Course> {
    let way = |by_host, from, peer| Way { by_host, from, peer };
    let (first, count, way) = match line {
        Line::Ours => (0, STATES.len(), way(false, POD.into(), PEER.into())),
        Line::OursV6 => (0, STATES.len(), way(false, POD_V6.into(), PEER_V6.into())),
        Line::Usual => (STATES.len(), STATES.len(), way(false, POD.into(), PEER.into())),
        Line::Host => (0, 1, way(true, NODE.into(), PEER.into())),
    };
    (first..first + count).map(|stage| Course { line, stage, way, samples: Default::default() }).collect()
}

fn of(courses: &[Course], line: Line) -> impl Iterator<Item = (usize, &Course)> {
    STATES.into_iter().zip(courses.iter().filter(move |course| course.line == line))
}

/// Each state beside the first of the same line; ours beside the host, and beside the usual layout with as many pods.
fn rows(courses: &[Course]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, figure) in FIGURES.iter().enumerate() {
        let row = |(name, pods): (String, usize), course: &Course, against, reference: &Course, goal| Row {
            name: format!("{name}_{pods}"),
            unit: figure.unit,
            measured: course.samples[at].clone(),
            against,
            reference: reference.samples[at].clone(),
            goal,
            good: figure.good,
            paired: figure.paired,
            detail: Some(&pods) != STATES.last(),
        };
        for (line, name, _) in LINES {
            let Some((_, one)) = of(courses, line).next() else { continue };
            let is_promised = matches!(line, Line::Ours | Line::OursV6) && figure.good == Good::Low;
            let goal = is_promised.then_some(1.1);
            let many = of(courses, line).skip(1);
            rows.extend(
                many.map(|(pods, it)| row((format!("forward_{name}{}", figure.name), pods), it, "1 pod", one, goal)),
            );
        }
        let Some((_, host)) = of(courses, Line::Host).next() else { continue };
        for ((pods, ours), (_, usual)) in of(courses, Line::Ours).zip(of(courses, Line::Usual)) {
            rows.push(row((format!("{}_vs_host", figure.name), pods), ours, "the host itself", host, None));
            rows.push(row((format!("{}_vs_usual", figure.name), pods), ours, "two rules a pod", usual, None));
        }
    }
    rows
}

fn panel(courses: &[Course], figure: usize) -> Panel {
    let curve = |(colour, (line, _, name)): (usize, (Line, &str, &str))| {
        let typical = |course: &Course| course.samples[figure].percentile(0.5).unwrap_or(f64::NAN);
        let pods = |pods: usize| u32::try_from(pods).map_or(f64::NAN, f64::from);
        let mut points: Vec<(f64, f64)> = of(courses, line).map(|(count, it)| (pods(count), typical(it))).collect();
        if let ([(_, value)], Some(last)) = (&points[..], STATES.last()) {
            points.push((pods(*last), *value));
        }
        Curve { name: name.to_owned(), colour, dashed: line == Line::Host, points }
    };
    Panel {
        title: format!("{} (median)", FIGURES[figure].title),
        x: "pods on the node".to_owned(),
        legend: String::new(),
        curves: LINES.into_iter().enumerate().map(curve).collect(),
    }
}
