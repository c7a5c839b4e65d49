//! The rows of the table: name, from, to, packets, answer, way.

use super::Kind::{
    self, As, Expired, Fragments, Icmp, InNameOf, LearnsMtu, Tcp, TeachesMtu, Udp, Unreachable, WhileClaimed,
};

pub(super) type Row = (&'static str, &'static str, &'static str, &'static [Kind], &'static str, &'static str);

const ALL: &[Kind] = &[Tcp, Udp, Icmp];
const PORTS: &[Kind] = &[Tcp, Udp];

pub(super) const PODS_AND_NODES: &[Row] = &[
    ("pod to pod, same ENI", "b", "c", ALL, "c sees b", "-"),
    ("pod to pod, from primary to secondary ENI", "a", "b", ALL, "b sees a", "-"),
    ("pod to pod, from secondary to primary ENI", "b", "a", ALL, "a sees b", "-"),
    ("pod to pod, between secondary ENIs", "b", "d", ALL, "d sees b", "-"),
    ("pod to pod, other node, primary ENIs", "a", "e", ALL, "e sees a", "eth0, node-2 eth0"),
    ("pod to pod, other node, secondary ENIs", "b", "f", ALL, "f sees b", "eth1, node-2 eth1"),
    ("pod to pod, other node, secondary to primary ENI", "d", "e", ALL, "e sees d", "eth2, node-2 eth0"),
    ("pod from other node, primary to secondary ENI", "e", "d", ALL, "d sees e", "eth2, node-2 eth0"),
    ("pod on primary ENI to own node", "a", "node-1", ALL, "node-1 sees a", "-"),
    ("pod on secondary ENI to own node", "b", "node-1", ALL, "node-1 sees b", "-"),
    ("pod on primary ENI to other node", "a", "node-2", ALL, "node-2 sees a", "eth0, node-2 eth0"),
    ("pod on secondary ENI to other node", "b", "node-2", ALL, "node-2 sees b", "eth1, node-2 eth0"),
    ("host to pod on primary ENI (probe)", "node-1", "a", ALL, "a sees node-1", "-"),
    ("host to pod on secondary ENI (probe)", "node-1", "b", ALL, "b sees node-1", "-"),
    ("pod on secondary ENI to container in a network of the node", "b", "container", ALL, "container sees b", "-"),
    ("container in a network of the node to pod on secondary ENI", "container", "b", ALL, "b sees container", "-"),
    (
        "other node to secondary ENI's own address",
        "node-2",
        "node-1-eth1",
        &[Icmp],
        "node-1 sees node-2",
        "eth1, node-2 eth0",
    ),
    ("pod on secondary ENI to another ENI's own address", "b", "node-1-eth2", &[Icmp], "node-1 sees b", "-"),
    (
        "pod to secondary ENI's own address on other node",
        "b",
        "node-2-eth1",
        &[Icmp],
        "node-2 sees b",
        "eth1, node-2 eth1",
    ),
    ("node in the name of pod on secondary ENI", "node-1", "client", &[InNameOf("b")], "client sees b", "eth1"),
    ("other node to pod on primary ENI", "node-2", "a", ALL, "a sees node-2", "eth0, node-2 eth0"),
    ("other node to pod on secondary ENI", "node-2", "b", ALL, "b sees node-2", "eth1, node-2 eth0"),
];

pub(super) const OUTSIDE: &[Row] = &[
    ("pod on primary ENI to IMDS", "a", "imds", &[Tcp], "imds sees node-1", "eth0"),
    ("pod on secondary ENI to IMDS", "b", "imds", &[Tcp], "imds sees node-1", "eth0"),
    ("pod on primary ENI to internet", "a", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on another secondary ENI to internet", "d", "internet", ALL, "internet sees node-1", "eth0"),
    ("node to internet", "node-1", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on primary ENI to peered VPC", "a", "peer", ALL, "peer sees node-1", "eth0"),
    ("pod on secondary ENI to peered VPC", "b", "peer", ALL, "peer sees node-1", "eth0"),
    ("peered VPC to pod on primary ENI", "peer", "a", ALL, "a sees peer", "eth0"),
    ("peered VPC to pod on secondary ENI", "peer", "b", ALL, "b sees peer", "eth1"),
];

pub(super) const SERVICE_ADDRESSES: &[Row] = &[
    ("ClusterIP to pod on same node, same ENI", "c", "on-eth1", PORTS, "b sees c", "-"),
    ("ClusterIP to pod on same node, other ENI", "b", "on-eth2", PORTS, "d sees b", "-"),
    ("ClusterIP to pod on other node, primary ENIs", "a", "far-eth0", PORTS, "e sees a", "eth0, node-2 eth0"),
    ("ClusterIP to pod on other node, secondary ENIs", "b", "far-eth1", PORTS, "f sees b", "eth1, node-2 eth1"),
    ("ClusterIP to itself on primary ENI (hairpin)", "a", "on-eth0", PORTS, "a sees node-1", "-"),
    ("ClusterIP to itself on secondary ENI (hairpin)", "b", "on-eth1", PORTS, "b sees node-1", "-"),
    ("ClusterIP from host to own pod", "node-1", "on-eth1", PORTS, "b sees node-1", "-"),
    ("ClusterIP from host to pod on other node", "node-1", "far-eth1", PORTS, "f sees node-1", "eth0, node-2 eth1"),
];

pub(super) const NODE_PORTS: &[Row] = &[
    ("NodePort, Cluster, from VPC to pod on primary ENI", "client", "node-1:30010", PORTS, "a sees node-1", "eth0"),
    ("NodePort, Cluster, from VPC to pod on secondary ENI", "client", "node-1:30011", PORTS, "b sees node-1", "eth0"),
    (
        "NodePort, Cluster, from internet to pod on secondary ENI",
        "internet",
        "node-1:30012",
        PORTS,
        "d sees node-1",
        "eth0",
    ),
    (
        "NodePort, Cluster, from VPC to pod on other node",
        "client",
        "node-1:30014",
        PORTS,
        "f sees node-1",
        "eth0, node-2 eth1",
    ),
    (
        "NodePort, Cluster, from internet to pod on other node",
        "internet",
        "node-1:30013",
        PORTS,
        "e sees node-1",
        "eth0, node-2 eth0",
    ),
    ("NodePort, Local, from VPC to pod on primary ENI", "client", "node-1:30020", PORTS, "a sees client", "eth0"),
    ("NodePort, Local, from VPC to pod on secondary ENI", "client", "node-1:30021", PORTS, "b sees client", "eth0"),
    (
        "NodePort, Local, from internet to pod on primary ENI",
        "internet",
        "node-1:30020",
        PORTS,
        "a sees internet",
        "eth0",
    ),
    (
        "NodePort, Local, from internet to pod on secondary ENI",
        "internet",
        "node-1:30022",
        PORTS,
        "d sees internet",
        "eth0",
    ),
    ("NodePort, Local, from peered VPC to pod on secondary ENI", "peer", "node-1:30021", PORTS, "b sees peer", "eth0"),
    ("NodePort, Local, without a pod on this node", "client", "node-1:30023", PORTS, "nobody", "in eth0"),
    ("NodePort of own node from pod, to pod on same node", "b", "node-1:30012", PORTS, "d sees node-1", "-"),
    ("NodePort of own node from pod, to itself", "b", "node-1:30011", PORTS, "b sees node-1", "-"),
    (
        "NodePort of own node from pod on secondary ENI, to pod on other node",
        "b",
        "node-1:30014",
        PORTS,
        "f sees node-1-eth1",
        "eth1, node-2 eth1",
    ),
    (
        "NodePort of other node from pod on secondary ENI",
        "b",
        "node-2:30013",
        PORTS,
        "e sees node-2",
        "eth1, node-2 eth0",
    ),
    (
        "NodePort of other node from pod on secondary ENI, back to itself",
        "b",
        "node-2:30011",
        PORTS,
        "b sees node-2",
        "eth1, node-2 eth0",
    ),
    ("NodePort, Local, of own node from pod on another ENI", "b", "node-1:30022", PORTS, "d sees b", "-"),
    (
        "NodePort, Local, of other node from pod on secondary ENI",
        "b",
        "node-2:30023",
        PORTS,
        "f sees b",
        "eth1, node-2 eth0",
    ),
    ("NodePort of own node from host", "node-1", "node-1:30011", PORTS, "b sees node-1", "-"),
    (
        "NodePort of own node from host, to pod on other node",
        "node-1",
        "node-1:30014",
        PORTS,
        "f sees node-1",
        "eth0, node-2 eth1",
    ),
];

pub(super) const BALANCERS_AND_HOST_PORTS: &[Row] = &[
    ("load balancer, instance mode, from VPC", "client", "node-1:30012", PORTS, "d sees node-1", "eth0"),
    ("load balancer, instance mode, keeps client, Local", "internet", "node-1:30021", PORTS, "b sees internet", "eth0"),
    ("load balancer, IP mode, from VPC, primary ENI", "client", "a", ALL, "a sees client", "eth0"),
    ("load balancer, IP mode, from VPC, secondary ENI", "client", "b", ALL, "b sees client", "eth1"),
    ("load balancer, IP mode, keeps client, primary ENI", "internet", "balancer-a", PORTS, "a sees internet", "eth0"),
    ("load balancer, IP mode, keeps client, secondary ENI", "internet", "balancer-b", PORTS, "b sees internet", "eth1"),
    (
        "load balancer, IP mode, keeps client, another secondary ENI",
        "internet",
        "balancer-d",
        PORTS,
        "d sees internet",
        "eth2",
    ),
    ("host port from VPC to pod on primary ENI", "client", "node-1:8080", PORTS, "a sees client", "eth0"),
    ("host port from VPC to pod on secondary ENI", "client", "node-1:8081", PORTS, "b sees client", "eth0"),
    ("host port from internet to pod on secondary ENI", "internet", "node-1:8081", PORTS, "b sees internet", "eth0"),
    ("host port from host", "node-1", "node-1:8081", PORTS, "b sees node-1", "-"),
    ("host port from pod on same node", "c", "node-1:8081", PORTS, "b sees c", "-"),
    ("host port from its own pod (hairpin)", "b", "node-1:8081", PORTS, "b sees node-1", "-"),
    ("host port from other node", "node-2", "node-1:8081", PORTS, "b sees node-2", "eth0, node-2 eth0"),
    ("host port of other node's pod from pod", "f", "node-1:8081", PORTS, "b sees f", "eth0, node-2 eth1"),
];

pub(super) const ERRORS_AND_MTU: &[Row] = &[
    ("closed port of pod on other node", "b", "f", &[Unreachable], "f sees b", "eth1, node-2 eth1"),
    ("closed port of internet host", "b", "internet", &[Unreachable], "internet sees node-1", "eth0"),
    ("closed port of pod from VPC", "client", "b", &[Unreachable], "b sees client", "eth1"),
    ("closed port of pod from peered VPC", "peer", "b", &[Unreachable], "b sees peer", "eth1"),
    ("datagram to pod on other node", "b", "f", &[Fragments], "f sees b", "eth1, node-2 eth1"),
    ("datagram as ClusterIP to pod on other node", "b", "far-eth1", &[Fragments], "f sees b", "eth1, node-2 eth1"),
    ("datagram to NodePort, Local", "client", "node-1:30021", &[Fragments], "b sees client", "eth0"),
    ("time exceeded on own node", "c", "internet", &[Expired(1)], "node-1 says that the time is over", "-"),
    ("time exceeded on the way to pod", "client", "a", &[Expired(2)], "node-1 says that the time is over", "eth0"),
    ("path MTU, pod on primary ENI to internet", "a", "internet", &[LearnsMtu(1500)], "internet sees node-1", "eth0"),
    ("path MTU, pod on secondary ENI to internet", "b", "internet", &[LearnsMtu(1500)], "internet sees node-1", "eth0"),
    ("path MTU, NodePort from internet", "internet", "node-1:30022", &[TeachesMtu(1500)], "d sees internet", "eth0"),
    (
        "path MTU, load balancer in IP mode from internet",
        "internet",
        "balancer-d",
        &[TeachesMtu(1500)],
        "d sees internet",
        "eth2",
    ),
    (
        "path MTU, from VPC to pod with smaller MTU",
        "client",
        "small",
        &[LearnsMtu(1500)],
        "small sees client",
        "out eth0, eth1",
    ),
    ("path MTU, from pod on same node to pod with smaller MTU", "d", "small", &[LearnsMtu(1500)], "small sees d", "-"),
];

pub(super) const PROTECTION: &[Row] = &[
    ("pod with the address of a pod on the same ENI", "b", "f", &[As("c")], "nobody", "-"),
    ("pod with the address of a pod on another ENI", "b", "f", &[As("d")], "nobody", "-"),
    ("pod with the address of a pod on another node", "b", "d", &[As("e")], "nobody", "-"),
    ("pod with the node's address", "b", "f", &[As("node-1")], "nobody", "-"),
    ("pod with its ENI's own address", "b", "internet", &[As("node-1-eth1")], "nobody", "-"),
    ("pod with the address of a host in the VPC", "b", "node-1", &[As("client")], "nobody", "-"),
    ("pod with the address of the metadata service", "b", "d", &[As("imds")], "nobody", "-"),
    ("pod whose address another pod claims", "d", "f", &[WhileClaimed("d")], "f sees d", "eth2, node-2 eth1"),
    ("to pod whose address another pod claims", "client", "d", &[WhileClaimed("d")], "d sees client", "eth2"),
    ("host to pod whose address another pod claims", "node-1", "d", &[WhileClaimed("d")], "d sees node-1", "-"),
    (
        "pod while another pod claims the gateway",
        "d",
        "internet",
        &[WhileClaimed("gateway")],
        "internet sees node-1",
        "eth0",
    ),
    ("pod while another pod claims the node's address", "d", "node-1", &[WhileClaimed("node-1")], "node-1 sees d", "-"),
];

pub(super) const WITH_EXTERNAL_SNAT: &[Row] = &[
    ("pod on primary ENI to internet", "a", "internet", ALL, "internet sees nat-gateway", "eth0"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees nat-gateway", "eth1"),
    ("pod on secondary ENI to peered VPC", "b", "peer", ALL, "peer sees b", "eth1"),
    ("peered VPC to pod on secondary ENI", "peer", "b", ALL, "b sees peer", "eth1"),
    ("pod on secondary ENI to IMDS", "b", "imds", &[Tcp], "imds sees b", "eth1"),
    ("pod to pod, other node, secondary ENIs", "b", "f", ALL, "f sees b", "eth1, node-2 eth1"),
    (
        "NodePort, Local, from internet to pod on secondary ENI",
        "internet",
        "node-1:30021",
        PORTS,
        "b sees internet",
        "eth0",
    ),
    (
        "NodePort, Cluster, from internet to pod on secondary ENI",
        "internet",
        "node-1:30012",
        PORTS,
        "d sees node-1",
        "eth0",
    ),
    ("load balancer, IP mode, keeps client, secondary ENI", "internet", "balancer-b", PORTS, "b sees internet", "eth1"),
    ("pod on secondary ENI to container in a network of the node", "b", "container", ALL, "container sees b", "-"),
];

pub(super) const WITH_PEER_EXCLUDED: &[Row] = &[
    ("pod on primary ENI to peered VPC", "a", "peer", ALL, "peer sees a", "eth0"),
    ("pod on secondary ENI to peered VPC", "b", "peer", ALL, "peer sees b", "eth1"),
    ("peered VPC to pod on secondary ENI", "peer", "b", ALL, "b sees peer", "eth1"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees node-1", "eth0"),
    ("NodePort, Local, from peered VPC to pod on secondary ENI", "peer", "node-1:30021", PORTS, "b sees peer", "eth0"),
    ("datagram to internet", "b", "internet", &[Fragments], "internet sees node-1", "eth0"),
    ("container in a network of the node to internet", "container", "internet", ALL, "internet sees node-1", "eth0"),
];

pub(super) const WITH_SERVICES_BY_MAIN: &[Row] = &[
    ("pod on secondary ENI to container in a network of the node", "b", "container", ALL, "container sees b", "-"),
    ("container in a network of the node to pod on secondary ENI", "container", "b", ALL, "b sees container", "-"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees node-1", "eth0"),
];

pub(super) const EGRESS: &[Row] = &[
    ("pod on primary ENI to internet", "a", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on another secondary ENI to internet", "d", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on secondary ENI to host in the VPC", "b", "client", ALL, "client sees node-1", "eth0"),
    ("pod on secondary ENI to other node", "b", "node-2", ALL, "node-2 sees node-1", "eth0, node-2 eth0"),
    ("pod on primary ENI to peered VPC", "a", "peer", ALL, "peer sees node-1", "eth0"),
    ("pod on secondary ENI to peered VPC", "b", "peer", ALL, "peer sees node-1", "eth0"),
    ("pod on secondary ENI to IMDS", "b", "imds", &[Tcp], "imds sees node-1", "eth0"),
    ("closed port of internet host", "b", "internet", &[Unreachable], "internet sees node-1", "eth0"),
    ("path MTU, pod on secondary ENI to internet", "b", "internet", &[LearnsMtu(1500)], "internet sees node-1", "eth0"),
    ("pod with the address of a pod on another node", "b", "internet", &[As("f")], "nobody", "-"),
];

pub(super) const EGRESS_WITH_EXTERNAL_SNAT: &[Row] = &[
    ("pod on primary ENI to internet", "a", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on secondary ENI to host in the VPC", "b", "client", ALL, "client sees node-1", "eth0"),
];

/// Name, answer and way of what is otherwise in IPv6: a pod goes everywhere with its own address, by its ENI. Errors of the node come
/// by the ENI of what they are about.
pub(super) const OTHERWISE_IN_IPV6: &[(&str, &str, &str)] = &[
    ("pod on primary ENI to IMDS", "imds sees a", "eth0"),
    ("pod on secondary ENI to IMDS", "imds sees b", "eth1"),
    ("pod on primary ENI to internet", "internet sees a", "eth0"),
    ("pod on secondary ENI to internet", "internet sees b", "eth1"),
    ("pod on another secondary ENI to internet", "internet sees d", "eth2"),
    ("pod on primary ENI to peered VPC", "peer sees a", "eth0"),
    ("pod on secondary ENI to peered VPC", "peer sees b", "eth1"),
    ("closed port of internet host", "internet sees b", "eth1"),
    ("path MTU, pod on primary ENI to internet", "internet sees a", "eth0"),
    ("path MTU, pod on secondary ENI to internet", "internet sees b", "eth1"),
    ("path MTU, from VPC to pod with smaller MTU", "small sees client", "eth1"),
    ("pod while another pod claims the gateway", "internet sees d", "eth2"),
];
