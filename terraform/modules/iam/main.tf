# The least that ipamd needs. Each action with the test that refuses it: README.md.

locals {
  tag        = "cluster.k8s.amazonaws.com/name"
  arn        = split(":", var.vpc_arn)
  everything = join(":", slice(local.arn, 0, 5))
  enis       = "${local.everything}:network-interface/*"
  issuer     = var.oidc_provider_arn == null ? "" : split(":oidc-provider/", var.oidc_provider_arn)[1]

  in_vpc      = { ArnEquals = { "ec2:Vpc" = var.vpc_arn } }
  of_cluster  = { StringEquals = { "aws:ResourceTag/${local.tag}" = var.cluster_name } }
  of_instance = { StringEquals = { "aws:ResourceTag/kubernetes.io/cluster/${var.cluster_name}" = "owned" } }

  describe = [{
    Sid      = "Describe"
    Effect   = "Allow"
    Action   = ["ec2:DescribeInstanceTypes", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"]
    Resource = "*"
  }]

  change = [
    {
      Sid       = "MakeWithTheTag"
      Effect    = "Allow"
      Action    = "ec2:CreateNetworkInterface"
      Resource  = local.enis
      Condition = { StringEquals = { "aws:RequestTag/${local.tag}" = var.cluster_name } }
    },
    {
      Sid       = "MakeInTheVpc"
      Effect    = "Allow"
      Action    = "ec2:CreateNetworkInterface"
      Resource  = ["${local.everything}:subnet/*", "${local.everything}:security-group/*"]
      Condition = local.in_vpc
    },
    {
      Sid       = "TagWhatIsMade"
      Effect    = "Allow"
      Action    = "ec2:CreateTags"
      Resource  = local.enis
      Condition = { StringEquals = { "ec2:CreateAction" = "CreateNetworkInterface" } }
    },
    {
      Sid       = "OwnInterfaces"
      Effect    = "Allow"
      Action    = ["ec2:AttachNetworkInterface", "ec2:DetachNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:ModifyNetworkInterfaceAttribute"]
      Resource  = local.enis
      Condition = local.of_cluster
    },
    {
      Sid       = "OwnInstances"
      Effect    = "Allow"
      Action    = ["ec2:AttachNetworkInterface", "ec2:DetachNetworkInterface"]
      Resource  = "${local.everything}:instance/*"
      Condition = local.of_instance
    },
    {
      Sid       = "GroupsOfTheVpc"
      Effect    = "Allow"
      Action    = "ec2:ModifyNetworkInterfaceAttribute"
      Resource  = "${local.everything}:security-group/*"
      Condition = local.in_vpc
    },
    {
      Sid       = "Addresses"
      Effect    = "Allow"
      Action    = concat(["ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"], var.ipv6 ? ["ec2:AssignIpv6Addresses"] : [])
      Resource  = local.enis
      Condition = var.primary_eni_tagged ? merge(local.in_vpc, local.of_cluster) : local.in_vpc
    },
  ]

  pod_identity = {
    Effect    = "Allow"
    Principal = { Service = "pods.eks.amazonaws.com" }
    Action    = ["sts:AssumeRole", "sts:TagSession"]
    Condition = {
      StringEquals = {
        "aws:RequestTag/eks-cluster-name"           = var.cluster_name
        "aws:RequestTag/kubernetes-namespace"       = var.namespace
        "aws:RequestTag/kubernetes-service-account" = var.service_account
      }
    }
  }

  irsa = {
    Effect    = "Allow"
    Principal = { Federated = coalesce(var.oidc_provider_arn, "none") }
    Action    = "sts:AssumeRoleWithWebIdentity"
    Condition = {
      StringEquals = {
        "${local.issuer}:sub" = "system:serviceaccount:${var.namespace}:${var.service_account}"
        "${local.issuer}:aud" = "sts.amazonaws.com"
      }
    }
  }
}

resource "aws_iam_role" "this" {
  name        = "${var.cluster_name}-eni-cni"
  description = "ipamd of the cluster ${var.cluster_name}"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for key, statement in { pod_identity = local.pod_identity, irsa = local.irsa } : statement if(key == "irsa") == (var.oidc_provider_arn != null)]
  })
  tags = var.tags
}

resource "aws_iam_role_policy" "this" {
  name = "ec2"
  role = aws_iam_role.this.id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat(local.describe, [for statement in local.change : statement if !var.read_only])
  })
}
