mock_provider "aws" {}

variables {
  cluster_name = "shop"
  vpc_arn      = "arn:aws:ec2:eu-west-1:111122223333:vpc/vpc-0123abcd"
}

run "eight_writing_actions_each_with_a_condition" {
  assert {
    condition     = length(output.writing_actions) == 8
    error_message = "More actions than ipamd needs: ${join(", ", output.writing_actions)}."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(output.policy).Statement : can(statement.Condition) || statement.Sid == "Describe"])
    error_message = "Everything that changes something needs a condition."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(output.policy).Statement : statement.Sid == "Describe" || statement.Resource != "*"])
    error_message = "Nothing may change resources of other accounts, regions or kinds."
  }
  assert {
    condition     = jsondecode(aws_iam_role.this.assume_role_policy).Statement[0].Principal.Service == "pods.eks.amazonaws.com"
    error_message = "Pod Identity is the default."
  }
  assert {
    condition     = length(aws_iam_role_policy.this.policy) < 10240
    error_message = "An inline policy has at most 10,240 characters."
  }
}

run "a_ninth_only_where_pods_have_ipv6" {
  variables {
    ipv6 = true
  }
  assert {
    condition     = setsubtract(output.writing_actions, run.eight_writing_actions_each_with_a_condition.writing_actions) == toset(["ec2:AssignIpv6Addresses"])
    error_message = "IPv6 needs a prefix for each ENI and nothing else."
  }
}

run "with_an_oidc_provider_it_is_irsa_for_one_service_account" {
  variables {
    oidc_provider_arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123ABCD"
  }
  assert {
    condition     = jsondecode(aws_iam_role.this.assume_role_policy).Statement[0].Condition.StringEquals["oidc.eks.eu-west-1.amazonaws.com/id/0123ABCD:sub"] == "system:serviceaccount:kube-system:eni-cni"
    error_message = "Only the daemon's ServiceAccount may take the role."
  }
  assert {
    condition     = length(jsondecode(aws_iam_role.this.assume_role_policy).Statement) == 1
    error_message = "Pod Identity must not have it as well."
  }
}

run "who_only_reads_may_change_nothing" {
  variables {
    read_only = true
  }
  assert {
    condition     = length(output.writing_actions) == 0 && length(jsondecode(output.policy).Statement) == 1
    error_message = "read_only leaves what describes."
  }
}

run "untagged_primary_enis_get_addresses_by_their_vpc" {
  variables {
    primary_eni_tagged = false
  }
  assert {
    condition     = join(",", flatten([for statement in jsondecode(output.policy).Statement : keys(statement.Condition) if statement.Sid == "Addresses"])) == "ArnEquals"
    error_message = "Then the VPC is the only condition for addresses."
  }
}

run "wrong_values_are_refused" {
  command = plan
  variables {
    cluster_name      = "shop cluster"
    vpc_arn           = "vpc-0123abcd"
    oidc_provider_arn = "https://oidc.example.test"
  }
  expect_failures = [var.cluster_name, var.vpc_arn, var.oidc_provider_arn]
}
