output "kubeconfig" {
  description = "Command that gives kubectl access."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${module.cluster.name}"
}
