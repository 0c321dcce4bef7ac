{{/* A Triton, as a sidecar or alone. Takes a list: the root, whether it is a sidecar. */}}
{{- define "atelier.triton.container" -}}
{{- $root := index . 0 -}}
{{- $sidecar := index . 1 -}}
{{- $triton := $root.Values.triton -}}
- name: triton
  image: {{ $triton.image }}
  imagePullPolicy: IfNotPresent
  {{- if $sidecar }}
  # A sidecar of Kubernetes' own kind: it begins before the gateway and ends after it.
  restartPolicy: Always
  {{- end }}
  command:
    - tritonserver
    - --model-repository={{ include "atelier.models.path" $root }}
    - --http-port=8000
    - --grpc-port=8001
    - --metrics-port=8002
    {{- if $sidecar }}
    - --http-address=127.0.0.1
    - --grpc-address=127.0.0.1
    - --metrics-address={{ $root.Values.listenAddress }}
    {{- end }}
    {{- if not $root.Values.gpu.enabled }}
    - --model-config-name=cpu
    {{- end }}
    # A model that does not load keeps nobody from the others, as in the gateway's own engine.
    - --exit-on-error=false
    - --strict-readiness=false
    - --exit-timeout-secs={{ int $triton.graceSeconds }}
    {{- range $triton.args }}
    - {{ . | quote }}
    {{- end }}
  ports:
    {{- if not $sidecar }}
    - name: http
      containerPort: 8000
    - name: grpc
      containerPort: 8001
    {{- end }}
    - name: {{ ternary "triton-metrics" "metrics" $sidecar }}
      containerPort: 8002
  {{- if $sidecar }}
  # It listens on the pod's loopback, where the kubelet does not come: the gateway is ready when Triton is.
  {{- else }}
  startupProbe:
    httpGet:
      path: /v2/health/live
      port: http
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: {{ max 1 (div (int $root.Values.probes.startupSeconds) 5) }}
  livenessProbe:
    httpGet:
      path: /v2/health/live
      port: http
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: {{ max 1 (div (int $root.Values.probes.livenessSeconds) 10) }}
  readinessProbe:
    httpGet:
      path: /v2/health/ready
      port: http
    periodSeconds: {{ int $root.Values.probes.readinessPeriodSeconds }}
    timeoutSeconds: 5
    failureThreshold: 2
  lifecycle:
    preStop:
      exec:
        # Triton takes nothing more once it is told to stop: first let everybody learn that it is going.
        command: [sleep, {{ int $triton.drainSeconds | quote }}]
  {{- end }}
  resources:
    {{- include "atelier.resources" (list $root $triton.resources $root.Values.gpu.enabled) | nindent 4 }}
  securityContext:
    {{- include "atelier.containerSecurity" $root | nindent 4 }}
    runAsUser: {{ int $triton.runAsUser }}
  volumeMounts:
    {{- include "atelier.models.mounts" (list $root "triton") | trim | nindent 4 }}
    - name: tmp
      mountPath: /tmp
    - name: shm
      mountPath: /dev/shm
{{- end }}

{{/* Memory counts against the containers' limits. */}}
{{- define "atelier.triton.volumes" -}}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.triton.sharedMemory }}
{{- end }}

{{/* Where the gateway finds Triton's gRPC. */}}
{{- define "atelier.triton.url" -}}
{{- if eq .Values.triton.mode "sidecar" -}}
127.0.0.1:8001
{{- else if eq .Values.triton.mode "deployment" -}}
{{- $name := printf "%s-triton" (include "atelier.fullname" .) -}}
{{- $addresses := list -}}
{{- range until (int (ternary .Values.autoscaling.max .Values.triton.replicas (eq (include "atelier.scaled" .) "triton"))) -}}
{{- $addresses = append $addresses (printf "%s-%d.%s.%s.svc:8001" $name . $name $.Release.Namespace) -}}
{{- end -}}
{{ join "," $addresses }}
{{- else -}}
{{ .Values.triton.url }}
{{- end }}
{{- end }}
