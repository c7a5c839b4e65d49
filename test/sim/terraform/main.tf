# What a user's Terraform makes: a VPC, subnets for pods, a group, a node and an ENI of it.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "endpoint" {
  description = "Where ec2-sim answers, as http://127.0.0.1:4599."
  type        = string
}

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "any"
  secret_key                  = "any"
  skip_requesting_account_id  = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  endpoints {
    ec2 = var.endpoint
    sts = var.endpoint
  }
}

resource "aws_vpc" "main" {
  cidr_block                       = "10.20.0.0/16"
  assign_generated_ipv6_cidr_block = true
  tags                             = { Name = "terraform" }
}

resource "aws_vpc_ipv4_cidr_block_association" "pods" {
  vpc_id     = aws_vpc.main.id
  cidr_block = "100.64.0.0/16"
}

resource "aws_subnet" "nodes" {
  vpc_id            = aws_vpc.main.id
  cidr_block        = "10.20.0.0/24"
  ipv6_cidr_block   = cidrsubnet(aws_vpc.main.ipv6_cidr_block, 8, 1)
  availability_zone = "us-east-1a"
}

resource "aws_subnet" "pods" {
  vpc_id            = aws_vpc_ipv4_cidr_block_association.pods.vpc_id
  cidr_block        = "100.64.0.0/20"
  availability_zone = "us-east-1a"
  tags              = { "kubernetes.io/role/cni" = "1" }
}

resource "aws_ec2_subnet_cidr_reservation" "prefixes" {
  subnet_id        = aws_subnet.pods.id
  cidr_block       = "100.64.8.0/21"
  reservation_type = "prefix"
}

resource "aws_security_group" "nodes" {
  name        = "nodes"
  description = "Nodes and their pods"
  vpc_id      = aws_vpc.main.id
}

resource "aws_network_interface" "pods" {
  subnet_id         = aws_subnet.pods.id
  security_groups   = [aws_security_group.nodes.id]
  ipv4_prefix_count = 2
  description       = "for pods"
  tags              = { "node.k8s.amazonaws.com/no_manage" = "true" }
}

resource "aws_instance" "node" {
  ami                    = "ami-0123456789abcdef0"
  instance_type          = "m5.large"
  subnet_id              = aws_subnet.nodes.id
  vpc_security_group_ids = [aws_security_group.nodes.id]
  tags                   = { Name = "node" }
}

resource "aws_network_interface_attachment" "pods" {
  instance_id          = aws_instance.node.id
  network_interface_id = aws_network_interface.pods.id
  device_index         = 1
}
