output "lab" {
  description = "What the lab's demo needs to build its nodes on this network."
  value = {
    vpc         = module.network.vpc_id
    vpc_cidr    = module.network.vpc_cidr
    subnet      = module.network.private_subnets[local.zone]
    subnet_cidr = module.network.private_cidrs[local.zone]
    instances   = aws_instance.node[*].id
    account     = var.account
    endpoint    = var.endpoint
  }
}

output "writing_actions" {
  description = "What ipamd's role may change."
  value       = module.iam.writing_actions
}
