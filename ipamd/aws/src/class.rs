//! What EC2's errors mean for us, in one table.

use ipam_core::ports::RefusalClass::{
    self, BadRequest, LimitReached, NoPrefix, NotAllowed, NotFound, SlowDown, SubnetFull, TryLater, WrongState,
};

/// Error code, a part of its message (empty: any), meaning; the first row that fits counts. Source: "Error codes for the
/// Amazon EC2 API" and the query protocol's common errors, as of 2026-11.
#[rustfmt::skip]
const TABLE: &[(&str, &str, RefusalClass)] = &[
    ("RequestLimitExceeded",                     "", SlowDown),
    ("Throttling",                               "", SlowDown),
    ("ThrottlingException",                      "", SlowDown),
    ("RequestThrottled",                         "", SlowDown),
    ("EC2ThrottledException",                    "", SlowDown),
    ("ClientRequestLimitExceeded",               "", SlowDown),
    ("BandwidthLimitExceeded",                   "", SlowDown),

    ("InsufficientFreeAddressesInSubnet",        "", SubnetFull),
    ("InsufficientCidrBlocks",                   "", NoPrefix),

    ("AttachmentLimitExceeded",                  "", LimitReached),
    ("PrivateIpAddressLimitExceeded",            "", LimitReached),
    ("InvalidInterface.IpAddressLimitExceeded",  "", LimitReached),
    ("NetworkInterfaceLimitExceeded",            "", LimitReached),
    ("SecurityGroupsPerInterfaceLimitExceeded",  "", LimitReached),
    ("ResourceCountLimitExceeded",               "", LimitReached),
    ("TagLimitExceeded",                         "", LimitReached),

    ("InvalidNetworkInterfaceID.NotFound",       "", NotFound),
    ("InvalidNetworkInterface.NotFound",         "", NotFound),
    ("InvalidAttachmentID.NotFound",             "", NotFound),
    ("InvalidAttachment.NotFound",               "", NotFound),
    ("InvalidInstanceID.NotFound",               "", NotFound),
    ("InvalidSubnetID.NotFound",                 "", NotFound),
    ("InvalidVpcID.NotFound",                    "", NotFound),
    ("InvalidSecurityGroupID.NotFound",          "", NotFound),
    ("InvalidGroup.NotFound",                    "", NotFound),

    ("IncorrectState",                           "", WrongState),
    ("IncorrectInstanceState",                   "", WrongState),
    ("InvalidNetworkInterface.InUse",            "", WrongState),
    ("InvalidInstanceID",                        "", WrongState),
    ("OperationNotPermitted",                    "", WrongState),
    // EC2 has one code for a wrong value and for a right one at the wrong time.
    ("InvalidParameterValue",                    "currently in use", WrongState),
    ("InvalidParameterValue",                    "already has an interface attached", WrongState),

    ("UnauthorizedOperation",                    "", NotAllowed),
    ("AuthFailure",                              "", NotAllowed),
    ("AccessDenied",                             "", NotAllowed),
    ("AccessDeniedException",                    "", NotAllowed),
    ("InvalidClientTokenId",                     "", NotAllowed),
    ("UnrecognizedClientException",              "", NotAllowed),
    ("MissingAuthenticationToken",               "", NotAllowed),
    ("IncompleteSignature",                      "", NotAllowed),
    ("SignatureDoesNotMatch",                    "", NotAllowed),
    ("ExpiredToken",                             "", NotAllowed),
    ("ExpiredTokenException",                    "", NotAllowed),
    ("RequestExpired",                           "", NotAllowed),
    ("Blocked",                                  "", NotAllowed),
    ("OptInRequired",                            "", NotAllowed),
    ("PendingVerification",                      "", NotAllowed),

    ("InvalidParameterValue",                    "", BadRequest),
    ("InvalidParameterCombination",              "", BadRequest),
    ("InvalidParameter",                         "", BadRequest),
    ("MissingParameter",                         "", BadRequest),
    ("UnknownParameter",                         "", BadRequest),
    ("ValidationError",                          "", BadRequest),
    ("MalformedQueryString",                     "", BadRequest),
    ("InvalidRequest",                           "", BadRequest),
    ("InvalidAction",                            "", BadRequest),
    ("MissingAction",                            "", BadRequest),
    ("UnsupportedOperation",                     "", BadRequest),
    ("Unsupported",                              "", BadRequest),
    ("IdempotentParameterMismatch",              "", BadRequest),
    ("InvalidNetworkInterfaceID.Malformed",      "", BadRequest),
    ("InvalidNetworkInterfaceId.Malformed",      "", BadRequest),
    ("InvalidNetworkInterfaceAttachmentId.Malformed", "", BadRequest),
    ("InvalidInstanceID.Malformed",              "", BadRequest),
    ("InvalidSubnetID.Malformed",                "", BadRequest),
    ("InvalidGroupId.Malformed",                 "", BadRequest),
    ("InvalidInstanceType",                      "", BadRequest),
    ("InvalidNextToken",                         "", BadRequest),
    ("InvalidID",                                "", BadRequest),
    ("InvalidTagKey.Malformed",                  "", BadRequest),
    ("InvalidAddress.NotFound",                  "", BadRequest),
    ("InvalidIPAddress.InUse",                   "", BadRequest),
    ("Resource.AlreadyAssigned",                 "", BadRequest),
    ("DryRunOperation",                          "", BadRequest),

    // Overloaded: nothing was begun.
    ("Unavailable",                              "", TryLater),
    ("ConcurrentTagAccess",                      "", TryLater),
    ("InsufficientCapacity",                     "", TryLater),
];

/// Returns the meaning of an error that came with an HTTP `status`, or nothing when nobody knows whether the change was made.
///
/// A code that is not in the table must not stop the daemon: a client error (4xx) means try later, and a server error leaves the
/// outcome open, which holds for `InternalError`, `InternalFailure` and `ServiceUnavailable` too.
#[must_use]
pub fn class(code: &str, message: &str, status: u16) -> Option<RefusalClass> {
    let row = TABLE.iter().find(|(known, part, _)| *known == code && message.contains(part));
    match row {
        Some((_, _, class)) => Some(*class),
        None => (400..500).contains(&status).then_some(TryLater),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_reached() {
        for (at, (code, part, wanted)) in TABLE.iter().enumerate() {
            assert_eq!(class(code, part, 400), Some(*wanted), "row {at}, {code} {part}");
            let hidden = TABLE.iter().take(at).any(|(known, earlier, _)| known == code && part.contains(earlier));
            assert!(!hidden, "{code} {part} stands behind a row that takes all of it");
        }
    }

    #[test]
    fn errors_mean_what_the_planner_has_to_do() {
        #[rustfmt::skip]
        let table = [
            // code                                status  why                                      meaning
            ("RequestLimitExceeded",               503, "the account's bucket is empty",            Some(SlowDown)),
            ("InsufficientFreeAddressesInSubnet",  400, "another subnet may have room",             Some(SubnetFull)),
            ("InsufficientCidrBlocks",             400, "single addresses may be left",            Some(NoPrefix)),
            ("PrivateIpAddressLimitExceeded",      400, "the ENI carries no more",                  Some(LimitReached)),
            ("AttachmentLimitExceeded",            400, "the instance carries no more",             Some(LimitReached)),
            ("InvalidAttachmentID.NotFound",       400, "it is detached already",                   Some(NotFound)),
            ("InvalidNetworkInterface.InUse",      400, "it has to be detached first",              Some(WrongState)),
            ("UnauthorizedOperation",              403, "the role lacks a permission",              Some(NotAllowed)),
            ("AuthFailure",                        401, "the credentials are wrong",                Some(NotAllowed)),
            ("IdempotentParameterMismatch",        400, "the token was used for another ENI",       Some(BadRequest)),
            ("Unavailable",                        503, "overloaded: nothing was begun",            Some(TryLater)),
            ("SomethingNewIn2031",                 400, "unknown must not stop the daemon",         Some(TryLater)),
            ("SomethingNewIn2031",                 500, "it may have failed after the change",      None),
            ("InternalError",                      500, "it may have failed after the change",      None),
            ("InternalFailure",                    500, "it may have failed after the change",      None),
            ("ServiceUnavailable",                 503, "it may have failed after the change",      None),
        ];
        for (code, status, why, wanted) in table {
            assert_eq!(class(code, "", status), wanted, "{code}: {why}");
        }
    }

    #[test]
    fn a_right_value_at_the_wrong_time_is_no_bad_request() {
        #[rustfmt::skip]
        let table = [
            ("Network interface 'eni-1' is currently in use.",                              WrongState),
            ("Instance 'i-1' already has an interface attached at device index '1'.",       WrongState),
            ("Value (many) for parameter SecondaryPrivateIpAddressCount is invalid.",       BadRequest),
        ];
        for (message, wanted) in table {
            assert_eq!(class("InvalidParameterValue", message, 400), Some(wanted), "{message}");
        }
    }
}
