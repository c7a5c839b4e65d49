//! Every number and path that two parts of the system share, each in this one place.

/// CNI type and name of the plugin's binary.
pub const CNI_TYPE: &str = "eni-cni";
/// Capability by which a plugin gets the pod's annotations from the runtime. Source: containerd, internal/cri/annotations.
pub const ANNOTATIONS_CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";
/// Where ipamd listens, unless the plugin's `socket` key or the daemon's setting says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/eni-cni/ipamd.sock";
/// The daemon's database.
pub const DEFAULT_DATABASE: &str = "/var/lib/eni-cni/ipamd.db";
/// Where the plugin leaves a note for each DEL that the daemon did not hear of.
pub const DEFAULT_RELEASED_DIR: &str = "/run/eni-cni/released";
/// Folder that the network-policy agent shares with the CNI. Source: the agent's deployments since its version 1.4.1.
pub const DEFAULT_POLICY_AGENT_DIR: &str = "/var/run/aws-node";

/// Bits of the firewall mark that name the ENI a packet leaves by. All other bits belong to others.
pub const ENI_MARK_MASK: u32 = 0x7f;
/// The bit of mark and connection mark that says: leave by the primary ENI.
pub const PRIMARY_MARK: u32 = 0x80;

/// Rules of a pod on a branch ENI in strict mode: what comes from its VLAN or from the pod itself goes by the branch's table.
pub const RULE_BRANCH: u32 = 10;
/// Where `from all lookup local` is on a node with such pods: behind their rules, so that even the node reaches them over the VPC.
pub const RULE_LOCAL_BEHIND: u32 = 20;
/// Rule of a pod on a branch ENI in standard mode: `to ADDRESS lookup main`.
pub const RULE_TO_BRANCH_POD: u32 = 513;
/// Kernel route table `local`.
pub const TABLE_LOCAL: u32 = 255;

/// Route table of the branch ENI with this VLAN; the AWS CNI's.
#[must_use]
pub const fn branch_table(vlan: u16) -> u32 {
    100 + vlan as u32
}

/// How many ENIs of each network card above 0 have a mark: those at the device indexes below.
pub const ENIS_PER_FURTHER_CARD: u8 = 3;

/// Kernel route table `main`, which also serves the primary ENI.
pub const TABLE_MAIN: u32 = 254;
/// Route table with one /32 route for each local pod.
pub const TABLE_PODS: u32 = 20_000;
/// Inside a pod: the route table of an interface that does not have the pod's default route is this plus the link's index.
pub const TABLE_IN_POD: u32 = 20_000;

/// Rule `lookup 20000`: to a local pod.
pub const RULE_TO_POD: u32 = 512;
/// Rule `fwmark 0x80/0x80 lookup main`: leave by the primary ENI.
pub const RULE_PRIMARY_MARK: u32 = 1024;
/// Rules `fwmark N/0x7f lookup TABLE`, one for each secondary ENI.
pub const RULE_ENI_MARK: u32 = 1536;
/// Rules `from ENI-primary-address lookup TABLE`: the node's own traffic from an ENI's own address.
pub const RULE_FROM_ENI: u32 = 32_765;
/// Inside a pod: rule `from ADDRESS lookup TABLE` of an interface that does not have the pod's default route.
pub const RULE_IN_POD: u32 = 1024;
/// Group of host interfaces whose pods have ended and that wait for the daemon to delete them all at once (`eni` in ASCII).
pub const ENDED_LINK_GROUP: u32 = 0x65_6e69;
/// Group of the ENIs' links, so that what comes in by one of them and leaves by another is told from what pods send.
pub const ENI_LINK_GROUP: u32 = 0x65_6e_6a;
/// Stamped on every rule and route of ours (`RTA_PROTOCOL`), so that a restart recognises its own.
pub const ROUTE_PROTOCOL: u8 = 142;

/// The pods' gateway: link-local, answered by a permanent neighbour entry, never by the network.
pub const POD_GATEWAY: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 1, 1);

/// The pods' IPv6 gateway: link-local, answered by a permanent neighbour entry.
pub const POD_GATEWAY_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The router of every IPv6 subnet of a VPC, on each ENI's link.
pub const VPC_ROUTER_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1);

/// First address of the range from which IPv6-only pods have an IPv4 address for their way out, known on the node only. The AWS CNI's.
pub const EGRESS_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 172, 0);
/// Bits that all addresses of [`EGRESS_V4`] share.
pub const EGRESS_V4_BITS: u8 = 22;
/// The same for IPv6 on the way out of IPv4-only pods.
pub const EGRESS_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xac, 0);
/// Bits that all addresses of [`EGRESS_V6`] share.
pub const EGRESS_V6_BITS: u8 = 118;

/// Name of our nf_tables table (families `ip` and `ip6`).
pub const NFT_TABLE: &str = "eni_cni";
/// Map from a pod's address to the chain of the ENI that owns it.
pub const NFT_POD_MAP: &str = "pod_eni";
/// Set of destinations that pods reach directly: VPC CIDRs and CIDRs excluded from SNAT.
pub const NFT_DIRECT_SET: &str = "direct";
/// Set of destinations that pods reach by the node's main routes, whatever else holds for them.
pub const NFT_BY_MAIN_SET: &str = "by_main";
/// Priority of the prerouting chain: after DNAT (-100), when the real destination is known.
pub const NFT_PREROUTING_PRIORITY: i32 = -90;

/// Jumbo frames inside a VPC, in bytes. Source: EC2 network MTU.
pub const DEFAULT_MTU: u16 = 9001;
/// Smallest MTU that IPv4 hosts must take, in bytes (RFC 791).
pub const MIN_MTU: u16 = 576;
/// Links with less have no IPv6 and none of its settings. Source: `IPV6_MIN_MTU` of linux/ipv6.h.
pub const MIN_MTU_V6: u16 = 1280;

/// How long a released address rests before another pod may have it, in seconds.
pub const DEFAULT_COOL_DOWN_SECONDS: u32 = 30;
/// How long an ADD waits for an address that is on its way, in seconds. Below the runtime's own deadline.
pub const DEFAULT_ADD_WAIT_SECONDS: u32 = 20;

/// Tag on every ENI of ours: the instance that it was made for.
pub const TAG_INSTANCE: &str = "node.k8s.amazonaws.com/instance_id";
/// Tag on every ENI of ours: the cluster's name, when one is configured.
pub const TAG_CLUSTER: &str = "cluster.k8s.amazonaws.com/name";
/// Tag on every ENI of ours: when it was created, RFC 3339.
pub const TAG_CREATED_AT: &str = "node.k8s.amazonaws.com/createdAt";
/// Tag by which an operator asks us to leave an ENI alone (`true`).
pub const TAG_NO_MANAGE: &str = "node.k8s.amazonaws.com/no_manage";

/// Route table of the ENI at `device_index` of network card `card`.
///
/// The primary ENI (card 0, index 0) uses `main`; the numbers are the AWS CNI's, so that a migrated node keeps them.
#[must_use]
pub const fn eni_table(card: u8, device_index: u8) -> u32 {
    match (card, device_index) {
        (0, 0) => TABLE_MAIN,
        (0, index) => index as u32 + 1,
        (card, index) => 10_000 + 100 * card as u32 + index as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::eni_table;

    #[test]
    fn every_eni_has_a_table_of_its_own() {
        assert_eq!(eni_table(0, 0), super::TABLE_MAIN);
        assert_eq!(eni_table(0, 3), 4);
        assert_eq!(eni_table(1, 0), 10_100);
        assert_eq!(eni_table(3, 14), 10_314);
    }
}
