//! Tables of others, as far as they are of one maker: read, taken away and put back, without understanding what their rules do.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use nix::errno::Errno;

use super::{
    Nft, NftError,
    encode::{self, DEL_CHAIN, DEL_RULE, DEL_TABLE, GET_CHAIN, NEW_CHAIN, NEW_RULE, NEW_TABLE, code},
};
use crate::{
    Family,
    attributes::{self, Attributes},
    socket::Message,
};

// Source: linux/netfilter/nf_tables.h, NFTA_RULE_* and NFTA_CHAIN_*.
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
/// Source: linux/netfilter.h.
const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;

/// A chain, with what the kernel needs to make it anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) table: String,
    pub(crate) name: String,
    /// Hook, policy and type as the kernel tells them; empty: packets come here only from other chains.
    pub(crate) hooked: Vec<(u16, Vec<u8>)>,
}

/// A rule as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OthersRule {
    pub(crate) table: String,
    pub(crate) chain: String,
    /// By which the kernel knows it, in network byte order.
    pub(crate) handle: Vec<u8>,
    pub(crate) expressions: Vec<u8>,
    /// What its maker wrote beside it. Empty: nothing.
    pub(crate) notes: Vec<u8>,
}

/// One change of somebody else's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit<'a> {
    MakeTable(&'a str),
    RemoveTable(&'a str),
    MakeChain(&'a Chain),
    EmptyChain(&'a Chain),
    RemoveChain(&'a Chain),
    AppendRule(&'a OthersRule),
    RemoveRule(&'a OthersRule),
}

impl Nft {
    /// Returns all IPv4 chains of everybody.
    pub(crate) fn others_chains(&mut self) -> Result<Vec<Chain>, NftError> {
        let (kind, payload) = encode::list(GET_CHAIN, Family::V4, Attributes::new());
        let reply = self.0.dump(kind, &payload)?;
        told("chains", reply.result)?;
        Ok(reply.data.iter().filter_map(|(_, payload)| read_chain(payload)).collect())
    }

    /// Returns all rules of a table; none when there is no such table.
    pub(crate) fn others_rules(&mut self, table: &str) -> Result<Vec<OthersRule>, NftError> {
        let (kind, payload) = encode::rules_request(Family::V4, table);
        let reply = self.0.dump(kind, &payload)?;
        match reply.result {
            Err(refusal) if refusal.errno == Errno::ENOENT => return Ok(Vec::new()),
            result => told("rules", result)?,
        }
        Ok(reply.data.iter().filter_map(|(_, payload)| read_rule(payload)).collect())
    }

    /// Does all edits or none.
    pub(crate) fn edit(&mut self, edits: &[Edit<'_>]) -> Result<(), NftError> {
        let messages = encode::framed(edits.iter().map(message), None);
        self.send(messages, edits.iter().map(ToString::to_string))
    }
}

/// Names the chains, as `ip filter FORWARD`, that drop each packet for somebody else that none of their rules lets through.
///
/// # Errors
/// [`NftError`]; then nothing may be concluded.
pub fn forward_drops() -> Result<Vec<String>, NftError> {
    let (kind, payload) = encode::list_of_all(GET_CHAIN);
    let reply = Nft::open()?.0.dump(kind, &payload)?;
    told("chains", reply.result)?;
    Ok(reply.data.iter().filter_map(|(_, payload)| read_forward_drop(payload)).collect())
}

fn read_forward_drop(payload: &[u8]) -> Option<String> {
    let family = match payload.first()? {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let chain = read_chain(payload)?;
    let value = |kind| chain.hooked.iter().find(|(found, _)| *found == kind).map(|(_, value)| &value[..]);
    let hook = attributes::find(value(CHAIN_HOOK)?, HOOK_NUMBER)?;
    let drops = hook == HOOK_FORWARD.to_be_bytes() && value(CHAIN_POLICY)? == POLICY_DROP.to_be_bytes();
    drops.then(|| format!("{family} {} {}", chain.table, chain.name))
}

fn told(what: &str, result: Result<(), crate::Refusal>) -> Result<(), NftError> {
    result.map_err(|source| NftError::Refused { step: format!("list the {what}"), source })
}

fn read_chain(payload: &[u8]) -> Option<Chain> {
    let body = payload.get(encode::FAMILY_HEADER..)?;
    let hooked = attributes::read(body).filter(|(kind, _)| [CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE].contains(kind));
    Some(Chain {
        table: attributes::as_text(attributes::find(body, 1)?),
        name: attributes::as_text(attributes::find(body, CHAIN_NAME)?),
        hooked: hooked.map(|(kind, value)| (kind, value.to_vec())).collect(),
    })
}

fn read_rule(payload: &[u8]) -> Option<OthersRule> {
    let body = payload.get(encode::FAMILY_HEADER..)?;
    let bytes = |kind| attributes::find(body, kind).map(<[u8]>::to_vec);
    Some(OthersRule {
        table: attributes::as_text(attributes::find(body, 1)?),
        chain: attributes::as_text(attributes::find(body, 2)?),
        handle: bytes(RULE_HANDLE)?,
        expressions: bytes(RULE_EXPRESSIONS).unwrap_or_default(),
        notes: bytes(RULE_USERDATA).unwrap_or_default(),
    })
}

impl std::fmt::Display for Edit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MakeTable(table) => write!(f, "make table {table}"),
            Self::RemoveTable(table) => write!(f, "remove table {table}"),
            Self::MakeChain(chain) => write!(f, "make chain {} {}", chain.table, chain.name),
            Self::EmptyChain(chain) => write!(f, "empty chain {} {}", chain.table, chain.name),
            Self::RemoveChain(chain) => write!(f, "remove chain {} {}", chain.table, chain.name),
            Self::AppendRule(rule) => write!(f, "append a rule to {} {}", rule.table, rule.chain),
            Self::RemoveRule(rule) => write!(f, "remove a rule of {} {}", rule.table, rule.chain),
        }
    }
}

fn message(edit: &Edit<'_>) -> Message {
    let chain = |chain: &Chain| Attributes::new().text(1, &chain.table).text(CHAIN_NAME, &chain.name);
    let rule = |rule: &OthersRule| Attributes::new().text(1, &rule.table).text(2, &rule.chain);
    let (kind, flags, attributes) = match edit {
        Edit::MakeTable(table) => (NEW_TABLE, NLM_F_CREATE, Attributes::new().text(1, table)),
        Edit::RemoveTable(table) => (DEL_TABLE, 0, Attributes::new().text(1, table)),
        Edit::MakeChain(it) => {
            let hooked = it.hooked.iter();
            let all = hooked.fold(chain(it), |all, (kind, value)| match *kind {
                CHAIN_HOOK => all.bytes(kind | attributes::NESTED, value),
                _ => all.bytes(*kind, value),
            });
            (NEW_CHAIN, NLM_F_CREATE, all)
        }
        Edit::EmptyChain(it) => (DEL_RULE, 0, Attributes::new().text(1, &it.table).text(2, &it.name)),
        Edit::RemoveChain(it) => (DEL_CHAIN, 0, chain(it)),
        Edit::AppendRule(it) => {
            let all = rule(it).bytes(RULE_EXPRESSIONS | attributes::NESTED, &it.expressions);
            let all = if it.notes.is_empty() { all } else { all.bytes(RULE_USERDATA, &it.notes) };
            (NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, all)
        }
        Edit::RemoveRule(it) => (DEL_RULE, 0, rule(it).bytes(RULE_HANDLE, &it.handle)),
    };
    encode::single(kind, flags, code(Family::V4), attributes)
}
