{{/* Values that contradict each other, each refused with what to do about it. */}}
{{- define "atelier.check" -}}
{{- $v := .Values -}}
{{- $repository := $v.modelRepository -}}

{{- /* Doors */ -}}
{{- $open := and (ne (include "atelier.guarded" .) "true") (ne $v.access.anonymous "everyone") -}}
{{- if and $open (eq $v.access.anonymous "nobody") -}}
{{- fail "access.anonymous is nobody, but nothing tells callers apart: set access.apiKeys.existingSecret, access.apiKeys.toml or tls.clientCASecret" -}}
{{- end -}}
{{- if and $open (eq (include "atelier.exposed" .) "true") -}}
{{- fail "the gateway can be reached from outside the cluster (ingress, gatewayApi or service.type), and anybody could use it: set access.apiKeys.existingSecret, access.apiKeys.toml or tls.clientCASecret, or access.anonymous=everyone if that is meant" -}}
{{- end -}}
{{- if and $v.access.apiKeys.existingSecret $v.access.apiKeys.toml -}}
{{- fail "access.apiKeys.existingSecret and access.apiKeys.toml are both set: keep one" -}}
{{- end -}}
{{- if and $v.tls.existingSecret $v.tls.certManager.enabled -}}
{{- fail "tls.existingSecret and tls.certManager.enabled are both set: keep one" -}}
{{- end -}}
{{- if and $v.tls.certManager.enabled (not $v.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager.enabled needs tls.certManager.issuerRef.name: who signs the certificate" -}}
{{- end -}}
{{- if and $v.tls.clientCASecret (not (include "atelier.tls.secret" .)) -}}
{{- fail "tls.clientCASecret needs a certificate of the gateway, too: set tls.existingSecret or tls.certManager" -}}
{{- end -}}

{{- /* Models */ -}}
{{- if and (eq $repository.source "pvc") (eq (ternary 1 0 $repository.pvc.create) (ternary 1 0 (ne $repository.pvc.existingClaim ""))) -}}
{{- fail "modelRepository.source is pvc: set either modelRepository.pvc.existingClaim or modelRepository.pvc.create" -}}
{{- end -}}
{{- if and (ne $repository.source "pvc") (or $repository.pvc.create $repository.pvc.existingClaim) -}}
{{- fail (printf "modelRepository.pvc is set, but models come from %s: set modelRepository.source=pvc" $repository.source) -}}
{{- end -}}
{{- $schemes := dict "http" "http(s)?://" "s3" "s3://" "gcs" "gs://" -}}
{{- if hasKey $schemes $repository.source -}}
{{- if not (regexMatch (print "^" (get $schemes $repository.source)) $repository.archive.url) -}}
{{- fail (printf "modelRepository.source is %s, and modelRepository.archive.url is %q: it has to begin with %s" $repository.source $repository.archive.url (get $schemes $repository.source | replace "(s)?" "")) -}}
{{- end -}}
{{- if not $repository.archive.sha256 -}}
{{- fail "modelRepository.archive.sha256 is missing: a gateway runs no models that nobody vouches for" -}}
{{- end -}}
{{- else if $repository.archive.url -}}
{{- fail (printf "modelRepository.archive.url is set, but models come from %s: set modelRepository.source to http, s3 or gcs" $repository.source) -}}
{{- end -}}
{{- if and (eq $repository.source "oci") (not $repository.oci.reference) -}}
{{- fail "modelRepository.source is oci: set modelRepository.oci.reference" -}}
{{- end -}}
{{- if and (eq $repository.source "oci") (eq $repository.oci.mode "volume") (semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "modelRepository.oci.mode is volume, and Kubernetes %s has no image volumes: set it to pull" .Capabilities.KubeVersion.Version) -}}
{{- end -}}

{{- /* Triton */ -}}
{{- if and (eq $v.triton.mode "external") (not $v.triton.url) -}}
{{- fail "triton.mode is external: set triton.url" -}}
{{- end -}}
{{- if and (ne $v.triton.mode "external") $v.triton.url -}}
{{- fail (printf "triton.url is set, but triton.mode is %s: set triton.mode=external" $v.triton.mode) -}}
{{- end -}}
{{- if and (ne $v.triton.mode "external") (or $v.triton.tls.existingSecret $v.triton.tls.mutual) -}}
{{- fail "triton.tls is for an external Triton: set triton.mode=external" -}}
{{- end -}}
{{- if and $v.triton.tls.mutual (not $v.triton.tls.existingSecret) -}}
{{- fail "triton.tls.mutual needs triton.tls.existingSecret: the certificate to show" -}}
{{- end -}}
{{- if and $v.gpu.engineCacheClaim (not (and $v.gpu.enabled (eq $v.triton.mode "none"))) -}}
{{- fail "gpu.engineCacheClaim is for the gateway's own engine on a GPU: set gpu.enabled=true and triton.mode=none" -}}
{{- end -}}
{{- if and (eq $v.triton.mode "external") $v.gpu.enabled -}}
{{- fail "gpu.enabled with an external Triton: nothing in this release would use the GPU; set gpu.enabled=false" -}}
{{- end -}}
{{- if and (eq $v.triton.mode "external") (ne $repository.source "image") -}}
{{- fail "modelRepository.source with an external Triton: it has its models already; leave it at image" -}}
{{- end -}}

{{- /* Number of pods */ -}}
{{- $scaling := $v.autoscaling -}}
{{- if ne $scaling.mode "none" -}}
{{- if gt (int $scaling.min) (int $scaling.max) -}}
{{- fail (printf "autoscaling.min %d is above autoscaling.max %d" (int $scaling.min) (int $scaling.max)) -}}
{{- end -}}
{{- if not (or $scaling.targets.queueSeconds $scaling.targets.pendingRows) -}}
{{- fail "autoscaling.targets are both 0: nothing would scale; set one" -}}
{{- end -}}
{{- if eq $v.triton.mode "external" -}}
{{- fail "autoscaling with an external Triton: rows wait for Triton, and more gateways make it no faster; set autoscaling.mode=none" -}}
{{- end -}}
{{- if and (eq $v.triton.mode "deployment") (eq $scaling.mode "hpa") -}}
{{- fail "autoscaling.mode is hpa with triton.mode=deployment: an HPA of Triton cannot read the gateways' metrics; set autoscaling.mode=keda" -}}
{{- end -}}
{{- end -}}
{{- if and (ne $scaling.mode "keda") (ne $scaling.mode "none") (eq (int $scaling.min) 0) -}}
{{- fail "autoscaling.min is 0, which an HPA cannot do: set autoscaling.mode=keda" -}}
{{- end -}}
{{- if eq $scaling.mode "keda" -}}
{{- if not $scaling.keda.prometheus -}}
{{- fail "autoscaling.mode is keda: set autoscaling.keda.prometheus" -}}
{{- end -}}
{{- if and (eq (int $scaling.min) 0) (not $scaling.keda.wakeUp.query) -}}
{{- fail "autoscaling.min is 0: set autoscaling.keda.wakeUp.query, as without a gateway there is no metric of one" -}}
{{- end -}}
{{- end -}}
{{- if and $v.podDisruptionBudget.enabled (has (toString $v.podDisruptionBudget.maxUnavailable) (list "0" "0%")) -}}
{{- fail "podDisruptionBudget.maxUnavailable is 0: no node could ever be drained; set 1, or podDisruptionBudget.enabled=false" -}}
{{- end -}}

{{- /* Ways in */ -}}
{{- if and $v.ingress.enabled (not (or $v.ingress.http.host $v.ingress.grpc.host)) -}}
{{- fail "ingress.enabled: set ingress.http.host or ingress.grpc.host" -}}
{{- end -}}
{{- if and $v.ingress.enabled (eq $v.ingress.http.host $v.ingress.grpc.host) -}}
{{- fail "ingress.http.host and ingress.grpc.host are the same: one host cannot have two protocols behind one path" -}}
{{- end -}}
{{- if and $v.ingress.enabled $v.ingress.grpc.host (not $v.ingress.tlsSecret) -}}
{{- fail "ingress.grpc.host needs ingress.tlsSecret: ingress controllers speak HTTP/2, and so gRPC, over TLS alone" -}}
{{- end -}}
{{- if $v.gatewayApi.enabled -}}
{{- if not $v.gatewayApi.parentRefs -}}
{{- fail "gatewayApi.enabled: set gatewayApi.parentRefs" -}}
{{- end -}}
{{- if not (or $v.gatewayApi.http.hostnames $v.gatewayApi.grpc.hostnames) -}}
{{- fail "gatewayApi.enabled: set gatewayApi.http.hostnames or gatewayApi.grpc.hostnames" -}}
{{- end -}}
{{- range $v.gatewayApi.grpc.hostnames -}}
{{- if has . $v.gatewayApi.http.hostnames -}}
{{- fail (printf "gatewayApi: %s is a host of HTTP and of gRPC; a Gateway takes only one kind of route for a host" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.monitoring.serviceMonitor.enabled $v.monitoring.podMonitor.enabled -}}
{{- fail "monitoring.serviceMonitor and monitoring.podMonitor are both enabled: every gateway would be counted twice; keep one" -}}
{{- end -}}

{{- /* Training */ -}}
{{- if $v.training.enabled -}}
{{- if ne $repository.source "pvc" -}}
{{- fail "training.enabled: what is trained is published in the model repository, so set modelRepository.source=pvc" -}}
{{- end -}}
{{- if not $v.training.recipe -}}
{{- fail "training.enabled: set training.recipe, for example with --set-file training.recipe=recipe.toml" -}}
{{- end -}}
{{- if not $v.training.model -}}
{{- fail "training.enabled: set training.model, the name to publish under" -}}
{{- end -}}
{{- if and (gt (int $v.training.gpus) 0) (ne (int $v.training.gpus) (int $v.training.processes)) -}}
{{- fail (printf "training.gpus is %d and training.processes %d: one process for each GPU" (int $v.training.gpus) (int $v.training.processes)) -}}
{{- end -}}
{{- end -}}
{{- end }}
