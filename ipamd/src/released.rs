//! Release notes: what the plugin wrote down when a DEL found no daemon.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use eni_proto::PodKey;
use ipam_core::Moment;
use tokio::task::JoinSet;

use crate::{errors::chain, folders::Folders, handle::Handle};

/// How often notes are looked for although nobody told of one: in case something was missed, or a release failed.
const BACKSTOP: Duration = Duration::from_secs(60);
/// The same while the folder cannot be watched.
const BLIND_PERIOD: Duration = Duration::from_secs(5);

/// One note: which lease ended, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) path: PathBuf,
    pub(crate) key: PodKey,
    pub(crate) at: Moment,
}

/// Returns the notes in `folder`, sorted by path. A folder that is missing has none; a file that is no note is logged and left.
pub(crate) fn read(folder: &Path) -> Vec<Note> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut notes: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")))
        .filter_map(|path| match read_note(&path) {
            Ok(note) => Some(note),
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "release note cannot be read and is left where it is");
                None
            }
        })
        .collect();
    notes.sort_by(|a, b| a.path.cmp(&b.path));
    notes
}

fn read_note(path: &Path) -> Result<Note, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let note: eni_proto::ReleaseNote = text.parse().map_err(|error: eni_proto::InvalidNote| error.to_string())?;
    Ok(Note { path: path.to_owned(), key: note.key, at: Moment::from_millis(note.at_milliseconds) })
}

/// Releases what the notes in `folder` name, and removes each note once that is stored. Repeatable.
pub(crate) async fn honour(folder: &Path, handle: &Handle) {
    let mut notes = JoinSet::new();
    // All at once, so that they share commits: a daemon that was away for long finds many.
    for note in read(folder) {
        let handle = handle.clone();
        notes.spawn(async move { honour_one(&note, &handle).await });
    }
    notes.join_all().await;
}

async fn honour_one(note: &Note, handle: &Handle) {
    // The same attachment may have been added again after the note; then the note is history.
    let newer = matches!(handle.lease(note.key.clone()).await, Ok(Some(lease)) if lease.since > note.at);
    let done = newer || matches!(handle.del(note.key.clone()).await, Ok(Ok(_)));
    if done {
        tracing::info!(key = %note.key, outdated = newer, "release note honoured");
        match std::fs::remove_file(&note.path) {
            // A DEL that came meanwhile has removed it.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %note.path.display(), %error, "release note could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Honours notes as they come, for ever. Makes the folder if it is not there, so that it can be watched.
pub(crate) async fn follow(folder: PathBuf, handle: Handle) {
    let mut folders = Folders::new().map_err(|error| log_blind(&folder, &error)).ok();
    loop {
        let _ = std::fs::create_dir_all(&folder);
        let watched = folders.as_mut().map(|folders| folders.watch(&folder));
        // After the watch is set, so that a note that comes in between is not missed.
        honour(&folder, &handle).await;
        match (watched, &mut folders) {
            (Some(Ok(())), Some(folders)) => drop(tokio::time::timeout(BACKSTOP, folders.changed()).await),
            _ => tokio::time::sleep(BLIND_PERIOD).await,
        }
    }
}

fn log_blind(folder: &Path, error: &std::io::Error) {
    tracing::warn!(folder = %folder.display(), error = %chain(error), "IPAM-316 inotify cannot be had: release notes are looked for every 5 s");
}
