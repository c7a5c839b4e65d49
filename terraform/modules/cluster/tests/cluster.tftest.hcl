mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_resource "aws_eks_cluster" {
    defaults = {
      certificate_authority = [{ data = "UEVN" }]
      identity              = [{ oidc = [{ issuer = "https://oidc.example.test/id/1" }] }]
    }
  }
}

variables {
  name       = "shop"
  subnet_ids = ["subnet-1", "subnet-2"]
  admins     = { platform = "arn:aws:iam::111122223333:role/platform" }
  node_groups = {
    general = { instance_types = ["m5.xlarge"], max_pods = 58 }
  }
}

run "the_aws_cni_is_nowhere" {
  assert {
    condition     = aws_eks_cluster.this.bootstrap_self_managed_addons == false
    error_message = "EKS must not install the AWS CNI by itself."
  }
  assert {
    condition     = !contains([for addon in merge(aws_eks_addon.host_network, { dns = aws_eks_addon.coredns }) : addon.addon_name], "vpc-cni")
    error_message = "The add-on vpc-cni must not be there."
  }
  assert {
    condition     = length([for attachment in aws_iam_role_policy_attachment.node : 1 if endswith(attachment.policy_arn, "CNI_Policy")]) == 0
    error_message = "The nodes' role has no permission on ENIs: ipamd has a role of its own."
  }
}

run "nodes_know_their_max_pods_and_tag_their_primary_eni" {
  assert {
    condition     = strcontains(base64decode(aws_launch_template.node["general"].user_data), "maxPods: 58")
    error_message = "The kubelet has to get max_pods."
  }
  assert {
    condition     = one([for tags in aws_launch_template.node["general"].tag_specifications : tags.tags["cluster.k8s.amazonaws.com/name"] if tags.resource_type == "network-interface"]) == "shop"
    error_message = "The role's conditions ask for the tag on primary ENIs."
  }
  assert {
    condition     = aws_launch_template.node["general"].metadata_options[0].http_put_response_hop_limit == 1 && aws_launch_template.node["general"].metadata_options[0].http_tokens == "required"
    error_message = "Pods must not reach the node's role."
  }
}

run "the_api_server_is_private_unless_networks_are_named" {
  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "Private is the default."
  }
}

run "wrong_values_are_refused" {
  command = plan
  variables {
    name                = "shop cluster"
    kubernetes_version  = "1.20"
    subnet_ids          = ["subnet-1"]
    public_access_cidrs = ["0.0.0.0/0"]
    node_groups         = { general = { instance_types = ["m5.xlarge"], max_pods = 5000, min_size = 3, desired_size = 2 } }
  }
  expect_failures = [var.name, var.kubernetes_version, var.subnet_ids, var.public_access_cidrs, var.node_groups]
}
