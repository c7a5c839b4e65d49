output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "vpc_cidr" {
  description = "Network of the VPC."
  value       = aws_vpc.this.cidr_block
}

output "private_subnets" {
  description = "Subnets of the nodes by availability zone."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.id }
}

output "private_cidrs" {
  description = "Networks of the nodes' subnets by availability zone."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.cidr_block }
}

output "public_subnets" {
  description = "Subnets of load balancers by availability zone."
  value       = { for zone, subnet in aws_subnet.public : zone => subnet.id }
}

output "pod_subnets" {
  description = "Subnets of pods by availability zone; empty without pod_cidr. The chart's eniConfig.subnets takes these ids."
  value       = { for zone, subnet in aws_subnet.pods : zone => subnet.id }
}
