variable "cluster_name" {
  description = "Name of the cluster; ipamd tags its ENIs with it."
  type        = string
}

variable "image" {
  description = "Image reference, with a tag or, better, a digest."
  type        = string
  validation {
    condition     = can(regex("(:[A-Za-z0-9_.-]+|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "Give the image with its tag or digest, as REGISTRY/eni-cni:0.1.0."
  }
}

variable "role_arn" {
  description = "Role for IRSA; null means Pod Identity or the node's role."
  type        = string
  default     = null
}

variable "settings" {
  description = "Settings of ipamd, as { WARM_IP_TARGET = \"5\" }; `ipamd serve --help` lists them."
  type        = map(string)
  default     = {}
  validation {
    condition     = !contains(keys(var.settings), "CLUSTER_NAME")
    error_message = "CLUSTER_NAME comes from cluster_name."
  }
}

variable "values" {
  description = "Further values of the chart as YAML; they go before everything above."
  type        = list(string)
  default     = []
}

variable "namespace" {
  description = "Namespace of the release."
  type        = string
  default     = "kube-system"
}

variable "chart" {
  description = "The chart: a folder, an archive or an OCI reference; null means the one of this repository."
  type        = string
  default     = null
}
