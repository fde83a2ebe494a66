{{/* How names end: there is one installation of each revision in a cluster. */}}
{{- define "chancery.end" -}}
{{- with .Values.revision }}-{{ . }}{{ end }}
{{- end }}

{{/* Its own objects, and nobody else's: those of a revision have a label of their own. */}}
{{- define "chancery.labels" -}}
app: chancery{{ include "chancery.end" . }}
{{- end }}

{{- define "chancery.image" -}}
{{- $image := .Values.image }}
{{- with $image.digest }}
{{- printf "%s@%s" $image.repository . }}
{{- else }}
{{- printf "%s:%s" $image.repository ($image.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* The account, as the subject of a binding. */}}
{{- define "chancery.subjects" -}}
- kind: ServiceAccount
  name: chancery{{ include "chancery.end" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* What binds the account to a role: `root`, `kind` of the role, and `role`, its name without the end. */}}
{{- define "chancery.binding" -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .role }}{{ include "chancery.end" .root }}
subjects:
  {{- include "chancery.subjects" .root | nindent 2 }}
{{- end }}

{{/* The kinds of the v2 API, by their plural names. */}}
{{- define "chancery.kinds.admin" -}}
- group: admin.gloo.solo.io
  names:
    - kubernetesclusters
    - workspaces
    - workspacesettings
    - roottrustpolicies
    - extauthservers
    - ratelimitserversettings
    - ratelimitserverconfigs
{{- end }}

{{- define "chancery.kinds.networking" -}}
- group: networking.gloo.solo.io
  names:
    - virtualgateways
    - routetables
    - virtualdestinations
    - externalservices
    - externalendpoints
{{- end }}

{{- define "chancery.kinds.policies" -}}
- group: security.policy.gloo.solo.io
  names:
    - accesspolicies
    - clienttlspolicies
    - corspolicies
    - csrfpolicies
    - dlppolicies
    - extauthpolicies
    - jwtpolicies
    - wafpolicies
    - graphqlallowedquerypolicies
- group: trafficcontrol.policy.gloo.solo.io
  names:
    - headermanipulationpolicies
    - httpbufferpolicies
    - loadbalancerpolicies
    - mirrorpolicies
    - proxyprotocolpolicies
    - ratelimitpolicies
    - ratelimitclientconfigs
    - transformationpolicies
- group: resilience.policy.gloo.solo.io
  names:
    - activehealthcheckpolicies
    - adaptiverequestconcurrencypolicies
    - connectionpolicies
    - failoverpolicies
    - faultinjectionpolicies
    - graphqlpersistedquerycachepolicies
    - listenerconnectionpolicies
    - outlierdetectionpolicies
    - retrytimeoutpolicies
    - trimproxyconfigpolicies
- group: observability.policy.gloo.solo.io
  names:
    - accesslogpolicies
- group: extensions.policy.gloo.solo.io
  names:
    - luapolicies
    - wasmdeploymentpolicies
{{- end }}

{{/* Rules for kinds: `of` (admin, networking, policies), `verbs`, and the `part` of each object, if it is not the whole. */}}
{{- define "chancery.rules" -}}
{{- $all := . }}
{{- range fromYamlArray (include (printf "chancery.kinds.%s" .of) .) }}
- apiGroups: [{{ .group }}]
  resources:
    {{- range .names }}
    - {{ . }}{{ $all.part }}
    {{- end }}
  verbs: [{{ join ", " $all.verbs }}]
{{- end }}
{{- end }}

{{/* The same for all of them. */}}
{{- define "chancery.rulesOfAll" -}}
{{- $all := . }}
{{- range list "admin" "networking" "policies" }}
{{- include "chancery.rules" (merge (dict "of" .) $all) }}
{{- end }}
{{- end }}
