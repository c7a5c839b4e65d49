//! EC2 is away for hours of virtual time: what the pool covers goes on, little is asked, and its return is no storm.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "the helpers of a test are test code too"
)]

mod node;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use eni_proto::{Pod, PodKey};
use ipam_core::{
    Action, Command, Done, Event, Limits, Moment, Placement, Policy, Ticket,
    ports::{Ec2Error, Holdings, Interface, RefusalClass, Scope},
};
use node::{Node, Record, eni};

const HOUR: Duration = Duration::from_secs(3600);
/// How long the daemon waits for an answer before it takes it for lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How EC2 fails while it is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Silent,
    Failing,
    Throttling,
    Unreachable,
}

impl Away {
    fn error(self) -> Ec2Error {
        let refused = |class, code: &str| Ec2Error::Refused {
            action: "Any",
            class,
            code: code.to_owned(),
            message: String::new(),
        };
        match self {
            Self::Silent => Ec2Error::Unknown { action: "Any", reason: "no answer in time".to_owned() },
            Self::Failing => Ec2Error::Unknown { action: "Any", reason: "InternalError".to_owned() },
            Self::Throttling => refused(RefusalClass::SlowDown, "RequestLimitExceeded"),
            Self::Unreachable => refused(RefusalClass::TryLater, "NotSent"),
        }
    }

    fn delay(self) -> Duration {
        if self == Self::Silent { CALL_TIMEOUT } else { Duration::from_millis(50) }
    }
}

/// A node, its EC2, and what is on its way between the two.
struct Scene {
    node: Node,
    now: Moment,
    away: Option<Away>,
    interface: Interface,
    coming: BTreeMap<(Moment, u64), Event>,
    number: u64,
    /// Calls since somebody looked last.
    calls: Vec<String>,
    held: BTreeMap<u64, Ipv4Addr>,
}

impl Scene {
    /// A node with one ENI of 14 places and four free addresses wanted, at rest.
    fn at_rest() -> Self {
        let policy = Policy { warm_enis: 0, warm_addresses: 4, placement: Placement::NodeSubnet, ..Policy::default() };
        let limits = Limits { max_enis: 1, addresses_per_eni: 15, ..Limits::default() };
        let now = Moment::from_millis(0);
        let mut scene = Self {
            node: Node::begun(policy, limits, Record::default(), now),
            now,
            away: None,
            interface: eni(0, 0),
            coming: BTreeMap::new(),
            number: 0,
            calls: vec![],
            held: BTreeMap::new(),
        };
        scene.tell(Event::Tick);
        scene.pass(Duration::from_secs(60));
        assert_eq!(scene.interface.secondary.len(), 4);
        scene.calls.clear();
        scene
    }

    fn tell(&mut self, event: Event) {
        for command in self.node.tell(self.now, event) {
            self.answer(command);
        }
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.number += 1;
        self.coming.insert((self.now.after(delay), self.number), event);
    }

    fn answer(&mut self, command: Command) {
        let (delay, error) =
            self.away.map_or((Duration::from_millis(50), None), |away| (away.delay(), Some(away.error())));
        let event = match command {
            Command::Grant { ticket, lease, .. } => {
                assert_eq!(self.held.insert(ticket.0, lease.addresses.v4().unwrap()), None);
                return;
            }
            Command::Observe { scope } => {
                self.calls.push(format!("Describe {scope:?}"));
                let interfaces = if scope == Scope::Attached { vec![self.interface.clone()] } else { vec![] };
                match error {
                    Some(error) => Event::ObserveFailed { error },
                    None => Event::Observed { asked_at: self.now, scope, interfaces },
                }
            }
            Command::Start { intent, action } => {
                self.calls.push(format!("{action:?}"));
                let outcome = error.map_or_else(|| Ok(self.change(&action)), Err);
                Event::Settled { intent, outcome }
            }
            Command::ObserveKernel => {
                Event::Kernel { asked_at: self.now, holds: Ok(self.held.values().copied().map(Into::into).collect()) }
            }
            Command::PrepareHost { interface } => Event::HostReady { eni: interface.id },
            _ => return,
        };
        self.after(delay, event);
    }

    fn change(&mut self, action: &Action) -> Done {
        match action {
            Action::Assign { amount, .. } => {
                let last = self.interface.secondary.last().map_or(10, |address| address.octets()[3] + 1);
                let count = u8::try_from(amount.addresses()).unwrap();
                let addresses: Vec<_> = (last..last + count).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
                self.interface.secondary.extend(&addresses);
                Done::Assigned(Holdings { addresses, prefixes: vec![], prefixes6: vec![] })
            }
            Action::Unassign { holdings, .. } => {
                let in_use = |address| self.held.values().any(|held| held == address);
                assert!(!holdings.addresses.iter().any(in_use), "{holdings:?} of {:?}", self.held);
                self.interface.secondary.retain(|address| !holdings.addresses.contains(address));
                Done::Plain
            }
            other => panic!("nobody needs {other:?} here"),
        }
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let until = self.now.after(time);
        loop {
            let arrives = self.coming.first_key_value().map(|((at, _), _)| *at);
            let wakes = self.node.engine.next_wake();
            match arrives.into_iter().chain(wakes).min().filter(|due| *due <= until) {
                Some(due) => self.now = due.max(self.now),
                None => break,
            }
            let event = match self.coming.first_entry().filter(|entry| entry.key().0 <= self.now) {
                Some(entry) => entry.remove(),
                None => Event::Tick,
            };
            self.tell(event);
        }
        self.now = until;
    }

    fn key(pod: u64) -> PodKey {
        PodKey::new("pods", &format!("sandbox-{pod}"), "eth0").unwrap()
    }

    fn add(&mut self, pod: u64, patience: Duration) {
        let (key, deadline) = (Self::key(pod), self.now.after(patience));
        self.tell(Event::Add {
            ticket: Ticket(pod),
            key,
            pod: Pod::default(),
            netns: String::new(),
            card: 0,
            deadline,
        });
    }

    fn del(&mut self, pod: u64) {
        self.held.remove(&pod);
        self.tell(Event::Del { ticket: Ticket(1_000_000 + pod), key: Self::key(pod) });
    }
}

/// Six hours in which two pods come and go all the time, which the pool covers.
#[test]
fn while_ec2_is_away_for_hours_the_pool_serves_and_its_return_costs_a_handful_of_calls() {
    for away in [Away::Silent, Away::Failing, Away::Throttling, Away::Unreachable] {
        let mut scene = Scene::at_rest();
        scene.away = Some(away);
        for pod in 0..6 * 60 {
            scene.add(pod, Duration::from_secs(20));
            assert!(scene.held.contains_key(&pod), "{away:?}: pod {pod} had to wait");
            scene.pass(Duration::from_secs(60));
            if pod > 0 {
                scene.del(pod - 1);
            }
        }
        // Back-off ends at half a minute, less its jitter: at most one call each 22 s for each of the two kinds.
        let asked = scene.calls.len();
        assert!(u64::try_from(asked).unwrap() <= 2 * 6 * HOUR.as_secs() / 22, "{away:?}: {asked} calls");

        scene.calls.clear();
        scene.away = None;
        scene.pass(HOUR);
        println!("{away:?}: {asked} calls in 6 hours without EC2, {} after its return", scene.calls.len());
        assert!(scene.calls.len() <= 6, "{away:?}: {:#?}", scene.calls);
        assert!(scene.interface.secondary.len() >= 5, "{away:?}: {:?}", scene.interface.secondary);
    }
}

/// A node that needs nothing asks nothing, whether EC2 is there or not.
#[test]
fn a_node_at_rest_does_not_notice_that_ec2_is_away() {
    let mut scene = Scene::at_rest();
    scene.away = Some(Away::Failing);
    scene.pass(24 * HOUR);
    assert_eq!(scene.calls, [""; 0]);
}

/// Pods beyond the pool wait, and are served soon after EC2 is back.
#[test]
fn who_waits_when_ec2_comes_back_is_served_within_half_a_minute() {
    for away in [Away::Silent, Away::Failing, Away::Throttling, Away::Unreachable] {
        let mut scene = Scene::at_rest();
        scene.away = Some(away);
        (0..10).for_each(|pod| scene.add(pod, 4 * HOUR));
        scene.pass(3 * HOUR);
        assert_eq!(scene.held.len(), 4, "{away:?}");
        scene.away = None;
        // What was asked before is answered as it was then.
        scene.pass(CALL_TIMEOUT + Duration::from_secs(31));
        assert_eq!(scene.held.len(), 10, "{away:?}: {:?}", scene.calls.last());
    }
}
