//! The commands in README.md, as they stand: what `make` makes of them is run, with fewer nodes.

use std::{path::Path, process::Command};

/// More would take minutes in a debug build.
const NODES: &str = "5";

/// The arguments that `make` gives to the program.
fn arguments(line: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let words = line.split(" #").next().unwrap_or_default().split_whitespace().skip(1);
    let output = Command::new("make").arg("--dry-run").args(words).current_dir(root).output().expect("make runs");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    let run = said.lines().find(|line| line.contains("/release/simulate ")).expect("a line that runs the program");
    run.split_whitespace().skip(1).map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_readme_runs() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md");
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("make simulate ")).collect();
    assert!(lines.len() >= 4, "{lines:?}");
    let folder = std::env::temp_dir().join(format!("simulate-commands-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for line in lines {
        let mut arguments = arguments(line);
        match arguments.iter().position(|word| word == "--nodes") {
            Some(at) => NODES.clone_into(&mut arguments[at + 1]),
            None => arguments.extend(["--nodes".to_owned(), NODES.to_owned()]),
        }
        let output = Command::new(env!("CARGO_BIN_EXE_simulate")).args(&arguments).current_dir(&folder).output();
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.len() > 100, "{line} says nothing");
        if let Some((_, plot)) = line.split_once("PLOT=") {
            let name = plot.split_whitespace().next().unwrap_or_default();
            assert!(folder.join(name).exists(), "{line} draws nothing");
        }
    }
    std::fs::remove_dir_all(folder).expect("gone");
}
