{{/* A training, as the spec of a Job: pods train together, then the first of them publishes. */}}
{{- define "atelier.training.job" -}}
{{- $training := .Values.training -}}
{{- $gpu := gt (int $training.gpus) 0 -}}
completions: {{ int $training.nodes }}
parallelism: {{ int $training.nodes }}
completionMode: Indexed
backoffLimit: {{ mul (int $training.retries) (int $training.nodes) }}
ttlSecondsAfterFinished: {{ int $training.keepSeconds }}
{{- with int $training.deadlineSeconds }}
activeDeadlineSeconds: {{ . }}
{{- end }}
template:
  metadata:
    labels:
      {{- include "atelier.podLabels" (list . "training") | nindent 6 }}
  spec:
    restartPolicy: OnFailure
    serviceAccountName: {{ include "atelier.serviceAccountName" . }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    # With this the pods find each other: JOB-0.SUBDOMAIN, JOB-1.SUBDOMAIN, ...
    subdomain: {{ include "atelier.fullname" . }}-training
    # A training that is told to stop writes a checkpoint first.
    terminationGracePeriodSeconds: 120
    securityContext:
      {{- include "atelier.podSecurity" (list . .Values.security.runAsUser .Values.security.runAsGroup) | nindent 6 }}
    {{- with .Values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $training.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if or $training.tolerations $gpu }}
    tolerations:
      {{- if $gpu }}
      - key: nvidia.com/gpu
        operator: Exists
        effect: NoSchedule
      {{- end }}
      {{- with $training.tolerations }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- end }}
    {{- with $training.priorityClassName }}
    priorityClassName: {{ . }}
    {{- end }}
    {{- if and $gpu .Values.gpu.runtimeClassName }}
    runtimeClassName: {{ .Values.gpu.runtimeClassName }}
    {{- end }}
    initContainers:
      - name: train
        {{- include "atelier.training.container" . | nindent 8 }}
        command:
          - sh
          - -ec
          - |
            run={{ include "atelier.training.runs" . }}/$JOB_NAME
            test ! -e "$run/.trained" || exit 0
            if ls "$run"/checkpoints/*/checkpoint.json >/dev/null 2>&1; then
              set -- --resume "$run"
            else
              set -- --config /etc/atelier/training/recipe.toml --run-dir "$run"
            fi
            {{- if gt (mul (int $training.nodes) (int $training.processes)) 1 }}
            exec torchrun --nnodes={{ int $training.nodes }} --nproc-per-node={{ int $training.processes }} \
              --node-rank="$JOB_COMPLETION_INDEX" --master-port=29500 \
              --master-addr="$JOB_NAME-0.{{ include "atelier.fullname" . }}-training" \
              --no-python atelier train "$@"
            {{- else }}
            exec atelier train "$@"
            {{- end }}
        resources:
          {{- $resources := deepCopy $training.resources }}
          {{- if $gpu }}
          {{- $gpus := dict .Values.gpu.resource (toString $training.gpus) }}
          {{- $_ := set $resources "limits" (merge $gpus ($resources.limits | default dict)) }}
          {{- $_ := set $resources "requests" (merge $gpus ($resources.requests | default dict)) }}
          {{- end }}
          {{- toYaml $resources | nindent 10 }}
    containers:
      - name: publish
        {{- include "atelier.training.container" . | nindent 8 }}
        command:
          - sh
          - -ec
          - |
            run={{ include "atelier.training.runs" . }}/$JOB_NAME
            # A pod that is begun anew has nothing more to train.
            touch "$run/.trained"
            test "$JOB_COMPLETION_INDEX" = 0 || exit 0
            exec atelier export "$run" --to {{ include "atelier.models.path" . }} --name {{ $training.model }}
        resources:
          {{- toYaml $training.resources | nindent 10 }}
    volumes:
      - name: recipe
        configMap:
          name: {{ include "atelier.fullname" . }}-training
      - name: tmp
        emptyDir:
          sizeLimit: 4Gi
      - name: shm
        emptyDir:
          medium: Memory
          sizeLimit: {{ $training.sharedMemory }}
      - name: models
        persistentVolumeClaim:
          claimName: {{ include "atelier.models.claim" . }}
      {{- with $training.runs.existingClaim }}
      - name: runs
        persistentVolumeClaim:
          claimName: {{ . }}
      {{- end }}
      {{- with $training.dataClaim }}
      - name: data
        persistentVolumeClaim:
          claimName: {{ . }}
          readOnly: true
      {{- end }}
{{- end }}

{{/* Folder of all runs. A hidden one beside the models is no model to anybody who reads them. */}}
{{- define "atelier.training.runs" -}}
{{ ternary "/runs" "/models/.runs" (ne .Values.training.runs.existingClaim "") }}
{{- end }}

{{/* What both containers have in common. */}}
{{- define "atelier.training.container" -}}
{{- $image := .Values.training.image -}}
{{- if $image.digest -}}
image: {{ $image.repository }}@{{ $image.digest }}
{{- else -}}
image: {{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end }}
imagePullPolicy: {{ $image.pullPolicy }}
env:
  - name: JOB_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.labels['batch.kubernetes.io/job-name']
  - name: HOME
    value: /tmp
  {{- with .Values.training.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  {{- include "atelier.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: recipe
    mountPath: /etc/atelier/training
    readOnly: true
  - name: tmp
    mountPath: /tmp
  - name: shm
    mountPath: /dev/shm
  - name: models
    mountPath: /models
  {{- if .Values.training.runs.existingClaim }}
  - name: runs
    mountPath: /runs
  {{- end }}
  {{- if .Values.training.dataClaim }}
  - name: data
    mountPath: /data
    readOnly: true
  {{- end }}
{{- end }}
