variable "name" {
  description = "Name of cluster and VPC."
  type        = string
  default     = "eni-cni-test"
}

variable "region" {
  description = "Region."
  type        = string
  default     = "eu-west-1"
}

variable "zones" {
  description = "Availability zones, two at least."
  type        = list(string)
  default     = ["eu-west-1a", "eu-west-1b"]
  validation {
    condition     = length(var.zones) >= 2 && alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "Give two zones or more of the region."
  }
}

variable "image" {
  description = "Image of eni-cni with tag or digest, in a registry that the nodes reach."
  type        = string
}

variable "pod_cidr" {
  description = "Second network for pods only; null means pods live in the nodes' subnets."
  type        = string
  default     = null
}

variable "settings" {
  description = "Settings of ipamd."
  type        = map(string)
  default     = {}
}

variable "public_access_cidrs" {
  description = "Networks from which kubectl and Helm reach the API server; your own address at least, or run this inside the VPC."
  type        = list(string)
}

variable "node_groups" {
  description = "Node groups, as modules/cluster takes them."
  type        = any
  default     = { general = { instance_types = ["m5.large"], max_pods = 29 } }
}
