mock_provider "helm" {}

variables {
  cluster_name = "shop"
  image        = "images.example.test/eni-cni:0.1.0"
}

run "the_chart_gets_name_image_and_role" {
  variables {
    role_arn = "arn:aws:iam::111122223333:role/shop-eni-cni"
    settings = { WARM_IP_TARGET = "5" }
  }
  assert {
    condition     = yamldecode(helm_release.this.values[0]).env == { WARM_IP_TARGET = "5", CLUSTER_NAME = "shop" }
    error_message = "Settings and the cluster's name go into env."
  }
  assert {
    condition     = yamldecode(helm_release.this.values[0]).serviceAccount.annotations["eks.amazonaws.com/role-arn"] == var.role_arn
    error_message = "The role goes onto the ServiceAccount."
  }
}

run "nodes_are_not_waited_for" {
  assert {
    condition     = helm_release.this.wait == false
    error_message = "A new cluster has no nodes, and gets none before the CNI is there."
  }
}

run "wrong_values_are_refused" {
  command = plan
  variables {
    image    = "images.example.test/eni-cni"
    settings = { CLUSTER_NAME = "other" }
  }
  expect_failures = [var.image, var.settings]
}
