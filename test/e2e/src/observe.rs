//! What is really on a node: read from the kernel by `ip` and `nft`, and from SQLite, without any code of the daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use eni_proto::numbers;
use lab::{Namespace, wait};
use serde_json::Value;
use sqlx::{
    ConnectOptions, Connection, FromRow,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use crate::{Trouble, Worker};

/// Far above what a daemon needs, and below what anybody waits for a test that fails.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(10);

/// Everything on a node that belongs to pods, and the rules that do not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerState {
    /// Host ends of pods' links.
    pub links: BTreeSet<String>,
    /// Pods' table: address to host link.
    pub routes: BTreeMap<Ipv4Addr, String>,
    /// Addresses in the map from pods to ENIs.
    pub elements: BTreeSet<Ipv4Addr>,
    /// Leases in the database: address to container id.
    pub leases: BTreeMap<Ipv4Addr, String>,
    /// Rules beside the kernel's own: (priority, table).
    pub rules: Vec<(u64, String)>,
    /// Links of ENIs.
    pub enis: BTreeSet<String>,
}

impl WorkerState {
    /// Reads a node once its daemon has had time to remove what a DEL leaves to it: the links of ended pods and elements without a route.
    ///
    /// # Errors
    /// When a tool or the database fails.
    pub async fn read(worker: &Worker) -> Result<Self, Trouble> {
        let namespace = worker.node().namespace();
        // What is there after that time is there to stay, and is read as everything else.
        let _ = wait::until(REMOVAL_PATIENCE, "the daemon to remove it", || async { being_removed(namespace) }).await;
        let mut state = Self { leases: leases(worker).await?, ..Self::default() };
        for link in ip(namespace, &["link", "show"])? {
            let name = text(&link, "ifname");
            if name.starts_with("eth") {
                state.enis.insert(name);
            } else if name != "lo" {
                state.links.insert(name);
            }
        }
        state.routes = routes(namespace)?;
        state.elements = elements(namespace)?;
        for rule in ip(namespace, &["rule", "show"])? {
            let priority = rule["priority"].as_u64().unwrap_or_default();
            if !matches!(priority, 0 | 32_766 | 32_767) {
                state.rules.push((priority, text(&rule, "table")));
            }
        }
        Ok(state)
    }

    /// What is left of pods that should be gone, in people's words. Empty: nothing.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(self.links.iter().map(|link| format!("link {link}")));
        left.extend(self.routes.iter().map(|(address, link)| format!("route {address} dev {link}")));
        left.extend(self.elements.iter().map(|address| format!("nft element {address}")));
        left.extend(self.leases.iter().map(|(address, container)| format!("lease {address} of {container}")));
        // One per ENI may stay: they belong to the node, not to pods.
        let (fixed, per_eni) = (numbers::RULE_PRIMARY_MARK, self.enis.len());
        for (priority, table) in &self.rules {
            let known = [numbers::RULE_TO_POD, fixed, numbers::RULE_ENI_MARK, numbers::RULE_FROM_ENI];
            if !known.iter().any(|known| u64::from(*known) == *priority) {
                left.push(format!("rule {priority} lookup {table}"));
            }
        }
        if self.rules.len() > 2 + 2 * per_eni {
            left.push(format!("{} rules for {per_eni} ENIs", self.rules.len()));
        }
        left
    }
}

fn being_removed(namespace: &Namespace) -> Result<(), String> {
    let group = numbers::ENDED_LINK_GROUP.to_string();
    let listed = || {
        let links = namespace.run(&["ip", "-o", "link", "show", "group", &group])?;
        let (elements, routes) = (elements(namespace)?, routes(namespace)?);
        let lost: Vec<_> = elements.into_iter().filter(|address| !routes.contains_key(address)).collect();
        Ok::<_, Trouble>((links, lost))
    };
    match listed() {
        Ok((links, lost)) if links.is_empty() && lost.is_empty() => Ok(()),
        Ok(left) => Err(format!("{left:?}")),
        Err(trouble) => Err(trouble.chain()),
    }
}

/// Networks of the leases in a worker's database.
///
/// # Errors
/// [`Trouble::Database`] when it cannot be read.
pub async fn networks(worker: &Worker) -> Result<BTreeSet<String>, Trouble> {
    let rows: Vec<(String,)> = rows(worker, "SELECT network FROM leases").await?;
    Ok(rows.into_iter().map(|(network,)| network).collect())
}

/// Leases in a worker's database: address to container id. None when there is no database.
///
/// # Errors
/// [`Trouble::Database`] when it cannot be read.
pub async fn leases(worker: &Worker) -> Result<BTreeMap<Ipv4Addr, String>, Trouble> {
    if !worker.database().exists() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(String, String)> = rows(worker, "SELECT address, container_id FROM leases").await?;
    rows.into_iter().map(|(address, container)| Ok((parse(&address)?, container))).collect()
}

/// Changes at EC2 of which a worker's database does not know yet what became of them.
///
/// # Errors
/// [`Trouble::Database`] when it cannot be read.
pub async fn open_changes(worker: &Worker) -> Result<Vec<String>, Trouble> {
    let rows: Vec<(String,)> = rows(worker, "SELECT action FROM intents WHERE settled_ms IS NULL").await?;
    Ok(rows.into_iter().map(|(action,)| action).collect())
}

async fn rows<T>(worker: &Worker, query: &'static str) -> Result<Vec<T>, Trouble>
where
    T: for<'row> FromRow<'row, SqliteRow> + Send + Unpin,
{
    let path = worker.database();
    let failed = |source| Trouble::Database { path: path.display().to_string(), source };
    let mut database = SqliteConnectOptions::new().filename(&path).read_only(true).connect().await.map_err(failed)?;
    let rows = sqlx::query_as(query).fetch_all(&mut database).await.map_err(failed)?;
    database.close().await.map_err(failed)?;
    Ok(rows)
}

fn routes(namespace: &Namespace) -> Result<BTreeMap<Ipv4Addr, String>, Trouble> {
    let table = numbers::TABLE_PODS.to_string();
    let routes = ip(namespace, &["route", "show", "table", &table])?;
    routes.iter().map(|route| Ok((parse(&text(route, "dst"))?, text(route, "dev")))).collect()
}

fn elements(namespace: &Namespace) -> Result<BTreeSet<Ipv4Addr>, Trouble> {
    let tables = json(&namespace.run(&["nft", "-j", "list", "tables", "ip"])?)?;
    let ours = |entry: &Value| entry["table"]["name"] == numbers::NFT_TABLE;
    if !tables["nftables"].as_array().is_some_and(|entries| entries.iter().any(ours)) {
        return Ok(BTreeSet::new());
    }
    let listing =
        json(&namespace.run(&["nft", "-j", "list", "map", "ip", numbers::NFT_TABLE, numbers::NFT_POD_MAP])?)?;
    let map = listing["nftables"].as_array().and_then(|entries| entries.iter().find_map(|entry| entry.get("map")));
    let elements = map.and_then(|map| map["elem"].as_array()).map_or(&[][..], Vec::as_slice);
    elements.iter().map(|pair| parse(pair[0].as_str().unwrap_or_default())).collect()
}

/// Answer of `ip -j`. A table that does not exist has no routes.
fn ip(namespace: &Namespace, arguments: &[&str]) -> Result<Vec<Value>, Trouble> {
    let command: Vec<&str> = ["ip", "-4", "-j"].iter().chain(arguments).copied().collect();
    match namespace.run(&command) {
        Ok(answer) if answer.trim().is_empty() => Ok(Vec::new()),
        Ok(answer) => Ok(json(&answer)?.as_array().cloned().unwrap_or_default()),
        Err(lab::LabError::Tool { complaint, .. }) if complaint.contains("table does not exist") => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn json(answer: &str) -> Result<Value, Trouble> {
    serde_json::from_str(answer).map_err(|_| Trouble::Answer { what: "JSON of ip or nft", answer: answer.to_owned() })
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn parse(address: &str) -> Result<Ipv4Addr, Trouble> {
    address.parse().map_err(|_| Trouble::Answer { what: "an address", answer: address.to_owned() })
}
