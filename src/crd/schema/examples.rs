//! For each kind a spec that sets every field, made from the schema itself.

use serde_json::{Map, Value, json};

use super::{Node, Schema, compiled};
use crate::model::Kind;

/// Every kind that has a type, with a full example.
pub(crate) fn all() -> Vec<(Kind, Value)> {
    let kinds = Kind::ALL.iter().copied();
    kinds.filter_map(|kind| compiled(kind).map(|schema| (kind, example(schema, schema.root, 0)))).collect()
}

fn example(schema: &Schema, node: usize, depth: usize) -> Value {
    match &schema.nodes[node] {
        Node::Any => json!({"free": ["form", 1]}),
        Node::Bool => json!(true),
        Node::Integer { .. } | Node::IntOrText => json!(80),
        Node::Number => json!(0.5),
        Node::Text | Node::Hidden => json!("text"),
        Node::Duration => json!("1.5s"),
        Node::Bytes => json!("Zm9v"),
        Node::Choice { names, .. } => names.last().map_or(Value::Null, |name| json!(name)),
        // Types that contain themselves end here.
        Node::List(_) if depth > 12 => json!([]),
        Node::List(item) => json!([example(schema, *item, depth + 1)]),
        Node::Map(item) => json!({"key": example(schema, *item, depth + 1)}),
        Node::Message(message) => {
            let mut taken = vec![false; message.groups];
            let mut map = Map::new();
            for field in &message.fields {
                if let Some(taken) = field.group.and_then(|group| taken.get_mut(group))
                    && std::mem::replace(taken, true)
                {
                    continue;
                }
                map.insert(field.name.clone(), example(schema, field.node, depth + 1));
            }
            Value::Object(map)
        }
    }
}
