# The network of ../modules/network, ipamd's role, two nodes and an ENI, on LocalStack: what CI applies with the real provider, and what the lab
# builds its nodes from.

provider "aws" {
  region                      = "us-east-1"
  access_key                  = var.account
  secret_key                  = "any"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  skip_get_ec2_platforms      = true
  max_retries                 = 2
  endpoints {
    ec2 = var.endpoint
    iam = var.endpoint
    sts = var.endpoint
  }
}

locals {
  name = "eni-cni-lab"
  zone = "us-east-1a"
}

module "network" {
  source   = "../modules/network"
  name     = local.name
  zones    = [local.zone, "us-east-1b"]
  pod_cidr = "100.64.0.0/16"
}

module "iam" {
  source       = "../modules/iam"
  cluster_name = local.name
  vpc_arn      = "arn:aws:ec2:us-east-1:${var.account}:vpc/${module.network.vpc_id}"
}

resource "aws_instance" "node" {
  #checkov:skip=CKV2_AWS_41: an instance of an emulator
  count         = 2
  ami           = "ami-0123456789abcdef0"
  instance_type = "m5.xlarge"
  subnet_id     = module.network.private_subnets[local.zone]
  tags          = { Name = "${local.name}-${count.index + 1}", "kubernetes.io/cluster/${local.name}" = "owned" }
}

# As ipamd would have made it: its daemon adopts it, and Terraform leaves it alone afterwards.
resource "aws_network_interface" "pods" {
  subnet_id         = module.network.private_subnets[local.zone]
  private_ips_count = 3
  description       = "eni-cni"
  attachment {
    instance     = aws_instance.node[0].id
    device_index = 1
  }
  tags = {
    "cluster.k8s.amazonaws.com/name"     = local.name
    "node.k8s.amazonaws.com/instance_id" = aws_instance.node[0].id
  }
}
