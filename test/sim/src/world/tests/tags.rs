use super::Fixture;
use crate::{
    action::{CreateTags, DeleteTags, DescribeTags},
    world::{Filter, model::Tags},
};

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn tags_are_set_overwritten_and_removed() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(0);
    let resources = vec![eni.to_string(), cloud.subnet.to_string()];
    for new in [tags(&[("a", "1"), ("b", "2")]), tags(&[("a", "3")])] {
        cloud.call(&CreateTags { resources: resources.clone(), tags: new }).unwrap();
    }
    assert_eq!(cloud.eni(&eni).tags, tags(&[("a", "3"), ("b", "2")]));
    let filters = vec![Filter::new("resource-id", eni.as_str()), Filter::new("key", "a")];
    let found = cloud.call(&DescribeTags { filters, ..Default::default() }).unwrap().items;
    assert_eq!((found[0].kind, found[0].value.as_str()), ("network-interface", "3"));
    let delete = [("a".to_owned(), None), ("b".to_owned(), Some("other".to_owned()))];
    cloud.call(&DeleteTags { resources, tags: delete.to_vec() }).unwrap();
    assert_eq!(cloud.eni(&eni).tags, tags(&[("b", "2")]));
}

#[test]
fn tags_of_one_call_are_set_on_all_things_or_none() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(0);
    let resources = vec![eni.to_string(), "eni-00000000000000000".to_owned()];
    let create = CreateTags { resources, tags: tags(&[("a", "1")]) };
    assert_eq!(cloud.refusal(&create), "InvalidNetworkInterfaceID.NotFound");
    assert_eq!(cloud.eni(&eni).tags, Tags::new());
}

#[test]
fn a_thing_has_at_most_fifty_tags_and_none_of_aws() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let resources = vec![cloud.create(0).to_string()];
    let fifty: Tags = (0..50).map(|n| (n.to_string(), String::new())).collect();
    cloud.call(&CreateTags { resources: resources.clone(), tags: fifty.clone() }).unwrap();
    cloud.call(&CreateTags { resources: resources.clone(), tags: fifty }).unwrap();
    let more = CreateTags { resources: resources.clone(), tags: tags(&[("x", "")]) };
    assert_eq!(cloud.refusal(&more), "TagLimitExceeded");
    let reserved = CreateTags { resources, tags: tags(&[("aws:x", "")]) };
    assert_eq!(cloud.refusal(&reserved), "InvalidParameterValue");
}
