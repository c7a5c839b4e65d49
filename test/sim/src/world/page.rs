//! Pages of the Describe calls.

use std::fmt::Display;

use crate::ApiError;

/// What part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paging {
    /// At most this many. Absent: all.
    pub max_results: Option<u32>,
    /// Where the last page ended.
    pub next_token: Option<String>,
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The things, sorted by id.
    pub items: Vec<T>,
    /// Where the next page begins. Absent: this was the last.
    pub next_token: Option<String>,
}

const TOKEN_PREFIX: &str = "after:";

impl Paging {
    /// Refuses sizes outside `bounds`, and pages of a list of ids.
    pub(crate) fn check(&self, bounds: std::ops::RangeInclusive<u32>, by_id: bool) -> Result<(), ApiError> {
        if self.next_token.as_ref().is_some_and(|token| !token.starts_with(TOKEN_PREFIX)) {
            return Err(ApiError::new("InvalidNextToken", "The token is not one that this service has given"));
        }
        match self.max_results {
            Some(_) if by_id => Err(ApiError::invalid_combination(
                "The parameter maxResults cannot be used with a list of ids in the same request",
            )),
            Some(wanted) if !bounds.contains(&wanted) => Err(ApiError::invalid_value(format!(
                "Value ({wanted}) for parameter maxResults is invalid. Expecting a value between {} and {}",
                bounds.start(),
                bounds.end()
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// Cuts the page out of things sorted by id. The token names the last thing, so a list may change between pages.
    pub(crate) fn cut<T, K: Display>(&self, sorted: impl IntoIterator<Item = T>, id: impl Fn(&T) -> K) -> Page<T> {
        let after = self.next_token.as_deref().and_then(|token| token.strip_prefix(TOKEN_PREFIX)).unwrap_or_default();
        let limit = self.max_results.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let mut rest = sorted.into_iter().filter(|item| id(item).to_string().as_str() > after).peekable();
        let mut items = Vec::new();
        while items.len() < limit {
            let Some(item) = rest.next() else { break };
            items.push(item);
        }
        let next_token = match items.last() {
            Some(last) if rest.peek().is_some() => Some(format!("{TOKEN_PREFIX}{}", id(last))),
            Some(_) | None => None,
        };
        Page { items, next_token }
    }
}
