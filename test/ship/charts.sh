#!/usr/bin/env bash
# Checks the chart: lint, schema, rendering for six versions of Kubernetes, golden files, refusals, policies. And the Dockerfile and scripts.
#
#   charts.sh [--write] [--ipamd PROGRAM]     see chart.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
bin=$PWD/../../target/venv-ship/bin

"$bin/python" chart.py "$@"
"$bin/checkov" --directory golden --config-file policies-kubernetes.yaml --skip-download --compact --quiet
echo "policies hold, but for those that policies-kubernetes.yaml explains"
"$bin/hadolint" ../../Dockerfile
cd ../..
git ls-files '*.sh' .ci/run | xargs "$bin/shellcheck" --severity=warning
echo "Dockerfile and scripts pass hadolint and shellcheck"
