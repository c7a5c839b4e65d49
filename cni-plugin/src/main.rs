//! eni-cni: the CNI plugin. Reads one request, asks ipamd, wires the pod, answers, and ends.

#![forbid(unsafe_code)]

mod daemon;
mod error;
mod policy;
mod report;
mod request;
mod result;
mod verbs;
mod version;

use std::{
    ffi::OsString,
    io::{IsTerminal, Read, Write},
    process::ExitCode,
    time::Instant,
};

use error::{CniError, code};
use serde_json::{Value, json};
use version::Version;

/// Largest configuration that is read, in bytes. Real ones have a few thousand.
const LARGEST_INPUT: u64 = 1 << 20;
/// The version of answers to a request whose own cannot be read.
const FALLBACK_VERSION: &str = "1.0.0";

const HELP: &str = "eni-cni is a CNI plugin: the container runtime starts it for each pod and tells it what to do in CNI_* variables.
It asks ipamd on this node for a VPC address and wires the pod. Settings are keys of the network configuration on standard input:
  socket          where ipamd listens                                        [/run/eni-cni/ipamd.sock]
  releasedDir     where a DEL that finds no daemon leaves its note           [/run/eni-cni/released]
  addWaitSeconds  how long an ADD waits for an address that is on its way    [20]
  vethPrefix      first characters of host interface names, as in ipamd      [eni]
  policyAgent     the network-policy agent to tell of pods: its socket, and the mode standard or strict    [none]

To see that it runs:  echo '{\"cniVersion\":\"1.0.0\"}' | CNI_COMMAND=VERSION eni-cni
";

fn main() -> ExitCode {
    let begun = Instant::now();
    let environment = |name: &str| std::env::var_os(name);
    let Some(command) = environment("CNI_COMMAND") else {
        return without_command();
    };
    let input = std::io::stdin();
    let mut stdin = Vec::new();
    // At a terminal nobody would end the input.
    let read = match input.is_terminal() {
        true => Ok(0),
        false => input.lock().take(LARGEST_INPUT + 1).read_to_end(&mut stdin),
    };
    if command == "VERSION" {
        return print(&versions(&stdin).to_string(), ExitCode::SUCCESS);
    }
    let outcome = match read {
        Err(error) => Err(CniError::new(code::IO, format!("standard input cannot be read: {error}"), "")),
        Ok(bytes) if bytes as u64 > LARGEST_INPUT => {
            Err(CniError::new(code::UNDECODABLE, "the network configuration is larger than 1 MiB", ""))
        }
        Ok(_) => serve(&command.to_string_lossy(), environment, &stdin, begun),
    };
    match outcome {
        Ok(Some(answer)) => print(&answer.to_string(), ExitCode::SUCCESS),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            let version = given_version(&stdin).unwrap_or_else(|| FALLBACK_VERSION.to_owned());
            print(&error.to_json(&version), ExitCode::FAILURE)
        }
    }
}

fn serve(
    command: &str,
    environment: impl Fn(&str) -> Option<OsString>,
    stdin: &[u8],
    begun: Instant,
) -> Result<Option<Value>, CniError> {
    let request = request::read(request::verb(command)?, environment, stdin)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CniError::new(code::IO, format!("the runtime cannot start: {error}"), ""))?;
    let outcome = runtime.block_on(verbs::run(&request));
    report::send(&request, outcome.as_ref().err(), begun.elapsed());
    outcome
}

/// For a person at a terminal: what this is. For a runtime: an error.
fn without_command() -> ExitCode {
    if std::io::stdin().is_terminal() || std::env::args().len() > 1 {
        return print(HELP.trim_end(), ExitCode::SUCCESS);
    }
    let error = CniError::new(code::INVALID_ENVIRONMENT, "required environment variables are not set: CNI_COMMAND", "");
    print(&error.to_json(FALLBACK_VERSION), ExitCode::FAILURE)
}

/// The answer to VERSION. Needs nothing to be right: the runtime asks before it knows what we speak.
fn versions(stdin: &[u8]) -> Value {
    let newest = Version::ALL[Version::ALL.len() - 1].as_str();
    let echoed = given_version(stdin).unwrap_or_else(|| newest.to_owned());
    json!({ "cniVersion": echoed, "supportedVersions": Version::supported() })
}

/// The `cniVersion` of the input, if it can be read.
fn given_version(stdin: &[u8]) -> Option<String> {
    let config: Value = serde_json::from_slice(stdin).ok()?;
    config.get("cniVersion")?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Writes the one thing that goes to standard output, and returns `code`; failure when nobody takes the answer.
fn print(text: &str, code: ExitCode) -> ExitCode {
    writeln!(std::io::stdout(), "{text}").map_or(ExitCode::FAILURE, |()| code)
}
