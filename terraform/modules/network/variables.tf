variable "name" {
  description = "Name of the VPC and of the cluster whose tags its subnets get."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,62}$", var.name))
    error_message = "Give a name of 2 to 63 lower-case letters, digits and hyphens that begins with a letter."
  }
}

variable "cidr" {
  description = "Network of the VPC: nodes, load balancers and, without pod_cidr, pods."
  type        = string
  default     = "10.0.0.0/16"
  validation {
    condition     = can(cidrnetmask(var.cidr)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20, false)
    error_message = "Give an IPv4 network of /16 to /20, as 10.0.0.0/16: a VPC is at most a /16, and below a /20 no zone has room for pods."
  }
}

variable "zones" {
  description = "Availability zones, one to six; each gets a subnet of every kind."
  type        = list(string)
  validation {
    condition     = length(var.zones) >= 1 && length(var.zones) <= 6 && length(distinct(var.zones)) == length(var.zones)
    error_message = "Give one to six different availability zones, as [\"eu-west-1a\", \"eu-west-1b\"]."
  }
}

variable "pod_cidr" {
  description = "Second network of the VPC for subnets of pods only, as 100.64.0.0/16; null means pods live in the nodes' subnets."
  type        = string
  default     = null
  validation {
    condition     = var.pod_cidr == null || can(cidrnetmask(var.pod_cidr)) && try(tonumber(split("/", var.pod_cidr)[1]) >= 16 && tonumber(split("/", var.pod_cidr)[1]) <= 20, false)
    error_message = "Give an IPv4 network of /16 to /20 outside of cidr, as 100.64.0.0/16, or null."
  }
}

variable "nat" {
  description = "How private subnets reach the internet: none, single (one gateway, cheaper) or zone (one in each zone, no single point of failure)."
  type        = string
  default     = "single"
  validation {
    condition     = contains(["none", "single", "zone"], var.nat)
    error_message = "Give none, single or zone."
  }
}

variable "interface_endpoints" {
  description = "Services reached without the internet, as ec2, sts, ecr.api, ecr.dkr, eks, eks-auth, logs. ipamd needs ec2 and its credentials' service: eks-auth for Pod Identity, sts for IRSA."
  type        = list(string)
  default     = []
}

variable "gateway_endpoints" {
  description = "Services with a gateway endpoint, which costs nothing; images of ECR come from s3."
  type        = list(string)
  default     = ["s3"]
  validation {
    condition     = length(setsubtract(var.gateway_endpoints, ["s3", "dynamodb"])) == 0
    error_message = "Only s3 and dynamodb have gateway endpoints; put the others into interface_endpoints."
  }
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
