//! From the text of an id to the thing it names, with EC2's two ways of refusing.

use std::{collections::BTreeMap, str::FromStr};

use ipam_core::{AttachmentId, EniId, InstanceId, SecurityGroupId, SubnetId, VpcId};

use crate::{ApiError, world::model::ReservationId};

/// A kind of id: how it is written and how EC2 speaks of it.
pub(crate) trait CloudId: FromStr + Ord {
    /// What stands before the dash.
    const PREFIX: &'static str;
    /// First part of the error code when nothing has this id.
    const NOT_FOUND: &'static str;
    /// First part of the error code when the text is no id.
    const MALFORMED: &'static str;
    /// What EC2 calls it in messages.
    const NOUN: &'static str;
}

macro_rules! cloud_ids {
    ($($id:ty: $prefix:literal, $not_found:literal, $malformed:literal, $noun:literal;)*) => {
        $(impl CloudId for $id {
            const PREFIX: &'static str = $prefix;
            const NOT_FOUND: &'static str = concat!($not_found, ".NotFound");
            const MALFORMED: &'static str = concat!($malformed, ".Malformed");
            const NOUN: &'static str = $noun;
        })*
    };
}

cloud_ids! {
    EniId: "eni", "InvalidNetworkInterfaceID", "InvalidNetworkInterfaceId", "networkInterface";
    AttachmentId: "eni-attach", "InvalidAttachmentID", "InvalidNetworkInterfaceAttachmentId", "attachment";
    InstanceId: "i", "InvalidInstanceID", "InvalidInstanceID", "instance";
    SubnetId: "subnet", "InvalidSubnetID", "InvalidSubnetID", "subnet";
    VpcId: "vpc", "InvalidVpcID", "InvalidVpcID", "vpc";
    ReservationId: "scr", "InvalidSubnetCidrReservationID", "InvalidSubnetCidrReservationID", "subnet CIDR reservation";
    SecurityGroupId: "sg", "InvalidGroup", "InvalidGroupId", "security group";
}

/// Reads an id of 8 or 17 hexadecimal digits.
pub(crate) fn parse<K: CloudId>(text: &str) -> Result<K, ApiError> {
    let digits = text.strip_prefix(K::PREFIX).and_then(|rest| rest.strip_prefix('-'));
    let well_formed =
        digits.is_some_and(|digits| [8, 17].contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit()));
    text.parse()
        .ok()
        .filter(|_| well_formed)
        .ok_or_else(|| ApiError::new(K::MALFORMED, format!("Invalid id: \"{text}\" (expecting \"{}-...\")", K::PREFIX)))
}

/// The refusal for an id that names nothing.
pub(crate) fn not_found<K: CloudId>(text: &str) -> ApiError {
    ApiError::new(K::NOT_FOUND, format!("The {} ID '{text}' does not exist", K::NOUN))
}

/// The thing with this id.
pub(crate) fn find<'a, K: CloudId, V>(things: &'a BTreeMap<K, V>, text: &str) -> Result<&'a V, ApiError> {
    things.get(&parse(text)?).ok_or_else(|| not_found::<K>(text))
}

/// The thing with this id, to be changed.
pub(crate) fn find_mut<'a, K: CloudId, V>(things: &'a mut BTreeMap<K, V>, text: &str) -> Result<&'a mut V, ApiError> {
    things.get_mut(&parse(text)?).ok_or_else(|| not_found::<K>(text))
}
