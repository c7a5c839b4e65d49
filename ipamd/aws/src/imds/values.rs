//! Single values of the metadata service: what cannot be right is named by its path, with what was expected.

use std::{fmt::Display, str::FromStr};

use aws_config::imds::client::error::ImdsError as SdkError;
use ipam_core::ports::{Cidr4, ImdsError, NodeIdentity};

use super::AwsImds;
use crate::{convert, outcome::chain};

const ROOT: &str = "/latest/meta-data";
pub(super) const NETWORK: &str = "a network as 10.0.0.0/16 without host bits";
pub(super) const ID: &str = "an id with 8 or 17 hexadecimal digits";

impl AwsImds {
    pub(super) async fn text(&self, path: &str) -> Result<String, ImdsError> {
        self.optional(path).await?.ok_or_else(|| bad(path, "HTTP status 404".to_owned()))
    }

    /// A value that need not be there.
    pub(super) async fn optional(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let path = format!("{ROOT}/{path}");
        let reason = match self.client.get(&path).await {
            Ok(value) if value.as_ref().trim().is_empty() => "is empty".to_owned(),
            Ok(value) => return Ok(Some(value.as_ref().trim().to_owned())),
            Err(SdkError::ErrorResponse(answer)) => match answer.response().status().as_u16() {
                404 => return Ok(None),
                status => format!("HTTP status {status}"),
            },
            Err(error) => chain(&error),
        };
        Err(ImdsError { path, reason })
    }

    pub(super) async fn value<T>(&self, path: &str) -> Result<T, ImdsError>
    where
        T: FromStr<Err: Display>,
    {
        let text = self.text(path).await?;
        text.parse().map_err(|error: T::Err| bad(path, error.to_string()))
    }

    /// An id that is there as a whole: the beginning of one would be another thing's.
    pub(super) async fn id<T>(&self, path: &str) -> Result<T, ImdsError>
    where
        T: FromStr<Err: Display> + Display,
    {
        let id: T = self.value(path).await?;
        if is_whole(&id) {
            return Ok(id);
        }
        Err(bad(path, format!("`{id}` cannot be right; expected {ID}")))
    }

    /// A value that is a name: a region, an instance type.
    pub(super) async fn name(&self, path: &str) -> Result<String, ImdsError> {
        let text = self.text(path).await?;
        if text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.') {
            return Ok(text);
        }
        Err(bad(path, format!("`{text}` is not a name")))
    }

    pub(super) async fn network(&self, path: &str) -> Result<Cidr4, ImdsError> {
        let text = self.text(path).await?;
        convert::cidr(&text).ok_or_else(|| bad(path, format!("`{text}` cannot be right; expected {NETWORK}")))
    }

    /// A list with one value on each line, sorted.
    pub(super) async fn list<T: Ord>(
        &self,
        path: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ImdsError> {
        let mut values = self.lines(path, expected, read).await?;
        values.sort_unstable();
        Ok(values)
    }

    /// The same in the service's order.
    pub(super) async fn lines<T>(
        &self,
        path: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ImdsError> {
        let text = self.text(path).await?;
        let read =
            |line: &str| read(line).ok_or_else(|| bad(path, format!("`{line}` cannot be right; expected {expected}")));
        text.lines().map(str::trim).map(read).collect()
    }
}

/// A value, below the root of all, that cannot be used.
pub(super) fn bad(path: &str, reason: String) -> ImdsError {
    ImdsError { path: format!("{ROOT}/{path}"), reason }
}

/// EC2's ids have the digits of old or those of today, so that one that was cut short can be told.
pub(super) fn is_whole(id: &impl Display) -> bool {
    id.to_string().rsplit('-').next().is_some_and(|digits| [8, 17].contains(&digits.len()))
}

/// Refuses values that cannot be right together: one of them was cut short.
pub(super) fn check(identity: &NodeIdentity, own: &str) -> Result<(), ImdsError> {
    let (zone, region) = (&identity.zone, &identity.region);
    let rest = zone.strip_prefix(region.as_str());
    let in_region = rest.is_some_and(|rest| rest.starts_with(|c: char| !c.is_ascii_digit()));
    if !in_region || !region.ends_with(|c: char| c.is_ascii_digit()) {
        let reason = format!("`{zone}` cannot be right; expected a zone of {region}");
        return Err(bad("placement/availability-zone", reason));
    }
    let subnet = identity.subnet_cidr;
    if !identity.vpc_cidrs.iter().any(|cidr| cidr.prefix <= subnet.prefix && cidr.contains(subnet.network)) {
        let reason = format!("`{subnet}` cannot be right; expected a network within vpc-ipv4-cidr-blocks");
        return Err(bad(&format!("{own}/subnet-ipv4-cidr-block"), reason));
    }
    Ok(())
}
