//! What the documents say is held against the code.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{collections::BTreeSet, fs, path::Path};

/// Every `IPAM-nnn` in the sources of what ships.
fn codes_in_sources() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for folder in ["proto/src", "cni-plugin", "ipamd"] {
        collect(&root().join(folder), &mut codes);
    }
    codes
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn collect(path: &Path, codes: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), codes);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).unwrap();
        let found = text.match_indices("IPAM-").filter_map(|(at, _)| text.get(at..at + 8));
        codes.extend(found.filter(|code| code[5..].bytes().all(|b| b.is_ascii_digit())).map(str::to_owned));
    }
}

#[test]
fn every_code_has_a_section() {
    let troubleshooting = fs::read_to_string(root().join("TROUBLESHOOTING.md")).unwrap();
    let sections: BTreeSet<String> =
        troubleshooting.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    let codes = codes_in_sources();
    assert!(codes.len() > 10, "the sources name only {codes:?}");
    assert_eq!(codes.difference(&sections).collect::<Vec<_>>(), Vec::<&String>::new(), "codes without a section");
    assert_eq!(sections.difference(&codes).collect::<Vec<_>>(), Vec::<&String>::new(), "sections without a code");
}

#[test]
fn the_readme_names_the_two_commands_and_the_settings_reference() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for needed in ["make demo", "make test", "make bench", "ARCHITECTURE.md", "CONTRIBUTING.md", "TROUBLESHOOTING.md"] {
        assert!(readme.contains(needed), "README.md does not name {needed}");
    }
}

#[test]
fn every_folder_that_the_architecture_names_is_there() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for word in architecture.split('`').filter(|word| word.contains('/') && !word.contains([' ', '.'])) {
        assert!(root().join(word).exists(), "ARCHITECTURE.md names {word}");
    }
}

/// Documents for people, by their path from the root.
const GUIDES: [&str; 19] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "TROUBLESHOOTING.md",
    "charts/README.md",
    "charts/OPERATIONS.md",
    "charts/COMPARISON.md",
    "charts/eni-cni/README.md",
    "ipamd/MIGRATION.md",
    "ipamd/OPERATING.md",
    "ipamd/SETTINGS.md",
    "terraform/README.md",
    "terraform/localstack/README.md",
    "terraform/modules/iam/README.md",
    "test/lab/FLOWS.md",
    "test/ship/WALK.md",
    "test/simulate/README.md",
];

#[test]
fn every_make_target_and_every_link_in_the_guides_is_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for guide in GUIDES {
        let text = fs::read_to_string(root().join(guide)).unwrap();
        for (at, _) in text.match_indices("make ") {
            // Prose says "make" too: a command stands at the beginning of a line or after a backtick.
            if text[..at].ends_with('`') || text[..at].ends_with("    ") {
                let name: String = text[at + 5..].chars().take_while(char::is_ascii_lowercase).collect();
                assert!(makefile.contains(&format!("\n{name}:")), "{guide} names `make {name}`");
            }
        }
        let folder = root().join(guide);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                assert!(folder.parent().unwrap().join(file).exists(), "{guide} links to {link}");
            }
        }
    }
}
