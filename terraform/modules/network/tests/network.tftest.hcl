mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "eu-west-1" }
  }
}

variables {
  name  = "shop"
  zones = ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
}

run "subnets_do_not_overlap_and_carry_their_tags" {
  assert {
    condition     = [for zone in var.zones : aws_subnet.private[zone].cidr_block] == ["10.0.0.0/19", "10.0.32.0/19", "10.0.64.0/19"]
    error_message = "Each zone has 8192 addresses for nodes and pods."
  }
  assert {
    condition     = [for zone in var.zones : aws_subnet.public[zone].cidr_block] == ["10.0.224.0/22", "10.0.228.0/22", "10.0.232.0/22"]
    error_message = "Load balancers live in the last eighth."
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.private : subnet.tags["kubernetes.io/cluster/shop"] == "shared"])
    error_message = "Load balancer controllers find subnets by the cluster's tag."
  }
  assert {
    condition     = length(aws_subnet.pods) == 0 && length(aws_nat_gateway.this) == 1 && length(aws_route.private) == 3
    error_message = "By default there are no subnets of pods, and one NAT gateway for all zones."
  }
}

run "pods_get_subnets_of_their_own" {
  variables {
    pod_cidr = "100.64.0.0/16"
    nat      = "zone"
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.pods : subnet.tags["kubernetes.io/role/cni"] == "1"]) && length(aws_subnet.pods) == 3
    error_message = "ipamd finds pods' subnets by their tag."
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_route_table_association.pods) == 3
    error_message = "Each zone has its own gateway, and its pods' subnet uses it."
  }
}

run "a_network_without_internet_has_endpoints" {
  variables {
    nat                 = "none"
    interface_endpoints = ["ec2", "sts"]
  }
  assert {
    condition     = length(aws_route.private) == 0 && aws_vpc_endpoint.interface["ec2"].service_name == "com.amazonaws.eu-west-1.ec2"
    error_message = "There is no way out, but one to EC2."
  }
}

run "wrong_values_are_refused" {
  command = plan
  variables {
    name              = "Shop!"
    cidr              = "10.0.0.0/24"
    zones             = []
    pod_cidr          = "100.64.0.0"
    nat               = "one"
    gateway_endpoints = ["ec2"]
  }
  expect_failures = [var.name, var.cidr, var.zones, var.pod_cidr, var.nat, var.gateway_endpoints]
}
