//! Parameters of a request: `Filter.1.Value.2=x` and the like.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    str::FromStr,
};

use ipam_core::ports::Cidr4;

use crate::{
    ApiError,
    world::{Filter, Paging, cidr, model::Tags},
};

/// The parameters of a request, or of one element of a list in it.
#[derive(Debug, Default)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads forms; the last of several with one name counts.
    pub(super) fn read(forms: &[&[u8]]) -> Self {
        let pairs = forms.iter().flat_map(|form| form_urlencoded::parse(form));
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    pub(super) fn required(&self, name: &str) -> Result<String, ApiError> {
        self.owned(name).filter(|text| !text.is_empty()).ok_or_else(|| ApiError::missing(name))
    }

    /// A number, an address, or whatever else can be read from text.
    pub(super) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name).map(|text| parse(name, text)).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            None => Ok(None),
            Some(other) => Err(invalid(name, other)),
        }
    }

    /// The values of `Name.1`, `Name.2`, … in the order of their numbers.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.numbers(name).into_iter().filter_map(|number| self.owned(&format!("{name}.{number}"))).collect()
    }

    pub(super) fn required_list(&self, name: &str) -> Result<Vec<String>, ApiError> {
        Some(self.list(name)).filter(|list| !list.is_empty()).ok_or_else(|| ApiError::missing(name))
    }

    pub(super) fn addresses(&self, name: &str) -> Result<Vec<Ipv4Addr>, ApiError> {
        self.list(name).iter().map(|text| parse(name, text)).collect()
    }

    /// A network like `10.0.0.16/28`, without host bits.
    pub(super) fn prefix(&self, name: &str) -> Result<Cidr4, ApiError> {
        read_prefix(name, &self.required(name)?)
    }

    pub(super) fn prefixes(&self, name: &str) -> Result<Vec<Cidr4>, ApiError> {
        self.list(name).iter().map(|text| read_prefix(name, text)).collect()
    }

    /// The elements of a list of structures: everything below `Name.1.`, below `Name.2.`, …
    pub(super) fn structures(&self, name: &str) -> Vec<Self> {
        self.numbers(name).into_iter().map(|number| self.below(&format!("{name}.{number}."))).collect()
    }

    /// The list `name` as `list` or `structures`: its numbers, sorted.
    fn numbers(&self, name: &str) -> BTreeSet<u32> {
        let prefix = format!("{name}.");
        let below = self.0.range(prefix.clone()..).map_while(|(key, _)| key.strip_prefix(prefix.as_str()));
        below.filter_map(|rest| rest.split('.').next()?.parse().ok()).collect()
    }

    fn below(&self, prefix: &str) -> Self {
        let below = self.0.range(prefix.to_owned()..);
        let inner = below.map_while(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
        Self(inner.collect())
    }

    /// `Filter.N.Name` and `Filter.N.Value.M`.
    pub(super) fn filters(&self) -> Result<Vec<Filter>, ApiError> {
        let filter = |params: &Self| Ok(Filter { name: params.required("Name")?, values: params.list("Value") });
        self.structures("Filter").iter().map(filter).collect()
    }

    pub(super) fn paging(&self) -> Result<Paging, ApiError> {
        Ok(Paging { max_results: self.parsed("MaxResults")?, next_token: self.owned("NextToken") })
    }

    /// `Tag.N.Key` and `Tag.N.Value`.
    pub(super) fn tags(&self) -> Result<Tags, ApiError> {
        let tag = |params: &Self| Ok((params.required("Key")?, params.owned("Value").unwrap_or_default()));
        self.structures("Tag").iter().map(tag).collect()
    }

    /// The tags for one kind of thing in `TagSpecification.N`.
    pub(super) fn tags_for(&self, kind: &str) -> Result<Tags, ApiError> {
        let mut tags = Tags::new();
        for specification in self.structures("TagSpecification") {
            if specification.text("ResourceType") == Some(kind) {
                tags.extend(specification.tags()?);
            }
        }
        Ok(tags)
    }
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| invalid(name, text))
}

fn read_prefix(name: &str, text: &str) -> Result<Cidr4, ApiError> {
    cidr::parse(text).filter(|cidr| cidr::text(*cidr) == text).ok_or_else(|| invalid(name, text))
}

fn invalid(name: &str, text: &str) -> ApiError {
    ApiError::invalid_value(format!("Value ({text}) for parameter {name} is invalid."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_the_order_of_their_numbers() {
        let params = Params::read(&[b"A.10=ten&A.2=two&A.1=one&AB.1=no&Filter.1.Name=x&Filter.1.Value.1=y", b"Z=1"]);
        assert_eq!(params.list("A"), ["one", "two", "ten"]);
        assert_eq!(params.filters().unwrap(), [Filter::new("x", "y")]);
        assert_eq!(params.parsed::<u8>("Z"), Ok(Some(1)));
        assert_eq!(params.flag("Z"), Ok(Some(true)));
        assert!(params.parsed::<u8>("A.1").is_err());
    }
}
