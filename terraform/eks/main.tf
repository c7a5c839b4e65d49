# A complete test cluster in one apply: network, control plane, role, CNI, nodes, and a smoke test.

provider "aws" {
  region = var.region
  default_tags {
    tags = { "eni-cni/terraform" = var.name }
  }
}

provider "helm" {
  kubernetes = {
    host                   = module.cluster.endpoint
    cluster_ca_certificate = module.cluster.certificate_authority
    exec = {
      api_version = "client.authentication.k8s.io/v1"
      command     = "aws"
      args        = ["eks", "get-token", "--region", var.region, "--cluster-name", var.name]
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

module "network" {
  source   = "../modules/network"
  name     = var.name
  zones    = var.zones
  pod_cidr = var.pod_cidr
}

module "iam" {
  source       = "../modules/iam"
  cluster_name = var.name
  vpc_arn      = "arn:${data.aws_partition.current.partition}:ec2:${var.region}:${data.aws_caller_identity.current.account_id}:vpc/${module.network.vpc_id}"
}

module "cluster" {
  source              = "../modules/cluster"
  name                = var.name
  subnet_ids          = values(module.network.private_subnets)
  public_access_cidrs = var.public_access_cidrs
  node_groups         = var.node_groups
  # Nodes come after the CNI: a node group is not done before its nodes are ready, and they are not without it.
  cni = module.eni_cni.id
}

resource "aws_eks_pod_identity_association" "ipamd" {
  cluster_name    = module.cluster.name
  namespace       = "kube-system"
  service_account = "eni-cni"
  role_arn        = module.iam.role_arn
}

module "eni_cni" {
  source       = "../modules/eni-cni"
  cluster_name = module.cluster.name
  image        = var.image
  settings     = var.settings
  # Credentials have to be there when the first daemon starts.
  depends_on = [aws_eks_pod_identity_association.ipamd]
}

# The chart's own test: a pod gets an address and asks its node's daemon. Needs aws, kubectl and helm where Terraform runs.
resource "terraform_data" "smoke_test" {
  triggers_replace = [module.cluster.name, var.image]
  provisioner "local-exec" {
    command = "${path.module}/smoke-test.sh ${var.region} ${module.cluster.name}"
  }
  depends_on = [module.cluster]
}
