data "aws_partition" "current" {}

locals {
  partition = data.aws_partition.current.partition
  key_arn   = var.kms_key_arn != null ? var.kms_key_arn : aws_kms_key.secrets[0].arn
  # What instances and their ENIs carry, so that the role of modules/iam can be held to this cluster.
  eni_tags = merge(var.tags, { "cluster.k8s.amazonaws.com/name" = var.name })

  assume = { for service in ["eks", "ec2"] : service => jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "${service}.amazonaws.com" }, Action = "sts:AssumeRole" }]
  }) }
}

resource "aws_kms_key" "secrets" {
  #checkov:skip=CKV2_AWS_64: the default policy leaves the key to IAM of the account, which is where this team manages rights
  count                   = var.kms_key_arn == null ? 1 : 0
  description             = "Secrets of the EKS cluster ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  tags                    = var.tags
}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  assume_role_policy = local.assume["eks"]
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_eks_cluster" "this" {
  #checkov:skip=CKV_AWS_39: public access is off unless public_access_cidrs names networks
  #checkov:skip=CKV_AWS_38: the variable refuses 0.0.0.0/0
  name     = var.name
  version  = var.kubernetes_version
  role_arn = aws_iam_role.cluster.arn
  # Without this EKS installs the AWS CNI, and both would serve the same nodes.
  bootstrap_self_managed_addons = false
  enabled_cluster_log_types     = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  tags                          = var.tags

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = true
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = local.key_arn
    }
  }

  vpc_config {
    subnet_ids              = var.subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = length(var.public_access_cidrs) > 0
    public_access_cidrs     = length(var.public_access_cidrs) > 0 ? var.public_access_cidrs : null
  }

  depends_on = [aws_iam_role_policy_attachment.cluster]
}

resource "aws_eks_access_entry" "admin" {
  for_each      = var.admins
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value
  tags          = var.tags
}

resource "aws_eks_access_policy_association" "admin" {
  for_each      = var.admins
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value
  policy_arn    = "arn:${local.partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
  access_scope {
    type = "cluster"
  }
  depends_on = [aws_eks_access_entry.admin]
}

# No vpc-cni here: that is what this repository replaces. These two run in the host's network, so they need no CNI.
resource "aws_eks_addon" "host_network" {
  for_each     = toset(["kube-proxy", "eks-pod-identity-agent"])
  cluster_name = aws_eks_cluster.this.name
  addon_name   = each.key
  tags         = var.tags
}

resource "aws_eks_addon" "coredns" {
  cluster_name = aws_eks_cluster.this.name
  addon_name   = "coredns"
  tags         = var.tags
  # Its pods stay pending, and the add-on degraded, until there are nodes.
  depends_on = [aws_eks_node_group.this]
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  assume_role_policy = local.assume["ec2"]
  tags               = var.tags
}

# No AmazonEKS_CNI_Policy: a pod on the node's network could use it. ipamd has a role of its own.
resource "aws_iam_role_policy_attachment" "node" {
  for_each   = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])
  role       = aws_iam_role.node.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.key}"
}

resource "aws_launch_template" "node" {
  for_each    = var.node_groups
  name_prefix = "${var.name}-${each.key}-"
  tags        = var.tags

  # EKS' own user data would set max pods to what the AWS CNI carries. nodeadm reads this before the kubelet starts.
  user_data = base64encode(<<-USER_DATA
    MIME-Version: 1.0
    Content-Type: multipart/mixed; boundary="//"

    --//
    Content-Type: application/node.eks.aws

    apiVersion: node.eks.aws/v1alpha1
    kind: NodeConfig
    spec:
      kubelet:
        config:
          maxPods: ${each.value.max_pods}
    --//--
  USER_DATA
  )

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
    # A pod is one hop further than the node, so it cannot take the node's role.
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = each.value.disk_gib
      volume_type           = "gp3"
      encrypted             = "true"
      delete_on_termination = "true"
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(var.tags, { Name = "${var.name}-${each.key}" })
  }
  # The conditions of ipamd's role ask for the tag on primary ENIs too.
  tag_specifications {
    resource_type = "network-interface"
    tags          = local.eni_tags
  }
  tag_specifications {
    resource_type = "volume"
    tags          = var.tags
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_eks_node_group" "this" {
  for_each        = var.node_groups
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = var.subnet_ids
  instance_types  = each.value.instance_types
  ami_type        = each.value.arm64 ? "AL2023_ARM_64_STANDARD" : "AL2023_x86_64_STANDARD"
  labels          = each.value.labels
  tags            = merge(var.tags, { "eni-cni/installed" = var.cni == "" ? "by-others" : "yes" })

  launch_template {
    id      = aws_launch_template.node[each.key].id
    version = aws_launch_template.node[each.key].latest_version
  }

  scaling_config {
    min_size     = each.value.min_size
    max_size     = each.value.max_size
    desired_size = each.value.desired_size
  }

  update_config {
    max_unavailable_percentage = 25
  }

  lifecycle {
    # The autoscaler's.
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.host_network]
}
