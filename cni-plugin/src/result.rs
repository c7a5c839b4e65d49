//! What the runtime hears after an ADD, in the shape of the version that it speaks.

use std::path::Path;

use eni_datapath::Wired;
use eni_proto::{
    PodKey, PodNetwork,
    numbers::{POD_GATEWAY, POD_GATEWAY_V6, TABLE_MAIN},
};
use serde_json::{Value, json};

use crate::version::Version;

/// The result object of an ADD. Interface 0 is the host's end, interface 1 the pod's.
pub(crate) fn to_json(version: Version, key: &PodKey, netns: &Path, network: &PodNetwork, wired: &Wired) -> Value {
    if version < Version::V0_3_0 {
        return old_shape(version, network, wired);
    }
    let mut host = json!({ "name": wired.host_link, "mac": wired.host_mac.to_string() });
    let mut pod =
        json!({ "name": key.interface(), "mac": wired.pod_mac.to_string(), "sandbox": netns.to_string_lossy() });
    let mut addresses =
        vec![json!({ "address": format!("{}/32", network.ipv4), "gateway": POD_GATEWAY, "interface": 1 })];
    addresses.extend(
        network.ipv6.map(|ipv6| json!({ "address": format!("{ipv6}/128"), "gateway": POD_GATEWAY_V6, "interface": 1 })),
    );
    if version < Version::V1_0_0 {
        for (address, family) in addresses.iter_mut().zip(["4", "6"]) {
            address["version"] = family.into();
        }
    }
    if version >= Version::V1_1_0 {
        host["mtu"] = network.mtu.into();
        pod["mtu"] = network.mtu.into();
    }
    json!({
        "cniVersion": version.as_str(),
        "interfaces": [host, pod],
        "ips": addresses,
        "routes": routes(version, network, wired.pod_table),
    })
}

/// Makes the results of a pod's interfaces one. The shape before version 0.3.0 has room for the first only.
pub(crate) fn join(results: Vec<Value>) -> Value {
    let mut results = results.into_iter();
    let mut all = results.next().unwrap_or_default();
    for mut result in results {
        let before = all["interfaces"].as_array().map_or(0, Vec::len);
        for ip in result["ips"].as_array_mut().into_iter().flatten() {
            ip["interface"] = (ip["interface"].as_u64().unwrap_or(0) + before as u64).into();
        }
        for list in ["interfaces", "ips", "routes"] {
            if let (Some(all), Some(list)) = (all[list].as_array_mut(), result[list].as_array_mut()) {
                all.append(list);
            }
        }
    }
    all
}

/// The shape before version 0.3.0: no interfaces, and one address of each family.
fn old_shape(version: Version, network: &PodNetwork, wired: &Wired) -> Value {
    let (mut v4, mut v6) = (routes(version, network, wired.pod_table), Vec::new());
    if network.ipv6.is_some() {
        v6 = v4.split_off(v4.len().min(1));
    }
    let mut result = json!({
        "cniVersion": version.as_str(),
        "ip4": { "ip": format!("{}/32", network.ipv4), "gateway": POD_GATEWAY, "routes": v4 },
        "dns": {},
    });
    if let Some(ipv6) = network.ipv6 {
        result["ip6"] = json!({ "ip": format!("{ipv6}/128"), "gateway": POD_GATEWAY_V6, "routes": v6 });
    }
    result
}

/// The interface's way out. Before version 1.1.0 a route could not say that it is in a table of its own.
fn routes(version: Version, network: &PodNetwork, table: u32) -> Vec<Value> {
    let mut routes = vec![json!({ "dst": "0.0.0.0/0", "gw": POD_GATEWAY })];
    routes.extend(network.ipv6.map(|_| json!({ "dst": "::/0", "gw": POD_GATEWAY_V6 })));
    match table {
        TABLE_MAIN => routes,
        _ if version < Version::V1_1_0 => Vec::new(),
        table => {
            routes.iter_mut().for_each(|route| route["table"] = table.into());
            routes
        }
    }
}

#[cfg(test)]
mod tests {
    use eni_datapath::MacAddress;
    use eni_proto::{EniMark, VethPrefix};

    use super::*;

    fn result(version: Version) -> Value {
        result_with(version, None)
    }

    fn result_with(version: Version, ipv6: Option<std::net::Ipv6Addr>) -> Value {
        let network = PodNetwork {
            ipv4: [10, 0, 3, 7].into(),
            ipv6,
            eni: "eni-1".to_owned(),
            eni_mark: EniMark::PRIMARY,
            mtu: 9001,
            veth_prefix: VethPrefix::default(),
        };
        let wired = Wired {
            host_link: "eni0d7763386da".to_owned(),
            host_index: 7,
            host_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            pod_index: 2,
            pod_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            pod_table: TABLE_MAIN,
        };
        to_json(version, &PodKey::new("pods", "c1", "eth0").unwrap(), Path::new("/run/netns/x"), &network, &wired)
    }

    #[test]
    fn each_version_has_its_shape() {
        for version in Version::ALL.into_iter().filter(|version| *version >= Version::V0_3_0) {
            let result = result(version);
            assert_eq!(result["cniVersion"], version.as_str());
            assert_eq!(result["ips"][0]["address"], "10.0.3.7/32");
            assert_eq!(result["ips"][0]["version"].as_str(), (version < Version::V1_0_0).then_some("4"), "{version:?}");
            assert_eq!(
                result["interfaces"][1]["mtu"].as_u64(),
                (version >= Version::V1_1_0).then_some(9001),
                "{version:?}"
            );
        }
    }

    #[test]
    fn before_0_3_0_there_is_one_address_of_a_family_and_no_interface() {
        for version in [Version::V0_1_0, Version::V0_2_0] {
            let wanted = json!({
                "cniVersion": version.as_str(),
                "ip4": {
                    "ip": "10.0.3.7/32", "gateway": "169.254.1.1",
                    "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }],
                },
                "dns": {},
            });
            assert_eq!(result(version), wanted);
        }
    }

    #[test]
    fn the_address_belongs_to_the_pods_side() {
        let result = result(Version::V1_0_0);
        let interface = usize::try_from(result["ips"][0]["interface"].as_u64().unwrap()).unwrap();
        assert_eq!(result["interfaces"][interface]["sandbox"], "/run/netns/x");
        assert_eq!(result["interfaces"][0].get("sandbox"), None);
    }

    #[test]
    fn a_pod_of_both_families_has_two_addresses_and_two_ways_out() {
        let ipv6 = "2600:1f00::7".parse().ok();
        let new = result_with(Version::V1_0_0, ipv6);
        assert_eq!(new["ips"][1], json!({ "address": "2600:1f00::7/128", "gateway": "fe80::1", "interface": 1 }));
        assert_eq!(new["routes"][1], json!({ "dst": "::/0", "gw": "fe80::1" }));
        assert_eq!(result_with(Version::V0_4_0, ipv6)["ips"][1]["version"], "6");
        let old = result_with(Version::V0_2_0, ipv6);
        assert_eq!(
            old["ip6"],
            json!({ "ip": "2600:1f00::7/128", "gateway": "fe80::1", "routes": [{ "dst": "::/0", "gw": "fe80::1" }] })
        );
        assert_eq!(old["ip4"]["routes"].as_array().map(Vec::len), Some(1));
    }
}
