#!/usr/bin/env bash
# Checks the chart: lint, schema, rendering for six versions of Kubernetes, golden files, refusals, policies. And the Dockerfile and scripts.
#
#   charts.sh [--write] [--ipamd PROGRAM]     see chart.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
bin=$PWD/../../target/venv-ship/bin

"$bin/python" chart.py "$@"
"$bin/checkov" --directory golden --skip-path policy-agent.yaml --config-file policies-kubernetes.yaml --skip-download --compact --quiet
# The same rules less those that the container of the network-policy agent, which is not ours, cannot follow.
with_agent=$(mktemp)
trap 'rm -f "$with_agent"' EXIT
cat policies-kubernetes.yaml policies-agent.yaml > "$with_agent"
"$bin/checkov" --file golden/policy-agent.yaml --config-file "$with_agent" --skip-download --compact --quiet
echo "policies hold, but for those that policies-*.yaml explain"
"$bin/hadolint" ../../Dockerfile
cd ../..
git ls-files '*.sh' .ci/run | xargs "$bin/shellcheck" --severity=warning
echo "Dockerfile and scripts pass hadolint and shellcheck"
