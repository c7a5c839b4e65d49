//! The wiring alone, as the plugin does it in its process, beside the same objects in raw netlink; one pod, and 30 at once; and the way back.
//!
//! Ours and the floor alternate, and who is first alternates too: each is compared with the one right beside it.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Barrier,
    thread,
    time::Instant,
};

use e2e::Trouble;
use eni_datapath::{PodWiring, add_pod, del_pod, delete_ended, end_pod, forget_addresses};
use eni_proto::{EniMark, Pod as PodName, PodAddresses, PodKey, PodNetwork, VethPrefix};
use lab::{Namespace, Pod};

use crate::{
    floor,
    forward::ENI,
    report::{Good, Row, Samples},
    stage,
};

const AT_ONCE: usize = 30;

/// How one pod is wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Ours,
    OursDual,
    /// Ours, taken back as with a daemon that does the slow part later.
    OursCutOff,
    Floor,
}

const MANNERS: [Manner; 4] = [Manner::Ours, Manner::OursDual, Manner::OursCutOff, Manner::Floor];

/// Times of one manner: there and back.
#[derive(Debug, Clone, Default)]
struct Times {
    wire: Samples,
    unwire: Samples,
}

/// Times `runs` pods of each manner alone in turn, and a third as often 30 at once.
pub(crate) fn measure(runs: usize) -> Result<Vec<Row>, Trouble> {
    println!("the wiring alone: {runs} pods each of IPv4, dual stack and raw netlink, then {AT_ONCE} at once");
    let (node, _peer) = stage::bare_node()?;
    let mut alone: [Times; MANNERS.len()] = Default::default();
    let mut together: [Times; MANNERS.len()] = Default::default();
    let mut pods = Vec::new();
    for run in 0..runs {
        Round::wire(&node, run, 1, &mut pods, &mut alone)?.unwire(&node, &mut alone)?;
        if run % 3 == 0 {
            Round::wire(&node, run / 3, AT_ONCE, &mut pods, &mut together)?.unwire(&node, &mut together)?;
        }
    }
    let [ours, dual, cut_off, floor] = alone;
    let [ours_together, dual_together, _, floor_together] = together;
    Ok(vec![
        row("wire", &ours.wire, ("raw netlink", &floor.wire), Some(1.5)),
        row("wire_dual", &dual.wire, ("IPv4", &ours.wire), Some(1.2)),
        row("wire_30_at_once", &ours_together.wire, ("raw netlink", &floor_together.wire), Some(2.0)),
        row("wire_dual_30", &dual_together.wire, ("IPv4", &ours_together.wire), Some(1.2)),
        row("unwire", &ours.unwire, ("raw netlink", &floor.unwire), None),
        row("unwire_30_at_once", &ours_together.unwire, ("raw netlink", &floor_together.unwire), None),
        row("cut_off", &cut_off.unwire, ("raw netlink", &floor.unwire), None),
    ])
}

fn row(name: &str, measured: &Samples, (against, reference): (&'static str, &Samples), goal: Option<f64>) -> Row {
    let (measured, reference) = (measured.clone(), reference.clone());
    Row {
        name: name.to_owned(),
        unit: "ms",
        measured,
        against,
        reference,
        goal,
        good: Good::Low,
        paired: true,
        detail: false,
    }
}

/// Every manner once, each round in the other order.
///
/// First all manners are wired and then all taken back: what a removal leaves to the kernel would fall into the time of the next wiring.
/// All namespaces live until the end, because one that goes away keeps the kernel's lock for others' links.
struct Round {
    /// Which manner, and its pods.
    wired: Vec<(usize, Vec<Subject>)>,
}

impl Round {
    /// Wires `count` pods of each manner at the same moment.
    fn wire(
        node: &Namespace,
        number: usize,
        count: usize,
        pods: &mut Vec<Pod>,
        times: &mut [Times; MANNERS.len()],
    ) -> Result<Self, Trouble> {
        let mut order: Vec<_> = MANNERS.into_iter().zip(times).enumerate().collect();
        if number % 2 == 1 {
            order.reverse();
        }
        let mut wired = Vec::new();
        for (at, (manner, times)) in order {
            let mut subjects = Vec::new();
            for _ in 0..count {
                let pod = Pod::new("wire")?;
                subjects.push(Subject::new(manner, pods.len(), &pod)?);
                pods.push(pod);
            }
            times.wire.add(at_once(node, &subjects, Subject::wire)?);
            wired.push((at, subjects));
        }
        Ok(Self { wired })
    }

    /// Takes those of each manner back at the same moment.
    fn unwire(&self, node: &Namespace, times: &mut [Times; MANNERS.len()]) -> Result<(), Trouble> {
        for (at, subjects) in &self.wired {
            times[*at].unwire.add(at_once(node, subjects, Subject::unwire)?);
            if MANNERS[*at] == Manner::OursCutOff {
                let addresses = subjects.iter().map(|it| it.address.into()).collect();
                let cleared = node.inside(|| forget_addresses(&addresses).and_then(|_| delete_ended()))?;
                cleared.map_err(|error| Trouble::Broken(error.to_string()))?;
            }
        }
        Ok(())
    }
}

type Work = fn(&Subject, &floor::Sockets) -> Result<(), Trouble>;

/// The milliseconds until the last was done.
fn at_once(node: &Namespace, subjects: &[Subject], work: Work) -> Result<f64, Trouble> {
    let barrier = Barrier::new(subjects.len());
    let one = |subject: &Subject| -> Result<(Instant, Instant), Trouble> {
        let sockets = floor::open().map_err(Trouble::os("open netlink"))?;
        barrier.wait();
        let began = Instant::now();
        work(subject, &sockets)?;
        Ok((began, Instant::now()))
    };
    let times: Vec<Result<_, Trouble>> = thread::scope(|scope| {
        let running: Vec<_> = subjects.iter().map(|it| scope.spawn(|| node.inside(|| one(it)))).collect();
        let join = |running: thread::ScopedJoinHandle<'_, Result<_, lab::LabError>>| match running.join() {
            Ok(times) => times.map_err(Trouble::from).and_then(|times| times),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        running.into_iter().map(join).collect()
    });
    let times = times.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (began, ended) = (times.iter().map(|it| it.0).min(), times.iter().map(|it| it.1).max());
    Ok(began.zip(ended).map(|(began, ended)| ended - began).unwrap_or_default().as_secs_f64() * 1e3)
}

/// One pod to wire.
struct Subject {
    manner: Manner,
    address: Ipv4Addr,
    /// Of the floor's link.
    name: String,
    wiring: PodWiring,
}

impl Subject {
    fn new(manner: Manner, number: usize, pod: &Pod) -> Result<Self, Trouble> {
        let number = u32::try_from(number).unwrap_or(0);
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 16, 0).to_bits() + number);
        let key = PodKey::new("bench", &format!("wire{number}"), "eth0");
        let key = key.map_err(|error| Trouble::Broken(error.to_string()))?;
        let bits = u128::from(address.to_bits());
        let network = PodNetwork {
            addresses: match manner {
                Manner::OursDual => PodAddresses::Dual(address, Ipv6Addr::from_bits((0x2600_1f00 << 96) + bits)),
                Manner::Ours | Manner::OursCutOff | Manner::Floor => address.into(),
            },
            eni: "eni-bench".to_owned(),
            eni_mark: EniMark::of_device(ENI),
            mtu: 9001,
            veth_prefix: VethPrefix::default(),
        };
        let wiring = PodWiring { key, pod: PodName::default(), network, netns: pod.netns() };
        Ok(Self { manner, address, name: format!("floor{number}"), wiring })
    }

    fn wire(&self, sockets: &floor::Sockets) -> Result<(), Trouble> {
        if self.manner == Manner::Floor {
            let wired = floor::wire(sockets, &self.wiring.netns, &self.name, self.address);
            return wired.map_err(Trouble::os("wire a pod in raw netlink"));
        }
        add_pod(&self.wiring).map(drop).map_err(|error| Trouble::Broken(error.to_string()))
    }

    fn unwire(&self, sockets: &floor::Sockets) -> Result<(), Trouble> {
        let (key, pod) = (&self.wiring.key, &self.wiring.pod);
        let prefix = VethPrefix::default();
        match self.manner {
            Manner::Floor => {
                let undone = floor::unwire(sockets, &self.name, self.address);
                return undone.map_err(Trouble::os("take a pod back in raw netlink"));
            }
            Manner::OursCutOff => end_pod(&prefix, key, pod).map(drop),
            Manner::Ours | Manner::OursDual => del_pod(&prefix, key, pod, None).map(drop),
        }
        .map_err(|error| Trouble::Broken(error.to_string()))
    }
}
