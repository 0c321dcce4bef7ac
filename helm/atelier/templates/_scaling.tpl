{{/* What the number of pods follows. `files/prometheus-adapter.yaml` makes the two metrics of the HPA in the same way. */}}

{{/* Series of this release's gateways. */}}
{{- define "atelier.scaling.selector" -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "atelier.fullname" . }}-[0-9a-z]{5,}-[0-9a-z]{5}"
{{- end }}

{{/* Mean seconds that rows waited: over all calls, so that a graph that nobody asks for has no say. */}}
{{- define "atelier.scaling.queueSeconds" -}}
{{- $selector := include "atelier.scaling.selector" . -}}
{{- $window := int .Values.autoscaling.windowSeconds -}}
sum(increase(atelier_queue_seconds_sum{ {{- $selector -}} }[{{ $window }}s])) / clamp_min(sum(increase(atelier_queue_seconds_count{ {{- $selector -}} }[{{ $window }}s])), 1)
{{- end }}

{{/* Rows that wait, in all gateways together. */}}
{{- define "atelier.scaling.pendingRows" -}}
sum(atelier_rows_pending{ {{- include "atelier.scaling.selector" . -}} })
{{- end }}

{{/* Up fast, down slowly. */}}
{{- define "atelier.scaling.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - type: Percent
      value: 100
      periodSeconds: 30
    - type: Pods
      value: 2
      periodSeconds: 30
scaleDown:
  stabilizationWindowSeconds: {{ int .Values.autoscaling.scaleDownSeconds }}
  selectPolicy: Max
  policies:
    - type: Pods
      value: 1
      periodSeconds: 60
{{- end }}

{{- define "atelier.scaling.authentication" -}}
{{- with .Values.autoscaling.keda.authentication -}}
authenticationRef:
  name: {{ . }}
{{- end }}
{{- end }}
