//! Why an ADD got no address.

use std::fmt;

/// The catalogue of refusals. TROUBLESHOOTING.md has a section for each; a test checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// Every address that the instance type allows is held by a pod or cooling.
    NodeFull,
    /// Addresses are on their way, but none came before the deadline.
    Late,
    /// The subnet has no free address left.
    SubnetFull,
    /// EC2 refused, and will go on refusing until somebody changes something.
    CloudRefuses,
    /// The daemon has not finished its recovery.
    NotReady,
    /// The lease could not be stored.
    StoreFailed,
    /// The pod wants an interface on each network card, and the node does not use them.
    OneCardOnly,
    /// The pod is to live on a branch ENI of its own, which is not there yet or cannot be used.
    NoBranch,
}

impl RefusalCode {
    /// All codes, for documentation and its test.
    pub const ALL: [Self; 8] = [
        Self::NodeFull,
        Self::Late,
        Self::SubnetFull,
        Self::CloudRefuses,
        Self::NotReady,
        Self::StoreFailed,
        Self::OneCardOnly,
        Self::NoBranch,
    ];

    /// The code as people see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NodeFull => "IPAM-201",
            Self::Late => "IPAM-202",
            Self::SubnetFull => "IPAM-203",
            Self::CloudRefuses => "IPAM-204",
            Self::NotReady => "IPAM-205",
            Self::StoreFailed => "IPAM-206",
            Self::OneCardOnly => "IPAM-207",
            Self::NoBranch => "IPAM-208",
        }
    }
}

/// A refusal in full: code, facts, what happens next, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which case of the catalogue.
    pub code: RefusalCode,
    /// One sentence: what, with numbers.
    pub message: String,
    /// What happens next and what the reader can do.
    pub advice: String,
    /// Whether trying again later can help.
    pub try_again: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}. {}", self.code.as_str(), self.message, self.advice)
    }
}
