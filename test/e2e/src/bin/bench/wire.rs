//! The wiring alone, as the plugin does it in its process, in turn with the same objects in raw netlink; one pod, and 30 at once.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Barrier,
    thread,
    time::Instant,
};

use e2e::Trouble;
use eni_datapath::{PodWiring, add_pod};
use eni_proto::{EniMark, Pod as PodName, PodAddresses, PodKey, PodNetwork, VethPrefix};
use lab::{Namespace, Pod};

use crate::{
    floor,
    forward::{self, ENI},
    report::{Row, Samples},
};

const AT_ONCE: usize = 30;

/// How one pod is wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Ours,
    OursDual,
    Floor,
}

const MANNERS: [Manner; 3] = [Manner::Ours, Manner::OursDual, Manner::Floor];

/// Times `runs` pods of each manner alone in turn, and a tenth as often 30 at once.
pub(crate) fn measure(runs: usize) -> Result<Vec<Row>, Trouble> {
    println!("the wiring alone: {runs} pods each of IPv4, dual stack and raw netlink, then {AT_ONCE} at once");
    let node = forward::bare_node()?;
    // All live until the end: a namespace that goes away keeps the kernel's lock for the next one's links.
    let mut kept = Vec::new();
    let mut alone = [(); 3].map(|()| Samples::default());
    let mut together = [(); 3].map(|()| Samples::default());
    for run in 0..runs {
        for (manner, samples) in MANNERS.into_iter().zip(&mut alone) {
            samples.add(wire(&node, manner, 1, &mut kept)?);
        }
        if run % 10 == 0 {
            for (manner, samples) in MANNERS.into_iter().zip(&mut together) {
                samples.add(wire(&node, manner, AT_ONCE, &mut kept)?);
            }
        }
    }
    let row = |name: &str, measured: &Samples, against, reference: &Samples, goal| Row {
        name: name.to_owned(),
        unit: "ms",
        measured: measured.clone(),
        against,
        reference: reference.clone(),
        goal,
    };
    let [ours, dual, floor] = alone;
    let [ours_together, dual_together, floor_together] = together;
    Ok(vec![
        row("wire", &ours, "raw netlink", &floor, 1.5),
        row("wire_dual", &dual, "IPv4", &ours, 1.2),
        row("wire_30_at_once", &ours_together, "raw netlink", &floor_together, 2.0),
        row("wire_dual_30", &dual_together, "IPv4", &ours_together, 1.2),
    ])
}

/// Wires `count` pods at the same moment; returns the milliseconds until the last was done.
fn wire(node: &Namespace, manner: Manner, count: usize, kept: &mut Vec<Pod>) -> Result<f64, Trouble> {
    let first = kept.len();
    for _ in 0..count {
        kept.push(Pod::new("wire")?);
    }
    let pods = kept.get(first..).unwrap_or_default();
    let barrier = Barrier::new(count);
    let times: Vec<Result<(Instant, Instant), Trouble>> = thread::scope(|scope| {
        let one = |(number, pod)| node.inside(|| wire_one(manner, first + number, pod, &barrier));
        let running: Vec<_> = pods.iter().enumerate().map(|it| scope.spawn(move || one(it))).collect();
        let join = |running: thread::ScopedJoinHandle<'_, Result<_, lab::LabError>>| match running.join() {
            Ok(times) => times.map_err(Trouble::from).and_then(|times| times),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        running.into_iter().map(join).collect()
    });
    let times = times.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (began, ended) = (times.iter().map(|it| it.0).min(), times.iter().map(|it| it.1).max());
    let took = began.zip(ended).map(|(began, ended)| ended - began).unwrap_or_default();
    Ok(took.as_secs_f64() * 1e3)
}

fn wire_one(manner: Manner, number: usize, pod: &Pod, barrier: &Barrier) -> Result<(Instant, Instant), Trouble> {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 16, 0).to_bits() + u32::try_from(number).unwrap_or(0));
    if manner == Manner::Floor {
        let sockets = floor::open().map_err(Trouble::os("open netlink"))?;
        let (netns, name) = (pod.netns(), format!("floor{number}"));
        barrier.wait();
        let began = Instant::now();
        floor::wire(&sockets, &netns, &name, address).map_err(Trouble::os("wire a pod in raw netlink"))?;
        return Ok((began, Instant::now()));
    }
    let broken = |error: &dyn std::error::Error| Trouble::Broken(error.to_string());
    let key = PodKey::new("bench", &format!("wire{number}"), "eth0").map_err(|error| broken(&error))?;
    let bits = u128::from(address.to_bits());
    let ipv6 = (manner == Manner::OursDual).then(|| Ipv6Addr::from_bits((0x2600_1f00 << 96) + bits));
    let eni_mark = EniMark::of_device(ENI);
    let network = PodNetwork {
        addresses: ipv6.map_or(address.into(), |ipv6| PodAddresses::Dual(address, ipv6)),
        eni: "eni-bench".to_owned(),
        eni_mark,
        mtu: 9001,
        veth_prefix: VethPrefix::default(),
    };
    let wiring = PodWiring { key, pod: PodName::default(), network, netns: pod.netns() };
    barrier.wait();
    let began = Instant::now();
    add_pod(&wiring).map_err(|error| broken(&error))?;
    Ok((began, Instant::now()))
}
