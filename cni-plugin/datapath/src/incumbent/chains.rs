//! The incumbent's chains in nf_tables, which it writes by `iptables-nft` or, for the connection mark, by itself. They are kept as the
//! kernel tells them, so that they can be put back as they were.

use std::{collections::BTreeSet, fmt::Write as _, str::FromStr};

use crate::{
    NftError, ObserveError,
    nft::{
        Nft,
        others::{Chain, Edit, OthersRule},
    },
};

/// Its own table.
const OWN_TABLE: &str = "aws-cni";
/// Tables in which it has chains and rules among others'.
const SHARED_TABLES: [&str; 2] = ["nat", "mangle"];
/// First characters of its chains' names there.
const OWN_CHAINS: [&str; 2] = ["AWS-SNAT-CHAIN", "AWS-CONNMARK-CHAIN"];
/// What its rules in others' chains say in their comments or targets.
const SIGNS: [&str; 6] = [
    "AWS-SNAT-CHAIN",
    "AWS-CONNMARK-CHAIN",
    "AWS SNAT CHAIN",
    "AWS, primary ENI",
    "AWS, CONNMARK",
    "AWS, outbound connections",
];

/// Chains and rules of the incumbent's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chains {
    /// All that its rules are in, its own and others'.
    chains: Vec<Chain>,
    rules: Vec<OthersRule>,
}

/// A line that does not say what [`Chains::to_records`] wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no record of a chain or rule")]
pub struct InvalidChains(String);

impl Chains {
    pub(super) fn observe() -> Result<Self, ObserveError> {
        let mut nft = Nft::open()?;
        let mut rules = Vec::new();
        for table in SHARED_TABLES.into_iter().chain([OWN_TABLE]) {
            rules.extend(nft.others_rules(table)?.into_iter().filter(is_incumbents));
        }
        let used: BTreeSet<(&str, &str)> = rules.iter().map(|rule| (&*rule.table, &*rule.chain)).collect();
        let concerns = |it: &Chain| is_own(&it.table, &it.name) || used.contains(&(&*it.table, &*it.name));
        let chains =
            nft.others_chains()?.into_iter().filter(|chain| in_reach(&chain.table) && concerns(chain)).collect();
        Ok(Self { chains, rules })
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.rules.is_empty()
    }

    /// What there is, one thing a line, for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let own = self.chains.iter().filter(|it| is_own(&it.table, &it.name));
        let own = own.map(|it| format!("nf_tables chain ip {} {}", it.table, it.name));
        let mut counts = std::collections::BTreeMap::<_, usize>::new();
        for rule in self.rules.iter().filter(|it| !is_own(&it.table, &it.chain)) {
            *counts.entry((&rule.table, &rule.chain)).or_default() += 1;
        }
        let others =
            counts.into_iter().map(|((table, chain), n)| format!("{n} rule(s) in nf_tables chain ip {table} {chain}"));
        own.chain(others).collect()
    }

    /// All of it in one transaction. What nobody else uses is left as it is: base chains of others.
    pub(super) fn remove(&self) -> Result<Vec<String>, NftError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let in_others = self.rules.iter().filter(|rule| !is_own(&rule.table, &rule.chain));
        let mut edits: Vec<Edit<'_>> = in_others.map(Edit::RemoveRule).collect();
        let own = || self.chains.iter().filter(|it| it.table != OWN_TABLE && is_own(&it.table, &it.name));
        edits.extend(own().map(Edit::EmptyChain));
        edits.extend(own().map(Edit::RemoveChain));
        if self.chains.iter().any(|it| it.table == OWN_TABLE) {
            edits.push(Edit::RemoveTable(OWN_TABLE));
        }
        Nft::open()?.edit(&edits)?;
        Ok(edits.iter().map(ToString::to_string).collect())
    }

    /// All of it in one transaction; rules go behind those that are there.
    pub(super) fn restore(&self) -> Result<Vec<String>, NftError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let tables: BTreeSet<&str> = self.chains.iter().map(|chain| &*chain.table).collect();
        let mut edits: Vec<Edit<'_>> = tables.into_iter().map(Edit::MakeTable).collect();
        edits.extend(self.chains.iter().map(Edit::MakeChain));
        edits.extend(self.rules.iter().map(Edit::AppendRule));
        Nft::open()?.edit(&edits)?;
        Ok(edits.iter().map(ToString::to_string).collect())
    }

    /// Returns lines from which [`FromStr`] makes the same chains.
    #[must_use]
    pub fn to_records(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for Chain { table, name, hooked } in &self.chains {
            let _ = write!(text, "chain {table} {name}");
            for (kind, value) in hooked {
                let _ = write!(text, " {kind}={}", hex(value));
            }
            text.push('\n');
        }
        for OthersRule { table, chain, expressions, notes, .. } in &self.rules {
            let _ = writeln!(text, "rule {table} {chain} {} {}", hex(expressions), hex(notes));
        }
        text
    }
}

impl FromStr for Chains {
    type Err = InvalidChains;

    fn from_str(text: &str) -> Result<Self, InvalidChains> {
        let mut chains = Self::default();
        for line in text.lines() {
            chains.read_line(line).ok_or_else(|| InvalidChains(line.to_owned()))?;
        }
        Ok(chains)
    }
}

impl Chains {
    fn read_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (kind, table, name) = (words.next()?, words.next()?.to_owned(), words.next()?.to_owned());
        match kind {
            "chain" => {
                let hooked = words.map(|word| {
                    let (kind, value) = word.split_once('=')?;
                    Some((kind.parse().ok()?, bytes(value)?))
                });
                self.chains.push(Chain { table, name, hooked: hooked.collect::<Option<_>>()? });
            }
            "rule" => {
                let (expressions, notes) = (bytes(words.next()?)?, bytes(words.next()?)?);
                self.rules.push(OthersRule { table, chain: name, handle: Vec::new(), expressions, notes });
            }
            _ => return None,
        }
        Some(())
    }
}

fn in_reach(table: &str) -> bool {
    table == OWN_TABLE || SHARED_TABLES.contains(&table)
}

fn is_own(table: &str, chain: &str) -> bool {
    table == OWN_TABLE || OWN_CHAINS.iter().any(|start| chain.starts_with(start))
}

fn is_incumbents(rule: &OthersRule) -> bool {
    let says = |bytes: &[u8], sign: &str| bytes.windows(sign.len()).any(|window| window == sign.as_bytes());
    is_own(&rule.table, &rule.chain)
        || SIGNS.iter().any(|sign| says(&rule.expressions, sign) || says(&rule.notes, sign))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}
