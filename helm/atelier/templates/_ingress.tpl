{{/* Spec of an Ingress. Takes a list: the root, the host, the port's name. */}}
{{- define "atelier.ingress" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.ingress.className -}}
ingressClassName: {{ . }}
{{ end -}}
{{- with $root.Values.ingress.tlsSecret -}}
tls:
  - secretName: {{ . }}
    hosts: [{{ index $ 1 | quote }}]
{{ end -}}
rules:
  - host: {{ index . 1 | quote }}
    http:
      paths:
        - path: /
          pathType: Prefix
          backend:
            service:
              name: {{ include "atelier.fullname" $root }}
              port:
                name: {{ index . 2 }}
{{- end }}
