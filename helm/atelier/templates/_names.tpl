{{/* Names and labels that more than one object has. */}}

{{- define "atelier.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Names end at 40 characters, so that what is appended to them still fits into a label. */}}
{{- define "atelier.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "atelier.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "atelier.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "atelier.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "atelier.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: atelier
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of pods: nothing that changes with the chart's version, which would replace every pod. */}}
{{- define "atelier.podLabels" -}}
{{ include "atelier.selector" . }}
app.kubernetes.io/part-of: atelier
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that pods of one component are found by. Takes a list: the root, the component. */}}
{{- define "atelier.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "atelier.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "atelier.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "atelier.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Image of the gateway. */}}
{{- define "atelier.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{- $variant := ternary "-gpu" "" (eq (include "atelier.gateway.gpu" .) "true") -}}
{{ $image.repository }}:{{ default (print .Chart.AppVersion $variant) $image.tag }}
{{- end }}
{{- end }}

{{/* "true" where the gateway's own engine computes on a GPU. */}}
{{- define "atelier.gateway.gpu" -}}
{{- and .Values.gpu.enabled (eq .Values.triton.mode "none") }}
{{- end }}

{{/* Secret with the certificate; empty without TLS. */}}
{{- define "atelier.tls.secret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ include "atelier.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end }}
{{- end }}

{{/* Secret with the file of API keys; empty without keys. */}}
{{- define "atelier.keys.secret" -}}
{{- if .Values.access.apiKeys.toml -}}
{{ include "atelier.fullname" . }}-api-keys
{{- else -}}
{{ .Values.access.apiKeys.existingSecret }}
{{- end }}
{{- end }}

{{/* "true" where something outside the cluster can reach the gateway. */}}
{{- define "atelier.exposed" -}}
{{- or .Values.ingress.enabled .Values.gatewayApi.enabled (ne .Values.service.type "ClusterIP") }}
{{- end }}

{{/* "true" where whoever comes must show who they are. */}}
{{- define "atelier.guarded" -}}
{{- or (ne (include "atelier.keys.secret" .) "") (ne .Values.tls.clientCASecret "") }}
{{- end }}

{{/* Component whose number is scaled: whoever computes; empty for none. */}}
{{- define "atelier.scaled" -}}
{{- if ne .Values.autoscaling.mode "none" -}}
{{ ternary "triton" "gateway" (eq .Values.triton.mode "deployment") }}
{{- end }}
{{- end }}

{{/* Claim of the model repository. */}}
{{- define "atelier.models.claim" -}}
{{- default (printf "%s-models" (include "atelier.fullname" .)) .Values.modelRepository.pvc.existingClaim }}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod. Takes a list: the root, the user, the group. */}}
{{- define "atelier.podSecurity" -}}
{{- $root := index . 0 -}}
runAsNonRoot: true
{{- with index . 1 }}
runAsUser: {{ int . }}
{{- end }}
{{- with index . 2 }}
runAsGroup: {{ int . }}
fsGroup: {{ int . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
{{- if eq $root.Values.security.seccompProfile "RuntimeDefault" }}
  type: RuntimeDefault
{{- else }}
  type: Localhost
  localhostProfile: {{ $root.Values.security.seccompProfile }}
{{- end }}
{{- end }}

{{/* What it asks of a container. */}}
{{- define "atelier.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where pods of the gateway or of Triton go. Takes a list: the root, the component, whether it has a GPU. */}}
{{- define "atelier.scheduling" -}}
{{- $root := index . 0 -}}
{{- $gpu := index . 2 -}}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $root.Values.tolerations $gpu }}
tolerations:
  {{- if $gpu }}
  - key: nvidia.com/gpu
    operator: Exists
    effect: NoSchedule
  {{- end }}
  {{- with $root.Values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with $root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne $root.Values.spread "none" }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: {{ $root.Values.spread }}
    matchLabelKeys: [{{ ternary "pod-template-hash" "controller-revision-hash" (eq (index $ 1) "gateway") }}]
    labelSelector:
      matchLabels:
        {{- include "atelier.selector" (list $root (index $ 1)) | nindent 8 }}
  {{- end }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if and $gpu $root.Values.gpu.runtimeClassName }}
runtimeClassName: {{ $root.Values.gpu.runtimeClassName }}
{{- end }}
{{- end }}

{{/* Resources with GPUs added. Takes a list: the root, resources, whether it has a GPU. */}}
{{- define "atelier.resources" -}}
{{- $root := index . 0 -}}
{{- $resources := deepCopy (index . 1) -}}
{{- if index . 2 -}}
{{- $gpus := dict $root.Values.gpu.resource (toString $root.Values.gpu.count) -}}
{{- $_ := set $resources "limits" (merge $gpus ($resources.limits | default dict)) -}}
{{- $_ := set $resources "requests" (merge $gpus ($resources.requests | default dict)) -}}
{{- end -}}
{{- toYaml $resources }}
{{- end }}

{{/* How pods are replaced. With GPUs the old ones go first: a new one could wait for ever for a GPU that they hold. */}}
{{- define "atelier.rollout" -}}
{{- $rollout := (index . 0).Values.rollout -}}
{{- $gpu := index . 1 -}}
{{- $surge := kindIs "invalid" $rollout.maxSurge | ternary (ternary 0 1 $gpu) $rollout.maxSurge -}}
{{- $away := kindIs "invalid" $rollout.maxUnavailable | ternary (ternary 1 0 $gpu) $rollout.maxUnavailable -}}
{{- if and (has (toString $surge) (list "0" "0%")) (has (toString $away) (list "0" "0%")) -}}
{{- fail "rollout.maxSurge and rollout.maxUnavailable are both 0 (with GPUs, 0 is the default of maxSurge): no rollout could begin; set one of them" -}}
{{- end -}}
type: RollingUpdate
rollingUpdate:
  maxSurge: {{ $surge }}
  maxUnavailable: {{ $away }}
{{- end }}
