use super::Fixture;
use crate::{
    action::{CreateNetworkInterface, DescribeNetworkInterfaces},
    world::{Filter, Paging},
};

fn filter(name: &str, values: &[&str]) -> Filter {
    Filter { name: name.into(), values: values.iter().map(|value| (*value).to_owned()).collect() }
}

#[test]
fn values_are_alternatives_and_filters_add_up() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let instance = cloud.run("m5.xlarge").to_string();
    for (description, owner) in [("pool one", "a"), ("pool two", "b"), ("other", "a")] {
        let tags = [("owner".to_owned(), owner.to_owned())].into();
        cloud.call(&CreateNetworkInterface { description: description.into(), tags, ..cloud.new_eni() }).unwrap();
    }
    let id = cloud.world.enis().find(|eni| eni.description == "other").unwrap().id.clone();
    cloud.attach(&id, &instance.parse().unwrap(), 1).unwrap();
    let (mac, second) = (cloud.eni(&id).mac.to_string(), cloud.at(1000).eni(&id).primary.unwrap().to_string());
    let attachment = cloud.eni(&id).attachment.unwrap().id.to_string();
    let subnet = cloud.subnet.to_string();
    #[rustfmt::skip]
    let table: &[(&[Filter], usize)] = &[
        (&[],                                                                            4),
        (&[filter("description", &["pool*"])],                                           2),
        (&[filter("description", &["pool ?wo"])],                                        1),
        (&[filter("description", &["pool one", "other"])],                               2),
        (&[filter("description", &["pool*"]), filter("tag:owner", &["a"])],              1),
        (&[filter("tag-key", &["owner"])],                                               3),
        (&[filter("tag:owner", &["a", "b"])],                                            3),
        (&[filter("tag:nobody", &["*"])],                                                0),
        (&[filter("attachment.instance-id", &[&instance])],                              2),
        (&[filter("attachment.instance-id", &["i-*"])],                                  2),
        (&[filter("attachment.instance-id", &[&instance]), filter("attachment.device-index", &["1"])], 1),
        (&[filter("attachment.instance-id", &["i-00000000000000000"])],                  0),
        (&[filter("attachment.attachment-id", &[&attachment])],                          1),
        (&[filter("attachment.status", &["attached"])],                                  2),
        (&[filter("status", &["available"])],                                            2),
        (&[filter("mac-address", &[&mac])],                                              1),
        (&[filter("private-ip-address", &[&second])],                                    1),
        (&[filter("subnet-id", &[&subnet])],                                             4),
        (&[filter("vpc-id", &["vpc-00000000000000000"])],                                0),
        (&[filter("network-interface-id", &[id.as_str()])],                              1),
    ];
    for (filters, wanted) in table {
        let describe = DescribeNetworkInterfaces { filters: filters.to_vec(), ..Default::default() };
        assert_eq!(cloud.call(&describe).unwrap().items.len(), *wanted, "{filters:?}");
    }
    let unknown = DescribeNetworkInterfaces { filters: vec![filter("colour", &["red"])], ..Default::default() };
    assert_eq!(cloud.refusal(&unknown), "InvalidParameterValue");
}

#[test]
fn every_address_finds_its_interface() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(3);
    for address in cloud.eni(&eni).addresses() {
        let filters = vec![filter("private-ip-address", &[&address.to_string()])];
        let found = cloud.call(&DescribeNetworkInterfaces { filters, ..Default::default() }).unwrap().items;
        assert_eq!(found[0].id, eni);
    }
}

#[test]
fn pages_cover_everything_once() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    (0..12).for_each(|_| drop(cloud.create(0)));
    let (mut seen, mut sizes, mut next_token) = (Vec::new(), Vec::new(), None);
    loop {
        let paging = Paging { max_results: Some(5), next_token };
        let page = cloud.call(&DescribeNetworkInterfaces { paging, ..Default::default() }).unwrap();
        sizes.push(page.items.len());
        seen.extend(page.items.into_iter().map(|eni| eni.id));
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [5, 5, 2]);
    seen.dedup();
    assert_eq!(seen.len(), 12);
}

#[test]
fn a_page_has_its_limits() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(0).to_string();
    let paging = |max| Paging { max_results: Some(max), next_token: None };
    for (ids, paging, code) in [
        (vec![], paging(4), "InvalidParameterValue"),
        (vec![], paging(1001), "InvalidParameterValue"),
        (vec![eni], paging(5), "InvalidParameterCombination"),
        (vec![], Paging { max_results: None, next_token: Some("x".into()) }, "InvalidNextToken"),
        (vec!["eni-00000000000000000".to_owned()], Paging::default(), "InvalidNetworkInterfaceID.NotFound"),
    ] {
        assert_eq!(cloud.refusal(&DescribeNetworkInterfaces { ids, paging, filters: vec![] }), code);
    }
}
