//! The EC2 query protocol: a form comes in, XML goes out.

mod fixed;
mod instances;
mod interfaces;
mod ipv6;
mod networks;
mod params;
mod removal;
mod reservations;
mod tags;
mod xml;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};

use self::{params::Params, xml::Xml};
use crate::{
    Action, ApiError, Failure, SimCloud,
    action::{
        AssignIpv6Addresses, AssignPrivateIpAddresses, AssociateVpcCidrBlock, AttachNetworkInterface,
        CreateNetworkInterface, CreateSecurityGroup, CreateSubnet, CreateSubnetCidrReservation, CreateTags, CreateVpc,
        DeleteNetworkInterface, DeleteSecurityGroup, DeleteSubnet, DeleteSubnetCidrReservation, DeleteTags, DeleteVpc,
        DescribeInstanceTypes, DescribeInstances, DescribeNetworkInterfaces, DescribeSecurityGroups, DescribeSubnets,
        DescribeTags, DescribeVpcs, DetachNetworkInterface, DisassociateVpcCidrBlock, DryRun,
        GetSubnetCidrReservations, ModifyNetworkInterfaceAttribute, RunInstances, TerminateInstances,
        UnassignIpv6Addresses, UnassignPrivateIpAddresses,
    },
    world::Reply,
};

/// An action as it travels: how its parameters are read and its answer is written.
trait Wire: Action + Sized {
    /// Reads the parameters.
    fn read(params: &Params) -> Result<Self, ApiError>;

    /// Writes what stands inside of the answer, after the request id.
    fn write(answer: &Self::Answer, xml: &mut Xml);
}

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

pub(crate) fn router(cloud: SimCloud) -> Router {
    Router::new().route("/healthz", get(async || "ok\n")).fallback(answer).with_state(cloud)
}

/// Everything but `/healthz`: the path does not matter to EC2, the action is in the form or the query.
async fn answer(State(cloud): State<SimCloud>, uri: Uri, body: Bytes) -> Response {
    let params = Params::read(&[uri.query().unwrap_or_default().as_bytes(), &body]);
    let reply = match params.text("Action") {
        Some(action) => dispatch(&cloud, action, &params),
        None => refused(ApiError::new("MissingAction", "The request is missing an action")),
    };
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    let (status, text) = match reply.outcome {
        Ok(text) => (StatusCode::OK, text),
        Err(Failure::Refused(error)) => error_response(&cloud, &error),
        Err(Failure::NoReply) => return broken_off(),
    };
    let text = match reply.spoil {
        Some(spoil) => spoil.apply(&text),
        None => text,
    };
    (status, [(header::CONTENT_TYPE, "text/xml;charset=UTF-8")], text).into_response()
}

fn refused(error: ApiError) -> Reply<String> {
    Reply { outcome: Err(Failure::Refused(error)), spoil: None, delay: std::time::Duration::ZERO }
}

fn dispatch(cloud: &SimCloud, action: &str, params: &Params) -> Reply<String> {
    macro_rules! actions {
        ($($action:ident),* $(,)?) => {
            match action {
                $(stringify!($action) => run::<$action>(cloud, params),)*
                "GetCallerIdentity" => caller_identity(cloud),
                _ => fixed_answer(cloud, action, params),
            }
        };
    }
    actions!(
        AssignIpv6Addresses,
        AssignPrivateIpAddresses,
        AssociateVpcCidrBlock,
        AttachNetworkInterface,
        CreateNetworkInterface,
        CreateSecurityGroup,
        CreateSubnet,
        CreateSubnetCidrReservation,
        CreateTags,
        CreateVpc,
        DeleteNetworkInterface,
        DeleteSecurityGroup,
        DeleteSubnet,
        DeleteSubnetCidrReservation,
        DeleteTags,
        DeleteVpc,
        DescribeInstanceTypes,
        DescribeInstances,
        DescribeNetworkInterfaces,
        DescribeSecurityGroups,
        DescribeSubnets,
        DescribeTags,
        DescribeVpcs,
        DetachNetworkInterface,
        DisassociateVpcCidrBlock,
        GetSubnetCidrReservations,
        ModifyNetworkInterfaceAttribute,
        RunInstances,
        TerminateInstances,
        UnassignIpv6Addresses,
        UnassignPrivateIpAddresses,
    )
}

fn run<A: Wire>(cloud: &SimCloud, params: &Params) -> Reply<String> {
    let (action, dry_run) = match A::read(params).and_then(|action| Ok((action, params.flag("DryRun")?))) {
        Ok(read) => read,
        Err(error) => return refused(error),
    };
    let reply = if dry_run == Some(true) { cloud.reply(&DryRun(action)) } else { cloud.reply(&action) };
    let outcome = reply.outcome.map(|answer| {
        let mut xml = Xml::default();
        xml.document(&format!("{}Response", A::NAME), NAMESPACE, |xml| {
            xml.leaf("requestId", request_id(cloud));
            A::write(&answer, xml);
        });
        xml.into_text()
    });
    Reply { outcome, spoil: reply.spoil, delay: reply.delay }
}

/// What is said of things that are not simulated. They have no budget and are not in the log.
fn fixed_answer(cloud: &SimCloud, action: &str, params: &Params) -> Reply<String> {
    let (mut xml, mut written) = (Xml::default(), None);
    xml.document(&format!("{action}Response"), NAMESPACE, |xml| {
        xml.leaf("requestId", request_id(cloud));
        written = fixed::write(action, params, xml);
    });
    match written {
        Some(Ok(())) => Reply { outcome: Ok(xml.into_text()), spoil: None, delay: std::time::Duration::ZERO },
        Some(Err(error)) => refused(error),
        None => {
            let message = format!("The action {action} is not valid for this web service.");
            refused(ApiError::new("InvalidAction", message))
        }
    }
}

/// STS's one call that tells whether credentials work. Here they always do.
fn caller_identity(cloud: &SimCloud) -> Reply<String> {
    let mut xml = Xml::default();
    xml.document("GetCallerIdentityResponse", "https://sts.amazonaws.com/doc/2011-06-15/", |xml| {
        xml.element("GetCallerIdentityResult", |xml| {
            xml.leaf("Arn", format!("arn:aws:iam::{}:root", crate::ACCOUNT));
            xml.leaf("UserId", crate::ACCOUNT);
            xml.leaf("Account", crate::ACCOUNT);
        });
        xml.element("ResponseMetadata", |xml| xml.leaf("RequestId", request_id(cloud)));
    });
    Reply { outcome: Ok(xml.into_text()), spoil: None, delay: std::time::Duration::ZERO }
}

fn error_response(cloud: &SimCloud, error: &ApiError) -> (StatusCode, String) {
    let mut xml = Xml::default();
    xml.root("Response", |xml| {
        xml.element("Errors", |xml| {
            xml.element("Error", |xml| {
                xml.leaf("Code", &error.code);
                xml.leaf("Message", &error.message);
            });
        });
        xml.leaf("RequestID", request_id(cloud));
    });
    (StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST), xml.into_text())
}

/// A reply that breaks off in the middle, so that the client cannot know what became of its request.
fn broken_off() -> Response {
    let lost = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the reply was lost on demand");
    Response::new(Body::from_stream(tokio_stream::once(Err::<Bytes, _>(lost))))
}

/// A number of the request that looks as AWS's do.
fn request_id(cloud: &SimCloud) -> String {
    format!("00000000-0000-4000-8000-{:012x}", cloud.with(|world, _| world.log().total()))
}
