//! Every command in the documents is run by something here, or says in its block what else it needs.
//!
//! A block of commands begins with three backticks and `sh by=FILE`, where FILE is the test or script that runs them, or its
//! first line is a comment: `# needs AWS`, `# needs a cluster` or the like.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Binaries, Worker, flight};
use tokio::io::{AsyncBufReadExt, BufReader};

mod look;
mod stage;

/// What a line that is meant for a shell begins with.
const PROGRAMS: [&str; 16] = [
    "aws",
    "cargo",
    "curl",
    "docker",
    "ec2-sim",
    "git",
    "helm",
    "ip",
    "ipamd",
    "jq",
    "kubectl",
    "make",
    "nft",
    "openssl",
    "terraform",
    "test/localstack/localstack.sh",
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Every Markdown file of the sources, by its path from the root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path.strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// What stands between two fences.
struct Block {
    /// As `README.md:41`.
    place: String,
    /// What stands behind the first fence.
    info: String,
    lines: Vec<String>,
}

/// The blocks of a text, and the lines outside of them.
fn blocks(document: &Path) -> (Vec<Block>, Vec<String>) {
    let (mut blocks, mut outside, mut inside) = (Vec::new(), Vec::new(), None::<Block>);
    for (number, line) in fs::read_to_string(root().join(document)).unwrap().lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), inside.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(info), None) => {
                let place = format!("{}:{}", document.display(), number + 1);
                inside = Some(Block { place, info: info.to_owned(), lines: Vec::new() });
            }
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                inside = Some(block);
            }
            (None, None) => outside.push(line.to_owned()),
        }
    }
    assert!(inside.is_none(), "{}: a block has no end", document.display());
    (blocks, outside)
}

fn is_command(line: &str) -> bool {
    PROGRAMS.contains(&line.split_whitespace().find(|word| !word.contains('=')).unwrap_or_default())
}

/// The words of a command that have to stand where it is run: verbs, options and variables, without their values.
fn fixed_words(line: &str) -> Vec<&str> {
    let command = line.split(" #").next().unwrap_or_default();
    let words = command.split([' ', '(', ')', '\'', '"']).map(|word| word.split('=').next().unwrap_or_default());
    let is_fixed = |word: &&str| word.len() > 1 && word.bytes().all(|b| b.is_ascii_alphabetic() || b"-_".contains(&b));
    words.filter(is_fixed).filter(|word| !PROGRAMS.contains(word) && *word != "export").collect()
}

/// What is wrong with a block of commands.
fn mistakes(block: &Block, document: &Path) -> Vec<String> {
    let first = block.lines.first().map_or("", String::as_str);
    let Some(file) = block.info.strip_prefix("sh by=") else {
        let says = block.info == "sh" && first.starts_with("# needs ");
        return if says { Vec::new() } else { vec![format!("{}: who runs this?", block.place)] };
    };
    let Ok(text) = fs::read_to_string(root().join(file)) else {
        return vec![format!("{}: {file} is not there", block.place)];
    };
    // It reads the document, and runs the lines as they stand.
    if text.contains(&format!("\"{}\"", document.file_name().unwrap_or_default().display())) {
        return Vec::new();
    }
    let missing = block.lines.iter().flat_map(|line| fixed_words(line)).filter(|word| !text.contains(word));
    missing.map(|word| format!("{}: {file} does not run anything with `{word}`", block.place)).collect()
}

#[test]
fn every_command_is_run_or_says_what_it_needs() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for document in documents() {
        let (blocks, outside) = blocks(&document);
        for block in &blocks {
            if block.info.starts_with("sh") {
                count += 1;
                wrong.extend(mistakes(block, &document));
            } else if let Some(line) = block.lines.iter().find(|line| is_command(line)) {
                wrong.push(format!("{}: `{line}` in a block that is not marked `sh`", block.place));
            }
        }
        let bare = outside.iter().filter(|line| line.starts_with("    ") && is_command(line));
        wrong.extend(bare.map(|line| format!("{}: `{}` is in no block", document.display(), line.trim())));
    }
    assert!(count > 8, "only {count} blocks of commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Commands in sentences: what stands between single backticks and begins with `program`.
fn in_sentences(program: &str) -> BTreeSet<String> {
    let prefix = format!("{program} ");
    let outside: Vec<String> = documents().into_iter().flat_map(|document| blocks(&document).1).collect();
    let codes = outside.iter().flat_map(|line| line.split('`').skip(1).step_by(2));
    codes.filter_map(|code| code.strip_prefix(&prefix)).map(str::to_owned).collect()
}

fn help(ipamd: &Path, verbs: &[&str]) -> Option<String> {
    let output = Command::new(ipamd).args(verbs).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_command_in_a_sentence_is_one_that_ipamd_has() {
    let ipamd = Binaries::from_environment().unwrap().ipamd;
    let commands = in_sentences("ipamd");
    assert!(commands.len() > 10, "only {commands:?}");
    for command in commands.iter().filter(|command| !command.starts_with('-')) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let is_verb =
            |word: &&&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !word.starts_with('-');
        let verbs: Vec<&str> = words.iter().take(2).take_while(is_verb).copied().collect();
        // The second word may be a value: `log-level debug`.
        let text = help(&ipamd, &verbs).or_else(|| help(&ipamd, &verbs[..1]));
        let text = text.unwrap_or_else(|| panic!("`ipamd {command}`: there is no such command"));
        for option in words.iter().filter_map(|word| word.split('=').next().filter(|word| word.starts_with("--"))) {
            assert!(text.contains(option), "`ipamd {command}`: no {option} in\n{text}");
        }
    }
}

/// The README's words for a pod, an address, a time, a file; and what they are here.
fn filled_in(line: &str, pod: &str, address: &str, folder: &Path) -> String {
    let file = folder.join("node-7.tar").display().to_string();
    let line = line.split(" #").next().unwrap_or_default();
    line.replace("web/shop-7d9f", pod).replace("10.0.3.7", address).replace("node-7.tar", &file)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_says_of_looking_inside_works() {
    let cluster = stage::ready_cluster(1, 1, &[]).await;
    let worker = &cluster.workers[0];
    let pods = flight::add(&cluster, &flight::sandboxes(1).unwrap()).await.unwrap();
    let pod = format!("demo/{}", pods[0].sandbox.name);
    let folder = tempfile::tempdir().unwrap();

    let (blocks, _) = blocks(Path::new("README.md"));
    let lines = blocks.iter().filter(|block| block.info.ends_with("/commands.rs")).flat_map(|block| &block.lines);
    let mut count = 0;
    for line in lines {
        let line = filled_in(line, &pod, &pods[0].place.address.to_string(), folder.path());
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "ipamd", "{line}");
        if words.contains(&"--watch") {
            let first = first_line(worker, &words[1..]).await;
            assert!(!first.is_empty(), "{line} shows nothing");
        } else {
            let (code, said) = look::ipamd(worker, &words[1..]);
            assert!(code == Some(0) && !said.is_empty(), "{line}: {code:?}: {said}");
        }
        count += 1;
    }
    assert!(count >= 6, "only {count} lines were found");
    flight::delete(&cluster, &pods).await.unwrap();
}

/// The first line of a command that does not end by itself.
async fn first_line(worker: &Worker, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(&worker.binaries().ipamd);
    command.env_clear().envs(worker.daemon_environment()).args(arguments).arg("--socket").arg(worker.socket());
    let mut child = worker.node().namespace().spawn(command.stdout(Stdio::piped()).kill_on_drop(true)).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
    line.unwrap_or_else(|_| panic!("{arguments:?} showed nothing within 30 s")).unwrap().unwrap_or_default()
}
