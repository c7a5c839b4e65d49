//! The way of one interface's packets.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use eni_proto::{
    host_link_name, is_for_egress,
    numbers::{POD_GATEWAY, POD_GATEWAY_V6, RULE_ENI_MARK, RULE_PRIMARY_MARK, RULE_TO_POD, TABLE_PODS, eni_table},
};
use ipam_core::{Lease, ports::Cidr4};
use serde_json::{Value, json};

use crate::{
    clock::rfc3339,
    inspect::{Sources, Wiring},
    settings::Settings,
    table,
};

/// So many networks are named in one line.
const NAMED: usize = 3;

/// Everything that the explanation of one interface needs.
pub(super) struct Way<'a> {
    lease: &'a Lease,
    settings: &'a Settings,
    host_link: String,
    table: u32,
    /// Card and device index of the owning ENI and its primary address, by EC2. Absent: EC2 did not say.
    owner: Option<(u8, u8, Ipv4Addr)>,
    /// The VPC's networks.
    vpc: Vec<Cidr4>,
    /// The pod's ADD, as the daemon remembers it.
    add: Option<&'a Value>,
    /// What is not as it should be.
    trouble: Vec<String>,
}

impl<'a> Way<'a> {
    pub(super) fn of(lease: &'a Lease, sources: &Sources, settings: &'a Settings, adds: &'a [Value]) -> Self {
        let links = sources.pods.iter().flat_map(|pods| &pods.links);
        let own = links.into_iter().find(|link| link.alias.as_ref().is_some_and(|alias| alias.key == lease.key));
        let planned = || host_link_name(&settings.veth_prefix, &lease.key, &lease.pod);
        let owner = lease.addresses.of_vpc().next().and_then(|address| sources.owner(address)).and_then(|eni| {
            let attachment = eni.attachment.as_ref()?;
            Some((attachment.card, attachment.device_index, eni.primary))
        });
        let (card, device) = lease.eni_mark.slot();
        let address = lease.addresses.to_string();
        Self {
            lease,
            settings,
            host_link: own.map_or_else(planned, |link| link.name.clone()),
            table: eni_table(card, device),
            owner,
            vpc: sources.plans.direct.clone(),
            add: adds.iter().find(|add| add.get("address").and_then(Value::as_str) == Some(&address)),
            trouble: trouble(lease, sources),
        }
    }

    fn is_on_primary(&self) -> bool {
        self.lease.eni_mark.is_primary()
    }

    pub(super) fn text(&self) -> String {
        let lease = self.lease;
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "pod {}, sandbox {}", self.pod(), lease.key.container_id());
        let _ = writeln!(text, "lease since {}, network namespace {}", rfc3339(lease.since), table::name(&lease.netns));
        let _ = writeln!(text, "{}\n", self.timeline());
        text.push_str(&self.drawing());
        text.push('\n');
        let words = self.words();
        let width = words.iter().map(|(to, _)| to.len()).max().unwrap_or(0) + 2;
        for (to, way) in words {
            let _ = writeln!(text, "  {to:<width$}{way}");
        }
        for trouble in &self.trouble {
            let _ = writeln!(text, "\n  not as it should be: {trouble}");
        }
        text
    }

    fn pod(&self) -> String {
        match self.lease.pod.name.as_str() {
            "" => "of unknown name (the runtime did not tell, or the lease was read back from the kernel)".to_owned(),
            _ => table::name(&self.lease.pod.to_string()),
        }
    }

    /// Each step takes its time after the one before.
    fn timeline(&self) -> String {
        let Some(add) = self.add else {
            return "its ADD is not known any more: the daemon remembers the last 64, until it ends".to_owned();
        };
        let took = |name: &str| add.get(name).and_then(Value::as_u64).map(milliseconds);
        let answered = add.get("at").and_then(Value::as_str).unwrap_or("an unknown time");
        let steps = [("address", "queue_us"), ("lease stored", "lease_us"), ("wired", "wiring_us")];
        let steps = steps.iter().filter_map(|(step, name)| Some(format!("{step} +{}", took(name)?)));
        let all = took("plugin_us").map(|all| format!(", {all} with the plugin")).unwrap_or_default();
        format!("its ADD was answered at {answered}: {}{all}", steps.collect::<Vec<_>>().join(", "))
    }

    fn drawing(&self) -> String {
        let lease = self.lease;
        let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let alone: Vec<_> = lease.addresses.all().map(|address| format!("{address}/{}", bits(address))).collect();
        let gateways: Vec<String> = lease.addresses.all().map(gateway).collect();
        let gateways = gateways.join(" and ");
        let inside = match lease.key.interface() == "eth0" {
            true => format!("default by {gateways}, which is the other end"),
            false => {
                format!("a table of its own for what is sent from its address: default by {gateways}, the other end")
            }
        };
        let chosen = match self.is_on_primary() {
            true => "no mark: table main".to_owned(),
            false => format!(
                "map pod_eni marks {:#x}, rule {RULE_ENI_MARK} leads to table {}",
                lease.eni_mark.value(),
                self.table
            ),
        };
        let eni = match self.owner {
            Some((0, device, primary)) => format!("{}  device {device}, the node's address on it {primary}", lease.eni),
            Some((card, device, primary)) => {
                format!("{}  card {card}, device {device}, the node's address on it {primary}", lease.eni)
            }
            None => format!("{}  (EC2 did not confirm it)", lease.eni),
        };
        format!(
            "  [ {} {} ]  in the pod\n        |  {inside}\n  [ {} ]  on the node\n        |  {chosen}\n  [ {eni} ]\n        |\n  [ VPC ]\n",
            lease.key.interface(),
            alone.join(", "),
            self.host_link
        )
    }

    /// Where packets go, and how.
    fn words(&self) -> Vec<(String, String)> {
        let eni = &self.lease.eni;
        let mut words = Vec::new();
        for address in self.lease.addresses.all() {
            match address {
                _ if is_for_egress(address) => {
                    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                    let way = format!("by the primary interface, source {address} translated to the node's address");
                    words.push((format!("to {family} outside"), way));
                }
                IpAddr::V4(_) => self.words_v4(address, &mut words),
                IpAddr::V6(_) => {
                    words.push(("to all IPv6".to_owned(), format!("by {eni}, source {address}, never translated")));
                }
            }
        }
        let to_pods = format!("table {TABLE_PODS} (rule {RULE_TO_POD}), straight to their interface");
        words.push(("to pods of this node".to_owned(), to_pods));
        let in_by = format!("arrives at {eni}, table {TABLE_PODS} leads to {}", self.host_link);
        words.push(("from elsewhere".to_owned(), in_by));
        if self.settings.node_ports {
            let way = format!(
                "leave by the primary interface, by which the request came (mark 0x80, rule {RULE_PRIMARY_MARK})"
            );
            words.push(("replies of a NodePort".to_owned(), way));
        }
        words
    }

    fn words_v4(&self, address: IpAddr, words: &mut Vec<(String, String)>) {
        let eni = &self.lease.eni;
        let as_itself = format!("by {eni}, source {address} as it is");
        words.push((format!("to the VPC{}", listed(&self.vpc)), as_itself.clone()));
        if !self.settings.exclude_snat.is_empty() {
            words.push((format!("excluded from SNAT{}", listed(&self.settings.exclude_snat)), as_itself));
        }
        if !self.settings.external_services.is_empty() {
            let way = "by the node's main routes; as the node where they lead by the primary interface".to_owned();
            words.push((format!("external services{}", listed(&self.settings.external_services)), way));
        }
        let internet = match self.settings.external_snat {
            true => format!("by {eni}, source {address}: translating it is somebody else's task (external SNAT)"),
            false => "by the primary interface, source translated to the node's address".to_owned(),
        };
        words.push(("to all else (internet)".to_owned(), internet));
    }

    pub(super) fn object(&self) -> Value {
        let lease = self.lease;
        json!({
            "namespace": lease.pod.namespace,
            "pod": lease.pod.name,
            "network": lease.key.network(),
            "container-id": lease.key.container_id(),
            "interface": lease.key.interface(),
            "netns": lease.netns,
            "address": lease.addresses.of_vpc().next(),
            "addresses": lease.addresses.all().collect::<Vec<_>>(),
            "eni": lease.eni.as_str(),
            "eni-confirmed-by-ec2": self.owner.is_some(),
            "mark": lease.eni_mark.value(),
            "table": self.table,
            "host-interface": self.host_link,
            "since": rfc3339(lease.since),
            "add": self.add,
            "trouble": self.trouble,
        })
    }
}

fn gateway(address: IpAddr) -> String {
    if address.is_ipv4() { POD_GATEWAY.to_string() } else { POD_GATEWAY_V6.to_string() }
}

/// What is wrong with the interface, and what would become of its packets.
fn trouble(lease: &Lease, sources: &Sources) -> Vec<String> {
    let mut trouble: Vec<String> = match sources.wiring.get(&lease.key) {
        Some(Ok(Wiring::Differs(differences))) => differences.iter().map(ToString::to_string).collect(),
        Some(Ok(Wiring::NoSandbox)) => vec![format!("the network namespace {} is gone", lease.netns)],
        Some(Err(reason)) => vec![format!("not looked at: {reason}")],
        None => Vec::new(),
    };
    let astray = sources.astray.iter().flatten().filter(|way| way.pod == lease.key);
    trouble.extend(astray.map(ToString::to_string));
    trouble
}

/// A time in microseconds, for people.
#[allow(clippy::cast_precision_loss, reason = "nobody reads so many digits")]
fn milliseconds(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1000.0)
}

/// The networks in brackets; empty when there are none.
fn listed(networks: &[Cidr4]) -> String {
    let named: Vec<String> = networks.iter().take(NAMED).map(ToString::to_string).collect();
    match networks.len().checked_sub(NAMED) {
        None if named.is_empty() => String::new(),
        None | Some(0) => format!(" ({})", named.join(", ")),
        Some(more) => format!(" ({} and {more} more)", named.join(", ")),
    }
}
