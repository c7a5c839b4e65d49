//! What each error code means to the daemon: as `ipam-aws` says it, so that both ports tell the same story.

use ipam_core::ports::{Ec2Error, RefusalClass};

use crate::Failure;

/// The failure of `action` in the words of the port.
pub(super) fn to_port(action: &'static str, failure: Failure) -> Ec2Error {
    match failure {
        Failure::NoReply => Ec2Error::Unknown { action, reason: failure.to_string() },
        // What broke inside of EC2 may have broken after the change.
        Failure::Refused(error) if ["InternalError", "InternalFailure", "RequestTimeout"].contains(&&*error.code) => {
            Ec2Error::Unknown { action, reason: error.to_string() }
        }
        Failure::Refused(error) => Ec2Error::Refused {
            action,
            class: class(&error.code),
            code: error.code.into_owned(),
            message: error.message,
        },
    }
}

fn class(code: &str) -> RefusalClass {
    match code {
        "RequestLimitExceeded" | "Throttling" | "ThrottlingException" => RefusalClass::SlowDown,
        "InsufficientFreeAddressesInSubnet" => RefusalClass::SubnetFull,
        "InsufficientCidrBlocks" => RefusalClass::NoPrefix,
        "AttachmentLimitExceeded"
        | "PrivateIpAddressLimitExceeded"
        | "NetworkInterfaceLimitExceeded"
        | "SecurityGroupsPerInterfaceLimitExceeded"
        | "TagLimitExceeded" => RefusalClass::LimitReached,
        "InvalidNetworkInterface.InUse" | "IncorrectInstanceState" | "IncorrectState" | "OperationNotPermitted" => {
            RefusalClass::WrongState
        }
        "UnauthorizedOperation" | "AuthFailure" | "OptInRequired" => RefusalClass::NotAllowed,
        _ if code.ends_with(".NotFound") => RefusalClass::NotFound,
        "UnsupportedOperation" => RefusalClass::BadRequest,
        _ if code.starts_with("Invalid") || code.starts_with("Missing") || code == "IdempotentParameterMismatch" => {
            RefusalClass::BadRequest
        }
        _ => RefusalClass::TryLater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_cloud_has_a_class() {
        #[rustfmt::skip]
        let table = [
            ("RequestLimitExceeded",              RefusalClass::SlowDown),
            ("InsufficientFreeAddressesInSubnet", RefusalClass::SubnetFull),
            ("InsufficientCidrBlocks",            RefusalClass::NoPrefix),
            ("AttachmentLimitExceeded",           RefusalClass::LimitReached),
            ("PrivateIpAddressLimitExceeded",     RefusalClass::LimitReached),
            ("InvalidNetworkInterfaceID.NotFound", RefusalClass::NotFound),
            ("InvalidNetworkInterface.InUse",     RefusalClass::WrongState),
            ("UnauthorizedOperation",             RefusalClass::NotAllowed),
            ("InvalidParameterValue",             RefusalClass::BadRequest),
            ("IdempotentParameterMismatch",       RefusalClass::BadRequest),
            ("OperationNotPermitted",             RefusalClass::WrongState),
            ("SomethingNewIn2031",                RefusalClass::TryLater),
        ];
        for (code, wanted) in table {
            assert_eq!(class(code), wanted, "{code}");
        }
    }

    #[test]
    fn a_server_fault_leaves_the_outcome_open_but_throttling_does_not() {
        let failure = |code: &'static str, status| {
            Failure::Refused(crate::ApiError { code: code.into(), message: String::new(), status })
        };
        assert!(matches!(to_port("X", failure("InternalError", 500)), Ec2Error::Unknown { .. }));
        assert!(matches!(to_port("X", failure("RequestLimitExceeded", 503)), Ec2Error::Refused { .. }));
    }
}
