//! A node under the AWS CNI's policies, re-coded from its documented behaviour (v1.23): a loop that looks at the pool every
//! 5 s and does one thing at a time, an ADD that fails at once when nothing is free, calls that the SDK sends up to 3 times.
//!
//! Where its behaviour is not known it is taken to be kind: its node is ready at once after the first look, calls by id count
//! as filtered, a failed security-group refresh is forgotten.

mod pool;

use std::{collections::VecDeque, time::Duration};

use ipam_core::{
    Action, AttachmentId, Done, EniId, Limits, Moment,
    ports::{Amount, Ec2Error, Holdings, RefusalClass},
    retry,
};

pub use self::pool::Warm;
use self::pool::{Change, Pool};
use crate::{
    account::Api,
    cloud::Answer,
    cluster::{Happening, Outside},
};

/// Pause between two looks at the pool.
const LOOP: Duration = Duration::from_secs(5);
/// How often the SDK sends a call.
const SDK_ATTEMPTS: u8 = 3;
/// Between detaching and deleting.
const DETACH_PAUSE: Duration = Duration::from_secs(2);
/// Between two sweeps for lost ENIs; up to [`SWEEP_JITTER`] is added.
const SWEEP: Duration = Duration::from_secs(3600);
const SWEEP_JITTER: Duration = Duration::from_secs(300);

/// One thing after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// A call of which only the price matters; how often it is begun anew when it fails, and after which pause.
    Call(Api, u8, Duration),
    /// Addresses for an ENI. After a failure one single address or prefix is tried.
    Assign(EniId, Amount),
    Unassign(EniId, Holdings),
    Create(Amount),
    Attach(EniId, Holdings),
    /// Makes it go away with the instance.
    Tie(EniId, AttachmentId),
    /// Waits until the metadata service shows the new ENI.
    Await(EniId),
    Join(EniId, AttachmentId, Holdings),
    Detach(EniId, AttachmentId),
    Delete(EniId, u8),
    Pause(Duration),
    /// ADDs are answered from now on.
    Serve,
    /// Looks at the pool.
    Look,
}

/// What happens next on the node.
#[derive(Debug)]
pub(crate) enum Step {
    /// The next task, or the next look.
    Next,
    /// The task is tried again.
    Again(Box<Task>, u8),
    /// The task's call was answered.
    Answered(Box<(Task, u8, Result<Done, Ec2Error>)>),
    /// The sweep for lost ENIs.
    Sweep,
}

/// A node under the AWS CNI's policies.
#[derive(Debug)]
pub(crate) struct Incumbent {
    node: usize,
    pool: Pool,
    tasks: VecDeque<Task>,
    serves: bool,
    sweeps: bool,
}

impl Incumbent {
    pub(crate) fn new(node: usize, primary: EniId, warm: Warm, limits: Limits, now: Moment) -> Self {
        let patient = |api| Task::Call(api, 5, Duration::from_secs(10));
        let tasks = VecDeque::from([
            Task::Call(Api::DescribeNetworkInterfaces, 11, Duration::from_millis(50)),
            Task::Call(Api::CreateTags, 4, Duration::from_secs(2)),
            patient(Api::DescribeSubnets),
            Task::Call(Api::ModifyNetworkInterfaceAttribute, 0, Duration::ZERO),
            Task::Look,
            Task::Serve,
        ]);
        let pool = Pool::new(primary, warm, limits, now);
        Self { node, pool, tasks, serves: false, sweeps: false }
    }

    /// An ADD, answered at once.
    pub(crate) fn add(&mut self, pod: usize, now: Moment, outside: &mut Outside) {
        if self.serves && self.pool.give(pod, now, &mut outside.random) {
            outside.granted(pod, now);
        } else {
            outside.refused(pod, now);
        }
    }

    pub(crate) fn del(&mut self, pod: usize, now: Moment) {
        self.pool.take_back(pod, now);
    }

    pub(crate) fn step(&mut self, step: Step, now: Moment, outside: &mut Outside) {
        match step {
            Step::Next => self.next(now, outside),
            Step::Again(task, attempt) => self.perform(*task, attempt, now, outside),
            Step::Sweep => {
                // Its outcome changes nothing here.
                drop(outside.cloud.spend(Api::DescribeNetworkInterfaces, now));
                self.sweep_later(now, outside);
            }
            Step::Answered(answered) => {
                let (task, attempt, outcome) = *answered;
                match outcome {
                    Ok(done) => self.succeeded(task, done, now),
                    Err(error) if attempt < SDK_ATTEMPTS && may_pass(&error) => {
                        let wait = outside.random.up_to(Duration::from_secs(1 << attempt));
                        let again = Step::Again(Box::new(task), attempt + 1);
                        return outside.agenda.put(now.after(wait), Happening::Step(self.node, again));
                    }
                    Err(_) => self.failed(task),
                }
                self.next(now, outside);
            }
        }
    }

    fn sweep_later(&self, now: Moment, outside: &mut Outside) {
        let at = now.after(SWEEP + outside.random.up_to(SWEEP_JITTER));
        outside.agenda.put(at, Happening::Step(self.node, Step::Sweep));
    }

    fn next(&mut self, now: Moment, outside: &mut Outside) {
        if !self.sweeps {
            self.sweeps = true;
            let first = now.after(outside.random.up_to(SWEEP_JITTER));
            outside.agenda.put(first, Happening::Step(self.node, Step::Sweep));
        }
        while let Some(task) = self.tasks.pop_front() {
            match task {
                Task::Serve => self.serves = true,
                Task::Look => self.look(now),
                Task::Join(eni, attachment, holdings) => self.pool.join(eni, attachment, &holdings, now),
                Task::Pause(wait) => {
                    return outside.agenda.put(now.after(wait), Happening::Step(self.node, Step::Next));
                }
                Task::Await(eni) => {
                    let attached = outside.cloud.attached_at(self.node, &eni).unwrap_or(now).max(now);
                    let shown = attached.after(outside.cloud.delays.metadata.draw(&mut outside.random));
                    return outside.agenda.put(seen_by_polling(now, shown), Happening::Step(self.node, Step::Next));
                }
                call @ (Task::Call(..)
                | Task::Assign(..)
                | Task::Unassign(..)
                | Task::Create(_)
                | Task::Attach(..)
                | Task::Tie(..)
                | Task::Detach(..)
                | Task::Delete(..)) => return self.perform(call, 1, now, outside),
            }
        }
        self.tasks.push_back(Task::Look);
        outside.agenda.put(now.after(LOOP), Happening::Step(self.node, Step::Next));
    }

    fn look(&mut self, now: Moment) {
        match self.pool.wants(now) {
            Change::Nothing => {}
            Change::Assign(eni, amount) => self.tasks.push_front(Task::Assign(eni, amount)),
            Change::Create(amount) => {
                self.tasks.push_front(Task::Create(amount));
                self.tasks.push_front(Task::Call(Api::DescribeSubnets, 0, Duration::ZERO));
            }
            Change::Unassign(eni, holdings) => self.tasks.push_front(Task::Unassign(eni, holdings)),
            Change::Free(eni, attachment) => {
                self.do_first([
                    Task::Call(Api::DescribeNetworkInterfaces, 0, Duration::ZERO),
                    Task::Detach(eni.clone(), attachment),
                    Task::Pause(DETACH_PAUSE),
                    Task::Delete(eni, 12),
                ]);
            }
        }
    }

    fn do_first<const N: usize>(&mut self, tasks: [Task; N]) {
        tasks.into_iter().rev().for_each(|task| self.tasks.push_front(task));
    }

    fn perform(&mut self, task: Task, attempt: u8, now: Moment, outside: &mut Outside) {
        let action = match &task {
            Task::Assign(eni, amount) => Some(Action::Assign { eni: eni.clone(), amount: *amount }),
            Task::Unassign(eni, holdings) => Some(Action::Unassign { eni: eni.clone(), holdings: holdings.clone() }),
            Task::Create(amount) => {
                let subnet = outside.cloud.subnet();
                Some(Action::Create { subnet, security_groups: vec![], amount: *amount, prefix6: false })
            }
            Task::Attach(eni, _) => {
                let device_index = self.pool.free_device_index();
                Some(Action::Attach { eni: eni.clone(), card: 0, device_index })
            }
            Task::Tie(eni, attachment) => {
                Some(Action::DeleteOnTermination { eni: eni.clone(), attachment: attachment.clone() })
            }
            Task::Detach(eni, attachment) => Some(Action::Detach { eni: eni.clone(), attachment: attachment.clone() }),
            Task::Delete(eni, _) => Some(Action::Delete { eni: eni.clone() }),
            Task::Call(..) | Task::Await(_) | Task::Join(..) | Task::Pause(_) | Task::Serve | Task::Look => None,
        };
        let Answer { outcome, at } = match (&task, action) {
            (_, Some(action)) => outside.cloud.carry_out(self.node, &action, now),
            (Task::Call(api, ..), None) => {
                let Answer { outcome, at } = outside.cloud.spend(*api, now);
                Answer { outcome: outcome.map(|()| Done::Plain), at }
            }
            (_, None) => Answer { outcome: Ok(Done::Plain), at: now },
        };
        outside.agenda.put(at, Happening::Step(self.node, Step::Answered(Box::new((task, attempt, outcome)))));
    }

    fn succeeded(&mut self, task: Task, done: Done, now: Moment) {
        match (task, done) {
            (Task::Assign(eni, _), Done::Assigned(holdings)) => self.pool.extend(&eni, &holdings),
            (Task::Create(_), Done::Created(interface)) => {
                let holdings =
                    Holdings { addresses: interface.secondary, prefixes: interface.prefixes, prefixes6: vec![] };
                // It looks for the lowest free device index first.
                self.do_first([
                    Task::Call(Api::DescribeInstances, 0, Duration::ZERO),
                    Task::Attach(interface.id, holdings),
                ]);
            }
            (Task::Attach(eni, holdings), Done::Attached(attachment)) => {
                self.do_first([
                    Task::Tie(eni.clone(), attachment.clone()),
                    Task::Await(eni.clone()),
                    Task::Call(Api::DescribeSubnets, 5, Duration::from_secs(10)),
                    Task::Join(eni, attachment, holdings),
                ]);
            }
            (Task::Unassign(eni, holdings), _) => self.pool.remove(&eni, &holdings, now),
            (Task::Detach(eni, _), _) => self.pool.leave(&eni),
            _ => {}
        }
    }

    /// After the SDK has given up.
    fn failed(&mut self, task: Task) {
        match task {
            Task::Call(api, more, pause) if more > 0 => {
                self.do_first([Task::Pause(pause), Task::Call(api, more - 1, pause)]);
            }
            Task::Assign(eni, Amount::Addresses(2..)) => {
                self.tasks.push_front(Task::Assign(eni, Amount::Addresses(1)));
            }
            Task::Assign(eni, Amount::Prefixes(2..)) => {
                self.tasks.push_front(Task::Assign(eni, Amount::Prefixes(1)));
            }
            Task::Attach(eni, _) => self.tasks.push_front(Task::Delete(eni, 12)),
            Task::Tie(eni, attachment) => {
                self.tasks.retain(|task| !matches!(task, Task::Await(_) | Task::Join(..) | Task::Call(..)));
                self.do_first([
                    Task::Detach(eni.clone(), attachment),
                    Task::Pause(DETACH_PAUSE),
                    Task::Delete(eni, 12),
                ]);
            }
            Task::Detach(..) => self.tasks.retain(|task| !matches!(task, Task::Delete(..))),
            Task::Delete(eni, more) if more > 0 => {
                self.do_first([Task::Pause(Duration::from_secs(4)), Task::Delete(eni, more - 1)]);
            }
            // What comes next does not depend on these, or they do not fail.
            Task::Call(..)
            | Task::Assign(..)
            | Task::Unassign(..)
            | Task::Create(_)
            | Task::Await(_)
            | Task::Join(..)
            | Task::Delete(..)
            | Task::Pause(_)
            | Task::Serve
            | Task::Look => {}
        }
    }
}

/// Whether the SDK sends the call again after this.
fn may_pass(error: &Ec2Error) -> bool {
    matches!(retry::class(error), Some(RefusalClass::SlowDown | RefusalClass::TryLater))
}

/// When somebody who looks after 0.1 s, then 0.2 s, 0.4 s and so on sees what is there from `shown` on.
fn seen_by_polling(now: Moment, shown: Moment) -> Moment {
    let mut wait = Duration::from_millis(100);
    let mut look = now.after(wait);
    while look < shown {
        wait = (wait * 2).min(Duration::from_secs(60));
        look = look.after(wait);
    }
    look
}
