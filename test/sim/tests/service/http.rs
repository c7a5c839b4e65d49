use ec2_sim::{Delays, Failure, FaultRule, SimCloud, Spoil, action::DescribeVpcs};

use super::{
    client::{Answer, ask, serve},
    cloud,
};

/// Sends a form to a cloud of its own.
async fn post(cloud: &SimCloud, form: &str) -> Answer {
    ask(serve(cloud.router()).await, "POST", "/", &[("content-type", "application/x-www-form-urlencoded")], form).await
}

/// What stands in the first element of this name.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split_once(&format!("</{name}>")).unwrap().0
}

#[tokio::test]
async fn an_answer_has_ec2s_shape() {
    let (cloud, _, subnet) = cloud(Delays::NONE);
    let form = format!("Action=CreateNetworkInterface&Version=2016-11-15&SubnetId={subnet}&Description=a+%3Cb%3E");
    let (status, xml) = post(&cloud, &form).await.unwrap();
    assert_eq!(status, 200, "{xml}");
    let root = "<CreateNetworkInterfaceResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>";
    assert!(xml.contains(root), "{xml}");
    assert_eq!(element(&xml, "description"), "a &lt;b&gt;");
    assert!(element(&xml, "macAddress").starts_with("02:"));
    assert!(!xml.contains("<attachment") && !xml.contains("<association"), "{xml}");
}

#[tokio::test]
async fn an_error_has_ec2s_shape_and_status() {
    let (cloud, _, subnet) = cloud(Delays::NONE);
    #[rustfmt::skip]
    let table = [
        (String::from("Action=DescribeRegions"),                                   400, "InvalidAction"),
        (String::from("Version=2016-11-15"),                                       400, "MissingAction"),
        (String::from("Action=CreateNetworkInterface"),                            400, "MissingParameter"),
        (String::from("Action=DescribeVpcs&MaxResults=many"),                      400, "InvalidParameterValue"),
        (String::from("Action=DescribeVpcs&DryRun=true"),                          412, "DryRunOperation"),
        (String::from("Action=DescribeSubnets&SubnetId.1=subnet-00000000"),        400, "InvalidSubnetID.NotFound"),
        (format!("Action=CreateNetworkInterface&SubnetId={subnet}&SecondaryPrivateIpAddressCount=-1"), 400, "InvalidParameterValue"),
        (String::from("Action=ModifyNetworkInterfaceAttribute&NetworkInterfaceId=eni-1&Description.Value=x&SourceDestCheck.Value=true"), 400, "InvalidParameterCombination"),
        (String::from("Action=ModifyNetworkInterfaceAttribute&NetworkInterfaceId=eni-1"), 400, "InvalidParameterCombination"),
    ];
    for (form, status, code) in table {
        let (got, xml) = post(&cloud, &form).await.unwrap();
        assert_eq!((got, element(element(&xml, "Error"), "Code")), (status, code), "{form}");
        assert!(xml.contains("<Response><Errors><Error><Code>") && xml.ends_with("</RequestID></Response>"), "{xml}");
    }
}

#[tokio::test]
async fn parameters_may_also_stand_in_the_query() {
    let (cloud, _, subnet) = cloud(Delays::NONE);
    let at = serve(cloud.router()).await;
    let path = "/?Action=DescribeSubnets&Filter.1.Name=cidr-block&Filter.1.Value.1=10.0.*";
    let (status, xml) = ask(at, "GET", path, &[], "").await.unwrap();
    assert_eq!((status, element(&xml, "subnetId")), (200, subnet.as_str()));
    assert_eq!(ask(at, "GET", "/healthz", &[], "").await, Some((200, "ok\n".to_owned())));
}

#[tokio::test]
async fn a_lost_reply_breaks_off() {
    let (cloud, _, _) = cloud(Delays::NONE);
    cloud.with(|world, _| world.inject(FaultRule::drop_after("CreateVpc", 1)));
    assert_eq!(post(&cloud, "Action=CreateVpc&CidrBlock=10.9.0.0/16").await, None);
    assert_eq!(cloud.with(|world, _| world.vpcs().count()), 2);
}

#[tokio::test]
async fn a_fault_has_the_status_that_was_asked_for() {
    let (cloud, _, _) = cloud(Delays::NONE);
    cloud.with(|world, _| world.inject(FaultRule::refuse("DescribeVpcs", 1, "RequestLimitExceeded", 503)));
    let (status, xml) = post(&cloud, "Action=DescribeVpcs").await.unwrap();
    assert_eq!((status, element(&xml, "Code")), (503, "RequestLimitExceeded"));
}

#[tokio::test]
async fn anybody_is_told_who_they_are() {
    let (cloud, _, _) = cloud(Delays::NONE);
    let (status, xml) = post(&cloud, "Action=GetCallerIdentity&Version=2011-06-15").await.unwrap();
    assert_eq!((status, element(&xml, "Account")), (200, ec2_sim::ACCOUNT));
}

#[tokio::test]
async fn an_answer_can_be_spoilt_on_demand() {
    let (cloud, _, _) = cloud(Delays::NONE);
    #[rustfmt::skip]
    let table = [
        (Spoil::Body(String::new()),                       ""),
        (Spoil::Cut(100),                                  "<?xml version=\"1.0\" enc"),
        (Spoil::With("vpcId".into(), "many".into()),       "<vpcId>many</vpcId>"),
    ];
    for (spoil, wanted) in table {
        cloud.with(|world, _| world.inject(FaultRule::spoil("DescribeVpcs", 1, spoil.clone())));
        let (status, text) = post(&cloud, "Action=DescribeVpcs").await.unwrap();
        assert!(status == 200 && text.contains(wanted), "{spoil:?}: {text}");
    }
    // Whoever sees no text has no answer.
    cloud.with(|world, _| world.inject(FaultRule::spoil("DescribeVpcs", 1, Spoil::Cut(0))));
    assert_eq!(cloud.call(&DescribeVpcs::default()), Err(Failure::NoReply));
}
