//! What EC2's error codes mean for us, in one table.

use ipam_core::ports::RefusalClass::{
    self, BadRequest, LimitReached, NotAllowed, NotFound, SlowDown, SubnetFull, TryLater, WrongState,
};

/// Error code, meaning. Source: EC2 API error codes. Sorted by meaning.
#[rustfmt::skip]
const TABLE: &[(&str, RefusalClass)] = &[
    ("RequestLimitExceeded",                    SlowDown),
    ("Throttling",                              SlowDown),
    ("ThrottlingException",                     SlowDown),
    ("ClientRequestLimitExceeded",              SlowDown),
    ("BandwidthLimitExceeded",                  SlowDown),

    ("InsufficientFreeAddressesInSubnet",       SubnetFull),
    ("InsufficientCidrBlocks",                  SubnetFull),

    ("AttachmentLimitExceeded",                 LimitReached),
    ("PrivateIpAddressLimitExceeded",           LimitReached),
    ("NetworkInterfaceLimitExceeded",           LimitReached),
    ("SecurityGroupsPerInterfaceLimitExceeded", LimitReached),
    ("TagLimitExceeded",                        LimitReached),

    ("InvalidNetworkInterfaceID.NotFound",      NotFound),
    ("InvalidAttachmentID.NotFound",            NotFound),
    ("InvalidInstanceID.NotFound",              NotFound),
    ("InvalidSubnetID.NotFound",                NotFound),
    ("InvalidSecurityGroupID.NotFound",         NotFound),
    ("InvalidGroup.NotFound",                   NotFound),

    ("IncorrectState",                          WrongState),
    ("IncorrectInstanceState",                  WrongState),
    ("InvalidNetworkInterface.InUse",           WrongState),
    ("InvalidInstanceID",                       WrongState),
    ("OperationNotPermitted",                   WrongState),

    ("UnauthorizedOperation",                   NotAllowed),
    ("AuthFailure",                             NotAllowed),
    ("InvalidClientTokenId",                    NotAllowed),
    ("SignatureDoesNotMatch",                   NotAllowed),
    ("ExpiredToken",                            NotAllowed),
    ("RequestExpired",                          NotAllowed),
    ("Blocked",                                 NotAllowed),
    ("OptInRequired",                           NotAllowed),
    ("PendingVerification",                     NotAllowed),

    ("InvalidParameterValue",                   BadRequest),
    ("InvalidParameterCombination",             BadRequest),
    ("InvalidParameter",                        BadRequest),
    ("MissingParameter",                        BadRequest),
    ("UnknownParameter",                        BadRequest),
    ("InvalidAction",                           BadRequest),
    ("IdempotentParameterMismatch",             BadRequest),
    ("InvalidNetworkInterfaceID.Malformed",     BadRequest),
    ("InvalidAddress.NotFound",                 BadRequest),
    ("InvalidIPAddress.InUse",                  BadRequest),

    ("InsufficientCapacity",                    TryLater),
    ("ServiceUnavailable",                      TryLater),
    ("Unavailable",                             TryLater),
];

/// Returns the meaning of an error code. One that is not in the table must not stop the daemon: try later.
#[must_use]
pub fn class(code: &str) -> RefusalClass {
    TABLE.iter().find(|(known, _)| *known == code).map_or(TryLater, |(_, class)| *class)
}

/// Codes after which nobody knows whether the change was made.
#[must_use]
pub fn leaves_the_outcome_open(code: &str) -> bool {
    ["InternalError", "InternalFailure", "RequestTimeout"].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_once() {
        let mut codes: Vec<_> = TABLE.iter().map(|(code, _)| code).collect();
        codes.sort();
        let count = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }

    #[test]
    fn codes_mean_what_the_planner_has_to_do() {
        #[rustfmt::skip]
        let table = [
            ("RequestLimitExceeded",              "the account's bucket is empty",       SlowDown),
            ("InsufficientFreeAddressesInSubnet", "another subnet may have room",        SubnetFull),
            ("PrivateIpAddressLimitExceeded",     "the ENI carries no more",             LimitReached),
            ("InvalidAttachmentID.NotFound",      "it is detached already",              NotFound),
            ("InvalidNetworkInterface.InUse",     "it has to be detached first",         WrongState),
            ("UnauthorizedOperation",             "the role lacks a permission",         NotAllowed),
            ("IdempotentParameterMismatch",       "the token was used for another ENI",  BadRequest),
            ("SomethingNewIn2031",                "unknown must not stop the daemon",    TryLater),
        ];
        for (code, why, wanted) in table {
            assert_eq!(class(code), wanted, "{code}: {why}");
        }
    }
}
