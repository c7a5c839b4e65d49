//! The demo left up for a look inside: what it says how to look with is what people do, and what they see is what the documents show.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use e2e::Binaries;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

mod look;

use look::browser::Browser;

/// How long the demo's pool may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);
/// The windows of the documents' pictures, in pixels.
const DESK: (u32, u32) = (1280, 1960);
const PHONE: (u32, u32) = (390, 1500);

/// A demo that was left up. It removes its lab when this value goes.
struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Name and command line of each hint.
    hints: Vec<(String, String)>,
}

impl Demo {
    /// Starts it and reads until it has said how to look inside.
    fn start() -> Self {
        let binaries = Binaries::from_environment().unwrap_or_else(|trouble| panic!("{}", trouble.chain()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.arg("--keep").arg("--ipamd").arg(&binaries.ipamd).arg("--plugin").arg(&binaries.plugin);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut demo = Self { child, output, hints: Vec::new() };
        let mut said = String::new();
        while !said.ends_with("Ctrl-C ends it\n") {
            assert!(demo.output.read_line(&mut said).unwrap() > 0, "the demo ended:\n{said}");
        }
        let hints = said.split("look inside from another terminal:\n").nth(1).unwrap().lines();
        // A hint stands under the text of the steps; its name ends where two blanks or a path begin.
        let hints = hints.filter_map(|line| line.strip_prefix("           "));
        let parts =
            hints.filter_map(|line| line.find(" nsenter ").or_else(|| line.find(" /")).map(|at| line.split_at(at)));
        demo.hints = parts.map(|(name, line)| (name.trim().to_owned(), line.trim().to_owned())).collect();
        demo
    }

    fn hint(&self, name: &str) -> &str {
        let found = self.hints.iter().find(|(one, _)| one == name);
        &found.unwrap_or_else(|| panic!("no hint for {name} in {:?}", self.hints)).1
    }

    /// Does what a hint says and returns what that printed.
    fn follow(&self, line: &str) -> String {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{line}: {said}");
        said
    }

    /// Ends it as a person does, and returns its last words.
    fn end(mut self) -> String {
        self.signal(Signal::SIGINT);
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {said}");
        said
    }

    fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.signal(Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A status with what differs from run to run in a form of its own: ids, and which of the ENIs have which pods.
fn normalised(status: &str) -> Vec<String> {
    let word = |word: &str| {
        let id = ["eni-", "i-"].iter().find(|start| word.starts_with(**start) && word.len() == start.len() + 17);
        let is_bar = word.len() > 3 && word.chars().all(|c| "#.~>x".contains(c));
        match (id, is_bar, word.parse::<u32>()) {
            (Some(start), ..) => format!("{start}ID"),
            (_, true, _) => format!("{} addresses", word.len()),
            (.., Ok(_)) => "N".to_owned(),
            _ => word.to_owned(),
        }
    };
    let lines = status.lines().map(|line| match line.starts_with("eni-") {
        true => line.split_whitespace().map(word).collect::<Vec<_>>().join(" "),
        false => line
            .split(' ')
            .map(|one| if one.starts_with("i-") { word(one) } else { one.to_owned() })
            .collect::<Vec<_>>()
            .join(" "),
    });
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The text in the documents that begins so.
fn documented(page: &Path, begins: &str) -> String {
    let text = fs::read_to_string(page).unwrap();
    let at = text.find(&format!("```text\n{begins}")).unwrap_or_else(|| panic!("{} shows no {begins}", page.display()));
    text[at..].trim_start_matches("```text\n").split("```").next().unwrap().to_owned()
}

#[test]
fn a_demo_that_is_left_up_shows_what_the_documents_show() {
    let demo = Demo::start();
    let begun = Instant::now();
    let status = loop {
        let status = demo.follow(demo.hint("node-1 pool"));
        if status.contains("40 leased, 16 free, 0 cooling, 0 in flight") && !status.contains("waits:") {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "the pool does not come to rest:\n{status}");
    };
    let pictures = folder("target/pictures");
    fs::write(pictures.join("status.txt"), &status).unwrap();
    assert_eq!(
        normalised(&status),
        normalised(&documented(&folder("ipamd").join("OPERATING.md"), "ready      yes")),
        "ipamd/OPERATING.md shows another status; target/pictures/status.txt has this one"
    );
    assert!(demo.follow(&format!("cat {}", demo.hint("node-1 log"))).contains("INFO"));

    let (enter, url) = demo.hint("node-1 page").split_once(" chromium ").unwrap();
    let browser = Browser::start(enter);
    let url = url.rsplit(' ').next().unwrap();
    for (name, window, theme) in
        [("page-light.png", DESK, "light"), ("page-dark.png", DESK, "dark"), ("page-narrow.png", PHONE, "light")]
    {
        browser.open(url, window, theme);
        browser.until("document.querySelectorAll('.cells .cell.leased').length === 40");
        browser.until("document.querySelectorAll('.cells .cell.free').length === 16");
        browser.picture(&pictures.join(name));
        let size = |folder: &Path| {
            let png = fs::read(folder.join(name)).unwrap_or_default();
            // Width and height stand at fixed places. Source: PNG specification, 11.2.2.
            png.get(16..24).map(<[u8]>::to_vec)
        };
        assert!(size(&pictures).is_some(), "{name} is no picture");
        assert_eq!(size(&pictures), size(&folder("ipamd/pictures")), "{name} in the documents is of another page");
    }
    drop(browser);
    let last = demo.end();
    assert!(last.contains("80 pods deleted") && last.ends_with("everything held\n"), "{last}");
}
