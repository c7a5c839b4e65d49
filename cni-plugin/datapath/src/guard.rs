//! Keeps the node as it was prepared: hears what anybody changes in the kernel, compares it with what is wanted, mends what is wrong.
//!
//! What is wanted of the node's base and its ENIs are the plans that they were prepared with; of a pod it is what its link says of
//! itself, so that nothing has to be told when pods come and go. All changes of plans go through the guard, which looks at nothing
//! meanwhile. Of pods only what stays wrong for a while is mended, because an ADD or DEL may be at work on it.
//!
//! Of settings for which the kernel sends no notification (`arp_ignore`, `arp_announce`, `accept_ra`) the files are watched. Whatever
//! could not be heard is found at least every [`LOOK_INTERVAL`].

mod compare;
mod drift;
mod keeper;
mod known;
mod listen;
mod mend;
mod patience;
mod settings;
mod taken;
mod verify;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use eni_proto::{EniMark, VethPrefix};

use crate::{
    EniError, EniPlan, HostError, HostPlan, MacAddress, NftError, eni, host,
    nft::{Nft, Picture},
};
use keeper::Keeper;

pub use drift::{Drift, Kind, TOOK_SECONDS, Tally};
pub use verify::{Wrong, repair, verify};

/// At least this often everything is compared, also when nothing was heard.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// So many times as long as a look takes there is none, so that comparing costs a tenth of the time.
const IDLE_SHARE: u32 = 9;
/// But it must not take long until the next look because a busy machine let this one wait.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Several changes at once are one look.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// How often a plan is carried out anew because somebody changed nf_tables at the same moment.
const ATTEMPTS: usize = 8;

/// Something that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What kind of thing it is.
    pub kind: Kind,
    /// What mends it, as `add route 0.0.0.0/0 via 10.0.0.1 on link 3 in table 2 (protocol 142)`.
    pub what: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Time since it was noticed.
    pub took: Duration,
}

/// What became of something that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is right again.
    Mended,
    /// The kernel refused to mend it.
    Refused(String),
    /// Somebody breaks it again and again; it is left as it is for this long.
    LeftAlone(Duration),
    /// Something of somebody else's is in the place of ours, or comes before it. It is not ours to remove, and told once.
    Taken,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Mended => write!(f, "somebody changed the network; mended: {}", self.what),
            Outcome::Refused(why) => write!(f, "somebody changed the network; cannot {}: {why}", self.what),
            Outcome::LeftAlone(pause) => {
                write!(f, "somebody changes the network again and again; in {} s: {}", pause.as_secs(), self.what)
            }
            Outcome::Taken => write!(f, "somebody else uses what is ours: {}", self.what),
        }
    }
}

/// What the node shall be like.
#[derive(Debug, Default)]
struct Wanted {
    /// With the index of the link that was prepared.
    host: Option<(HostPlan, u32)>,
    /// The primary ENI's link as our table of each family names it.
    names: [String; 2],
    enis: BTreeMap<MacAddress, (EniPlan, u32)>,
    /// How our tables looked when we had changed them last.
    pictures: Pictures,
    /// Owns the last gate ([`crate::nft::stay`]) for as long as it is open.
    gate: Option<Nft>,
}

/// How our tables of both families look.
type Pictures = [Picture; 2];

#[derive(Debug)]
enum Kick {
    /// Something changed at this time.
    Look(Instant),
    Stop,
}

/// Keeps a node right until it is dropped.
#[derive(Debug)]
pub struct Guard {
    wanted: Arc<Mutex<Wanted>>,
    drift: Arc<Mutex<Drift>>,
    kicks: mpsc::Sender<Kick>,
    unwatched: Option<io::Error>,
    /// The listener goes on for as long as this is held.
    _listening: io::PipeWriter,
    thread: Option<thread::JoinHandle<()>>,
}

impl Guard {
    /// Starts to listen in the network namespace of the calling thread. `report` hears of each repair, on the guard's thread.
    ///
    /// # Errors
    /// When the kernel's notifications cannot be heard.
    pub fn start(prefix: &VethPrefix, report: impl Fn(&Repair) + Send + 'static) -> io::Result<Self> {
        let (kicks, inbox) = mpsc::channel();
        let (wanted, drift) = (Arc::default(), Arc::default());
        let mut keeper = Keeper::new(prefix, Box::new(report), Arc::clone(&drift))?;
        // Others may have taken all that this user may have of inotify. Everything is looked at now and then, too.
        let (watches, unwatched) = match settings::Watches::start() {
            Ok(watches) => (Some(watches), None),
            Err(error) => (None, Some(error)),
        };
        let inotify = watches.as_ref().map(settings::Watches::inotify);
        let ears = listen::Ears::open(inotify, keeper.interest(), &drift)?;
        keeper.watch_settings(watches);
        let listening = ears.start(kicks.clone())?;
        let own = Arc::clone(&wanted);
        let thread = thread::Builder::new().name("guard".to_owned()).spawn(move || watch(&own, &mut keeper, &inbox))?;
        Ok(Self { wanted, drift, kicks, unwatched, _listening: listening, thread: Some(thread) })
    }

    /// Returns why changes of kernel settings of which netlink does not tell are not noticed at once, but with the next other change, and
    /// every 10 s. Nothing: they are.
    #[must_use]
    pub const fn unwatched(&self) -> Option<&io::Error> {
        self.unwatched.as_ref()
    }

    /// Returns what there was to mend since the start.
    #[must_use]
    pub fn drift(&self) -> Drift {
        self.drift.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As [`crate::prepare_host`], and keeps the node's base so from then on.
    ///
    /// # Errors
    /// As [`crate::prepare_host`]; the node is kept as it was before.
    pub fn prepare_host(&self, plan: &HostPlan) -> Result<String, HostError> {
        let mut wanted = self.wanted();
        let mut gate = match wanted.gate.take() {
            Some(gate) => gate,
            None => Nft::open()?,
        };
        let (link, pictures) = settled(|| host::prepare(plan, Some(&mut gate)))?;
        wanted.gate = Some(gate);
        (wanted.host, wanted.pictures) = (Some((plan.clone(), link.index)), pictures);
        wanted.names = [(); 2].map(|()| link.name.clone());
        self.look();
        Ok(link.name)
    }

    /// As [`crate::prepare_eni`], and keeps the ENI so from then on.
    ///
    /// # Errors
    /// As [`crate::prepare_eni`]; an ENI that was prepared before is kept as it was.
    pub fn prepare_eni(&self, plan: &EniPlan) -> Result<String, EniError> {
        let mut wanted = self.wanted();
        // Every transaction takes some ten milliseconds and is repeated where pods come and go. After a restart each ENI would cost
        // that, and its pods' addresses would have to wait for it.
        let link = match eni::as_planned(plan) {
            Ok(Some(link)) if wanted.host.is_some() => link,
            // What could not be looked at is told by the attempt to change it.
            Ok(_) | Err(_) => {
                let (link, pictures) = settled(|| eni::prepare(plan))?;
                wanted.pictures = pictures;
                link
            }
        };
        // What had the slot before is not there any more.
        wanted.enis.retain(|_, (other, _)| (other.card, other.device_index) != (plan.card, plan.device_index));
        wanted.enis.insert(plan.mac, (plan.clone(), link.index));
        self.look();
        Ok(link.name)
    }

    /// As [`crate::forget_eni`], and cares no more for the ENI.
    ///
    /// # Errors
    /// As [`crate::forget_eni`]; the ENI is kept as it was then.
    pub fn forget_eni(&self, card: u8, device_index: u8, mark: EniMark) -> Result<(), EniError> {
        let mut wanted = self.wanted();
        let ((), pictures) = settled(|| eni::forget_eni(card, device_index, mark))?;
        wanted.enis.retain(|_, (plan, _)| (plan.card, plan.device_index) != (card, device_index));
        wanted.pictures = pictures;
        Ok(())
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What changed while the plan did is looked at again, and the links of the plan are listened to.
    fn look(&self) {
        // Without a thread there is nobody to tell.
        let _ = self.kicks.send(Kick::Look(Instant::now()));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.kicks.send(Kick::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Does `work` and returns how our table looks right after it, before anybody else changed anything.
fn settled<T, E: From<NftError>>(mut work: impl FnMut() -> Result<T, E>) -> Result<(T, Pictures), E> {
    let mut nft = Nft::open()?;
    let mut attempt = 1;
    loop {
        let before = nft.generation()?;
        let (result, pictures) = (work()?, nft.pictures()?);
        let transactions = nft.generation()?.wrapping_sub(before);
        // One for each family.
        if transactions <= 2 || attempt == ATTEMPTS {
            return Ok((result, pictures));
        }
        attempt += 1;
    }
}

/// Looks when something was heard, when something is left to do, and now and then; never all the time.
fn watch(wanted: &Mutex<Wanted>, keeper: &mut Keeper, inbox: &mpsc::Receiver<Kick>) {
    let mut again = Duration::ZERO;
    let mut not_before = Instant::now();
    loop {
        let Some(noticed) = next_kick(inbox, again) else { return };
        // What comes meanwhile is seen by the same look.
        while let Some(rest) = not_before.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            if next_kick(inbox, rest).is_none() {
                return;
            }
        }
        let began = Instant::now();
        again = keeper.round(&mut wanted.lock().unwrap_or_else(PoisonError::into_inner), noticed);
        let ended = Instant::now();
        not_before = ended + ((ended - began) * IDLE_SHARE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    }
}

/// When something changed, or now when the time is over; nothing: stop.
fn next_kick(inbox: &mpsc::Receiver<Kick>, at_most: Duration) -> Option<Instant> {
    match inbox.recv_timeout(at_most) {
        Ok(Kick::Look(at)) => Some(at),
        Ok(Kick::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => None,
        Err(mpsc::RecvTimeoutError::Timeout) => Some(Instant::now()),
    }
}
