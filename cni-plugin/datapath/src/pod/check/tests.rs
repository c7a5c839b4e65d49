use std::net::Ipv4Addr;

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 7);
const MARK: EniMark = EniMark::of_device(1);

fn key() -> PodKey {
    PodKey::new("pods", "c1", "eth0").unwrap()
}

fn expected(key: &PodKey) -> ExpectedPod<'_> {
    ExpectedPod {
        key,
        netns: Path::new("/run/netns/x"),
        addresses: ADDRESS.into(),
        eni_mark: Some(MARK),
        default_route: true,
        pod: ExpectedEnd { name: None, mac: Some(MacAddress([2; 6])), mtu: Some(9001) },
        host: ExpectedEnd { name: Some("eni1"), mac: Some(MacAddress([4; 6])), mtu: Some(9001) },
    }
}

fn link(index: u32, peer: u32, name: &str, mac: u8) -> Link {
    let (name, mac) = (name.to_owned(), Some(MacAddress([mac; 6])));
    Link { index, name, up: true, mac, mtu: 9001, peer: Some(peer), kind: "veth".to_owned(), ..Link::default() }
}

fn leads_to(links: &[u32]) -> BTreeMap<IpAddr, Vec<u32>> {
    BTreeMap::from([(ADDRESS.into(), links.to_vec())])
}

fn marks() -> BTreeMap<IpAddr, EniMark> {
    BTreeMap::from([(ADDRESS.into(), MARK)])
}

/// All as it ought to be: the pod's end is link 2 there, the host's link 7.
fn well() -> Seen {
    let routes = plan::routes(2, ADDRESS.into(), TABLE_MAIN);
    Seen {
        inner: Some(link(2, 7, "eth0", 2)),
        addresses: vec![ADDRESS.into(), Ipv4Addr::LOCALHOST.into()],
        neighbours: vec![Neighbour { link: 2, address: POD_GATEWAY.into(), mac: MacAddress([4; 6]) }],
        inner_routes: routes
            .into_iter()
            .filter_map(|step| if let Op::Add(Object::Route(route)) = step { Some(route) } else { None })
            .collect(),
        inner_rules: Vec::new(),
        outer: Some(link(7, 2, "eni1", 4)),
        leads_to: leads_to(&[7]),
        marks: Some(marks()),
    }
}

#[test]
fn nothing_differs_when_all_is_as_reported() {
    assert_eq!(differences(&expected(&key()), &well()), []);
}

#[test]
fn each_thing_that_is_not_as_reported_is_told_with_what_was_wanted_and_found() {
    type Change = fn(&mut Seen);
    #[rustfmt::skip]
    let table: [(Change, &str); 17] = [
        (|s| s.inner.as_mut().unwrap().mtu = 1500,                      "MTU of eth0 in the pod: wanted 9001, found 1500"),
        (|s| s.inner.as_mut().unwrap().up = false,                      "eth0 in the pod: wanted up, found down"),
        (|s| s.inner.as_mut().unwrap().mac = Some(MacAddress([6; 6])),  "hardware address of eth0 in the pod: wanted 02:02:02:02:02:02, found 06:06:06:06:06:06"),
        (|s| s.addresses = vec![Ipv4Addr::LOCALHOST.into()],                   "address of eth0: wanted 10.0.1.7, found 127.0.0.1"),
        (|s| s.addresses.clear(),                                       "address of eth0: wanted 10.0.1.7, found none"),
        (|s| s.neighbours.clear(),                                      "neighbour 169.254.1.1 on eth0: wanted 04:04:04:04:04:04, found none"),
        (|s| s.inner_routes.truncate(1),                                "route to 0.0.0.0/0 in the pod: wanted route 0.0.0.0/0 via 169.254.1.1 on link 2 in table 254 (protocol 142), found none"),
        (|s| s.inner_routes = vec![s.inner_routes[1]],                       "route to 169.254.1.1/32 in the pod: wanted route 169.254.1.1/32 on link 2 in table 254 (protocol 142), found none"),
        (|s| s.outer = None,                                            "host interface: wanted eni1, found none"),
        (|s| s.outer.as_mut().unwrap().mtu = 1500,                      "MTU of host interface eni1: wanted 9001, found 1500"),
        (|s| s.outer.as_mut().unwrap().up = false,                      "host interface eni1: wanted up, found down"),
        (|s| "b".clone_into(&mut s.outer.as_mut().unwrap().name),       "name of host interface b: wanted eni1, found b"),
        (|s| s.inner.as_mut().unwrap().peer = Some(8),                  "other end of eth0: wanted eni1 (index 7), found index 8"),
        (|s| s.leads_to = leads_to(&[]),                                       "route to 10.0.1.7 in table 20000: wanted over eni1 (index 7), found none"),
        (|s| s.leads_to = leads_to(&[9]),                                  "route to 10.0.1.7 in table 20000: wanted over eni1 (index 7), found over index 9"),
        (|s| s.marks = Some(BTreeMap::new()),                                      "map element of 10.0.1.7: wanted eni_2, found none"),
        (|s| s.marks = None,                                             "map element of 10.0.1.7: wanted eni_2, found no such map"),
    ];
    for (change, wanted) in table {
        let mut seen = well();
        change(&mut seen);
        let found: Vec<_> = differences(&expected(&key()), &seen).iter().map(ToString::to_string).collect();
        assert_eq!(found, [wanted]);
    }
}

#[test]
fn without_the_interface_only_the_host_side_is_compared() {
    let mut seen = well();
    (seen.inner, seen.addresses, seen.inner_routes) = (None, Vec::new(), Vec::new());
    let found: Vec<_> = differences(&expected(&key()), &seen).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["interface eth0 in the pod: wanted a link, found none"]);
}

#[test]
fn a_pod_of_the_primary_interface_has_no_element() {
    let key = key();
    let primary = ExpectedPod { eni_mark: Some(EniMark::PRIMARY), ..expected(&key) };
    for (marks, differs) in [(Some(BTreeMap::new()), false), (None, false), (Some(marks()), true)] {
        let found = differences(&primary, &Seen { marks, ..well() });
        assert_eq!(!found.is_empty(), differs, "{found:?}");
    }
}

#[test]
fn of_a_pod_that_was_taken_over_nobody_reported_the_way_out() {
    let key = key();
    let adopted = ExpectedPod { default_route: false, ..expected(&key) };
    let mut seen = well();
    let outer = seen.outer.as_mut().unwrap();
    outer.alias = LinkAlias {
        key: key.clone(),
        addresses: ADDRESS.into(),
        eni_mark: MARK,
        adopted_mac: Some([4; 6]),
        name: None,
    }
    .to_string();
    assert_eq!(differences(&adopted, &seen), []);
    seen.inner_routes.clear();
    assert_eq!(differences(&adopted, &seen).len(), 2, "it is looked for all the same");
}

#[test]
fn an_interface_that_is_not_the_first_has_its_routes_in_a_table_of_its_own() {
    let key = key();
    let second = ExpectedPod { default_route: false, ..expected(&key) };
    assert_eq!(differences(&second, &well()).len(), 3, "two routes and a rule");
    let mut seen = well();
    (seen.inner_routes, seen.inner_rules) = (Vec::new(), Vec::new());
    for step in plan::routes(2, ADDRESS.into(), plan::own_table(2)) {
        match step {
            Op::Add(Object::Route(route)) => seen.inner_routes.push(route),
            Op::Add(Object::Rule(rule)) => seen.inner_rules.push(rule),
            Op::Add(_) | Op::Remove(_) | Op::Set { .. } => {}
        }
    }
    assert_eq!(differences(&second, &seen), []);
}
