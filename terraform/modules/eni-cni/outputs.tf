output "id" {
  description = "Known once the chart's objects are in the cluster; for modules/cluster's variable cni."
  value       = helm_release.this.id
}
