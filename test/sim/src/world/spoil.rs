//! Answers that come, but cannot be right: what a client must survive and report.

use std::ops::Range;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// What is wrong with the text of an answer. The call itself has had its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoil {
    /// Something else comes instead: nothing, a page for people, another format.
    Body(String),
    /// The text ends after this share of it, in thousandths.
    Cut(u16),
    /// All elements of this name are missing.
    Without(String),
    /// All elements of this name contain this.
    With(String, String),
    /// One of these to one place of the text, drawn from this seed.
    Any(u64),
}

/// What no field should ever contain, and what every field may as well contain.
const ODD_VALUES: [&str; 9] =
    ["", "many", "-1", "99999999999", "10.0.0.256", "levitating", "eni-0123456789abcdef0", "10.0.0.4", "<item/>"];
const ODD_BODIES: [&str; 4] =
    ["", "<html><body>502 Bad Gateway</body></html>", "{\"message\":\"no\"}", "<?xml version=\"1.0\"?><Other/>"];

impl Spoil {
    /// Returns the text as it arrives.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        match self {
            Self::Body(body) => body.clone(),
            Self::Cut(share) => beginning(text, (*share).into()),
            Self::Without(name) => replaced(text, &elements(text, name), |_| String::new()),
            Self::With(name, value) => replaced(text, &elements(text, name), |_| format!("<{name}>{value}</{name}>")),
            Self::Any(seed) => any(text, &mut ChaCha8Rng::seed_from_u64(*seed)),
        }
    }
}

fn beginning(text: &str, thousandths: usize) -> String {
    text.chars().take(text.chars().count() * thousandths / 1000).collect()
}

fn any(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut draw = |most: usize| usize::try_from(rng.next_u32()).unwrap_or(0).checked_rem(most).unwrap_or(0);
    let leaves = leaves(text);
    let leaf = leaves.get(draw(leaves.len())).cloned().unwrap_or(0..0);
    match draw(4) {
        0 => ODD_BODIES[draw(ODD_BODIES.len())].to_owned(),
        1 => beginning(text, draw(1000)),
        2 => replaced(text, &[leaf], |_| String::new()),
        _ => {
            let value = ODD_VALUES[draw(ODD_VALUES.len())];
            replaced(text, &[leaf], |element| {
                let (open, close) = (element.find('>').map_or(0, |at| at + 1), element.rfind('<').unwrap_or(0));
                format!("{}{value}{}", &element[..open], &element[close..])
            })
        }
    }
}

/// Where the elements of this name are. Those within one of the same name belong to it.
fn elements(text: &str, name: &str) -> Vec<Range<usize>> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(start) = text[from..].find(&open).map(|at| from + at)
        && let Some(length) = text[start..].find(&close)
    {
        from = start + length + close.len();
        found.push(start..from);
    }
    found
}

/// Where the elements are that have nothing but text inside.
fn leaves(text: &str) -> Vec<Range<usize>> {
    let tags: Vec<_> = text.match_indices('<').map(|(at, _)| at).collect();
    let leaf = |pair: &[usize]| {
        let (open, close) = (pair[0], pair[1]);
        let end = close + text[close..].find('>')? + 1;
        let name = text[open + 1..close].split('>').next()?;
        (text[close..end] == format!("</{name}>")).then_some(open..end)
    };
    tags.windows(2).filter_map(leaf).collect()
}

/// The text with other things at these places, which are in order.
fn replaced(text: &str, places: &[Range<usize>], other: impl Fn(&str) -> String) -> String {
    let (mut made, mut from) = (String::new(), 0);
    for place in places {
        made.push_str(&text[from..place.start]);
        made.push_str(&other(&text[place.clone()]));
        from = place.end;
    }
    made + &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "<?xml?>\n<R xmlns=\"x\"><id>1</id><set><item><id>2</id><n>3</n></item></set></R>";

    #[test]
    fn each_way_does_what_it_says() {
        #[rustfmt::skip]
        let table = [
            (Spoil::Body("no".into()),                "no"),
            (Spoil::Cut(0),                           ""),
            (Spoil::Cut(1000),                        ANSWER),
            (Spoil::Cut(333),                         "<?xml?>\n<R xmlns=\"x\"><id>"),
            (Spoil::Without("id".into()),             "<?xml?>\n<R xmlns=\"x\"><set><item><n>3</n></item></set></R>"),
            (Spoil::Without("set".into()),            "<?xml?>\n<R xmlns=\"x\"><id>1</id></R>"),
            (Spoil::Without("other".into()),          ANSWER),
            (Spoil::With("n".into(), "many".into()),  "<?xml?>\n<R xmlns=\"x\"><id>1</id><set><item><id>2</id><n>many</n></item></set></R>"),
        ];
        for (spoil, wanted) in table {
            assert_eq!(spoil.apply(ANSWER), wanted, "{spoil:?}");
        }
        let leaves: Vec<_> = leaves(ANSWER).into_iter().map(|place| &ANSWER[place]).collect();
        assert_eq!(leaves, ["<id>1</id>", "<id>2</id>", "<n>3</n>"]);
    }

    #[test]
    fn anything_can_be_spoilt_in_many_ways_and_again_in_the_same_way() {
        let spoilt = |seed| Spoil::Any(seed).apply(ANSWER);
        let ways: std::collections::BTreeSet<_> = (0..500).map(spoilt).collect();
        assert!(ways.len() > 50, "{}", ways.len());
        assert_eq!(spoilt(7), spoilt(7));
        for text in ["", "<", "><", "<a>", "</a><a>", "\u{fffd}<a>ä</a>"] {
            (0..100).for_each(|seed| drop(Spoil::Any(seed).apply(text)));
        }
    }
}
