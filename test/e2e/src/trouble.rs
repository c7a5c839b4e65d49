//! Why a harness could not do what was asked; never a verdict on the software under test.

use lab::{LabError, wait::TimedOut};

/// Why the harness could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The lab could not.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Something did not come true in time.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The operating system refused something.
    #[error("cannot {what}")]
    Os {
        /// What was asked.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program that has to be there is not.
    #[error("{program} is not there; build it with `cargo build --workspace`, or name another with {option}")]
    NoBinary {
        /// Path where it was looked for.
        program: String,
        /// How to name another.
        option: &'static str,
    },
    /// A program of a Debian package is not installed.
    #[error("{program} is not installed; `make setup` installs what the tests need")]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// The database of a daemon could not be read.
    #[error("cannot read the database {path}")]
    Database {
        /// Its path.
        path: String,
        /// Why.
        source: sqlx::Error,
    },
    /// An answer was not understood.
    #[error("cannot understand {what}: {answer}")]
    Answer {
        /// Whose answer.
        what: &'static str,
        /// The answer.
        answer: String,
    },
    /// The emulator of the cloud did not start.
    #[error("LocalStack did not start: {why}")]
    LocalStack {
        /// What its script wrote.
        why: String,
    },
    /// A promise that the run has to hold was broken.
    #[error("{0}")]
    Broken(String),
}

impl Trouble {
    /// Returns a function that turns an I/O error of the step `what` into trouble.
    pub fn os(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Os { what, source }
    }

    /// The error and its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        eni_proto::chain(self)
    }
}
