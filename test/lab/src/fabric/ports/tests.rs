use ipam_core::ports::InterfaceKind;

use super::*;

fn eni(id: &str, index: u8, last_octets: &[u8]) -> Interface {
    let addresses: Vec<Ipv4Addr> = last_octets.iter().map(|&octet| Ipv4Addr::new(10, 0, 0, octet)).collect();
    Interface {
        id: id.parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        primary: addresses[0],
        secondary: addresses[1..].to_vec(),
        prefixes: vec![],
        prefixes6: vec![],
        kind: InterfaceKind::Plain,
        security_groups: vec![],
        attachment: Some(Attachment {
            id: "eni-attach-1".parse().unwrap(),
            instance: "i-1".parse().unwrap(),
            device_index: index,
            card: 0,
            attached: true,
            delete_on_termination: true,
        }),
        tags: BTreeMap::new(),
    }
}

fn around() -> Surroundings {
    Surroundings {
        nodes: ["i-1".parse().unwrap()].into(),
        subnets: [("subnet-1".parse().unwrap(), Cidr4 { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 24 })].into(),
        ..Surroundings::default()
    }
}

fn owned(ports: &Ports, eni: &str) -> Vec<u8> {
    ports[&eni.parse().unwrap()].owns.iter().map(|address| address.octets()[3]).collect()
}

#[test]
fn an_attached_eni_has_a_port_with_its_addresses() {
    let (ports, odd) = arrange(&Ports::new(), &[eni("eni-a", 1, &[5, 6])], &around(), &mut 0);

    let port = &ports[&"eni-a".parse().unwrap()];
    assert_eq!((port.name.as_str(), port.link.as_str(), port.first), ("p1", "eth1", false));
    assert_eq!(owned(&ports, "eni-a"), [5, 6]);
    assert_eq!(odd, [""; 0]);
}

#[test]
fn an_eni_that_is_attaching_or_elsewhere_has_none() {
    let mut attaching = eni("eni-a", 1, &[5]);
    attaching.attachment.as_mut().unwrap().attached = false;
    let mut detached = eni("eni-b", 1, &[6]);
    detached.attachment = None;
    let mut elsewhere = eni("eni-c", 1, &[7]);
    elsewhere.attachment.as_mut().unwrap().instance = "i-2".parse().unwrap();

    let (ports, _) = arrange(&Ports::new(), &[attaching, detached, elsewhere], &around(), &mut 0);
    assert!(ports.is_empty());
}

#[test]
fn an_address_stays_with_its_first_owner_until_that_one_gives_it_up() {
    let mut number = 0;
    let (first, _) = arrange(&Ports::new(), &[eni("eni-b", 1, &[5, 9])], &around(), &mut number);
    let (second, odd) = arrange(&first, &[eni("eni-a", 2, &[6, 9]), eni("eni-b", 1, &[5, 9])], &around(), &mut number);

    assert_eq!((owned(&second, "eni-a"), owned(&second, "eni-b")), (vec![6], vec![5, 9]));
    assert_eq!(odd, ["eni-a: 10.0.0.9 already belongs to eni-b"]);

    let (third, odd) = arrange(&second, &[eni("eni-a", 2, &[6, 9]), eni("eni-b", 1, &[5])], &around(), &mut number);
    assert_eq!((owned(&third, "eni-a"), owned(&third, "eni-b")), (vec![6, 9], vec![5]));
    assert_eq!(odd, [""; 0]);
}

#[test]
fn the_router_and_a_taken_slot_are_not_given_away() {
    let (ports, odd) = arrange(&Ports::new(), &[eni("eni-a", 1, &[5, 1]), eni("eni-b", 1, &[6])], &around(), &mut 0);

    assert_eq!(owned(&ports, "eni-a"), [5]);
    assert_eq!(odd, ["eni-b: eth1 of i-1 is taken", "eni-a: 10.0.0.1 is the router's"]);
}
