//! How a call ended: refused, or nobody knows.
//!
//! The difference decides whether a change may be asked for again, so whatever is not certain is unknown.

use std::{error::Error, iter::successors};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::result::ConnectorError;
use ipam_core::ports::{Ec2Error, RefusalClass};

use crate::class::class;

/// Stands where EC2's code would, when the request did not leave this machine.
const NOT_SENT: &str = "NotSent";
/// Stands where EC2's code would, when there was nothing to sign the request with.
const NO_CREDENTIALS: &str = "NoCredentials";

/// What a failed call means.
pub(crate) fn failed<E>(action: &'static str, error: &SdkError<E>) -> Ec2Error
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let refused =
        |class, code: &str, message: String| Ec2Error::Refused { action, class, code: code.to_owned(), message };
    let meaning = match error {
        SdkError::ServiceError(answer) => {
            let (code, message) = (answer.err().code(), answer.err().message().unwrap_or("no message"));
            let status = answer.raw().status().as_u16();
            code.and_then(|code| Some((class(code, message, status)?, code, message.to_owned())))
        }
        // It could not even be built.
        SdkError::ConstructionFailure(_) => Some((RefusalClass::BadRequest, NOT_SENT, chain(error))),
        SdkError::DispatchFailure(failure) => {
            let unsent = failure.as_connector_error().and_then(unsent);
            unsent.map(|(class, code)| (class, code, chain(error)))
        }
        // Too late, broken off, or not to be read; and whatever newer releases tell apart.
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) | _ => None,
    };
    match meaning {
        Some((class, code, message)) => refused(class, code, message),
        None => unusable(action, reason(error)),
    }
}

/// An answer that tells nothing, or not enough.
pub(crate) fn unusable(action: &'static str, reason: impl ToString) -> Ec2Error {
    Ec2Error::Unknown { action, reason: reason.to_string() }
}

/// Why the request cannot have reached EC2; nothing when it may have.
fn unsent(error: &ConnectorError) -> Option<(RefusalClass, &'static str)> {
    if error.is_user() {
        return Some((RefusalClass::BadRequest, NOT_SENT));
    }
    if let Some(credentials) = find::<CredentialsError>(error) {
        return Some((credentials_class(credentials), NO_CREDENTIALS));
    }
    // No address for the name, nobody at the address, or no answer to the handshake.
    find::<hyper_util::client::legacy::Error>(error)
        .is_some_and(hyper_util::client::legacy::Error::is_connect)
        .then_some((RefusalClass::TryLater, NOT_SENT))
}

/// Whether credentials will come by themselves, or somebody has to give us some.
fn credentials_class(error: &CredentialsError) -> RefusalClass {
    if matches!(error, CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)) {
        RefusalClass::NotAllowed
    } else {
        RefusalClass::TryLater
    }
}

/// The error and what caused it.
fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| (*error).source())
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    sources(error).find_map(|error| error.downcast_ref())
}

fn reason<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let status = error.raw_response().map(|answer| format!("HTTP status {}: ", answer.status().as_u16()));
    match (error.code(), error.message()) {
        (Some(code), message) => format!("{}{code}: {}", status.unwrap_or_default(), message.unwrap_or("no message")),
        (None, _) => format!("{}{}", status.unwrap_or_default(), chain(error)),
    }
}

/// The error and its sources in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<_> = sources(error).map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}
