//! EC2's query protocol, as much as a lab needs: it works alike on the simulator and on an emulator.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use ipam_core::ports::{Attachment, Cidr4, Interface, InterfaceKind};

use crate::{Element, LabError};

/// How long one call may take. The first call of an emulator loads its whole catalogue.
const PATIENCE: Duration = Duration::from_secs(60);

/// An EC2 endpoint, with the account and region to work in. Calls block and are sent once.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where it listens, without TLS.
    pub address: SocketAddr,
    /// Access key; emulators take twelve digits for the account.
    pub access_key: String,
    /// Region, as `us-east-1`.
    pub region: String,
}

impl Endpoint {
    /// Sends one action with its parameters and returns the answer's outermost element.
    ///
    /// # Errors
    /// [`LabError::Refused`] with EC2's code, [`LabError::Os`] when nobody answers, [`LabError::Answer`].
    pub fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Element, LabError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", action).append_pair("Version", "2016-11-15");
        let body = form.extend_pairs(parameters).finish();
        let answer = self.post(&body).map_err(LabError::os(format!("ask EC2 at {} for {action}", self.address)))?;
        let (head, document) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| LabError::Answer { what: "an HTTP answer", answer: answer.clone() })?;
        let root = Element::parse(document)?;
        if head.split(' ').nth(1) == Some("200") {
            return Ok(root);
        }
        Err(LabError::Refused {
            action: action.to_owned(),
            code: root.text_at("Errors/Error/Code").to_owned(),
            message: root.text_at("Errors/Error/Message").to_owned(),
        })
    }

    /// Returns every ENI of the account in this region, in no particular order, each once.
    ///
    /// # Errors
    /// As [`Endpoint::call`].
    pub fn interfaces(&self) -> Result<Vec<Interface>, LabError> {
        let mut interfaces = Vec::new();
        let mut token = String::new();
        loop {
            let mut parameters = vec![("MaxResults", "1000")];
            if !token.is_empty() {
                parameters.push(("NextToken", &token));
            }
            let page = self.call("DescribeNetworkInterfaces", &parameters)?;
            for item in page.list_at("networkInterfaceSet") {
                interfaces.push(interface(item)?);
            }
            page.text_at("nextToken").clone_into(&mut token);
            if token.is_empty() {
                return Ok(interfaces);
            }
        }
    }

    /// HTTP 1.0, so that the answer is neither chunked nor followed by another.
    fn post(&self, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let Self { address, access_key, region } = self;
        // Simulators and emulators read account and region from the header and do not check the signature.
        let request = format!(
            "POST / HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={access_key}/20260101/{region}/ec2/aws4_request, \
             SignedHeaders=host, Signature=0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

fn interface(item: &Element) -> Result<Interface, LabError> {
    let primary = address(item.text_at("privateIpAddress"))?;
    let mut secondary = item
        .list_at("privateIpAddressesSet")
        .iter()
        .map(|entry| address(entry.text_at("privateIpAddress")))
        .collect::<Result<Vec<_>, _>>()?;
    secondary.retain(|&other| other != primary);
    secondary.sort_unstable();
    secondary.dedup();
    let tags = item
        .list_at("tagSet")
        .iter()
        .map(|tag| (tag.text_at("key").to_owned(), tag.text_at("value").to_owned()))
        .collect::<BTreeMap<_, _>>();
    Ok(Interface {
        id: parse(item.text_at("networkInterfaceId"))?,
        mac: parse(item.text_at("macAddress"))?,
        subnet: parse(item.text_at("subnetId"))?,
        primary,
        secondary,
        prefixes: item.list_at("ipv4PrefixSet").iter().map(prefix).collect::<Result<_, _>>()?,
        // Its fabric is told of them apart: see `Lab::give_ipv6`.
        prefixes6: Vec::new(),
        kind: InterfaceKind::Plain,
        security_groups: vec![],
        attachment: item.at("attachment").map(attachment).transpose()?.flatten(),
        tags,
    })
}

/// An element without an instance stands for no attachment.
fn attachment(element: &Element) -> Result<Option<Attachment>, LabError> {
    if element.text_at("instanceId").is_empty() {
        return Ok(None);
    }
    let card = element.text_at("networkCardIndex");
    Ok(Some(Attachment {
        id: parse(element.text_at("attachmentId"))?,
        instance: parse(element.text_at("instanceId"))?,
        device_index: parse(element.text_at("deviceIndex"))?,
        card: if card.is_empty() { 0 } else { parse(card)? },
        attached: element.text_at("status") == "attached",
        delete_on_termination: element.text_at("deleteOnTermination") == "true",
    }))
}

fn prefix(element: &Element) -> Result<Cidr4, LabError> {
    let text = element.text_at("ipv4Prefix");
    let (network, prefix) = text.split_once('/').unwrap_or((text, ""));
    Ok(Cidr4 { network: address(network)?, prefix: parse(prefix)? })
}

fn address(text: &str) -> Result<Ipv4Addr, LabError> {
    parse(text)
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, LabError> {
    text.parse().map_err(|_| LabError::Answer { what: "a field of DescribeNetworkInterfaces", answer: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eni_is_read_as_simulators_and_emulators_describe_it() {
        let item = Element::parse(
            "<item><networkInterfaceId>eni-1</networkInterfaceId><subnetId>subnet-1</subnetId>
             <macAddress>02:00:00:00:00:01</macAddress><privateIpAddress>10.0.0.5</privateIpAddress><association/>
             <attachment><attachmentId>eni-attach-1</attachmentId><instanceId>i-1</instanceId>
             <deviceIndex>2</deviceIndex><status>attached</status></attachment>
             <privateIpAddressesSet>
             <item><privateIpAddress>10.0.0.9</privateIpAddress></item>
             <item><privateIpAddress>10.0.0.5</privateIpAddress><primary>true</primary></item>
             <item><privateIpAddress>10.0.0.7</privateIpAddress></item>
             </privateIpAddressesSet><ipv4PrefixSet><item><ipv4Prefix>10.0.0.16/28</ipv4Prefix></item></ipv4PrefixSet><tagSet><item><key>a</key><value>b</value></item></tagSet></item>",
        );
        let eni = interface(&item.unwrap()).unwrap();

        assert_eq!(eni.secondary, [Ipv4Addr::new(10, 0, 0, 7), Ipv4Addr::new(10, 0, 0, 9)]);
        assert_eq!(eni.addresses().last(), Some(Ipv4Addr::new(10, 0, 0, 31)));
        let attachment = eni.attachment.unwrap();
        assert_eq!((attachment.device_index, attachment.card, attachment.attached), (2, 0, true));
        assert_eq!(eni.tags["a"], "b");
    }

    #[test]
    fn an_empty_attachment_is_none() {
        let empty = Element::parse("<attachment/>").unwrap();
        assert_eq!(attachment(&empty).unwrap(), None);
    }
}
