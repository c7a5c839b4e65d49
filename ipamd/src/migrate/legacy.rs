//! The incumbent's chains where iptables-legacy keeps them, out of netlink's reach: read and changed by the node's own programs.

use std::{
    fs, io,
    io::Write as _,
    process::{Command, Stdio},
};

/// Tables in which the incumbent has chains or rules.
const TABLES: [&str; 2] = ["nat", "mangle"];
/// Names of the tables of iptables-legacy that this network namespace has.
const IN_KERNEL: &str = "/proc/self/net/ip_tables_names";
const IN_KERNEL_V6: &str = "/proc/self/net/ip6_tables_names";
const SIGNS: [&str; 3] = ["AWS-SNAT-CHAIN-", "AWS-CONNMARK-CHAIN-", "--comment \"AWS"];

/// The rules as `iptables-legacy-save` writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Legacy {
    tables: Vec<Table>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Table {
    name: String,
    chains: Vec<String>,
    /// Without `-A `.
    rules: Vec<String>,
}

impl Legacy {
    /// Reads what there is. Starts no program when the kernel has no such tables.
    ///
    /// # Errors
    /// When there are tables, and the program that lists them is not there or fails.
    pub(crate) fn observe() -> io::Result<Self> {
        let loaded = fs::read_to_string(IN_KERNEL).unwrap_or_default();
        let mut tables = Vec::new();
        for name in TABLES.into_iter().filter(|name| loaded.lines().any(|line| line == *name)) {
            let table = parse(name, &run("iptables-legacy-save", &["-t", name], "")?);
            tables.extend(Some(table).filter(|table| !table.chains.is_empty() || !table.rules.is_empty()));
        }
        Ok(Self { tables })
    }

    /// Names the chains, as `iptables-legacy FORWARD`, that drop each packet for somebody else that none of their rules lets through.
    ///
    /// # Errors
    /// When there is such a table, and the program that lists it is not there or fails.
    pub(crate) fn walls() -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for (loaded, program) in [(IN_KERNEL, "iptables-legacy"), (IN_KERNEL_V6, "ip6tables-legacy")] {
            if fs::read_to_string(loaded).unwrap_or_default().lines().any(|line| line == "filter") {
                let saved = run(&format!("{program}-save"), &["-t", "filter"], "")?;
                let drops = saved.lines().any(|line| line.starts_with(":FORWARD DROP"));
                found.extend(drops.then(|| format!("{program} FORWARD")));
            }
        }
        Ok(found)
    }

    /// Whether there is nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// What there is, one thing a line, for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let table = |table: &Table| {
            format!(
                "{} chain(s) and {} rule(s) in iptables-legacy table {}",
                table.chains.len(),
                table.rules.len(),
                table.name
            )
        };
        self.tables.iter().map(table).collect()
    }

    /// Removes them, each table at once.
    ///
    /// # Errors
    /// When the program fails; tables before the one that failed are done.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.each(removal)
    }

    /// Puts them back, each table at once.
    ///
    /// # Errors
    /// When the program fails; tables before the one that failed are done.
    pub(crate) fn restore(&self) -> io::Result<()> {
        self.each(restoration)
    }

    fn each(&self, script: impl Fn(&Table) -> String) -> io::Result<()> {
        self.tables.iter().try_for_each(|table| {
            run("iptables-legacy-restore", &["--noflush", "--wait", "5"], &script(table)).map(drop)
        })
    }
}

fn parse(name: &str, saved: &str) -> Table {
    let is_own = |chain: &str| chain.starts_with("AWS-");
    let chains = saved.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    let rules = saved.lines().filter_map(|line| line.strip_prefix("-A "));
    Table {
        name: name.to_owned(),
        chains: chains.filter(|chain| is_own(chain)).map(str::to_owned).collect(),
        rules: rules
            .filter(|rule| is_own(rule) || SIGNS.iter().any(|sign| rule.contains(sign)))
            .map(str::to_owned)
            .collect(),
    }
}

fn removal(table: &Table) -> String {
    let mut lines = vec![format!("*{}", table.name)];
    let own = |rule: &&String| table.chains.iter().any(|chain| rule.starts_with(&format!("{chain} ")));
    lines.extend(table.rules.iter().filter(|rule| !own(rule)).map(|rule| format!("-D {rule}")));
    lines.extend(table.chains.iter().map(|chain| format!("-F {chain}")));
    lines.extend(table.chains.iter().map(|chain| format!("-X {chain}")));
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}

fn restoration(table: &Table) -> String {
    let mut lines = vec![format!("*{}", table.name)];
    lines.extend(table.chains.iter().map(|chain| format!(":{chain} - [0:0]")));
    lines.extend(table.rules.iter().map(|rule| format!("-A {rule}")));
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}

fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program} ended with {}: {said}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "# Generated
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:AWS-SNAT-CHAIN-0 - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"AWS SNAT CHAIN\" -j AWS-SNAT-CHAIN-0
-A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -m comment --comment \"AWS SNAT CHAIN\" -j RETURN
COMMIT
";

    #[test]
    fn only_what_is_the_incumbents_is_taken_and_put_back() {
        let table = parse("nat", SAVED);
        assert_eq!(
            removal(&table),
            "*nat\n-D POSTROUTING -m comment --comment \"AWS SNAT CHAIN\" -j AWS-SNAT-CHAIN-0\n-F AWS-SNAT-CHAIN-0\n-X AWS-SNAT-CHAIN-0\nCOMMIT\n"
        );
        assert_eq!(
            restoration(&table),
            "*nat\n:AWS-SNAT-CHAIN-0 - [0:0]\n-A POSTROUTING -m comment --comment \"AWS SNAT CHAIN\" -j AWS-SNAT-CHAIN-0\n-A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -m comment --comment \"AWS SNAT CHAIN\" -j RETURN\nCOMMIT\n"
        );
    }
}
