//! The daemon's log: text or JSON, to stderr or a file that is kept small, at a level that can be changed while it runs.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
};

use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::{metrics::open, table::printable};

/// Size at which a log file is set aside, in bytes, and how many of those are kept.
const LARGEST: u64 = 20 << 20;
const KEPT: u32 = 4;

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogPlan {
    /// error, warn, info, debug or trace.
    pub(crate) level: &'static str,
    /// Whether each line is a JSON object.
    pub(crate) json: bool,
    /// The file. Absent: stderr.
    pub(crate) file: Option<PathBuf>,
}

/// Begins to log.
///
/// # Errors
/// When the file cannot be opened; then nothing has begun.
pub(crate) fn begin(plan: &LogPlan) -> io::Result<()> {
    let writer = match &plan.file {
        Some(path) => Sink::File(Mutex::new(Rotating::open(path)?)),
        None => Sink::Stderr,
    };
    let (filter, handle) = reload::Layer::new(filter(plan.level));
    // Set once: a process begins once.
    let _ = FILTER.set(handle);
    let registry = tracing_subscriber::registry().with(filter);
    match plan.json {
        true => registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).init(),
        false => registry.with(fmt::layer().with_ansi(false).with_writer(writer)).init(),
    }
    Ok(())
}

/// Changes the level.
///
/// # Errors
/// In words, when there is no such level.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    if !["error", "warn", "info", "debug", "trace"].contains(&level) {
        return Err(format!("`{level}` is no level: give error, warn, info, debug or trace"));
    }
    let handle = FILTER.get().ok_or("the log has not begun")?;
    handle.reload(filter(level)).map_err(|error| error.to_string())?;
    tracing::warn!(level, "the level of the log is another now");
    Ok(())
}

// Only our own crates at the chosen level: the SDK's and the server's details help nobody at `info`.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("warn,ipamd={level},ipam_aws={level},ipam_core={level}"))
}

enum Sink {
    Stderr,
    File(Mutex<Rotating>),
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Box<dyn Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match self {
            Self::Stderr => Box::new(Plain(io::stderr())),
            Self::File(file) => Box::new(Plain(Line(file))),
        }
    }
}

/// Writes out what a terminal would obey, and a line's end within a line: names of pods, and what others say, stand in the log.
struct Plain<W>(W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(text);
        let (line, end) = match line.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (&*line, ""),
        };
        self.0.write_all(format!("{}{end}", printable(line)).as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

struct Line<'a>(&'a Mutex<Rotating>);

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        open(self.0).write(text)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is set aside when it has grown large: FILE.1 is the youngest of those, FILE.4 the oldest.
struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    largest: u64,
}

impl Rotating {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, largest: LARGEST })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.size >= self.largest {
            self.turn();
        }
        self.size += u64::try_from(text.len()).unwrap_or(0);
        self.file.write_all(text)
    }

    /// Sets the file aside; what cannot be renamed grows on.
    fn turn(&mut self) {
        for number in (1..KEPT).rev() {
            // A number that is not there yet.
            let _ = std::fs::rename(self.numbered(number), self.numbered(number + 1));
        }
        let _ = std::fs::rename(&self.path, self.numbered(1));
        if let Ok(new) = Self::open(&self.path) {
            *self = Self { largest: self.largest, ..new };
        }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_set_aside_when_it_is_large_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/ipamd.log");
        let mut file = Rotating { largest: 10, ..Rotating::open(&path).unwrap() };
        for line in 0..20 {
            file.write(format!("line {line:04}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["ipamd.log", "ipamd.log.1", "ipamd.log.2", "ipamd.log.3", "ipamd.log.4"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "line 0019\n");
        assert_eq!(std::fs::read_to_string(path.with_extension("log.4")).unwrap(), "line 0015\n");
    }

    #[test]
    fn a_name_in_the_log_commands_no_terminal_and_begins_no_line() {
        let mut out = Vec::new();
        let line = "pod=web/\u{1b}[2J\n2026 INFO forged\u{202e}\n";
        assert_eq!(Plain(&mut out).write(line.as_bytes()).unwrap(), line.len());
        assert_eq!(String::from_utf8(out).unwrap(), "pod=web/\\u{1b}[2J\\u{a}2026 INFO forged\\u{202e}\n");
    }

    #[test]
    fn only_levels_that_there_are_are_taken() {
        assert!(set_level("loud").unwrap_err().contains("loud"));
    }
}
