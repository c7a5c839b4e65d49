variable "name" {
  description = "Name of the cluster."
  type        = string
  validation {
    condition     = can(regex("^[0-9A-Za-z][A-Za-z0-9_-]{1,99}$", var.name))
    error_message = "Give 2 to 100 letters, digits, hyphens and underscores, beginning with a letter or digit."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes; the chart is checked for 1.31 to 1.36."
  type        = string
  default     = "1.35"
  validation {
    condition     = contains(["1.31", "1.32", "1.33", "1.34", "1.35", "1.36"], var.kubernetes_version)
    error_message = "Give one of 1.31 to 1.36 as text: the chart is checked for these."
  }
}

variable "subnet_ids" {
  description = "Subnets of the control plane's interfaces and of the nodes, in two availability zones or more."
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "EKS wants subnets in two availability zones at least."
  }
}

variable "public_access_cidrs" {
  description = "Networks that reach the API server from outside; empty means only the VPC does."
  type        = list(string)
  default     = []
  validation {
    condition     = !contains(var.public_access_cidrs, "0.0.0.0/0")
    error_message = "Name the networks that need it instead of the whole internet."
  }
}

variable "admins" {
  description = "IAM principals that administer the cluster, by a name of your own."
  type        = map(string)
  default     = {}
}

variable "kms_key_arn" {
  description = "KMS key for Kubernetes' secrets; null makes one."
  type        = string
  default     = null
}

variable "node_groups" {
  description = "Node groups by name. max_pods: ENIs × (addresses of each − 1) + 2 of the instance type; prefix mode: 110, or 250 from 30 vCPUs on."
  type = map(object({
    instance_types = list(string)
    max_pods       = number
    min_size       = optional(number, 2)
    max_size       = optional(number, 4)
    desired_size   = optional(number, 2)
    disk_gib       = optional(number, 40)
    arm64          = optional(bool, false)
    labels         = optional(map(string), {})
  }))
  default = {}
  validation {
    condition     = alltrue([for group in var.node_groups : group.max_pods >= 4 && group.max_pods <= 737])
    error_message = "max_pods is 4 to 737: it has to be what the instance type's ENIs carry (m5.large: 29; prefix mode: 110)."
  }
  validation {
    condition     = alltrue([for group in var.node_groups : group.min_size <= group.desired_size && group.desired_size <= group.max_size])
    error_message = "Sizes have to be in order: min_size <= desired_size <= max_size."
  }
}

variable "cni" {
  description = "Anything that is known once the CNI's objects are in the cluster, as the id of module eni-cni: nodes are started after it, because none becomes ready before."
  type        = string
  default     = ""
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
