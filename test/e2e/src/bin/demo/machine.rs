//! What of the lab could be seen on the machine itself. Nothing ever should be.

use std::{collections::BTreeSet, io, process::Command};

use e2e::Trouble;

/// Links, rules and nf_tables tables of the machine that look like ours; others' are no business of ours.
pub(crate) fn traces() -> Result<BTreeSet<String>, Trouble> {
    let links = listing(&["ip", "-o", "link", "show"])?;
    let rules = listing(&["ip", "rule", "show"])?;
    let tables = listing(&["nft", "list", "tables"])?;
    let name = |line: &str| line.split([':', '@']).nth(1).map(|name| name.trim().to_owned());
    let our_link = |name: &String| name == "igw" || name.starts_with("eni");
    let links = links.lines().filter_map(name).filter(our_link);
    let rules = rules.lines().filter(|line| line.contains("lookup 20000")).map(str::to_owned);
    let our_table =
        |line: &&str| ["eni_cni", "eni_cni_stay", "fabric", "internet"].iter().any(|ours| line.ends_with(ours));
    Ok(links.chain(rules).chain(tables.lines().filter(our_table).map(str::to_owned)).collect())
}

fn listing(command_line: &[&str]) -> Result<String, Trouble> {
    let failed = || Trouble::os(format!("run {}", command_line.join(" ")));
    let [program, arguments @ ..] = command_line else { return Ok(String::new()) };
    let output = Command::new(program).args(arguments).output().map_err(failed())?;
    if !output.status.success() {
        return Err(failed()(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
