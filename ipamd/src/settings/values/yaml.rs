//! YAML as Helm takes it, into a tree: aliases and merge keys are followed, a name stands once, and what is plain and reads `yes` or `on`
//! is true. Depth and size are bounded, because an alias can repeat what repeats itself.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Most lists and maps inside each other, and most things in all. Values files have some hundreds.
const DEEPEST: usize = 64;
const MOST: usize = 100_000;

/// Reads one document; an empty one is null.
///
/// # Errors
/// In words, with the line.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut tree = Tree::default();
    let mut is_over = false;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let line = span.start.line();
        let here = |why: &str| format!("line {line}: {why}");
        match event {
            Event::DocumentStart(_) if is_over => return Err(here("a values file is one document")),
            Event::DocumentEnd => is_over = true,
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
                let value = if is_text { Value::String(text.to_string()) } else { plain(&text) };
                tree.put(value, Some(&text), anchor).map_err(|why| here(&why))?;
            }
            Event::SequenceStart(anchor, _) => tree.open(Open::List(Vec::new()), anchor).map_err(|why| here(&why))?,
            Event::MappingStart(anchor, _) => {
                tree.open(Open::Map(Map::new(), None, Vec::new()), anchor).map_err(|why| here(&why))?;
            }
            Event::SequenceEnd | Event::MappingEnd => tree.close().map_err(|why| here(&why))?,
            Event::Alias(anchor) => {
                let value = tree.anchors.get(&anchor).cloned().ok_or_else(|| here("an alias of nothing"))?;
                tree.size += size(&value);
                tree.put(value, None, 0).map_err(|why| here(&why))?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
        }
    }
    Ok(tree.whole.unwrap_or_default())
}

/// A list or a map that has not ended.
enum Open {
    List(Vec<Value>),
    /// With the name that waits for its value, and what merge keys bring.
    Map(Map<String, Value>, Option<String>, Vec<Value>),
}

#[derive(Default)]
struct Tree {
    /// From the outermost to the innermost, each with its anchor.
    open: Vec<(Open, usize)>,
    anchors: BTreeMap<usize, Value>,
    size: usize,
    whole: Option<Value>,
}

impl Tree {
    fn open(&mut self, open: Open, anchor: usize) -> Result<(), String> {
        self.open.push((open, anchor));
        if self.open.len() > DEEPEST { Err(format!("more than {DEEPEST} levels")) } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), String> {
        match self.open.pop() {
            Some((Open::List(list), anchor)) => self.put(Value::Array(list), None, anchor),
            Some((Open::Map(mut map, _, merged), anchor)) => {
                merged.into_iter().for_each(|value| merge(&mut map, value));
                self.put(Value::Object(map), None, anchor)
            }
            None => Ok(()),
        }
    }

    /// Puts a value where the next one belongs. `name`: its text, if it can be a name.
    fn put(&mut self, value: Value, name: Option<&str>, anchor: usize) -> Result<(), String> {
        self.size += 1;
        if self.size > MOST {
            return Err(format!("more than {MOST} values"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.whole = Some(value),
            Some((Open::List(list), _)) => list.push(value),
            Some((Open::Map(map, waiting, merged), _)) => match waiting.take() {
                None => *waiting = Some(name.ok_or("a name has to be a text")?.to_owned()),
                Some(name) if name == "<<" => merged.push(value),
                Some(name) => {
                    if map.contains_key(&name) {
                        return Err(format!("{name} stands there twice"));
                    }
                    map.insert(name, value);
                }
            },
        }
        Ok(())
    }
}

/// Adds what a merge key brings; what stands there already goes before it.
fn merge(map: &mut Map<String, Value>, value: Value) {
    match value {
        Value::Object(more) => more.into_iter().for_each(|(name, value)| {
            map.entry(name).or_insert(value);
        }),
        Value::Array(list) => list.into_iter().for_each(|value| merge(map, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(size).sum::<usize>() + 1,
        Value::Object(map) => map.values().map(size).sum::<usize>() + 1,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

/// What a text without quotes means. Source: YAML 1.1, types null, bool, int and float, which Helm follows.
fn plain(text: &str) -> Value {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "" | "~" | "null" => return Value::Null,
        "true" | "yes" | "on" | "y" => return true.into(),
        "false" | "no" | "off" | "n" => return false.into(),
        _ => {}
    }
    if let Some(number) = lower.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
        return number.into();
    }
    let is_number =
        text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && text.contains(char::is_numeric);
    match (text.parse::<i64>(), text.parse::<f64>().ok().and_then(serde_json::Number::from_f64)) {
        (Ok(whole), _) if is_number => whole.into(),
        (_, Some(number)) if is_number => Value::Number(number),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_without_quotes_mean_what_helm_takes_them_for() {
        let text = "a: yes\nb: 'yes'\nc: 5\nd: '5'\ne: 0x80\nf: ~\ng: 10%\nh: 1.5\ni: !!str 7\nj: -3\nk: v1.23\nl:\nm: 10.0.0.0/8\nn: inf\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({ "a": true, "b": "yes", "c": 5, "d": "5", "e": 128, "f": null, "g": "10%", "h": 1.5, "i": "7", "j": -3,
                "k": "v1.23", "l": null, "m": "10.0.0.0/8", "n": "inf" })
        );
    }

    #[test]
    fn aliases_and_merge_keys_are_followed() {
        let text = "x: &x { a: 1, b: 2 }\ny: *x\nz: { <<: *x, a: 3 }\nlist:\n  - *x\n";
        let x = json!({ "a": 1, "b": 2 });
        assert_eq!(parse(text).unwrap(), json!({ "x": x, "y": x, "z": { "a": 3, "b": 2 }, "list": [x] }));
    }

    #[test]
    fn what_is_too_much_or_stands_twice_is_refused_with_its_line() {
        for (text, why) in [
            ("a: 1\nb: 2\na: 3\n", "line 3: a stands there twice"),
            ("a: *b\n", "unknown"),
            ("a: 1\n---\nb: 2\n", "one document"),
            ("[a, b]: c\n", "line 1: a name has to be a text"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(why), "{text:?}: {said}");
        }
        assert!(parse(&"[".repeat(10_000)).is_err());
        let bomb: String = (0..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
            let repeated = vec![format!("*a{n}"); 9].join(",");
            format!("{text}a{}: &a{} [{repeated}]\n", n + 1, n + 1)
        });
        assert!(parse(&bomb).unwrap_err().contains("values"));
    }
}
