#!/usr/bin/env bash
# Waits until every node serves, then runs the chart's test. Needs AWS.
set -euo pipefail
region=$1 cluster=$2
KUBECONFIG=$(mktemp)
export KUBECONFIG
trap 'rm -f "$KUBECONFIG"' EXIT
aws eks update-kubeconfig --region "$region" --name "$cluster" >/dev/null
kubectl --namespace kube-system rollout status daemonset/eni-cni --timeout 5m
kubectl --namespace kube-system wait pods --selector k8s-app=kube-dns --for condition=Ready --timeout 5m
helm --namespace kube-system test eni-cni --logs
