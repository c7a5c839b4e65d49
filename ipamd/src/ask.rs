//! What people ask the running daemon: `status`, `pods`, `plan`, `log-level`. All of it goes over the daemon's socket, so it needs no
//! port and only root may do it.

mod tables;

use std::{
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use eni_proto::wire::{self, ipam_client::IpamClient};
use serde_json::Value;
use tonic::{Code, Status, transport::Channel};

use crate::{
    arguments::{Form, Look},
    errors::{chain, complain},
    table,
};
use tables::Paper;

/// Exit code when the daemon answers, but is not ready.
const NOT_READY: u8 = 3;
/// How often `--watch` looks.
const WATCH_PERIOD: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Which document is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Status,
    Pods,
    Plan,
}

impl Subject {
    const fn document(self) -> &'static str {
        match self {
            Self::Status => "pool",
            Self::Pods => "leases",
            Self::Plan => "plan",
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody listens, or not to us.
    Away(String),
    /// The daemon has not finished its start, or is at its end.
    NotReady(String),
}

/// Asks and prints, once or until somebody ends it.
#[allow(clippy::print_stdout, reason = "a command for people")]
pub(crate) async fn show(socket: &Path, subject: Subject, look: &Look) -> ExitCode {
    let clear = if look.watch && std::io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        let answer = document(socket, subject.document()).await;
        print!("{clear}");
        // Before anything goes to stderr, which has no buffer.
        let _ = std::io::stdout().flush();
        let code = match answer {
            Ok(document) => {
                table::show(&printed(subject, &document, look.form), look.form == Form::Json);
                code_of(subject, &document)
            }
            Err(NoAnswer::Away(why)) => {
                complain(&format!("no daemon answers on {}: {why}. Is `ipamd serve` running?", socket.display()));
                ExitCode::FAILURE
            }
            Err(NoAnswer::NotReady(why)) => {
                complain(&why);
                ExitCode::from(NOT_READY)
            }
        };
        if !look.watch {
            return code;
        }
        tokio::time::sleep(WATCH_PERIOD).await;
    }
}

fn printed(subject: Subject, document: &Value, form: Form) -> String {
    let wide = form == Form::Wide;
    let paper = Paper { wide, colours: table::colours(), columns: table::columns().filter(|_| !wide) };
    match (form, subject) {
        (Form::Json, _) => format!("{document}\n"),
        (Form::Table | Form::Wide, Subject::Status) => tables::status(document, paper),
        (Form::Table | Form::Wide, Subject::Pods) => tables::pods(document, paper),
        (Form::Table | Form::Wide, Subject::Plan) => tables::plan(document, paper),
    }
}

fn code_of(subject: Subject, document: &Value) -> ExitCode {
    let ready = subject != Subject::Status || document.get("ready").and_then(Value::as_bool) == Some(true);
    if ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) }
}

/// Changes the level of the daemon's log.
#[allow(clippy::print_stdout, reason = "a command for people")]
pub(crate) async fn set_log_level(socket: &Path, level: &str) -> ExitCode {
    let asked = async {
        let request = wire::SetLogLevelRequest { level: level.to_owned() };
        client(socket).await?.set_log_level(request).await.map_err(|status| status.message().to_owned())
    };
    match asked.await {
        Ok(_) => {
            println!("the log of ipamd is at level {level} now, until it ends");
            ExitCode::SUCCESS
        }
        Err(why) => {
            complain(&format!("the level was not changed: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// A document as text; in words why there is none.
pub(crate) async fn text(socket: &Path, name: &str) -> Result<String, String> {
    let request = wire::ShowRequest { document: name.to_owned() };
    let reply = client(socket).await?.show(request).await.map_err(|status| status.message().to_owned())?;
    Ok(reply.into_inner().json)
}

/// A document of the running daemon.
pub(crate) async fn document(socket: &Path, name: &str) -> Result<Value, NoAnswer> {
    let request = wire::ShowRequest { document: name.to_owned() };
    let answer = client(socket).await.map_err(NoAnswer::Away)?.show(request).await;
    let reply = answer.map_err(|status: Status| {
        let why = if status.code() == Code::Unavailable { NoAnswer::NotReady } else { NoAnswer::Away };
        why(status.message().to_owned())
    })?;
    serde_json::from_str(&reply.into_inner().json).map_err(|error| NoAnswer::Away(error.to_string()))
}

async fn client(socket: &Path) -> Result<IpamClient<Channel>, String> {
    let endpoint = tonic::transport::Endpoint::try_from(format!("unix:{}", socket.display()));
    let channel = endpoint.map_err(|error| chain(&error))?.connect().await.map_err(|error| chain(&error))?;
    // All leases of the largest node, with names as long as Kubernetes allows, are below a megabyte; 16 leave room.
    Ok(IpamClient::new(channel).max_decoding_message_size(16 << 20))
}
