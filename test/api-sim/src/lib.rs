//! A stand-in for a Kubernetes API server. It is **not** a real one, and says so in each answer: no authorisation rules, no
//! admission, no schemas, no protobuf, and only the verbs that a node's daemon uses: get, list and watch with a field selector
//! for one name, merge and strategic-merge patches (of conditions, by their type), create.
//!
//! What it does as a real one does: resource versions, optimistic locking, uid preconditions, watches from a version, bookmarks,
//! 410 for a version that is too old; and on demand all that goes wrong ([`Mood`]).

#![forbid(unsafe_code)]

mod answers;
mod store;
pub mod tls;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::Router;
use serde_json::Value;
use store::Store;
use tokio::sync::Notify;

/// How the server takes requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    /// As it should.
    #[default]
    Well,
    /// It never answers.
    Hangs,
    /// It answers after longer than anybody should wait.
    Lags,
    /// 403.
    Denies,
    /// 401, as for a token that has expired.
    Distrusts,
    /// 429, with a second to wait.
    Busy,
    /// 500.
    Fails,
    /// 409 for each patch; it is well otherwise.
    Conflicts,
    /// A page of HTML with status 200.
    Garbles,
    /// An answer that breaks off in the middle.
    BreaksOff,
    /// Another object than the one that was asked for.
    Lies,
    /// More than anybody should read.
    Floods,
    /// A list that has the object twice, differently.
    Doubles,
}

/// One request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// As `GET`; a watch is `WATCH`.
    pub verb: String,
    /// Without the query.
    pub path: String,
    /// Null: none.
    pub body: Value,
}

#[derive(Debug, Default)]
struct State {
    store: Store,
    mood: Mood,
    /// For the next requests, one each, before the mood counts.
    next: VecDeque<Mood>,
    asked: Vec<Asked>,
    token: Option<String>,
    watchers: usize,
    /// Watches that began before this count of cuts end.
    cuts: u64,
}

/// The server. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ApiSim {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl ApiSim {
    /// A server without objects that lets everybody in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on only who has this bearer token is let in.
    pub fn demand_token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    /// Puts an object at the path that a get would have, as `/api/v1/nodes/node-1`; it replaces what is there.
    pub fn put(&self, path: &str, object: Value) {
        self.state().store.put(path, object);
        self.changed.notify_waiters();
    }

    /// Takes the object at a path away.
    pub fn remove(&self, path: &str) {
        self.state().store.remove(path);
        self.changed.notify_waiters();
    }

    /// The object at a path. Absent: there is none.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        self.state().store.get(path).cloned()
    }

    /// All objects whose path begins like this, by path.
    #[must_use]
    pub fn all(&self, begins: &str) -> Vec<Value> {
        self.state().store.all(begins).map(|(_, object)| object.clone()).collect()
    }

    /// How it takes requests from now on.
    pub fn mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// How it takes the next `count` requests.
    pub fn next(&self, count: usize, mood: Mood) {
        self.state().next.extend(std::iter::repeat_n(mood, count));
    }

    /// Ends all watches.
    pub fn cut(&self) {
        self.state().cuts += 1;
        self.changed.notify_waiters();
    }

    /// Forgets all that has changed so far: watches from an earlier version get 410, those that run now too.
    pub fn compact(&self) {
        self.state().store.compact();
        self.changed.notify_waiters();
    }

    /// All requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// How many watches run.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.state().watchers
    }

    /// The server's HTTP.
    pub fn router(&self) -> Router {
        Router::new().fallback(answers::answer).with_state(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
