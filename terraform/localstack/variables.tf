variable "endpoint" {
  description = "Where LocalStack answers, as http://127.0.0.1:4566."
  type        = string
  validation {
    condition     = can(regex("^http://(127\\.0\\.0\\.1|localhost):[0-9]+$", var.endpoint))
    error_message = "Give LocalStack's address on this machine, as http://127.0.0.1:4566."
  }
}

variable "account" {
  description = "Twelve digits: LocalStack keeps a world of its own for each account."
  type        = string
  default     = "100000000002"
  validation {
    condition     = can(regex("^[0-9]{12}$", var.account))
    error_message = "Give twelve digits."
  }
}
