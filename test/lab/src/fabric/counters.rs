//! Reads sets whose elements count packets.

use std::str::FromStr;

use serde_json::Value;

use crate::{LabError, Namespace};

/// Families of nf_tables: IPv4 and IPv6.
pub(crate) const FAMILIES: [&str; 2] = ["ip", "ip6"];

/// An element of a set, as its parts, with the packets it counted.
pub(crate) type Counted = (Vec<String>, u64);

/// Returns each element of a set.
pub(crate) fn read(namespace: &Namespace, family: &str, table: &str, set: &str) -> Result<Vec<Counted>, LabError> {
    let sets = parse(&namespace.run(&["nft", "-j", "list", "set", family, table, set])?)?;
    Ok(sets.into_iter().flat_map(|(_, elements)| elements).collect())
}

/// Returns all sets of a table by name, with their elements; all of them count.
pub(crate) fn read_all(
    namespace: &Namespace,
    family: &str,
    table: &str,
) -> Result<Vec<(String, Vec<Counted>)>, LabError> {
    parse(&namespace.run(&["nft", "-j", "list", "table", family, table])?)
}

/// The address at position `index` of an element's parts.
pub(crate) fn address<T: FromStr>(key: &[String], index: usize) -> Result<T, LabError> {
    let text = key.get(index).map_or("", String::as_str);
    text.parse().map_err(|_| LabError::Answer { what: "an element of an nft set", answer: key.join(" . ") })
}

fn parse(json: &str) -> Result<Vec<(String, Vec<Counted>)>, LabError> {
    let garbled = || LabError::Answer { what: "`nft -j list`", answer: json.to_owned() };
    let document: Value = serde_json::from_str(json).map_err(|_| garbled())?;
    let list = document["nftables"].as_array().ok_or_else(garbled)?;
    let of_set = |set: &Value| {
        let elements: &[Value] = set.get("elem").map_or(Some(&[][..]), |list| list.as_array().map(Vec::as_slice))?;
        Some((set["name"].as_str()?.to_owned(), elements.iter().map(entry).collect::<Option<_>>()?))
    };
    list.iter().filter_map(|part| part.get("set")).map(|set| of_set(set).ok_or_else(garbled)).collect()
}

fn entry(element: &Value) -> Option<Counted> {
    let element = element.get("elem")?;
    let packets = element["counter"]["packets"].as_u64()?;
    let key = match element["val"].get("concat") {
        Some(parts) => parts.as_array()?.iter().map(|part| Some(part.as_str()?.to_owned())).collect::<Option<_>>()?,
        None => vec![element["val"].as_str()?.to_owned()],
    };
    Some((key, packets))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn elements_are_read_with_their_packets() {
        let json = r#"{"nftables":[{"metainfo":{}},{"set":{"name":"x","elem":[
            {"elem":{"val":{"concat":["p1","10.0.0.9"]},"counter":{"packets":3,"bytes":252}}},
            {"elem":{"val":"10.0.0.7","counter":{"packets":1,"bytes":84}}}]}}]}"#;
        let elements = vec![(vec!["p1".to_owned(), "10.0.0.9".to_owned()], 3), (vec!["10.0.0.7".to_owned()], 1)];
        assert_eq!(parse(json).unwrap(), [("x".to_owned(), elements)]);
        assert_eq!(parse(r#"{"nftables":[{"set":{"name":"x"}}]}"#).unwrap(), [("x".to_owned(), vec![])]);
        assert!(parse("{}").is_err());
    }
}
