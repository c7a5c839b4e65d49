{{- define "eni-cni.fullname" -}}
{{- .Values.fullnameOverride | default .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "eni-cni.labels" -}}
{{ include "eni-cni.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "eni-cni.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "eni-cni.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "eni-cni.fullname" .) -}}
{{- end -}}

{{- define "eni-cni.image" -}}
{{- with .Values.image -}}
{{- if .override -}}{{ .override }}
{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "eni-cni.nodeAgentImage" -}}
{{- with .Values.nodeAgent.image -}}
{{- if .override -}}{{ .override }}
{{- else -}}{{ .account }}.dkr.{{ .endpoint }}.{{ .region }}.{{ .domain }}/amazon/aws-network-policy-agent:{{ .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What no container of ours needs, and the two things that each of them has. */ -}}
{{- define "eni-cni.security" -}}
runAsUser: 0
runAsNonRoot: false
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- end -}}

{{- /* Settings as a container gets them: those of the chart, then those of `env`, in one order. */ -}}
{{- define "eni-cni.env" -}}
{{- $env := dict "HOST_CNI_BIN_PATH" "/host/opt/cni/bin" "HOST_CNI_CONFDIR_PATH" "/host/etc/cni/net.d" -}}
{{- if .Values.cri.hostPath }}{{ $_ := set $env "CRI_SOCKET" .Values.cri.hostPath }}{{ end -}}
{{- range $name, $value := .Values.env }}{{ if not (kindIs "invalid" $value) }}{{ $_ := set $env $name ($value | toString) }}{{ end }}{{ end -}}
{{- range $name := keys $env | sortAlpha }}
- name: {{ $name }}
  value: {{ get $env $name | quote }}
{{- end }}
- name: MY_NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
- name: MY_POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Not empty: a network-policy agent of the node is told of pods. */ -}}
{{- define "eni-cni.policyAgent" -}}
{{- $mode := lower (toString (get .Values.env "NETWORK_POLICY_ENFORCING_MODE")) -}}
{{- if or (eq $mode "standard") (eq $mode "strict") -}}{{ $mode }}{{- end -}}
{{- end -}}

{{- /* Mistakes that a schema cannot see: what contradicts something else. */ -}}
{{- define "eni-cni.check" -}}
{{- $env := .Values.env -}}
{{- $custom := eq "true" (toString (get $env "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG")) -}}
{{- if and .Values.eniConfig.create (not .Values.eniConfig.subnets) -}}
{{- fail "eniConfig.create is true, but eniConfig.subnets is empty: give one entry for each availability zone, as eu-west-1a: {id: subnet-0123abcd}" -}}
{{- end -}}
{{- if and .Values.eniConfig.create (not $custom) -}}
{{- fail "eniConfig.create makes objects that ipamd reads only with env.AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: \"true\"; set it, or eniConfig.create: false" -}}
{{- end -}}
{{- $quiet := eq "true" (toString (get $env "DISABLE_INTROSPECTION")) -}}
{{- $usual := list "" "127.0.0.1:61679" | has (get $env "INTROSPECTION_BIND_ADDRESS" | default "") -}}
{{- if and (or $quiet (not $usual)) (or .Values.livenessProbe .Values.readinessProbe) -}}
{{- fail "livenessProbe and readinessProbe ask 127.0.0.1:61679; with env.DISABLE_INTROSPECTION or env.INTROSPECTION_BIND_ADDRESS give them another place, or null for none" -}}
{{- end -}}
{{- if and (eq "true" (toString (get $env "DISABLE_METRICS"))) .Values.podMonitor.create -}}
{{- fail "podMonitor.create has nothing to read with env.DISABLE_METRICS: leave one of them out" -}}
{{- end -}}
{{- if .Values.nodeAgent.enabled -}}
{{- if not (include "eni-cni.policyAgent" .) -}}
{{- fail "nodeAgent.enabled runs an agent that nobody tells of pods; set env.NETWORK_POLICY_ENFORCING_MODE to standard or strict too" -}}
{{- end -}}
{{- $v6 := eq "true" (toString (get $env "ENABLE_IPv6")) -}}
{{- $v4 := ne "false" (toString (get $env "ENABLE_IPv4")) -}}
{{- $filtered := eq "true" (toString .Values.nodeAgent.enableIpv6) -}}
{{- if or (and $filtered (not $v6)) (and (not $filtered) (not $v4)) -}}
{{- fail "nodeAgent.enableIpv6 says which family the agent filters, and here pods have only the other one: true goes with env.ENABLE_IPv6, false with env.ENABLE_IPv4" -}}
{{- end -}}
{{- end -}}
{{- range tuple "HOST_CNI_BIN_PATH" "HOST_CNI_CONFDIR_PATH" "CRI_SOCKET" "IPAMD_SOCKET" "IPAMD_DATABASE" "IPAMD_RELEASED_DIR" "AWS_VPC_K8S_CNI_BACKING_STORE" "IPAMD_POLICY_AGENT_DIR" -}}
{{- if hasKey $env . -}}
{{- fail (printf "env.%s is a path inside the container that the chart's mounts decide; leave it out (for the runtime's socket set cri.hostPath)" .) -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false, so serviceAccount.name has to name the one that is there" -}}
{{- end -}}
{{- end -}}
