//! `chancery bootstrap`.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde_json::{Value, json};

use crate::model::expression::PROXY_LEVEL;
use crate::render::to_yaml;

use super::credentials::{IDENTITY, ROOTS, TOKEN};
use super::{EXIT_CODES, Outcome, Usage, json};

/// Print an Envoy bootstrap that points at this control plane: ADS, keepalive, admin on a Unix socket.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery bootstrap --cluster eu --namespace edge --label app=web > envoy.json\n  chancery bootstrap --cluster eu --namespace edge --pod web-0 --bind 127.0.0.1 -o yaml\n\n{EXIT_CODES}"))]
pub(super) struct Bootstrap {
    /// Where the control plane serves xDS, as a host name or address and a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18000")]
    xds_address: Target,
    /// Where the gateway's host has its credentials for xDS: a directory with roots.json and identity.json, or token.json, as
    /// `chancery credentials` makes them. Envoy follows their changes. Without it xDS is plaintext
    #[arg(long, value_name = "DIR")]
    xds_credentials: Option<String>,
    /// Send the token of --xds-credentials rather than show a certificate
    #[arg(long, requires = "xds_credentials")]
    xds_token: bool,
    /// Host name or address in the certificate of the control plane, if not that of --xds-address
    #[arg(long, value_name = "NAME", requires = "xds_credentials")]
    xds_server_name: Option<String>,
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
    /// Where Envoy's own admin interface listens: unix:///PATH, by default a file below /dev/shm that only Envoy's user opens, or an
    /// address and a port. Whatever listens on TCP, on loopback too, an external service reaches by a DNS name that leads there
    #[arg(long, value_name = "ADDRESS")]
    admin_address: Option<AdminAddress>,
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

/// A host and a port.
#[derive(Clone, Debug)]
struct Target {
    host: String,
    port: u16,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a host name or address and a port, such as xds.example.com:18000".to_owned();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || !host.chars().all(is_name) || host.parse::<IpAddr>().is_ok() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }
}

impl Target {
    /// Whether it is a name, which is looked up.
    fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

/// Where Envoy's admin interface listens.
#[derive(Clone, Debug)]
enum AdminAddress {
    /// A Unix socket.
    Path(String),
    /// A TCP port.
    Socket(SocketAddr),
}

/// Longest path of a Unix socket, in bytes.
const LONGEST_PATH: usize = 107;

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.strip_prefix("unix://"), text.parse()) {
            (Some(path), _) if path.starts_with('/') && path.len() <= LONGEST_PATH => Ok(Self::Path(path.to_owned())),
            (Some(_), _) => {
                Err(format!("write unix:/// and the rest of an absolute path of at most {LONGEST_PATH} bytes"))
            }
            (None, Ok(address)) => Ok(Self::Socket(address)),
            (None, Err(_)) => {
                Err("write unix:/// and a path, or an address and a port, such as 127.0.0.1:19000".to_owned())
            }
        }
    }
}

impl AdminAddress {
    /// A file for each gateway of a host.
    fn of(id: &str) -> Self {
        let path = format!("/dev/shm/envoy-admin-{}.sock", id.replace('/', "-"));
        if path.len() <= LONGEST_PATH {
            return Self::Path(path);
        }
        Self::Path(format!("/dev/shm/envoy-admin-{:016x}.sock", xxhash_rust::xxh3::xxh3_64(id.as_bytes())))
    }

    fn value(&self) -> Value {
        match self {
            // Read and written by its owner.
            Self::Path(path) => json!({"pipe": {"path": path, "mode": 0o600}}),
            Self::Socket(address) => {
                json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
            }
        }
    }
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
        let socket = |host: &str, port: u16| json!({"socket_address": {"address": host, "port_value": port}});
        let target = &self.xds_address;
        let id = format!("{}/{}/{}", self.cluster, self.namespace, self.pod);
        let admin = self.admin_address.clone().unwrap_or_else(|| AdminAddress::of(&id));
        let mut value = json!({
            "node": {
                "id": id,
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
            "admin": {"address": admin.value()},
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
                    "type": if target.is_name() { "STRICT_DNS" } else { "STATIC" },
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
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(&target.host, target.port)}}]}],
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
        if let Some(directory) = &self.xds_credentials {
            self.authenticate(&mut value["static_resources"]["clusters"][0], directory.trim_end_matches('/'));
        }
        if !self.cluster_stats {
            value["stats_config"] = json!({
                "stats_matcher": {
                    "exclusion_list": {
                        "patterns": [
                            {"safe_regex": {"regex": "cluster\\.[^/]*/.*"}},
                            // Of each part of a chain that is cut: a thousand and more, with a dozen each.
                            {"safe_regex": {"regex": "http\\.[^.]*\\.rds\\..*/0?[0-9a-f]{3}\\..*"}},
                        ],
                    },
                },
            });
        }
        value
    }

    /// Has a cluster know the server, and show who it is: by a certificate, or by a token with each stream.
    fn authenticate(&self, cluster: &mut Value, directory: &str) {
        // Each secret in a file of its own, as Envoy wants it; watched, so that it is read again when it is replaced.
        let secret = |name: &str| {
            json!({
                "name": name,
                "sds_config": {
                    "resource_api_version": "V3",
                    "path_config_source": {
                        "path": format!("{directory}/{name}.json"),
                        "watched_directory": {"path": directory},
                    },
                },
            })
        };
        let name = self.xds_server_name.as_ref().unwrap_or(&self.xds_address.host);
        let san_type = if name.parse::<IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
        let mut tls = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["h2"],
                "combined_validation_context": {
                    "default_validation_context": {
                        "match_typed_subject_alt_names": [{"san_type": san_type, "matcher": {"exact": name}}],
                    },
                    "validation_context_sds_secret_config": secret(ROOTS),
                },
            },
        });
        if san_type == "DNS" {
            tls["sni"] = json!(name);
        }
        if self.xds_token {
            let protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            cluster["typed_extension_protocol_options"][protocol]["http_filters"] = json!([
                {
                    "name": "envoy.filters.http.credential_injector",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
                        "overwrite": true,
                        "credential": {
                            "name": "envoy.http.injected_credentials.generic",
                            "typed_config": {
                                "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
                                "credential": secret(TOKEN),
                            },
                        },
                    },
                },
                {
                    "name": "envoy.filters.http.upstream_codec",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
                    },
                },
            ]);
        } else {
            tls["common_tls_context"]["tls_certificate_sds_secret_configs"] = json!([secret(IDENTITY)]);
        }
        cluster["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": tls});
    }
}
