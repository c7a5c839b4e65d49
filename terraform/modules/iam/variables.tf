variable "cluster_name" {
  description = "Name of the cluster: the value of the tag cluster.k8s.amazonaws.com/name on ipamd's ENIs (the chart's env.CLUSTER_NAME), and what the conditions ask for."
  type        = string
  validation {
    condition     = can(regex("^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$", var.cluster_name))
    error_message = "Give the cluster's name as EKS has it: 1 to 100 letters, digits, hyphens and underscores."
  }
}

variable "vpc_arn" {
  description = "ARN of the VPC, as arn:aws:ec2:eu-west-1:111122223333:vpc/vpc-0123abcd: nothing outside of it is changed."
  type        = string
  validation {
    condition     = can(regex("^arn:aws[a-z-]*:ec2:[a-z0-9-]+:[0-9]{12}:vpc/vpc-[0-9a-f]+$", var.vpc_arn))
    error_message = "Give the VPC's ARN, as arn:aws:ec2:eu-west-1:111122223333:vpc/vpc-0123abcd."
  }
}

variable "oidc_provider_arn" {
  description = "ARN of the cluster's OIDC provider for IRSA; null means EKS Pod Identity."
  type        = string
  default     = null
  validation {
    condition     = var.oidc_provider_arn == null || can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/.+$", var.oidc_provider_arn))
    error_message = "Give the provider's ARN, as arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123ABCD, or null."
  }
}

variable "namespace" {
  description = "Namespace of the ServiceAccount."
  type        = string
  default     = "kube-system"
}

variable "service_account" {
  description = "Name of the ServiceAccount."
  type        = string
  default     = "eni-cni"
}

variable "primary_eni_tagged" {
  description = "Whether the nodes' primary ENIs carry the cluster's tag, as modules/cluster sees to. False: addresses may be assigned to every ENI of the VPC, tagged or not."
  type        = bool
  default     = true
}

variable "read_only" {
  description = "Only what describes: for DISABLE_NETWORK_RESOURCE_PROVISIONING."
  type        = bool
  default     = false
}

variable "ipv6" {
  description = "Whether pods get IPv6 addresses (ENABLE_IPv6), for which an ENI needs a prefix: one action more."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of the role."
  type        = map(string)
  default     = {}
}
