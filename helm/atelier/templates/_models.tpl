{{/* How models come into a pod: volumes, init containers and the mount, the same for a gateway and for Triton. */}}

{{/* Folder that the repository is read from. */}}
{{- define "atelier.models.path" -}}
{{- with .Values.modelRepository.folder }}/models/{{ trimAll "/" . }}{{ else }}/models{{ end }}
{{- end }}

{{/* "volume", "pull" or empty. */}}
{{- define "atelier.models.oci" -}}
{{- if eq .Values.modelRepository.source "oci" -}}
{{- if ne .Values.modelRepository.oci.mode "auto" -}}
{{ .Values.modelRepository.oci.mode }}
{{- else -}}
{{ ternary "volume" "pull" (semverCompare ">=1.35.0-0" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}
{{- end }}

{{/* "true" where the repository is a volume. Takes a list: the root, the component. */}}
{{- define "atelier.models.mounted" -}}
{{- $root := index . 0 -}}
{{- $alone := eq $root.Values.triton.mode "none" -}}
{{- $inside := and (eq (index . 1) "gateway") (has $root.Values.triton.mode (list "deployment" "external")) -}}
{{- not (or $inside (and $alone (eq $root.Values.modelRepository.source "image"))) }}
{{- end }}

{{- define "atelier.models.mounts" -}}
{{- if eq (include "atelier.models.mounted" .) "true" }}
- name: models
  mountPath: /models
  readOnly: true
{{- end }}
{{- end }}

{{- define "atelier.models.volumes" -}}
{{- $root := index . 0 -}}
{{- $repository := $root.Values.modelRepository -}}
{{- if eq (include "atelier.models.mounted" .) "true" }}
- name: models
  {{- if eq $repository.source "pvc" }}
  persistentVolumeClaim:
    claimName: {{ include "atelier.models.claim" $root }}
    readOnly: true
  {{- else if eq (include "atelier.models.oci" $root) "volume" }}
  image:
    reference: {{ $repository.oci.reference }}
    pullPolicy: IfNotPresent
  {{- else }}
  emptyDir:
    sizeLimit: {{ $repository.archive.sizeLimit }}
  {{- end }}
{{- if has $repository.source (list "s3" "gcs") }}
- name: download
  emptyDir:
    sizeLimit: {{ $repository.archive.sizeLimit }}
{{- end }}
{{- if and (eq (include "atelier.models.oci" $root) "pull") $repository.oci.secretName }}
- name: registry
  secret:
    secretName: {{ $repository.oci.secretName }}
    defaultMode: 0440
    items:
      - key: .dockerconfigjson
        path: config.json
{{- end }}
{{- end }}
{{- end }}

{{/* Containers that bring the repository before anything reads it. */}}
{{- define "atelier.models.initContainers" -}}
{{- $root := index . 0 -}}
{{- $repository := $root.Values.modelRepository -}}
{{- $archive := $repository.archive -}}
{{- if eq (include "atelier.models.mounted" .) "true" }}
{{- if eq $repository.source "image" }}
- name: models
  {{- include "atelier.models.own" $root | nindent 2 }}
  command: [cp, --recursive, --no-target-directory, /models, /repository]
  volumeMounts:
    - name: models
      mountPath: /repository
{{- else if eq $repository.source "http" }}
- name: models
  {{- include "atelier.models.own" $root | nindent 2 }}
  command: [atelier, fetch, {{ $archive.url | quote }}, --sha256, {{ $archive.sha256 | quote }}, --to, /models]
  {{- include "atelier.models.credentials" $root | nindent 2 }}
  volumeMounts:
    - name: models
      mountPath: /models
    - name: tmp
      mountPath: /tmp
{{- else if has $repository.source (list "s3" "gcs") }}
- name: download
  image: {{ $archive.rcloneImage }}
  imagePullPolicy: IfNotPresent
  command:
    - rclone
    - copyto
    - {{ regexReplaceAll "^(s3|gs)://" $archive.url ":${1}:" | replace ":gs:" ":gcs:" | quote }}
    - /download/{{ base $archive.url }}
  env:
    - name: RCLONE_CONFIG
      value: /dev/null
    {{- if eq $repository.source "s3" }}
    - name: RCLONE_S3_PROVIDER
      value: {{ ternary "Other" "AWS" (ne $archive.endpoint "") }}
    - name: RCLONE_S3_ENV_AUTH
      value: "true"
    {{- with $archive.region }}
    - name: RCLONE_S3_REGION
      value: {{ . | quote }}
    {{- end }}
    {{- with $archive.endpoint }}
    - name: RCLONE_S3_ENDPOINT
      value: {{ . | quote }}
    {{- end }}
    {{- else }}
    - name: RCLONE_GCS_ENV_AUTH
      value: "true"
    - name: RCLONE_GCS_BUCKET_POLICY_ONLY
      value: "true"
    {{- end }}
  {{- include "atelier.models.credentials" $root | nindent 2 }}
  securityContext:
    {{- include "atelier.containerSecurity" $root | nindent 4 }}
  resources:
    {{- include "atelier.models.resources" $root | nindent 4 }}
  volumeMounts:
    - name: download
      mountPath: /download
    - name: tmp
      mountPath: /tmp
- name: models
  {{- include "atelier.models.own" $root | nindent 2 }}
  command: [atelier, fetch, {{ printf "/download/%s" (base $archive.url) | quote }}, --sha256, {{ $archive.sha256 | quote }}, --to, /models]
  volumeMounts:
    - name: download
      mountPath: /download
    - name: models
      mountPath: /models
    - name: tmp
      mountPath: /tmp
{{- else if eq (include "atelier.models.oci" $root) "pull" }}
- name: models
  image: {{ $repository.oci.orasImage }}
  imagePullPolicy: IfNotPresent
  command: [oras, pull, {{ $repository.oci.reference | quote }}, --output, /models
    {{- if $repository.oci.secretName }}, --registry-config, /registry/config.json{{ end }}]
  securityContext:
    {{- include "atelier.containerSecurity" $root | nindent 4 }}
  resources:
    {{- include "atelier.models.resources" $root | nindent 4 }}
  volumeMounts:
    - name: models
      mountPath: /models
    - name: tmp
      mountPath: /tmp
    {{- if $repository.oci.secretName }}
    - name: registry
      mountPath: /registry
      readOnly: true
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A container of the gateway's own image. */}}
{{- define "atelier.models.own" -}}
image: {{ include "atelier.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "atelier.containerSecurity" . | nindent 2 }}
resources:
  {{- include "atelier.models.resources" . | nindent 2 }}
{{- end }}

{{- define "atelier.models.resources" -}}
requests:
  cpu: 100m
  memory: 128Mi
limits:
  memory: 512Mi
{{- end }}

{{- define "atelier.models.credentials" -}}
{{- with .Values.modelRepository.archive.secretName }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}
