output "name" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.this.name
}

output "endpoint" {
  description = "Address of the API server."
  value       = aws_eks_cluster.this.endpoint
}

output "certificate_authority" {
  description = "Certificate of the API server's authority, PEM."
  value       = base64decode(aws_eks_cluster.this.certificate_authority[0].data)
}

output "oidc_issuer" {
  description = "Issuer of ServiceAccounts' tokens, for IRSA."
  value       = aws_eks_cluster.this.identity[0].oidc[0].issuer
}

output "security_group_id" {
  description = "Security group of control plane and nodes."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}

output "node_role_arn" {
  description = "Role of the nodes; it has no permission on ENIs."
  value       = aws_iam_role.node.arn
}
