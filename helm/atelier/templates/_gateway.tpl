{{/* What the chart decides of the gateway's settings: variables, which win over the file of `config`. */}}
{{- define "atelier.gateway.env" -}}
- name: ATELIER_CONFIG
  value: /etc/atelier/config/atelier.toml
- name: ATELIER_REPOSITORY
  value: {{ include "atelier.models.path" . }}
- name: ATELIER_HOST
  value: {{ .Values.listenAddress | quote }}
- name: ATELIER_HTTP_PORT
  value: "8080"
- name: ATELIER_GRPC_PORT
  value: "8081"
- name: ATELIER_METRICS_PORT
  value: "8082"
{{- if eq .Values.triton.mode "none" }}
- name: ATELIER_DEVICE
  value: {{ ternary "cuda" "cpu" .Values.gpu.enabled }}
- name: ATELIER_ENGINE_CACHE
  value: {{ ternary "/cache" "/tmp/engines" (ne .Values.gpu.engineCacheClaim "") }}
{{- else }}
- name: ATELIER_BACKEND
  value: triton
- name: ATELIER_TRITON_URL
  value: {{ include "atelier.triton.url" . | quote }}
{{- if .Values.triton.tls.existingSecret }}
- name: ATELIER_TRITON_TLS_CA
  value: /etc/atelier/triton/ca.crt
{{- if .Values.triton.tls.mutual }}
- name: ATELIER_TRITON_TLS_CERT
  value: /etc/atelier/triton/tls.crt
- name: ATELIER_TRITON_TLS_KEY
  value: /etc/atelier/triton/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- if include "atelier.tls.secret" . }}
- name: ATELIER_TLS_CERT
  value: /etc/atelier/tls/tls.crt
- name: ATELIER_TLS_KEY
  value: /etc/atelier/tls/tls.key
{{- if .Values.tls.clientCASecret }}
- name: ATELIER_TLS_CLIENT_CA
  value: /etc/atelier/client-ca/ca.crt
{{- end }}
{{- end }}
{{- if include "atelier.keys.secret" . }}
- name: ATELIER_API_KEYS
  value: /etc/atelier/api-keys/{{ .Values.access.apiKeys.key }}
{{- end }}
{{- if ne (include "atelier.guarded" .) "true" }}
- name: ATELIER_ALLOW_ANONYMOUS
  value: "true"
{{- end }}
- name: ATELIER_DRAIN_DELAY
  value: {{ int .Values.drain.delaySeconds | quote }}
- name: ATELIER_SHUTDOWN_GRACE
  value: {{ int .Values.drain.graceSeconds | quote }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Folders of files that are read again when they change, so no subPath: that would never be brought up to date. */}}
{{- define "atelier.gateway.mounts" -}}
- name: config
  mountPath: /etc/atelier/config
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if .Values.gpu.engineCacheClaim }}
- name: engine-cache
  mountPath: /cache
{{- end }}
{{- include "atelier.models.mounts" (list . "gateway") }}
{{- if include "atelier.tls.secret" . }}
- name: tls
  mountPath: /etc/atelier/tls
  readOnly: true
{{- if .Values.tls.clientCASecret }}
- name: client-ca
  mountPath: /etc/atelier/client-ca
  readOnly: true
{{- end }}
{{- end }}
{{- if include "atelier.keys.secret" . }}
- name: api-keys
  mountPath: /etc/atelier/api-keys
  readOnly: true
{{- end }}
{{- if .Values.triton.tls.existingSecret }}
- name: triton-tls
  mountPath: /etc/atelier/triton
  readOnly: true
{{- end }}
{{- end }}

{{- define "atelier.gateway.volumes" -}}
- name: config
  configMap:
    name: {{ include "atelier.fullname" . }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- with .Values.gpu.engineCacheClaim }}
- name: engine-cache
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- include "atelier.models.volumes" (list . "gateway") }}
{{- with include "atelier.tls.secret" . }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.tls.clientCASecret }}
- name: client-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- with include "atelier.keys.secret" . }}
- name: api-keys
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.triton.tls.existingSecret }}
- name: triton-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if eq .Values.triton.mode "sidecar" }}
{{ include "atelier.triton.volumes" . }}
{{- end }}
{{- end }}

{{/* Seconds from SIGTERM, or from preStop, to SIGKILL: everything that the gateway was promised, and some to spare. */}}
{{- define "atelier.gateway.terminationSeconds" -}}
{{- $sidecar := ternary (int .Values.triton.graceSeconds) 0 (eq .Values.triton.mode "sidecar") -}}
{{- add (int .Values.drain.preStopSeconds) (int .Values.drain.delaySeconds) (int .Values.drain.graceSeconds) $sidecar 10 }}
{{- end }}
