//! How a call can end badly, in EC2's own words.

use std::borrow::Cow;

/// A refusal as EC2 words it: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// Error code, as `InvalidSubnetID.NotFound`.
    pub code: Cow<'static, str>,
    /// Message for people.
    pub message: String,
    /// HTTP status that comes with it.
    pub status: u16,
}

impl ApiError {
    /// Returns a client error (HTTP 400; 412 for `DryRunOperation`).
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let code = code.into();
        let status = if code == "DryRunOperation" { 412 } else { 400 };
        Self { code, message: message.into(), status }
    }

    pub(crate) fn invalid_value(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", message)
    }

    pub(crate) fn invalid_combination(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterCombination", message)
    }

    pub(crate) fn unauthorized(action: &str) -> Self {
        let message = format!(
            "You are not authorized to perform this operation. The caller is not authorized to perform: ec2:{action} because no identity-based policy allows the ec2:{action} action"
        );
        Self { status: 403, ..Self::new("UnauthorizedOperation", message) }
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        Self::new("MissingParameter", format!("The request must contain the parameter {parameter}"))
    }
}

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// EC2 answered with an error.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The reply was lost: the call may or may not have had its effect.
    #[error("the reply was lost")]
    NoReply,
}

impl Failure {
    /// EC2's error code, or `NoReply`.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Refused(error) => &error.code,
            Self::NoReply => "NoReply",
        }
    }
}
