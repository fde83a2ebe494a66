//! What may stand where, compiled from the manifest types.
//!
//! Each kind's JSON schema is compiled once into a small tree. `normalise` walks a value along it and leaves one that
//! the type's decoder always accepts; everything else comes back as a `Problem`. Nothing is decided here about what a
//! field means: required fields and ranges are the business of the resolver.

#[cfg(test)]
pub(crate) mod examples;
mod normalise;
mod old_names;
mod structural;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde_json::Value;

pub(super) use normalise::{Problem, normalise, shape};
pub use structural::open_api;

use super::object::Spec;
use super::{core, destination, gateway, policy, route_table, server, workspace};
use crate::model::Kind;

/// Whether a field that the type does not have is worth a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// The type has every field of the kind.
    Report,
    /// The type has only the fields that routing needs.
    Ignore,
}

/// Compiled schema of one kind: an arena of nodes, because types may be recursive.
#[derive(Debug)]
pub(super) struct Schema {
    nodes: Vec<Node>,
    root: usize,
    unknown: Unknown,
    /// Whether messages must not show values.
    secret: bool,
}

/// What may stand at one place.
#[derive(Debug)]
enum Node {
    /// Anything.
    Any,
    /// `true` or `false`.
    Bool,
    /// A whole number in a range.
    Integer { min: i64, max: i64 },
    /// A number.
    Number,
    /// A text.
    Text,
    /// A text that is secret: no message shows it.
    Hidden,
    /// A length of time.
    Duration,
    /// Base64.
    Bytes,
    /// A number or a text.
    IntOrText,
    /// One of some names, in the order of their numbers.
    Choice { name: String, names: Vec<String> },
    /// A list.
    List(usize),
    /// Free keys.
    Map(usize),
    /// Known keys.
    Message(Message),
}

/// An object with known keys.
#[derive(Debug, Default)]
struct Message {
    /// Name of the type.
    name: String,
    /// Fields by their JSON name, in the order of the type.
    fields: Vec<Field>,
    /// Positions by every accepted spelling.
    spellings: BTreeMap<String, usize>,
    /// Whether unknown keys are part of the type.
    preserve: bool,
    /// Number of groups of fields that exclude each other.
    groups: usize,
}

/// A known key.
#[derive(Debug)]
struct Field {
    name: String,
    node: usize,
    /// Group of fields of which only one may be set.
    group: Option<usize>,
}

impl Schema {
    /// Compiles the schema of a type.
    fn of<T: JsonSchema>(unknown: Unknown, secret: bool) -> Self {
        let root = root_schema::<T>();
        let mut compiler = Compiler { root: &root, nodes: Vec::new(), known: BTreeMap::new() };
        let position = compiler.compile(&root, &T::schema_name());
        Self { nodes: compiler.nodes, root: position, unknown, secret }
    }
}

/// The JSON schema of a type as the derive makes it.
fn root_schema<T: JsonSchema>() -> Value {
    schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

/// Name of a definition that a schema refers to.
fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

/// Takes "or null" off a schema.
fn without_null(schema: &Value) -> &Value {
    let Some(choices) = schema.get("anyOf").and_then(Value::as_array) else { return schema };
    choices.iter().find(|choice| choice.get("type").and_then(Value::as_str) != Some("null")).unwrap_or(schema)
}

/// The type of a schema, without "or null".
fn type_of(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

/// The names of an enum, in order.
fn names_of(schema: &Value) -> Option<Vec<String>> {
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return Some(names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    let choices = schema.get("oneOf").and_then(Value::as_array)?;
    choices.iter().map(|choice| choice.get("const").and_then(Value::as_str).map(str::to_owned)).collect()
}

/// Turns a JSON schema into nodes.
struct Compiler<'a> {
    root: &'a Value,
    nodes: Vec<Node>,
    known: BTreeMap<&'a str, usize>,
}

impl<'a> Compiler<'a> {
    fn compile(&mut self, schema: &'a Value, name: &str) -> usize {
        let schema = without_null(schema);
        if let Some(name) = reference(schema) {
            if let Some(position) = self.known.get(name) {
                return *position;
            }
            // The place is taken before the definition is read, because it may refer to itself.
            let position = self.push(Node::Any);
            self.known.insert(name, position);
            let definition = &self.root["$defs"][name];
            self.nodes[position] = self.node(definition, name);
            return position;
        }
        let node = self.node(schema, name);
        self.push(node)
    }

    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn node(&mut self, schema: &'a Value, name: &str) -> Node {
        if schema.get("x-kubernetes-int-or-string").is_some() {
            return Node::IntOrText;
        }
        if let Some(names) = names_of(schema) {
            return Node::Choice { name: name.to_owned(), names };
        }
        let format = schema.get("format").and_then(Value::as_str);
        match (type_of(schema), format) {
            (Some("boolean"), _) => Node::Bool,
            (Some("integer"), Some("uint32")) => Node::Integer { min: 0, max: u32::MAX.into() },
            (Some("integer"), Some("int32")) => Node::Integer { min: i32::MIN.into(), max: i32::MAX.into() },
            (Some("integer"), _) => Node::Integer { min: i64::MIN, max: i64::MAX },
            (Some("number"), _) => Node::Number,
            (Some("string"), Some("duration")) => Node::Duration,
            (Some("string"), Some("byte")) => Node::Bytes,
            (Some("string"), Some("password")) => Node::Hidden,
            (Some("string"), _) => Node::Text,
            (Some("array"), _) => Node::List(self.compile(&schema["items"], name)),
            (Some("object"), _) => match schema.get("additionalProperties") {
                Some(values @ Value::Object(_)) => Node::Map(self.compile(values, name)),
                _ => Node::Message(self.message(schema, name)),
            },
            _ => Node::Any,
        }
    }

    fn message(&mut self, schema: &'a Value, name: &str) -> Message {
        let groups: Vec<Vec<&str>> = schema
            .get("x-oneof")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|group| group.as_array().into_iter().flatten().filter_map(Value::as_str).collect())
            .collect();
        let mut message = Message {
            name: name.to_owned(),
            preserve: schema.get("x-kubernetes-preserve-unknown-fields").is_some(),
            groups: groups.len(),
            ..Message::default()
        };
        for (field, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let node = self.compile(schema, field);
            let position = message.fields.len();
            message.spellings.insert(snake_case(field), position);
            message.spellings.insert(field.clone(), position);
            let group = groups.iter().position(|group| group.contains(&field.as_str()));
            message.fields.push(Field { name: field.clone(), node, group });
        }
        message
    }
}

/// The protobuf spelling of a JSON name.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
            snake.push(c.to_ascii_lowercase());
        } else {
            snake.push(c);
        }
    }
    snake
}

/// The JSON spelling of a protobuf name.
fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            camel.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            camel.push(c);
        }
    }
    camel
}

macro_rules! specs {
    ($($(#[$meta:meta])* $kind:ident: $type:ty, $unknown:ident;)+) => {
        /// The compiled schema of a kind; none where nothing of the spec is read.
        pub(super) fn compiled(kind: Kind) -> Option<&'static Schema> {
            match kind {
                $($(#[$meta])* Kind::$kind => {
                    static SCHEMA: OnceLock<Schema> = OnceLock::new();
                    Some(SCHEMA.get_or_init(|| Schema::of::<$type>(Unknown::$unknown, kind == Kind::Secret)))
                })+
                _ if kind.is_policy() => {
                    static SCHEMA: OnceLock<Schema> = OnceLock::new();
                    Some(SCHEMA.get_or_init(|| Schema::of::<policy::OpaquePolicy>(Unknown::Report, false)))
                }
                _ => None,
            }
        }

        /// Decodes a normalised text.
        ///
        /// # Errors
        /// None after `normalise`; the spec is then that of an empty manifest.
        pub(super) fn read_spec(kind: Kind, text: &str) -> (Spec, Result<(), serde_json::Error>) {
            match kind {
                $($(#[$meta])* Kind::$kind => match serde_json::from_str::<Box<$type>>(text) {
                    Ok(spec) => (Spec::$kind(spec), Ok(())),
                    Err(error) => (Spec::$kind(Box::default()), Err(error)),
                },)+
                _ if kind.is_policy() => match serde_json::from_str::<Box<policy::OpaquePolicy>>(text) {
                    Ok(spec) => (Spec::Opaque(spec), Ok(())),
                    Err(error) => (Spec::Opaque(Box::default()), Err(error)),
                },
                _ => (Spec::Unsupported, Ok(())),
            }
        }

        /// The JSON schema of a kind as the derive makes it.
        fn derived(kind: Kind) -> Option<Value> {
            match kind {
                $($(#[$meta])* Kind::$kind => Some(root_schema::<$type>()),)+
                _ if kind.is_policy() => Some(root_schema::<policy::OpaquePolicy>()),
                _ => None,
            }
        }
    };
}

specs! {
    Namespace: core::Namespace, Ignore;
    Service: core::Service, Ignore;
    EndpointSlice: core::EndpointSlice, Ignore;
    Pod: core::Pod, Ignore;
    Node: core::Node, Ignore;
    Secret: core::Secret, Ignore;
    ServiceAccount: core::ServiceAccount, Ignore;
    ConfigMap: core::ConfigMap, Ignore;
    KubernetesCluster: workspace::KubernetesCluster, Report;
    Workspace: workspace::Workspace, Report;
    WorkspaceSettings: workspace::WorkspaceSettings, Report;
    RootTrustPolicy: workspace::RootTrustPolicy, Report;
    ExtAuthServer: server::ExtAuthServer, Report;
    RateLimitServerSettings: server::RateLimitServerSettings, Report;
    RateLimitServerConfig: server::RateLimitServerConfig, Report;
    VirtualGateway: gateway::VirtualGateway, Report;
    RouteTable: route_table::RouteTable, Report;
    VirtualDestination: destination::VirtualDestination, Report;
    ExternalService: destination::ExternalService, Report;
    ExternalEndpoint: destination::ExternalEndpoint, Report;
    RateLimitClientConfig: policy::RateLimitClientConfig, Report;
    AccessPolicy: policy::AccessPolicy, Report;
    ClientTlsPolicy: policy::ClientTlsPolicy, Report;
    CorsPolicy: policy::CorsPolicy, Report;
    CsrfPolicy: policy::CsrfPolicy, Report;
    ExtAuthPolicy: policy::ExtAuthPolicy, Report;
    FailoverPolicy: policy::FailoverPolicy, Report;
    OutlierDetectionPolicy: policy::OutlierDetectionPolicy, Report;
    FaultInjectionPolicy: policy::FaultInjectionPolicy, Report;
    HeaderManipulationPolicy: policy::HeaderManipulationPolicy, Report;
    JwtPolicy: policy::JwtPolicy, Report;
    RateLimitPolicy: policy::RateLimitPolicy, Report;
    RetryTimeoutPolicy: policy::RetryTimeoutPolicy, Report;
    #[cfg(test)]
    TeapotPolicy: policy::TeapotPolicy, Report;
}
