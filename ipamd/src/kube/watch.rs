//! Keeps up with one object by its name: a list with a field selector, then a watch from there, for ever. Never more than that one
//! object is asked for.

use std::time::{Duration, Instant};

use ipam_core::retry::Backoff;
use serde_json::Value;

use super::{
    api::{Api, ApiError, Lines, is_gone, readable},
    objects,
};

/// How long a watch may last by our wish, and how much longer we wait for its end. A server that hangs is left after that.
const WATCH: Duration = Duration::from_secs(240);
const GRACE: Duration = Duration::from_secs(30);
/// A watch that ends sooner was none.
const SHORT: Duration = Duration::from_secs(5);

/// What there is of the object.
pub(super) type Seen<'a> = Result<Option<&'a Value>, &'a ApiError>;

/// Follows the object called `name` in `collection`, as `/api/v1/nodes`. `see` hears of each state, and of each failure, after
/// which what it heard before stands. Never ends by itself.
pub(super) async fn follow(api: &Api, collection: &str, name: &str, seed: u64, mut see: impl FnMut(Seen<'_>)) -> ! {
    let mut pace = Pace::new(seed);
    let query = format!("{collection}?fieldSelector=metadata.name%3D{name}");
    loop {
        let began = Instant::now();
        match once(api, &query, name, &mut see, seed).await {
            Ok(()) if began.elapsed() >= SHORT => pace.calm(),
            Ok(()) => pace.rest(None).await,
            Err(error) => {
                see(Err(&error));
                pace.rest(Some(&error)).await;
            }
        }
    }
}

/// One list and one watch. Ok: the watch ended as watches do.
async fn once(api: &Api, query: &str, name: &str, see: &mut impl FnMut(Seen<'_>), seed: u64) -> Result<(), ApiError> {
    let list = api.get(query).await?;
    see(Ok(only(&list, name)?));
    let lasts = WATCH + Duration::from_secs(seed % 60);
    let (version, seconds) = (objects::version(&list), lasts.as_secs());
    let path = format!("{query}&watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}");
    let mut lines = api.watch(&path).await?;
    // In time, or the server hangs: both end the watch.
    tokio::time::timeout(lasts + GRACE, read(&mut lines, name, see)).await.unwrap_or(Ok(()))
}

async fn read(lines: &mut Lines, name: &str, see: &mut impl FnMut(Seen<'_>)) -> Result<(), ApiError> {
    while let Some(event) = lines.next().await? {
        let object = &event["object"];
        match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") if objects::name(object) == name => see(Ok(Some(object))),
            Some("DELETED") if objects::name(object) == name => see(Ok(None)),
            Some("ERROR") => {
                let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
                // What we have seen is too old to go on from: the list comes anew.
                if is_gone(code) {
                    return Ok(());
                }
                let message = readable(object["message"].as_str().unwrap_or_default());
                return Err(ApiError::Refused { code, message, retry_after: None });
            }
            // Bookmarks, and what was not asked for.
            _ => {}
        }
    }
    Ok(())
}

/// The object of that name in a list.
fn only<'a>(list: &'a Value, name: &str) -> Result<Option<&'a Value>, ApiError> {
    let items = list["items"].as_array().ok_or_else(|| ApiError::Illegible("a list without items".to_owned()))?;
    let mut named = items.iter().filter(|item| objects::name(item) == name);
    let first = named.next();
    if named.next().is_some() {
        return Err(ApiError::Illegible(format!("two objects are called {name}")));
    }
    if first.is_none() && !items.is_empty() {
        return Err(ApiError::Illegible(format!("it lists other objects than {name}, which was asked for")));
    }
    Ok(first)
}

/// How long to leave the server alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    soon: Backoff,
    /// For what somebody has to mend.
    late: Backoff,
}

impl Pace {
    pub(super) const fn new(seed: u64) -> Self {
        Self { soon: Backoff::new(seed), late: Backoff::very_slow(seed) }
    }

    pub(super) fn calm(&mut self) {
        self.soon.succeed();
        self.late.succeed();
    }

    /// How long to wait after this failure.
    pub(super) fn wait(&mut self, error: Option<&ApiError>) -> Duration {
        match error {
            // A token is renewed within a minute or two.
            Some(ApiError::Refused { code: 403, .. }) => self.late.next_wait(),
            Some(ApiError::Refused { retry_after: Some(wait), .. }) => self.soon.next_wait().max(*wait),
            _ => self.soon.next_wait(),
        }
    }

    async fn rest(&mut self, error: Option<&ApiError>) {
        tokio::time::sleep(self.wait(error)).await;
    }
}
