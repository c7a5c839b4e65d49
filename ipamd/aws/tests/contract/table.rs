//! The list of checks as a page for people, kept true by a test.

use std::{fmt::Write, path::Path};

use crate::checks::{CHECKS, Check, OnLocalStack};

/// The checks that LocalStack passes.
pub(crate) fn same() -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().filter(|check| matches!(check.on_localstack, OnLocalStack::Same))
}

fn page() -> String {
    let (all, same) = (CHECKS.len(), same().count());
    let mut page = format!(
        "# What LocalStack gets wrong\n\n\
         One list of {all} checks of documented EC2 behaviour is made over HTTP with the real SDK, by `cargo test -p ipam-aws --test contract`.\n\n\
         | cloud | right | wrong |\n|---|---|---|\n\
         | `ec2-sim` | {all} | 0 |\n| LocalStack 4.13.1, patched by `test/localstack/setup.sh` | {same} | {} |\n\n\
         The test fails when LocalStack gets something else wrong, and also when it gets something of this right.\n\
         So this page is true. It is written by the test itself: `CONTRACT_TABLE=write cargo test -p ipam-aws --test contract table`.\n",
        all - same,
    );
    let mut subject = "";
    for check in CHECKS {
        if check.subject != subject {
            subject = check.subject;
            write!(page, "\n## {subject}\n\n| check | LocalStack |\n|---|---|\n").unwrap();
        }
        let verdict = match check.on_localstack {
            OnLocalStack::Same => "right",
            OnLocalStack::Wrong(why) => why,
        };
        writeln!(page, "| {} | {verdict} |", check.name.replace('_', " ")).unwrap();
    }
    page
}

#[test]
fn the_page_says_what_the_list_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/LOCALSTACK.md");
    if std::env::var_os("CONTRACT_TABLE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "{} is old: write it again with CONTRACT_TABLE=write", path.display());
}
