"""Drives the simulator with boto3: the wire format as somebody else's SDK reads it.

Usage: boto3_check.py EC2_ENDPOINT IMDS_ENDPOINT
"""

import sys
import time
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

EC2 = boto3.client(
    "ec2",
    endpoint_url=sys.argv[1],
    region_name="eu-central-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
    config=Config(retries={"max_attempts": 0}),
)


def refused(code, call, **arguments):
    """Fails unless EC2 refuses the call with this code."""
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    raise AssertionError(f"{code} expected")


def described(eni):
    return EC2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]


def wait(what, condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        time.sleep(0.05)


def networks():
    vpc = EC2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=[
        {"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "a <b> & \"c\""}]}])["Vpc"]
    assert vpc["Tags"] == [{"Key": "Name", "Value": "a <b> & \"c\""}], vpc
    assert EC2.describe_vpcs(VpcIds=[vpc["VpcId"]])["Vpcs"][0]["CidrBlock"] == "10.9.0.0/16"
    subnet = EC2.create_subnet(VpcId=vpc["VpcId"], CidrBlock="10.9.1.0/24")["Subnet"]
    assert subnet["AvailableIpAddressCount"] == 251
    group = EC2.create_security_group(GroupName="g", Description="d", VpcId=vpc["VpcId"])["GroupId"]
    groups = EC2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["SecurityGroups"]
    assert sorted(found["GroupName"] for found in groups) == ["default", "g"]
    return subnet["SubnetId"], group


def interfaces(subnet, group):
    run = EC2.run_instances(ImageId="ami-1", InstanceType="m5.large", MinCount=1, MaxCount=1, SubnetId=subnet)
    instance = run["Instances"][0]["InstanceId"]
    state = EC2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert state["State"]["Name"] == "running"
    assert state["NetworkInterfaces"][0]["Attachment"]["DeleteOnTermination"] is True

    asked = dict(
        SubnetId=subnet, Groups=[group], Description="of a test", SecondaryPrivateIpAddressCount=3, ClientToken="t1",
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": [{"Key": "owner", "Value": "boto"}]}])
    made = EC2.create_network_interface(**asked)["NetworkInterface"]
    eni = made["NetworkInterfaceId"]
    assert made["Status"] == "pending" and len(made["PrivateIpAddresses"]) == 4, made
    assert "Association" not in made and "Attachment" not in made
    assert [group["GroupId"] for group in made["Groups"]] == [group]
    assert EC2.create_network_interface(**asked)["NetworkInterface"]["NetworkInterfaceId"] == eni
    refused("IdempotentParameterMismatch", EC2.create_network_interface, **{**asked, "Description": "other"})
    wait("available", lambda: described(eni)["Status"] == "available")

    attachment = EC2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=1)["AttachmentId"]
    refused("InvalidNetworkInterface.InUse", EC2.delete_network_interface, NetworkInterfaceId=eni)
    wait("attached", lambda: described(eni)["Attachment"]["Status"] == "attached")
    EC2.modify_network_interface_attribute(
        NetworkInterfaceId=eni, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True})
    assert described(eni)["Attachment"]["DeleteOnTermination"] is True

    new = EC2.assign_private_ip_addresses(NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=2)
    new = [address["PrivateIpAddress"] for address in new["AssignedPrivateIpAddresses"]]
    assert len(new) == 2
    refused("PrivateIpAddressLimitExceeded", EC2.assign_private_ip_addresses,
            NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=5)
    pages = EC2.get_paginator("describe_network_interfaces").paginate(
        Filters=[{"Name": "private-ip-address", "Values": [new[1]]}, {"Name": "tag:owner", "Values": ["b?t*"]}])
    assert [found["NetworkInterfaceId"] for page in pages for found in page["NetworkInterfaces"]] == [eni]
    EC2.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=new)
    refused("InvalidParameterValue", EC2.unassign_private_ip_addresses, NetworkInterfaceId=eni, PrivateIpAddresses=new)
    assert refused("DryRunOperation", EC2.detach_network_interface, AttachmentId=attachment, DryRun=True) == 412

    EC2.detach_network_interface(AttachmentId=attachment)
    wait("detached", lambda: described(eni)["Status"] == "available")
    EC2.create_tags(Resources=[eni], Tags=[{"Key": "more", "Value": ""}])
    EC2.delete_tags(Resources=[eni], Tags=[{"Key": "owner"}])
    tags = EC2.describe_tags(Filters=[{"Name": "resource-id", "Values": [eni]}])["Tags"]
    assert [(tag["Key"], tag["Value"]) for tag in tags] == [("more", "")], tags
    EC2.delete_network_interface(NetworkInterfaceId=eni)
    refused("InvalidNetworkInterfaceID.NotFound", EC2.delete_network_interface, NetworkInterfaceId=eni)
    refused("InvalidNetworkInterfaceId.Malformed", EC2.delete_network_interface, NetworkInterfaceId="eni-x")
    EC2.terminate_instances(InstanceIds=[instance])
    wait("terminated", lambda: EC2.describe_instances(InstanceIds=[instance])[
        "Reservations"][0]["Instances"][0]["State"]["Name"] == "terminated")
    assert EC2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"] == 251


def ipv6():
    vpc = EC2.create_vpc(CidrBlock="10.8.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    block = vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
    assert block.endswith("00::/56"), block
    subnet = EC2.create_subnet(VpcId=vpc["VpcId"], CidrBlock="10.8.1.0/24", Ipv6CidrBlock=block.replace("/56", "/64"))
    subnet = subnet["Subnet"]
    assert subnet["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"] == block.replace("/56", "/64"), subnet
    eni = EC2.create_network_interface(SubnetId=subnet["SubnetId"], Ipv6PrefixCount=1)["NetworkInterface"]
    prefix = eni["Ipv6Prefixes"][0]["Ipv6Prefix"]
    assert prefix.endswith("/80"), prefix
    eni = eni["NetworkInterfaceId"]
    new = EC2.assign_ipv6_addresses(NetworkInterfaceId=eni, Ipv6AddressCount=2)["AssignedIpv6Addresses"]
    found = described(eni)
    assert [one["Ipv6Address"] for one in found["Ipv6Addresses"]] == new, found
    pages = EC2.describe_network_interfaces(Filters=[{"Name": "ipv6-addresses.ipv6-address", "Values": [new[0]]}])
    assert [one["NetworkInterfaceId"] for one in pages["NetworkInterfaces"]] == [eni]
    refused("InvalidIPAddress.InUse", EC2.assign_ipv6_addresses, NetworkInterfaceId=eni, Ipv6Prefixes=[prefix])
    gone = EC2.unassign_ipv6_addresses(NetworkInterfaceId=eni, Ipv6Addresses=new)
    assert gone["UnassignedIpv6Addresses"] == new, gone
    EC2.unassign_ipv6_addresses(NetworkInterfaceId=eni, Ipv6Prefixes=[prefix])
    assert described(eni)["Ipv6Addresses"] == [], described(eni)
    EC2.delete_network_interface(NetworkInterfaceId=eni)


def instance_types():
    found = EC2.describe_instance_types(InstanceTypes=["m5.large"])["InstanceTypes"][0]["NetworkInfo"]
    assert (found["MaximumNetworkInterfaces"], found["Ipv4AddressesPerInterface"]) == (3, 10)
    pages = EC2.get_paginator("describe_instance_types").paginate()
    assert sum(len(page["InstanceTypes"]) for page in pages) > 1000
    assert refused("InvalidAction", EC2.describe_regions) == 400


def metadata(endpoint):
    def ask(path, method="GET", **headers):
        request = urllib.request.Request(endpoint + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.read().decode()

    token = ask("/latest/api/token", "PUT", **{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    mac = ask("/latest/meta-data/mac", **{"X-aws-ec2-metadata-token": token})
    macs = ask("/latest/meta-data/network/interfaces/macs/", **{"X-aws-ec2-metadata-token": token})
    assert macs == mac + "/", macs


networks_made = networks()
interfaces(*networks_made)
ipv6()
instance_types()
metadata(sys.argv[2])
print("ok")
