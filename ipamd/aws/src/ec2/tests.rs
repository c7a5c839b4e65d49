use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};
use aws_sdk_ec2::types::{AttachmentStatus, NetworkInterfaceAttachment, NetworkInterfacePrivateIpAddress};
use ipam_core::{
    ids::InvalidId,
    ports::{Ec2Error, RefusalClass},
};

use super::*;

const INSTANCE: &str = "i-1";

/// An address that no other ENI has.
fn address(id: &str) -> String {
    format!("10.0.0.{}", id.len())
}

fn described(id: &str, mac: &str, tag: Option<&str>, attached: Option<(&str, i32)>) -> NetworkInterface {
    let attachment = attached.map(|(instance, index)| {
        NetworkInterfaceAttachment::builder()
            .attachment_id("eni-attach-1")
            .instance_id(instance)
            .device_index(index)
            .status(AttachmentStatus::Attached)
            .build()
    });
    NetworkInterface::builder()
        .network_interface_id(id)
        .mac_address(mac)
        .subnet_id("subnet-1")
        .private_ip_address(address(id))
        .private_ip_addresses(NetworkInterfacePrivateIpAddress::builder().private_ip_address(address(id)).build())
        .set_attachment(attachment)
        .set_tag_set(tag.map(|instance| vec![Tag::builder().key(TAG_INSTANCE).value(instance).build()]))
        .build()
}

fn own(described: &[NetworkInterface]) -> Result<Vec<String>, String> {
    let own = own_interfaces(&INSTANCE.parse().map_err(|error: InvalidId| error.to_string())?, described);
    own.map(|own| own.iter().map(|eni| eni.id.to_string()).collect()).map_err(|error| error.to_string())
}

const MAC: &str = "02:00:00:00:00:01";
const BROKEN: &str = "02:00:00:21902x:14702x:22702x";

#[test]
fn each_interface_of_this_node_is_listed_once() {
    let described = [
        described("eni-primary", MAC, None, Some((INSTANCE, 0))),
        described("eni-both", MAC, Some(INSTANCE), Some((INSTANCE, 1))),
        described("eni-both", MAC, Some(INSTANCE), Some((INSTANCE, 1))),
        described("eni-tagged", MAC, Some(INSTANCE), None),
        described("eni-other", MAC, Some("i-2"), Some(("i-2", 1))),
        described("eni-nobody", MAC, None, None),
    ];
    assert_eq!(own(&described), Ok(["eni-both", "eni-primary", "eni-tagged"].map(str::to_owned).to_vec()));
}

#[test]
fn an_interface_of_somebody_else_may_be_unreadable() {
    let described = [
        described("eni-primary", MAC, None, Some((INSTANCE, 0))),
        described("eni-efa", BROKEN, None, Some((INSTANCE, 1))),
        described("eni-other", BROKEN, None, Some(("i-2", 0))),
    ];
    assert_eq!(own(&described), Ok(vec!["eni-primary".to_owned()]));
}

#[test]
fn an_unreadable_interface_of_ours_hides_nothing() {
    let wanted =
        "outcome of DescribeNetworkInterfaces is unknown: EC2's answer cannot be right: MacAddress of eni-a is";
    for ours in [
        described("eni-a", BROKEN, None, Some((INSTANCE, 0))),
        described("eni-a", BROKEN, Some(INSTANCE), None),
        described("eni-a", BROKEN, Some(INSTANCE), Some((INSTANCE, 2))),
    ] {
        let error = own(&[ours]).unwrap_err();
        assert!(error.starts_with(wanted), "{error}");
    }
}

#[derive(Debug)]
struct NoCredentials(fn() -> CredentialsError);

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err((self.0)()))
    }
}

#[tokio::test]
async fn without_credentials_nothing_is_sent_and_the_operator_is_told() {
    let table: [(fn() -> CredentialsError, RefusalClass); 3] = [
        (|| CredentialsError::not_loaded("nobody has any"), RefusalClass::NotAllowed),
        (|| CredentialsError::invalid_configuration("no such profile"), RefusalClass::NotAllowed),
        (|| CredentialsError::provider_timed_out(std::time::Duration::from_secs(5)), RefusalClass::TryLater),
    ];
    for (why, wanted) in table {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url("http://127.0.0.1:9")
            .http_client(http_client())
            .retry_config(RetryConfig::disabled())
            .credentials_provider(NoCredentials(why));
        let ec2 = AwsEc2 {
            settings: AwsSettings::for_region("us-east-1"),
            client: OnceCell::new_with(Some(Client::new(&config.load().await))),
            throttle: Throttle::new(),
        };
        match ec2.delete_interface(&"eni-1".parse().unwrap()).await {
            Err(Ec2Error::Refused { class, code, message, .. }) => {
                assert_eq!((class, code.as_str()), (wanted, "NoCredentials"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}
