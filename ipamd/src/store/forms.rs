//! How values of the cloud are written in the database: JSON with a version, so that a later ipamd knows what it reads.

use std::{collections::BTreeMap, fmt::Display, net::Ipv4Addr, str::FromStr};

use crate::kube::decide::Wanted;
use ipam_core::{
    Action, AttachmentId, CustomNetwork, EniId, InstanceId, Limits, MacAddress, SecurityGroupId, SubnetId, VpcId,
    policy::MAX_CARDS,
    ports::{Amount, Attachment, Cidr4, Cidr6, Holdings, Interface, InterfaceKind, NodeIdentity},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _};

/// Grows when the meaning of a field changes; new fields with a default do not need it.
const VERSION: u32 = 1;

/// A value that can be kept in the database.
pub(super) trait Form: Sized {
    /// Writes the value down.
    fn write(&self) -> String;

    /// Reads it back.
    fn read(text: &str) -> Result<Self, serde_json::Error>;
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    value: T,
}

fn write<T: Serialize>(value: T) -> String {
    // Fails only for maps whose keys are no text and for failing implementations: there are none here.
    serde_json::to_string(&Versioned { version: VERSION, value }).unwrap_or_default()
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    let Versioned { version, value } = serde_json::from_str(text)?;
    if version == VERSION { Ok(value) } else { Err(serde_json::Error::custom(format!("version {version} is unknown"))) }
}

macro_rules! form {
    ($value:ty, $form:literal, $wrapped:ident) => {
        #[derive(Serialize, Deserialize)]
        struct $wrapped(#[serde(with = $form)] $value);

        impl Form for $value {
            fn write(&self) -> String {
                write($wrapped(self.clone()))
            }

            fn read(text: &str) -> Result<Self, serde_json::Error> {
                read::<$wrapped>(text).map(|wrapped| wrapped.0)
            }
        }
    };
}

form!(Action, "ActionForm", WrittenAction);
form!(Interface, "InterfaceForm", WrittenInterface);
form!(NodeIdentity, "NodeForm", WrittenNode);
form!(Limits, "LimitsForm", WrittenLimits);

#[derive(Serialize, Deserialize)]
struct SubnetForm {
    #[serde(with = "text")]
    subnet: SubnetId,
    #[serde(with = "network")]
    network: Cidr4,
}

impl Form for BTreeMap<SubnetId, Cidr4> {
    fn write(&self) -> String {
        write(
            self.iter()
                .map(|(subnet, network)| SubnetForm { subnet: subnet.clone(), network: *network })
                .collect::<Vec<_>>(),
        )
    }

    fn read(text: &str) -> Result<Self, serde_json::Error> {
        let subnets: Vec<SubnetForm> = read(text)?;
        Ok(subnets.into_iter().map(|form| (form.subnet, form.network)).collect())
    }
}

impl Form for BTreeMap<String, String> {
    fn write(&self) -> String {
        write(self)
    }

    fn read(text: &str) -> Result<Self, serde_json::Error> {
        read(text)
    }
}

#[derive(Serialize, Deserialize)]
struct WantedForm {
    max_pods: Option<u16>,
    network: Option<CustomForm>,
}

#[derive(Serialize, Deserialize)]
struct CustomForm {
    #[serde(with = "text")]
    subnet: SubnetId,
    #[serde(with = "texts")]
    security_groups: Vec<SecurityGroupId>,
}

impl Form for Wanted {
    fn write(&self) -> String {
        let network = self.network.clone();
        let form = |CustomNetwork { subnet, security_groups }| CustomForm { subnet, security_groups };
        write(WantedForm { max_pods: self.max_pods, network: network.map(form) })
    }

    fn read(text: &str) -> Result<Self, serde_json::Error> {
        let WantedForm { max_pods, network } = read(text)?;
        let network = network.map(|CustomForm { subnet, security_groups }| CustomNetwork { subnet, security_groups });
        Ok(Self { max_pods, network })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Action", tag = "do", rename_all = "kebab-case")]
enum ActionForm {
    Create {
        #[serde(with = "text")]
        subnet: SubnetId,
        #[serde(with = "texts")]
        security_groups: Vec<SecurityGroupId>,
        #[serde(with = "AmountForm")]
        amount: Amount,
        #[serde(default)]
        prefix6: bool,
    },
    Attach {
        #[serde(with = "text")]
        eni: EniId,
        card: u8,
        device_index: u8,
    },
    DeleteOnTermination {
        #[serde(with = "text")]
        eni: EniId,
        #[serde(with = "text")]
        attachment: AttachmentId,
    },
    SecurityGroups {
        #[serde(with = "text")]
        eni: EniId,
        #[serde(with = "texts")]
        security_groups: Vec<SecurityGroupId>,
    },
    Assign {
        #[serde(with = "text")]
        eni: EniId,
        #[serde(with = "AmountForm")]
        amount: Amount,
    },
    Unassign {
        #[serde(with = "text")]
        eni: EniId,
        #[serde(with = "HoldingsForm")]
        holdings: Holdings,
    },
    Detach {
        #[serde(with = "text")]
        eni: EniId,
        #[serde(with = "text")]
        attachment: AttachmentId,
    },
    Delete {
        #[serde(with = "text")]
        eni: EniId,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Amount", rename_all = "kebab-case")]
enum AmountForm {
    Addresses(u16),
    Prefixes(u16),
    Prefix6,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Holdings")]
struct HoldingsForm {
    addresses: Vec<Ipv4Addr>,
    #[serde(with = "networks")]
    prefixes: Vec<Cidr4>,
    #[serde(with = "texts", default)]
    prefixes6: Vec<Cidr6>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Interface")]
struct InterfaceForm {
    #[serde(with = "text")]
    id: EniId,
    #[serde(with = "text")]
    mac: MacAddress,
    #[serde(with = "text")]
    subnet: SubnetId,
    primary: Ipv4Addr,
    secondary: Vec<Ipv4Addr>,
    #[serde(with = "networks")]
    prefixes: Vec<Cidr4>,
    #[serde(with = "texts", default)]
    prefixes6: Vec<Cidr6>,
    #[serde(with = "KindForm")]
    kind: InterfaceKind,
    #[serde(with = "texts")]
    security_groups: Vec<SecurityGroupId>,
    #[serde(with = "attachment")]
    attachment: Option<Attachment>,
    tags: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "InterfaceKind", rename_all = "kebab-case")]
enum KindForm {
    Plain,
    Efa,
    Trunk,
    Other,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Attachment")]
struct AttachmentForm {
    #[serde(with = "text")]
    id: AttachmentId,
    #[serde(with = "text")]
    instance: InstanceId,
    device_index: u8,
    card: u8,
    attached: bool,
    delete_on_termination: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "NodeIdentity")]
struct NodeForm {
    #[serde(with = "text")]
    instance: InstanceId,
    instance_type: String,
    region: String,
    #[serde(with = "text")]
    primary_mac: MacAddress,
    #[serde(with = "text")]
    primary_eni: EniId,
    #[serde(with = "text")]
    subnet: SubnetId,
    #[serde(with = "network")]
    subnet_cidr: Cidr4,
    zone: String,
    #[serde(with = "text")]
    vpc: VpcId,
    #[serde(with = "networks")]
    vpc_cidrs: Vec<Cidr4>,
    #[serde(with = "texts")]
    security_groups: Vec<SecurityGroupId>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Limits")]
struct LimitsForm {
    max_enis: u8,
    addresses_per_eni: u16,
    prefixes: bool,
    other_cards: [u8; MAX_CARDS],
}

/// What shows itself as text and is read from it.
mod text {
    use super::{Deserialize, Deserializer, Display, FromStr, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Lists of such values.
mod texts {
    use super::{Deserialize, Deserializer, Display, FromStr, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}

/// A network, as `10.0.0.0/16`.
mod network {
    use super::{Cidr4, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Cidr4, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cidr4, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::settings::parse_cidr(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no network")))
    }
}

/// Lists of networks.
mod networks {
    use super::{Cidr4, Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Network(#[serde(with = "super::network")] Cidr4);

    pub(super) fn serialize<S: Serializer>(values: &[Cidr4], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| Network(*value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr4>, D::Error> {
        Ok(Vec::<Network>::deserialize(deserializer)?.into_iter().map(|network| network.0).collect())
    }
}

/// An attachment that may be absent.
mod attachment {
    use super::{Attachment, AttachmentForm, Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Written(#[serde(with = "AttachmentForm")] Attachment);

    pub(super) fn serialize<S: Serializer>(value: &Option<Attachment>, serializer: S) -> Result<S::Ok, S::Error> {
        value.clone().map(Written).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Attachment>, D::Error> {
        Ok(Option::<Written>::deserialize(deserializer)?.map(|written| written.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions() -> Vec<Action> {
        let eni = || "eni-1".parse().unwrap();
        let attachment = || "eni-attach-1".parse().unwrap();
        let group = || "sg-1".parse().unwrap();
        let prefix = Cidr4 { network: [10, 0, 0, 16].into(), prefix: 28 };
        vec![
            Action::Create {
                subnet: "subnet-1".parse().unwrap(),
                security_groups: vec![group()],
                amount: Amount::Prefixes(2),
                prefix6: true,
            },
            Action::Assign { eni: eni(), amount: Amount::Prefix6 },
            Action::Attach { eni: eni(), card: 1, device_index: 2 },
            Action::DeleteOnTermination { eni: eni(), attachment: attachment() },
            Action::SecurityGroups { eni: eni(), security_groups: vec![group()] },
            Action::Assign { eni: eni(), amount: Amount::Addresses(5) },
            Action::Unassign {
                eni: eni(),
                holdings: Holdings { addresses: vec![[10, 0, 0, 9].into()], ..Holdings::default() },
            },
            Action::Unassign { eni: eni(), holdings: Holdings { prefixes: vec![prefix], ..Holdings::default() } },
            Action::Detach { eni: eni(), attachment: attachment() },
            Action::Delete { eni: eni() },
        ]
    }

    #[test]
    fn every_action_is_read_as_it_was_written() {
        for action in actions() {
            let text = action.write();
            assert_eq!(Action::read(&text).unwrap(), action, "{text}");
        }
    }

    #[test]
    fn the_written_form_of_an_action_stays_as_it_is() {
        let text = r#"{"version":1,"value":{"do":"assign","eni":"eni-1","amount":{"addresses":5}}}"#;
        assert_eq!(actions()[5].write(), text);
    }

    #[test]
    fn what_cannot_be_understood_is_refused_and_says_why() {
        let bad = [
            "Create { subnet: subnet-1 }",
            r#"{"version":2,"value":{"do":"delete","eni":"eni-1"}}"#,
            r#"{"version":1,"value":{"do":"delete","eni":"vpc-1"}}"#,
            r#"{"version":1,"value":{"do":"explode","eni":"eni-1"}}"#,
        ];
        for text in bad {
            assert!(Action::read(text).is_err_and(|error| !error.to_string().is_empty()), "{text}");
        }
    }
}
