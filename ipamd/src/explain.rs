//! `ipamd explain`: the way of a pod's packets in words and as a small drawing, from what the sources say right now.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
};

use eni_proto::{
    host_link_name,
    numbers::{POD_GATEWAY, RULE_ENI_MARK, RULE_TO_POD, TABLE_PODS, eni_table},
};
use ipam_core::Lease;
use serde_json::json;

use crate::{
    clock::rfc3339,
    errors::complain,
    inspect::{self, Sources, Wiring},
    settings::Settings,
    table,
};

/// Finds the leases of a pod or an address and explains each.
pub(crate) async fn show(settings: &Settings, subject: &str, as_json: bool) -> ExitCode {
    let sources = inspect::sources(settings, true).await;
    let leases = match &sources.leases {
        Ok(leases) => leases,
        Err(reason) => {
            complain(&format!(
                "the leases cannot be read: {reason}. Is `ipamd serve` at work here, and is --database right?"
            ));
            return ExitCode::FAILURE;
        }
    };
    let wanted: Vec<&Lease> = leases.iter().filter(|lease| is_meant(subject, lease)).collect();
    if wanted.is_empty() {
        complain(&format!(
            "{subject} has no lease on this node ({} have). Give NAMESPACE/NAME or an address; `ipamd history` knows those that have ended.",
            leases.len()
        ));
        return ExitCode::FAILURE;
    }
    for lease in wanted {
        let way = Way::of(lease, &sources, settings);
        table::show(&if as_json { format!("{}\n", way.object()) } else { way.text() }, as_json);
    }
    ExitCode::SUCCESS
}

fn is_meant(subject: &str, lease: &Lease) -> bool {
    match subject.parse::<IpAddr>() {
        Ok(address) => lease.addresses.has(address),
        Err(_) => lease.pod.to_string() == subject,
    }
}

/// Everything that the explanation of one interface needs.
struct Way<'a> {
    lease: &'a Lease,
    host_link: String,
    table: u32,
    /// Device index of the owning ENI and its primary address, by EC2. Absent: EC2 did not say.
    owner: Option<(u8, Ipv4Addr)>,
    external_snat: bool,
    /// What is not as it should be.
    trouble: Vec<String>,
}

impl<'a> Way<'a> {
    fn of(lease: &'a Lease, sources: &Sources, settings: &Settings) -> Self {
        let links = sources.pods.iter().flat_map(|pods| &pods.links);
        let own = links.into_iter().find(|link| link.alias.as_ref().is_some_and(|alias| alias.key == lease.key));
        let planned = || host_link_name(&settings.veth_prefix, &lease.key, &lease.pod);
        let owner = lease.addresses.of_vpc().next().and_then(|address| sources.owner(address)).and_then(|eni| {
            let attachment = eni.attachment.as_ref()?;
            Some((attachment.device_index, eni.primary))
        });
        let trouble = match sources.wiring.get(&lease.key) {
            Some(Ok(Wiring::Differs(differences))) => differences.iter().map(ToString::to_string).collect(),
            Some(Ok(Wiring::NoSandbox)) => vec![format!("the network namespace {} is gone", lease.netns)],
            Some(Err(reason)) => vec![format!("not looked at: {reason}")],
            None => Vec::new(),
        };
        let (card, device) = lease.eni_mark.slot();
        Self {
            lease,
            host_link: own.map_or_else(planned, |link| link.name.clone()),
            table: eni_table(card, device),
            owner,
            external_snat: settings.external_snat,
            trouble,
        }
    }

    fn is_on_primary(&self) -> bool {
        self.lease.eni_mark.is_primary()
    }

    fn text(&self) -> String {
        let lease = self.lease;
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "pod {}, sandbox {}", self.pod(), lease.key.container_id());
        let _ =
            writeln!(text, "lease since {}, network namespace {}\n", rfc3339(lease.since), table::name(&lease.netns));
        text.push_str(&self.drawing());
        text.push('\n');
        for (to, way) in self.words() {
            let _ = writeln!(text, "  {to:<24}{way}");
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

    fn drawing(&self) -> String {
        let lease = self.lease;
        let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let alone: Vec<_> = lease.addresses.all().map(|address| format!("{address}/{}", bits(address))).collect();
        let chosen = match self.is_on_primary() {
            true => "no mark: table main".to_owned(),
            false => format!(
                "map pod_eni marks {:#x}, rule {RULE_ENI_MARK} leads to table {}",
                lease.eni_mark.value(),
                self.table
            ),
        };
        let eni = match self.owner {
            Some((device, primary)) => format!("{}  device {device}, the node's address on it {primary}", lease.eni),
            None => format!("{}  (EC2 did not confirm it)", lease.eni),
        };
        format!(
            "  [ {} {} ]  in the pod\n        |  default by {POD_GATEWAY}, which is the other end\n  [ {} ]  on the node\n        |  \
             {chosen}\n  [ {eni} ]\n        |\n  [ VPC ]\n",
            lease.key.interface(),
            alone.join(", "),
            self.host_link
        )
    }

    /// Where packets go, and how.
    fn words(&self) -> [(&'static str, String); 5] {
        let (address, eni) = (self.lease.addresses, &self.lease.eni);
        let internet = match self.external_snat {
            true => format!("by {eni}, source {address}: translating it is somebody else's task (external SNAT)"),
            false => "by the primary interface, source translated to the node's address".to_owned(),
        };
        [
            ("to the VPC and peers", format!("by {eni}, source {address} as it is")),
            ("to the internet", internet),
            ("to pods of this node", format!("table {TABLE_PODS} (rule {RULE_TO_POD}), straight to their interface")),
            ("from elsewhere", format!("arrives at {eni}, table {TABLE_PODS} leads to {}", self.host_link)),
            (
                "replies of a NodePort",
                "leave by the primary interface, by which the request came (mark 0x80)".to_owned(),
            ),
        ]
    }

    fn object(&self) -> serde_json::Value {
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
            "trouble": self.trouble,
        })
    }
}
