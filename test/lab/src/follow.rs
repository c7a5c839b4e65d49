//! Keeps a lab as its cloud describes it.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Lab, LabError, ec2::Endpoint};

/// Asks the cloud again and again and brings the lab up to date, on a thread of its own. Dropping it stops that.
#[derive(Debug)]
pub struct Follower {
    nudge: Nudge,
    trouble: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

/// Makes a [`Follower`] look at once. Cheap to copy; does nothing when the follower is gone.
#[derive(Debug, Clone)]
pub struct Nudge(mpsc::Sender<Message>);

#[derive(Debug)]
enum Message {
    Look,
    /// Look, then answer.
    Settle(mpsc::Sender<()>),
    Stop,
}

impl Nudge {
    /// Something changed in the cloud: look now. Does not wait.
    pub fn look(&self) {
        let _ = self.0.send(Message::Look);
    }
}

impl Follower {
    /// Follows `endpoint`, looking at least once per `interval`.
    ///
    /// # Errors
    /// As the first look, which is made before this returns.
    pub fn start(lab: &Arc<Lab>, endpoint: Endpoint, interval: Duration) -> Result<Self, LabError> {
        look(lab, &endpoint)?;
        let (sender, receiver) = mpsc::channel();
        let trouble = Arc::new(Mutex::new(None));
        let (lab, told) = (Arc::clone(lab), Arc::clone(&trouble));
        let thread = thread::spawn(move || {
            while let Some(waiting) = next_round(&receiver, interval) {
                let outcome = look(&lab, &endpoint).err().map(|error| describe(&error));
                *told.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
                for asker in waiting {
                    let _ = asker.send(());
                }
            }
        });
        Ok(Self { nudge: Nudge(sender), trouble, thread: Some(thread) })
    }

    /// A handle by which the cloud tells of changes.
    #[must_use]
    pub fn nudge(&self) -> Nudge {
        self.nudge.clone()
    }

    /// Looks now, and returns when the lab is as the cloud was at or after the call. Blocks.
    pub fn settle(&self) {
        let (done, answer) = mpsc::channel();
        let _ = self.nudge.0.send(Message::Settle(done));
        let _: Result<(), _> = answer.recv();
    }

    /// Why the last look failed, with its causes. Absent: it did not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.nudge.0.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for a reason to look; many at once are one. Returns who wants to hear of it; absent: no more looks.
fn next_round(messages: &mpsc::Receiver<Message>, interval: Duration) -> Option<Vec<mpsc::Sender<()>>> {
    let mut waiting = Vec::new();
    let mut message = match messages.recv_timeout(interval) {
        Ok(message) => Some(message),
        Err(mpsc::RecvTimeoutError::Timeout) => None,
        Err(mpsc::RecvTimeoutError::Disconnected) => return None,
    };
    while let Some(reason) = message {
        match reason {
            Message::Look => {}
            Message::Settle(asker) => waiting.push(asker),
            Message::Stop => return None,
        }
        message = messages.try_recv().ok();
    }
    Some(waiting)
}

fn look(lab: &Lab, endpoint: &Endpoint) -> Result<(), LabError> {
    lab.sync(&endpoint.interfaces()?)
}

fn describe(error: &LabError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
