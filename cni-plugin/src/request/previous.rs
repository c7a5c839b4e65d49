//! `prevResult`: what ADD reported, as far as CHECK compares it.

use eni_datapath::MacAddress;
use eni_proto::{PodAddresses, PodKey};
use serde_json::Value;

/// What ADD and the plugins behind us reported of one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) addresses: PodAddresses,
    pub(crate) pod: End,
    pub(crate) host: End,
    /// Whether the attachment has the pod's default route.
    pub(crate) default_route: bool,
}

/// One end of the pair. What is absent was not reported, and is not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) name: Option<String>,
    pub(crate) mac: Option<MacAddress>,
    /// In bytes; reported since version 1.1.0.
    pub(crate) mtu: Option<u32>,
}

/// Reads what concerns `interface`. The shape is the same in all versions that have CHECK.
///
/// # Errors
/// What is missing or wrong, for people.
pub(super) fn read(previous: Option<&Value>, interface: &str) -> Result<Previous, String> {
    let Some(previous) = previous.filter(|value| !value.is_null()) else {
        return Err("`prevResult` is missing: CHECK compares with what ADD reported".to_owned());
    };
    let interfaces = list(previous, "interfaces")?;
    let is_inside = |end: &Value| !end["sandbox"].as_str().unwrap_or_default().is_empty();
    let at = interfaces.iter().position(|end| is_inside(end) && end["name"] == interface);
    let at = at.ok_or_else(|| format!("`prevResult.interfaces` has no `{interface}` inside a sandbox"))?;
    let ips = list(previous, "ips")?;
    let own = || ips.iter().filter(|ip| ip["interface"].as_u64().is_none_or(|index| index == at as u64));
    let v4 = own().find_map(|ip| ip["address"].as_str()?.strip_suffix("/32")?.parse().ok());
    let v6 = own().find_map(|ip| ip["address"].as_str()?.strip_suffix("/128")?.parse().ok());
    let addresses = PodAddresses::new(v4, v6);
    Ok(Previous {
        addresses: addresses
            .ok_or_else(|| format!("`prevResult.ips` has no address with /32 or /128 of `{interface}`"))?,
        pod: end(&interfaces[at]),
        // It comes right before; the plugins behind us add theirs at the end.
        host: interfaces.iter().take(at).rfind(|end| !is_inside(end)).map(end).unwrap_or_default(),
        default_route: list(previous, "routes")?.iter().any(|route| {
            (route["dst"] == "0.0.0.0/0" || route["dst"] == "::/0") && route["table"].as_u64().is_none_or(is_main)
        }),
    })
}

/// Reads what concerns the interfaces that came with the one of `key`, each with its key.
///
/// # Errors
/// As [`read`].
pub(super) fn read_further(previous: Option<&Value>, key: &PodKey) -> Result<Vec<(PodKey, Previous)>, String> {
    let names = previous.and_then(|previous| previous["interfaces"].as_array()).into_iter().flatten();
    let names = names.filter_map(|interface| interface["name"].as_str());
    let keys = names.filter_map(|name| PodKey::new(key.network(), key.container_id(), name).ok());
    keys.filter(|further| further.came_with(key))
        .map(|further| {
            let read = read(previous, further.interface())?;
            // The first interface has it.
            Ok((further, Previous { default_route: false, ..read }))
        })
        .collect()
}

fn is_main(table: u64) -> bool {
    table == 0 || table == u64::from(eni_proto::numbers::TABLE_MAIN)
}

/// A list that may be absent or null, as Go writes an empty one.
fn list<'a>(object: &'a Value, key: &str) -> Result<&'a [Value], String> {
    let value = &object[key];
    if value.is_null() {
        return Ok(&[]);
    }
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("`prevResult.{key}` is {value}: no list"))
}

fn end(interface: &Value) -> End {
    End {
        name: interface["name"].as_str().map(str::to_owned),
        mac: interface["mac"].as_str().and_then(|mac| mac.parse().ok()),
        mtu: interface["mtu"].as_u64().and_then(|mtu| mtu.try_into().ok()).filter(|mtu| *mtu > 0),
    }
}
