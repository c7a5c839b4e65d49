//! The contract with the network-policy agent of amazon-vpc-cni-k8s, and what our two programs agree on beside it.

#[cfg(feature = "agent")]
mod ask;

#[cfg(feature = "agent")]
pub use ask::{Trouble, enforce, forget};

generated!("rpc");

/// The agent's socket, in the folder that it shares with the CNI.
pub const AGENT_SOCKET: &str = "npa.sock";
/// The socket of the CNI on which the agent asks for its configuration, in the same folder.
pub const CONFIG_SOCKET: &str = "ipamd.sock";

/// What a pod may do until its network policies are in place. Source: `NETWORK_POLICY_ENFORCING_MODE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    Standard,
    /// Nothing.
    Strict,
}

impl Mode {
    /// The mode as the agent spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Strict => "strict",
        }
    }

    /// Reads a mode as [`Mode::as_str`] has it. Absent: it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        [Self::Standard, Self::Strict].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// How a call to the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As it should.
    Done,
    /// The agent said no.
    Refused,
    /// It did not answer in time.
    Late,
    /// Nobody listens.
    Away,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Done, Self::Refused, Self::Late, Self::Away];

    /// Its word in reports and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Late => "late",
            Self::Away => "away",
        }
    }

    /// Reads a word as [`Outcome::as_str`] has it. Absent: it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// The bytes are made by hand from the agent's field numbers: tag = number * 8 + 2 for a text, number * 8 for a number.
    #[test]
    fn messages_have_the_bytes_that_the_agent_reads_and_writes() {
        let (pod_name, pod_namespace) = ("p".to_owned(), "n".to_owned());
        let enforce = EnforceRequest {
            pod_name: pod_name.clone(),
            pod_namespace: pod_namespace.clone(),
            mode: Mode::Strict.as_str().to_owned(),
            interfaces: 2,
        };
        assert_eq!(enforce.encode_to_vec(), b"\x0a\x01p\x12\x01n\x1a\x06strict\x20\x02");
        assert_eq!(DeleteRequest { pod_name, pod_namespace }.encode_to_vec(), b"\x0a\x01p\x12\x01n");
        assert_eq!(Reply::decode(&b"\x08\x01"[..]).unwrap(), Reply { success: true });
        assert_eq!(ConfigRequest::decode(&b""[..]).unwrap(), ConfigRequest {});
        let text = |text: &str| text.to_owned();
        let reply = ConfigReply {
            mode: text("standard"),
            several_cards: true,
            node_ipv4: text("10.0.0.4"),
            node_ipv6: String::new(),
            instance_id: text("i-1"),
            region: text("r"),
        };
        assert_eq!(reply.encode_to_vec(), b"\x0a\x08standard\x10\x01\x1a\x0810.0.0.4\x2a\x03i-1\x32\x01r");
    }

    #[test]
    fn words_are_read_back() {
        for mode in [Mode::Standard, Mode::Strict] {
            assert_eq!(Mode::read(mode.as_str()), Some(mode));
        }
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::read(outcome.as_str()), Some(outcome));
        }
        assert_eq!((Mode::read("none"), Outcome::read("")), (None, None));
    }
}
