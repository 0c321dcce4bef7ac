{{/* What every pod may reach: names, and where models are downloaded from. Takes a list: the root, whether it downloads. */}}
{{- define "atelier.network.egress" -}}
{{- $root := index . 0 -}}
{{- $downloads := or (has $root.Values.modelRepository.source (list "http" "s3" "gcs")) (eq (include "atelier.models.oci" $root) "pull") -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- if and $downloads (eq (index . 1) "true") }}
- ports:
    {{- $ports := list 443 }}
    {{- range list $root.Values.modelRepository.archive.url $root.Values.modelRepository.archive.endpoint $root.Values.modelRepository.oci.reference }}
    {{- if hasPrefix "http://" . }}
    {{- $ports = append $ports 80 }}
    {{- end }}
    {{- with regexFind "^(https?://)?[^/:@]+:[0-9]+/" (print . "/") }}
    {{- $ports = append $ports (regexFind "[0-9]+/$" . | trimSuffix "/" | int) }}
    {{- end }}
    {{- end }}
    {{- range uniq $ports }}
    - port: {{ . }}
    {{- end }}
{{- end }}
{{- end }}
