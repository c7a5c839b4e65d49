//! What the runtime hears after an ADD, in the shape of the version that it speaks.

use std::{net::IpAddr, path::Path};

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
    let mut addresses: Vec<_> = network
        .addresses
        .of_vpc()
        .map(|address| json!({ "address": alone(address), "gateway": gateway(address), "interface": 1 }))
        .collect();
    if version < Version::V1_0_0 {
        for (shown, address) in addresses.iter_mut().zip(network.addresses.of_vpc()) {
            shown["version"] = if address.is_ipv4() { "4" } else { "6" }.into();
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
    let mut result = json!({ "cniVersion": version.as_str(), "dns": {} });
    let routes = routes(version, network, wired.pod_table);
    for address in network.addresses.of_vpc() {
        let family = if address.is_ipv4() { "ip4" } else { "ip6" };
        let way_out: Vec<_> = routes.iter().filter(|route| route["dst"] == anywhere(address)).collect();
        result[family] = json!({ "ip": alone(address), "gateway": gateway(address), "routes": way_out });
    }
    result
}

/// The interface's way out, also by what only serves for that. Before version 1.1.0 a route could not say that it is in a table of
/// its own.
fn routes(version: Version, network: &PodNetwork, table: u32) -> Vec<Value> {
    let way_out = |address| json!({ "dst": anywhere(address), "gw": gateway(address) });
    let mut routes: Vec<_> = network.addresses.all().map(way_out).collect();
    match table {
        TABLE_MAIN => routes,
        _ if version < Version::V1_1_0 => Vec::new(),
        table => {
            routes.iter_mut().for_each(|route| route["table"] = table.into());
            routes
        }
    }
}

fn alone(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn gateway(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { POD_GATEWAY.into() } else { POD_GATEWAY_V6.into() }
}

const fn anywhere(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use eni_datapath::MacAddress;
    use eni_proto::{EniMark, PodAddresses, VethPrefix};

    use super::*;

    fn result(version: Version) -> Value {
        result_with(version, Some([10, 0, 3, 7].into()), None)
    }

    fn result_with(version: Version, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Value {
        let network = PodNetwork {
            addresses: PodAddresses::new(ipv4, ipv6).unwrap(),
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
        let (ipv4, ipv6) = (Some([10, 0, 3, 7].into()), "2600:1f00::7".parse().ok());
        let new = result_with(Version::V1_0_0, ipv4, ipv6);
        assert_eq!(new["ips"][1], json!({ "address": "2600:1f00::7/128", "gateway": "fe80::1", "interface": 1 }));
        assert_eq!(new["routes"][1], json!({ "dst": "::/0", "gw": "fe80::1" }));
        assert_eq!(result_with(Version::V0_4_0, ipv4, ipv6)["ips"][1]["version"], "6");
        let old = result_with(Version::V0_2_0, ipv4, ipv6);
        assert_eq!(
            old["ip6"],
            json!({ "ip": "2600:1f00::7/128", "gateway": "fe80::1", "routes": [{ "dst": "::/0", "gw": "fe80::1" }] })
        );
        assert_eq!(old["ip4"]["routes"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn an_address_for_the_way_out_only_is_no_address_of_the_pod() {
        let ipv6 = "2600:1f00::7".parse().ok();
        let result = result_with(Version::V1_0_0, Some([169, 254, 172, 5].into()), ipv6);
        assert_eq!(result["ips"], json!([{ "address": "2600:1f00::7/128", "gateway": "fe80::1", "interface": 1 }]));
        assert_eq!(result["routes"][0], json!({ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }));
        let old = result_with(Version::V0_2_0, None, ipv6);
        assert_eq!((old["ip4"].is_null(), &old["ip6"]["ip"]), (true, &json!("2600:1f00::7/128")));
    }
}
