//! Ids of the cloud, each a type of its own that can only be built from well-formed text.

use std::{fmt, str::FromStr};

/// Text that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{form}`")]
pub struct InvalidId {
    text: String,
    form: &'static str,
}

macro_rules! cloud_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The bare id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                match text.strip_prefix(concat!($prefix, "-")) {
                    Some(rest) if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => Ok(Self(text.to_owned())),
                    _ => Err(InvalidId { text: text.to_owned(), form: concat!($prefix, "-0123abcd") }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

cloud_id!(
    /// An elastic network interface. Source: EC2 `NetworkInterfaceId`, IMDS `interface-id`.
    EniId, "eni"
);
cloud_id!(
    /// The tie between an ENI and an instance. Source: EC2 `AttachmentId`.
    AttachmentId, "eni-attach"
);
cloud_id!(
    /// An instance. Source: IMDS `instance-id`.
    InstanceId, "i"
);
cloud_id!(
    /// A subnet. Source: IMDS `subnet-id`.
    SubnetId, "subnet"
);
cloud_id!(
    /// A VPC. Source: IMDS `vpc-id`.
    VpcId, "vpc"
);
cloud_id!(
    /// A security group. Source: IMDS `security-group-ids`.
    SecurityGroupId, "sg"
);

/// A 48-bit hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl FromStr for MacAddress {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        let well_formed = bytes.iter_mut().all(|byte| match parts.next() {
            Some(part) if part.len() == 2 => u8::from_str_radix(part, 16).map(|value| *byte = value).is_ok(),
            _ => false,
        });
        if well_formed && parts.next().is_none() {
            Ok(Self(bytes))
        } else {
            Err(InvalidId { text: text.to_owned(), form: "02:00:00:00:00:01" })
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_another_kind_is_refused_with_the_right_form() {
        assert_eq!("eni-0a1b".parse::<EniId>().map(|id| id.to_string()), Ok("eni-0a1b".into()));
        assert_eq!(
            "vpc-1".parse::<SubnetId>().map_err(|e| e.to_string()),
            Err("`vpc-1` is not an id of the form `subnet-0123abcd`".into())
        );
        assert!("eni-".parse::<EniId>().is_err());
    }

    #[test]
    fn a_mac_address_is_six_pairs_of_digits() {
        assert_eq!("02:00:0A:ff:00:01".parse::<MacAddress>().map(|m| m.to_string()), Ok("02:00:0a:ff:00:01".into()));
        for bad in ["", "02:00:00:21902x:14702x:22702x", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0"] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }
}
