//! Filters of the Describe calls: values of one filter are alternatives, filters add up, `*` and `?` are wildcards.

use crate::{ApiError, world::model::Tags};

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Which field, as `attachment.instance-id` or `tag:Name`.
    pub name: String,
    /// The alternatives.
    pub values: Vec<String>,
}

impl Filter {
    /// A filter with one value.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), values: vec![value.to_owned()] }
    }
}

/// A thing that can be filtered.
pub(crate) trait Filterable {
    /// The values of a field. `None`: there is no such field.
    fn field(&self, name: &str) -> Option<Vec<String>>;

    /// Its tags.
    fn tags(&self) -> &Tags;
}

/// Whether `thing` passes all filters.
pub(crate) fn passes(thing: &impl Filterable, filters: &[Filter]) -> Result<bool, ApiError> {
    for filter in filters {
        let values = if let Some(key) = filter.name.strip_prefix("tag:") {
            thing.tags().get(key).cloned().into_iter().collect()
        } else if filter.name == "tag-key" {
            thing.tags().keys().cloned().collect()
        } else {
            thing
                .field(&filter.name)
                .ok_or_else(|| ApiError::invalid_value(format!("The filter '{}' is invalid", filter.name)))?
        };
        if !values.iter().any(|value| filter.values.iter().any(|pattern| matches(pattern, value))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The exact values of a filter, when it has no wildcards: a way to find things without looking at all of them.
pub(crate) fn exact<'a>(filters: &'a [Filter], name: &str) -> Option<&'a [String]> {
    let filter = filters.iter().find(|filter| filter.name == name)?;
    filter.values.iter().all(|value| !value.contains(['*', '?', '\\'])).then_some(filter.values.as_slice())
}

/// Whether `text` matches `pattern`, in which `*` stands for anything, `?` for one character, and `\` takes the next literally.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    if !pattern.contains(['*', '?', '\\']) {
        return pattern == text;
    }
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') => (t < text.len()).then_some(1),
            Some('\\') => (pattern.get(p + 1).is_some() && pattern.get(p + 1) == text.get(t)).then_some(2),
            Some(literal) => (text.get(t) == Some(literal)).then_some(1),
            None if t == text.len() => return true,
            None => None,
        };
        match (step, star) {
            (Some(step), _) => (p, t) = (p + step, t + 1),
            (None, Some((after, from))) if from < text.len() => {
                (p, t) = (after, from + 1);
                star = Some((after, from + 1));
            }
            (None, _) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_a_question_mark_for_one() {
        #[rustfmt::skip]
        let table = [
            ("abc", "abc", true), ("abc", "abcd", false), ("a*", "a", true), ("a*c", "abbc", true),
            ("a*c", "abbcd", false), ("*b*", "abc", true), ("a?c", "abc", true), ("a?c", "ac", false),
            ("*", "", true), ("?", "", false), ("a\\*", "a*", true), ("a\\*", "ab", false), ("**x", "yyx", true),
            ("*ab", "aab", true), ("a*b*c", "a-b-b-c", true),
        ];
        for (pattern, text, wanted) in table {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
