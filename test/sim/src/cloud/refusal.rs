//! What each error code means to the daemon: as `ipam-aws` says it, so that both ports tell the same story.

use ipam_core::ports::{Ec2Error, RefusalClass};

use crate::{ApiError, Failure};

/// The failure of `action` in the words of the port.
pub(super) fn to_port(action: &'static str, failure: Failure) -> Ec2Error {
    let error = match failure {
        Failure::NoReply => return Ec2Error::Unknown { action, reason: failure.to_string() },
        Failure::Refused(error) => error,
    };
    match class(&error) {
        Some(class) => Ec2Error::Refused { action, class, code: error.code.into_owned(), message: error.message },
        None => Ec2Error::Unknown { action, reason: error.to_string() },
    }
}

/// Absent: what broke inside of EC2 may have broken after the change.
fn class(error: &ApiError) -> Option<RefusalClass> {
    let untimely = ["currently in use", "already has an interface attached"];
    Some(match &*error.code {
        "RequestLimitExceeded" | "Throttling" | "ThrottlingException" => RefusalClass::SlowDown,
        "InsufficientFreeAddressesInSubnet" => RefusalClass::SubnetFull,
        "InsufficientCidrBlocks" => RefusalClass::NoPrefix,
        "AttachmentLimitExceeded"
        | "PrivateIpAddressLimitExceeded"
        | "InvalidInterface.IpAddressLimitExceeded"
        | "NetworkInterfaceLimitExceeded"
        | "SecurityGroupsPerInterfaceLimitExceeded"
        | "TagLimitExceeded" => RefusalClass::LimitReached,
        "InvalidNetworkInterface.InUse" | "IncorrectInstanceState" | "IncorrectState" | "OperationNotPermitted" => {
            RefusalClass::WrongState
        }
        "InvalidParameterValue" if untimely.iter().any(|part| error.message.contains(part)) => RefusalClass::WrongState,
        "UnauthorizedOperation" | "AuthFailure" | "OptInRequired" => RefusalClass::NotAllowed,
        "IdempotentParameterMismatch" | "UnsupportedOperation" | "Resource.AlreadyAssigned" | "DryRunOperation" => {
            RefusalClass::BadRequest
        }
        "Unavailable" => RefusalClass::TryLater,
        code if code.ends_with(".NotFound") => RefusalClass::NotFound,
        code if code.starts_with("Invalid") || code.starts_with("Missing") => RefusalClass::BadRequest,
        _ => return (error.status < 500).then_some(RefusalClass::TryLater),
    })
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
            assert_eq!(class(&ApiError::new(code, "")), Some(wanted), "{code}");
        }
    }

    #[test]
    fn a_server_fault_leaves_the_outcome_open_but_throttling_does_not() {
        let failure = |code: &'static str, status| {
            Failure::Refused(ApiError { code: code.into(), message: String::new(), status })
        };
        assert!(matches!(to_port("X", failure("InternalError", 500)), Ec2Error::Unknown { .. }));
        assert!(matches!(to_port("X", failure("RequestLimitExceeded", 503)), Ec2Error::Refused { .. }));
    }
}
