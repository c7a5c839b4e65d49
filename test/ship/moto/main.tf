# What of EKS moto knows and provider 3.39 has: a control plane, a node group, and ipamd's role by IRSA, on the network of the modules.
# Access entries, Pod Identity and the switch that keeps the AWS CNI out are newer than that provider: modules/cluster has them.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "endpoint" {
  description = "Where moto answers."
  type        = string
}

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "any"
  secret_key                  = "any"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  skip_get_ec2_platforms      = true
  max_retries                 = 2
  endpoints {
    ec2 = var.endpoint
    eks = var.endpoint
    iam = var.endpoint
    sts = var.endpoint
  }
}

module "network" {
  source = "../terraform/modules/network"
  name   = "shop"
  zones  = ["us-east-1a", "us-east-1b"]
}

resource "aws_iam_role" "of" {
  for_each = toset(["eks", "ec2"])
  name     = "shop-${each.key}"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "${each.key}.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
}

resource "aws_eks_cluster" "shop" {
  name     = "shop"
  version  = "1.35"
  role_arn = aws_iam_role.of["eks"].arn
  vpc_config {
    subnet_ids              = values(module.network.private_subnets)
    endpoint_private_access = true
  }
}

resource "aws_eks_node_group" "general" {
  cluster_name    = aws_eks_cluster.shop.name
  node_group_name = "general"
  node_role_arn   = aws_iam_role.of["ec2"].arn
  subnet_ids      = values(module.network.private_subnets)
  scaling_config {
    min_size     = 1
    max_size     = 2
    desired_size = 1
  }
}

resource "aws_iam_openid_connect_provider" "shop" {
  url             = aws_eks_cluster.shop.identity[0].oidc[0].issuer
  client_id_list  = ["sts.amazonaws.com"]
  thumbprint_list = ["0000000000000000000000000000000000000000"]
}

module "iam" {
  source            = "../terraform/modules/iam"
  cluster_name      = aws_eks_cluster.shop.name
  vpc_arn           = "arn:aws:ec2:us-east-1:123456789012:vpc/${module.network.vpc_id}"
  oidc_provider_arn = aws_iam_openid_connect_provider.shop.arn
}
