//! The small cloud of this crate against `ec2-sim`: the same calls end the same way and leave the same behind.

use std::{collections::BTreeMap, time::Duration};

use ec2_sim::{Clock, DemoVpc, SimCloud, WorldConfig};
use ipam_core::{
    Action, AttachmentId, Done, EniId, InstanceId, Limits, Moment, SubnetId,
    ports::{Amount, Change, Ec2, Ec2Result, Holdings, Interface, NewInterface, Scope},
    retry,
};
use simulate::{account::Api, cloud::Cloud, random::Random};

const TYPE: &str = "t3.small";
const TAG: &str = "node.k8s.amazonaws.com/instance_id";

struct Honest {
    cloud: SimCloud,
    instance: InstanceId,
    subnet: SubnetId,
    tokens: u32,
    runtime: tokio::runtime::Runtime,
}

impl Honest {
    fn new(clock: Clock) -> Self {
        let cloud = SimCloud::new(WorldConfig::default(), clock);
        let DemoVpc { subnets, .. } = cloud.demo_vpc("10.0.0.0/16", &["10.0.0.0/18"]).expect("networks that fit");
        let subnet = subnets.into_iter().next().expect("one subnet");
        let instance = cloud.run_instance(TYPE, &subnet).expect("a known type");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self { cloud, instance, subnet, tokens: 0, runtime }
    }

    fn describe(&self) -> Vec<Interface> {
        let ask =
            |scope| self.runtime.block_on(self.cloud.interfaces(&self.instance, scope)).expect("within the budget");
        let all = ask(Scope::Tagged).into_iter().chain(ask(Scope::Attached));
        all.map(|found| (found.id.clone(), found)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    fn carry_out(&mut self, action: &Action) -> Ec2Result<Done> {
        self.tokens += 1;
        let cloud = &self.cloud;
        self.runtime.block_on(async {
            match action {
                Action::Create { amount, .. } => {
                    let new = NewInterface {
                        prefix6: false,
                        token: format!("token-{}", self.tokens),
                        subnet: self.subnet.clone(),
                        security_groups: vec![],
                        amount: *amount,
                        description: String::new(),
                        tags: BTreeMap::from([(TAG.to_owned(), self.instance.to_string())]),
                    };
                    cloud.create_interface(&new).await.map(Done::Created)
                }
                Action::Attach { eni, card, device_index } => {
                    cloud.attach_interface(eni, &self.instance, *card, *device_index).await.map(Done::Attached)
                }
                Action::DeleteOnTermination { eni, attachment } => {
                    let change = Change::DeleteOnTermination(attachment.clone());
                    cloud.modify_interface(eni, &change).await.map(|()| Done::Plain)
                }
                Action::SecurityGroups { eni, security_groups } => {
                    let change = Change::SecurityGroups(security_groups.clone());
                    cloud.modify_interface(eni, &change).await.map(|()| Done::Plain)
                }
                Action::Assign { eni, amount } => cloud.assign(eni, *amount).await.map(Done::Assigned),
                Action::Unassign { eni, holdings } => cloud.unassign(eni, holdings).await.map(|()| Done::Plain),
                Action::Detach { attachment, .. } => cloud.detach_interface(attachment).await.map(|()| Done::Plain),
                Action::Delete { eni } => cloud.delete_interface(eni).await.map(|()| Done::Plain),
            }
        })
    }
}

/// Addresses, prefixes; and device index, whether it is attached, whether it goes with the instance.
type Shape = (usize, usize, Option<(u8, bool, bool)>);

/// What both clouds should agree on, ENI by ENI in the order in which they were made.
fn shape(described: &[Interface], order: &[EniId]) -> Vec<Shape> {
    let found = order.iter().filter_map(|id| described.iter().find(|interface| interface.id == *id));
    found
        .map(|eni| {
            let attachment = eni.attachment.as_ref();
            let attachment = attachment.map(|a| (a.device_index, a.attached, a.delete_on_termination));
            (eni.secondary.len(), eni.prefixes.len(), attachment)
        })
        .collect()
}

/// A random call, said in the ids of one cloud: the same numbers give the same call in the other.
fn some_call(numbers: [u64; 4], described: &[Interface], order: &[EniId], subnet: &SubnetId) -> Option<Action> {
    let [kind, which, count, index] = numbers;
    let known: Vec<_> = order.iter().filter_map(|id| described.iter().find(|found| found.id == *id)).collect();
    let eni = known.get(usize::try_from(which).ok()? % known.len().max(1))?;
    let attachment = eni.attachment.as_ref().map(|attachment| attachment.id.clone());
    let id = eni.id.clone();
    let count = u16::try_from(1 + count % 3).ok()?;
    let amount = if index % 2 == 0 { Amount::Addresses(count) } else { Amount::Prefixes(count) };
    Some(match kind % 8 {
        0 => Action::Create { subnet: subnet.clone(), security_groups: vec![], amount, prefix6: false },
        1 => Action::Attach { eni: id, card: 0, device_index: u8::try_from(index % 4).ok()? },
        2 => Action::Detach { eni: id, attachment: attachment.filter(|_| which % 5 > 0)? },
        3 => Action::Delete { eni: id },
        4 => Action::DeleteOnTermination { eni: id, attachment: attachment? },
        5 => {
            let addresses: Vec<_> = eni.secondary.iter().take(count.into()).copied().collect();
            let prefixes: Vec<_> = eni.prefixes.iter().take(count.into()).copied().collect();
            let (addresses, prefixes) = if addresses.is_empty() { (addresses, prefixes) } else { (addresses, vec![]) };
            if addresses.is_empty() && prefixes.is_empty() {
                return None;
            }
            Action::Unassign { eni: id, holdings: Holdings { addresses, prefixes, prefixes6: vec![] } }
        }
        // EC2 lets an ENI that hangs on nothing have more than its later instance carries; the small cloud does not.
        _ => Action::Assign { eni: id, amount: Some(amount).filter(|_| eni.attachment.is_some())? },
    })
}

#[test]
fn the_same_calls_end_the_same_way_and_leave_the_same_behind() {
    let mut agreed = [0, 0];
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut now = Moment::from_millis(1_000_000);
        let (clock, hand) = Clock::by_hand(now);
        let mut honest = Honest::new(clock);
        let mut small = Cloud::new(seed, Limits::of(TYPE).expect("a known type"), now);
        let (node, identity) = small.launch(TYPE);
        let mut orders = [honest.describe().into_iter().map(|eni| eni.id).collect(), vec![identity.primary_eni]];
        for step in 0..60 {
            now = now.after(Duration::from_secs(90));
            hand.advance(Duration::from_secs(90));
            let descriptions = [honest.describe(), everything(&mut small, node, now)];
            assert_eq!(
                shape(&descriptions[0], &orders[0]),
                shape(&descriptions[1], &orders[1]),
                "seed {seed} step {step}"
            );
            let numbers = std::array::from_fn(|_| random.next());
            let subnets = [honest.subnet.clone(), small.subnet()];
            let call = |at: usize| some_call(numbers, &descriptions[at], &orders[at], &subnets[at]);
            let (Some(first), Some(second)) = (call(0), call(1)) else { continue };
            let outcomes = [honest.carry_out(&first), small.carry_out(node, &second, now).outcome];
            for (outcome, order) in outcomes.iter().zip(&mut orders) {
                if let Ok(Done::Created(interface)) = outcome {
                    order.push(interface.id.clone());
                }
            }
            let [a, b] = outcomes.map(|outcome| outcome.map(drop));
            assert_eq!(a.is_ok(), b.is_ok(), "seed {seed} step {step}: {first:?}: {a:?} {b:?}");
            agreed[usize::from(a.is_ok())] += 1;
        }
    }
    assert!(agreed[0] > 200 && agreed[1] > 500, "too few refusals or successes to prove anything: {agreed:?}");
}

fn everything(cloud: &mut Cloud, node: usize, now: Moment) -> Vec<Interface> {
    let mut ask = |scope| cloud.describe(node, scope, now).outcome.expect("within the budget");
    let all = ask(Scope::Tagged).into_iter().chain(ask(Scope::Attached));
    all.map(|found| (found.id.clone(), found)).collect::<BTreeMap<_, _>>().into_values().collect()
}

#[test]
fn both_have_the_same_buckets() {
    let now = Moment::from_millis(1_000_000);
    let none: AttachmentId = "eni-attach-0123456789abcdef0".parse().expect("an id");
    let eni: EniId = "eni-0123456789abcdef0".parse().expect("an id");
    let calls = [
        (Api::AssignPrivateIpAddresses, Action::Assign { eni: eni.clone(), amount: Amount::Addresses(1) }),
        (Api::AttachNetworkInterface, Action::Attach { eni: eni.clone(), card: 0, device_index: 1 }),
        (Api::DetachNetworkInterface, Action::Detach { eni: eni.clone(), attachment: none.clone() }),
        (Api::DeleteNetworkInterface, Action::Delete { eni: eni.clone() }),
        (Api::ModifyNetworkInterfaceAttribute, Action::DeleteOnTermination { eni, attachment: none }),
    ];
    for (api, action) in calls {
        let (clock, hand) = Clock::by_hand(now);
        let mut honest = Honest::new(clock);
        let mut served = || {
            (0..300)
                .filter(|_| {
                    let outcome = honest.carry_out(&action);
                    outcome.err().and_then(|error| retry::class(&error))
                        != Some(ipam_core::ports::RefusalClass::SlowDown)
                })
                .count()
        };
        let at_once = served();
        hand.advance(Duration::from_secs(4));
        let (burst, per_second) = api.bucket();
        assert_eq!((at_once, served()), (burst as usize, 4 * per_second as usize), "{}", api.name());
    }
}
