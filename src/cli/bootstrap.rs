//! `chancery bootstrap`.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::model::expression::PROXY_LEVEL;
use crate::render::to_yaml;

use super::{EXIT_CODES, Outcome, Usage, json};

/// Print an Envoy bootstrap that points at this control plane: ADS, keepalive, admin on loopback.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery bootstrap --cluster eu --namespace edge --label app=web > envoy.json\n  chancery bootstrap --cluster eu --namespace edge --pod web-0 --bind 127.0.0.1 -o yaml\n\n{EXIT_CODES}"))]
pub(super) struct Bootstrap {
    /// Where the control plane serves xDS
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18000")]
    xds_address: SocketAddr,
    /// Cluster of the gateway
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Namespace of the gateway
    #[arg(long, value_name = "NAME")]
    namespace: String,
    /// Name of the gateway's Pod; it makes the node id unique
    #[arg(long, value_name = "NAME", default_value = "gateway-0")]
    pod: String,
    /// A label of the gateway's Pod, as key=value; may be repeated. Gateway Services select by them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Service account of the gateway's Pod
    #[arg(long, value_name = "NAME", default_value = "default")]
    service_account: String,
    /// Address that listeners bind
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    bind: IpAddr,
    /// Where Envoy's own admin interface listens; keep it on loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:19000")]
    admin_address: SocketAddr,
    /// Keep all statistics of each upstream cluster; they cost Envoy most of the time and memory of a cluster
    #[arg(long)]
    cluster_stats: bool,
    /// Variant of the protocol. Delta sends changes alone; state of the world is for comparison, and for what cannot do delta
    #[arg(long, value_name = "VARIANT", default_value = "delta")]
    xds_variant: XdsVariant,
    /// Form of the output
    #[arg(short, long, value_name = "FORM", default_value = "json")]
    output: Form,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum XdsVariant {
    Delta,
    Sotw,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    Json,
    Yaml,
}

impl Bootstrap {
    pub(super) fn run(self, out: &mut impl Write) -> anyhow::Result<Outcome> {
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for label in &self.labels {
            let (key, value) =
                label.split_once('=').ok_or_else(|| Usage(format!("`{label}` is no label: write key=value")))?;
            labels.insert(key, value);
        }
        let value = self.value(&labels);
        match self.output {
            Form::Json => json::print(out, &value)?,
            Form::Yaml => write!(out, "{}", to_yaml(&value))?,
        }
        Ok(Outcome::Clean)
    }

    fn value(&self, labels: &BTreeMap<&str, &str>) -> Value {
        let address = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
        let mut value = json!({
            "node": {
                "id": format!("{}/{}/{}", self.cluster, self.namespace, self.pod),
                "cluster": format!("{}/{}", self.cluster, self.namespace),
                "metadata": {
                    "cluster": self.cluster,
                    "namespace": self.namespace,
                    "pod": self.pod,
                    "service_account": self.service_account,
                    "labels": labels,
                    "bind": self.bind.to_string(),
                },
            },
            "admin": {"address": address(self.admin_address)},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": match self.xds_variant {
                        XdsVariant::Delta => "DELTA_GRPC",
                        XdsVariant::Sotw => "GRPC",
                    },
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "chancery"}}],
                },
                // Wait for the control plane rather than go live with half a configuration.
                "cds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
                "lds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
            },
            "static_resources": {
                "clusters": [{
                    "name": "chancery",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {
                                "http2_protocol_options": {
                                    "connection_keepalive": {"interval": "30s", "timeout": "10s"},
                                },
                            },
                        },
                    },
                    "load_assignment": {
                        "cluster_name": "chancery",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(self.xds_address)}}]}],
                    },
                }],
            },
            // By itself Envoy refuses every route table with an expression above a size of 100, less than a UUID takes.
            "layered_runtime": {
                "layers": [
                    {"name": "chancery", "static_layer": {"re2.max_program_size.error_level": PROXY_LEVEL}},
                    {"name": "admin", "admin_layer": {}},
                ],
            },
            "deferred_stat_options": {"enable_deferred_creation_stats": true},
        });
        if !self.cluster_stats {
            value["stats_config"] = json!({
                "stats_matcher": {
                    "exclusion_list": {
                        "patterns": [
                            {"safe_regex": {"regex": "cluster\\.[^/]*/.*"}},
                            // Of each part of a chain that is cut: a thousand and more, with a dozen each.
                            {"safe_regex": {"regex": "http\\.[^.]*\\.rds\\..*/[0-9a-f]{3}\\..*"}},
                        ],
                    },
                },
            });
        }
        value
    }
}
