//! `ipamd support-bundle`: everything that somebody needs who helps from afar, in one archive. Bounded in size and time, without secrets;
//! it works without a daemon too, and changes nothing.

mod tar;

use std::{
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use crate::{
    ask,
    errors::complain,
    settings::{Place, Settings, sources::Sources},
};

/// Most of one file that is taken, in bytes: the end of it, where the trouble is.
const LARGEST: usize = 4 << 20;
/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Commands of the node, where they are there.
const COMMANDS: &[(&str, &[&str])] = &[
    ("node/ip-rules.txt", &["ip", "rule"]),
    ("node/ip-rules-6.txt", &["ip", "-6", "rule"]),
    ("node/ip-routes.txt", &["ip", "route", "show", "table", "all"]),
    ("node/ip-routes-6.txt", &["ip", "-6", "route", "show", "table", "all"]),
    ("node/ip-links.txt", &["ip", "-s", "-d", "link"]),
    ("node/ip-addresses.txt", &["ip", "address"]),
    ("node/ip-neighbours.txt", &["ip", "neighbour"]),
    ("node/nft.txt", &["nft", "list", "ruleset"]),
    ("node/iptables.txt", &["iptables-save"]),
    ("node/sysctl-net.txt", &["sysctl", "-a", "--pattern", "^net\\.(ipv4|ipv6|netfilter)"]),
    ("node/sockets.txt", &["ss", "-s"]),
    ("node/kernel-log.txt", &["dmesg", "--time-format", "iso"]),
];

/// Files of the node.
const FILES: &[&str] = &[
    "/proc/version",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/net/dev",
    "/proc/net/snmp",
    "/proc/net/netstat",
    "/proc/net/stat/nf_conntrack",
    "/proc/sys/net/netfilter/nf_conntrack_count",
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/etc/os-release",
];

/// Words after which a value is nobody's business.
const SECRETS: [&str; 7] = ["token", "secret", "password", "authorization", "credential", "access_key", "private_key"];

/// Gathers all there is and writes the archive to `path`.
#[allow(clippy::print_stdout, reason = "a command for people")]
pub(crate) async fn write(sources: &Sources, settings: &Settings, path: &Path) -> ExitCode {
    let files = gather(sources, settings).await;
    let written = (|| -> io::Result<()> {
        // Names of pods and addresses are in it: for its owner only.
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        for (name, text) in &files {
            tar::append(&mut file, name, text.as_bytes())?;
        }
        tar::end(&mut file)?;
        file.flush()
    })();
    match written {
        Ok(()) => {
            println!("{} files are in {}; look through it before you send it", files.len(), path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("{} cannot be written: {error}", path.display()));
            ExitCode::FAILURE
        }
    }
}

async fn gather(sources: &Sources, settings: &Settings) -> Vec<(String, String)> {
    let mut files = vec![
        ("version.txt".to_owned(), format!("ipamd {}\n", env!("CARGO_PKG_VERSION"))),
        ("settings.json".to_owned(), crate::config::as_text(sources)),
    ];
    for name in ["pool", "plan", "leases", "overview", "metrics"] {
        let text = ask::text(&settings.socket, name).await.unwrap_or_else(|why| format!("no answer: {why}\n"));
        files.push((format!("daemon/{name}.{}", if name == "metrics" { "txt" } else { "json" }), text));
    }
    let report = Box::pin(crate::doctor::report(settings)).await;
    files.push(("doctor.json".to_owned(), report));
    files.push(("history.json".to_owned(), crate::history::recent(&settings.database).await));
    for (name, command) in COMMANDS {
        files.push(((*name).to_owned(), run(command).await));
    }
    for path in FILES {
        files.push((format!("node{path}"), read(Path::new(path))));
    }
    for folder in settings.conf_dir.iter() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            files.push((format!("cni/{}", entry.file_name().to_string_lossy()), read(&entry.path())));
        }
    }
    files.extend(settings.log.file.iter().map(|path| ("ipamd.log".to_owned(), read(path))));
    if let Some(Place::Unix(path)) = &settings.introspection {
        files.push(("introspection.txt".to_owned(), format!("{}\n", path.display())));
    }
    for (_, text) in &mut files {
        *text = redacted(text);
    }
    files
}

async fn run(command: &[&str]) -> String {
    let Some((program, arguments)) = command.split_first() else { return String::new() };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => ending(&[output.stdout, output.stderr].concat()),
        Ok(Err(error)) => format!("{program}: {error}\n"),
        Err(_) => format!("{program}: not done after {} s\n", PATIENCE.as_secs()),
    }
}

fn read(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(bytes) => ending(&bytes),
        Err(error) => format!("{}: {error}\n", path.display()),
    }
}

/// The end of a text, as much as is taken.
fn ending(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(bytes.len().saturating_sub(LARGEST)..).unwrap_or_default()).into_owned()
}

/// A text without what could be a secret: the rest of a line after such a word, and access key ids.
fn redacted(text: &str) -> String {
    let clean = |line: &str| {
        let lower = line.to_ascii_lowercase();
        let named = SECRETS.iter().filter_map(|word| lower.find(word).map(|at| at + word.len())).min();
        let key = ["AKIA", "ASIA"].iter().filter_map(|start| line.find(start)).min();
        let from = match (named, key) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return line.to_owned(),
        };
        format!("{}[redacted]", line.get(..from).unwrap_or_default())
    };
    let mut clean: String = text.lines().map(clean).collect::<Vec<_>>().join("\n");
    clean.push('\n');
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_secret_is_cut_off() {
        let text = redacted("plain\nAWS_SESSION_TOKEN=abc\nuses AKIAIOSFODNN7EXAMPLE here\nAuthorization: Bearer x\n");
        assert_eq!(text, "plain\nAWS_SESSION_TOKEN[redacted]\nuses [redacted]\nAuthorization[redacted]\n");
    }

    #[test]
    fn only_the_end_of_what_is_large_is_taken() {
        let text = ending(&[b"a".repeat(10), b"b".repeat(LARGEST)].concat());
        assert_eq!((text.len(), text.contains('a')), (LARGEST, false));
    }

    #[test]
    fn the_archive_is_one_that_tar_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.tar");
        let mut file = std::fs::File::create(&path).unwrap();
        let contents = [("a.txt", "one\n".to_owned()), ("node/proc/b.txt", "x".repeat(1025)), ("empty", String::new())];
        for (name, text) in &contents {
            tar::append(&mut file, name, text.as_bytes()).unwrap();
        }
        tar::end(&mut file).unwrap();
        let run = |arguments: &[&str]| {
            let output = std::process::Command::new("tar").args(arguments).arg("-f").arg(&path).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run(&["-t"]), "ipamd-support/a.txt\nipamd-support/node/proc/b.txt\nipamd-support/empty\n");
        assert_eq!(run(&["-xO"]), format!("one\n{}", "x".repeat(1025)));
    }
}
