locals {
  values = {
    image          = { override = var.image }
    env            = merge(var.settings, { CLUSTER_NAME = var.cluster_name })
    serviceAccount = { annotations = var.role_arn == null ? {} : { "eks.amazonaws.com/role-arn" = var.role_arn } }
  }
}

resource "helm_release" "this" {
  name      = "eni-cni"
  namespace = var.namespace
  chart     = coalesce(var.chart, "${path.module}/../../../charts/eni-cni")
  values    = concat([yamlencode(local.values)], var.values)
  # There are no nodes yet when a cluster is made: nothing to wait for.
  wait   = false
  atomic = false
}
