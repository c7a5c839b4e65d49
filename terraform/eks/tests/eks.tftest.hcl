mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_resource "aws_vpc" {
    defaults = { id = "vpc-0123abcd" }
  }
  mock_resource "aws_eks_cluster" {
    defaults = {
      certificate_authority = [{ data = "UEVN" }]
      identity              = [{ oidc = [{ issuer = "https://oidc.example.test/id/1" }] }]
    }
  }
}
mock_provider "helm" {}

# The smoke test needs a cluster.
override_resource {
  target = terraform_data.smoke_test
}

variables {
  image               = "images.example.test/eni-cni:0.1.0"
  public_access_cidrs = ["192.0.2.0/24"]
}

run "everything_fits_together" {
  command = plan
  assert {
    condition     = aws_eks_pod_identity_association.ipamd.service_account == "eni-cni"
    error_message = "The association is for the chart's ServiceAccount."
  }
}
