output "role_arn" {
  description = "The role: for an association of EKS Pod Identity, or the chart's serviceAccount.annotations with IRSA."
  value       = aws_iam_role.this.arn
}

output "writing_actions" {
  description = "Names of the actions that change something, sorted."
  value       = var.read_only ? [] : sort(distinct(flatten([for statement in local.change : statement.Action])))
}

output "policy" {
  description = "The policy as JSON."
  value       = aws_iam_role_policy.this.policy
}
