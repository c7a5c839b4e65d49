//! Reads sets whose elements count packets.

use std::str::FromStr;

use serde_json::Value;

use crate::{LabError, Namespace};

/// Families of nf_tables: IPv4 and IPv6.
pub(crate) const FAMILIES: [&str; 2] = ["ip", "ip6"];

/// Returns each element of a set, as its parts, with the packets it counted.
pub(crate) fn read(
    namespace: &Namespace,
    family: &str,
    table: &str,
    set: &str,
) -> Result<Vec<(Vec<String>, u64)>, LabError> {
    parse(&namespace.run(&["nft", "-j", "list", "set", family, table, set])?)
}

/// The address at position `index` of an element's parts.
pub(crate) fn address<T: FromStr>(key: &[String], index: usize) -> Result<T, LabError> {
    let text = key.get(index).map_or("", String::as_str);
    text.parse().map_err(|_| LabError::Answer { what: "an element of an nft set", answer: key.join(" . ") })
}

fn parse(json: &str) -> Result<Vec<(Vec<String>, u64)>, LabError> {
    let garbled = || LabError::Answer { what: "`nft -j list set`", answer: json.to_owned() };
    let document: Value = serde_json::from_str(json).map_err(|_| garbled())?;
    let set = document["nftables"].as_array().and_then(|list| list.iter().find_map(|entry| entry.get("set")));
    let Some(elements) = set.ok_or_else(garbled)?.get("elem") else {
        return Ok(Vec::new());
    };
    elements.as_array().ok_or_else(garbled)?.iter().map(|element| entry(element).ok_or_else(garbled)).collect()
}

fn entry(element: &Value) -> Option<(Vec<String>, u64)> {
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
        assert_eq!(
            parse(json).unwrap(),
            [(vec!["p1".to_owned(), "10.0.0.9".to_owned()], 3), (vec!["10.0.0.7".to_owned()], 1)]
        );
        assert_eq!(parse(r#"{"nftables":[{"set":{"name":"x"}}]}"#).unwrap(), []);
        assert!(parse("{}").is_err());
    }
}
