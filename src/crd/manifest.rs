//! The way back: an object as a manifest that reads as the same object.

use serde_json::{Map, Value, json};

use super::object::Object;
use super::secret::encode;
use super::{Kept, Spec};

impl Object {
    /// A manifest that reads as this object, Secrets included, if nothing was wrong with the one that it came from: fields that
    /// nobody knows and values that could not be read are not in it.
    ///
    /// # Cost
    /// Reads the kept text.
    #[must_use]
    pub fn manifest(&self) -> Value {
        let (meta, id) = (&self.meta, &self.meta.id);
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), json!(id.name.as_str()));
        if !id.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), json!(id.namespace.as_str()));
        }
        for (field, texts) in [("labels", &meta.labels), ("annotations", &meta.annotations)] {
            if !texts.is_empty() {
                let texts: Map<String, Value> =
                    texts.iter().map(|(key, value)| (key.to_string(), json!(value.as_str()))).collect();
                metadata.insert(field.to_owned(), texts.into());
            }
        }
        if let Some(created) = meta.created {
            metadata.insert("creationTimestamp".to_owned(), json!(created.to_string()));
        }
        if meta.generation != 0 {
            metadata.insert("generation".to_owned(), json!(meta.generation));
        }
        let mut manifest = match (id.kind.is_v2(), self.spec.content()) {
            (true, Value::Null) => Map::new(),
            (true, content) => Map::from_iter([("spec".to_owned(), content)]),
            (false, Value::Object(content)) => content,
            (false, _) => Map::new(),
        };
        manifest.insert("apiVersion".to_owned(), json!(id.kind.group().api_version()));
        manifest.insert("kind".to_owned(), json!(id.kind.as_str()));
        manifest.insert("metadata".to_owned(), metadata.into());
        manifest.into()
    }
}

impl Kept {
    /// What stands in a manifest below `spec`, or for Kubernetes' own kinds beside the metadata; null where nothing is read.
    fn content(&self) -> Value {
        if let Some(text) = self.text() {
            // A kept text always decodes.
            return serde_json::from_str(text).unwrap_or_default();
        }
        match &*self.read() {
            Spec::Secret(secret) => {
                let data: Map<String, Value> =
                    secret.data.iter().map(|(key, value)| (key.clone(), json!(encode(value.expose())))).collect();
                json!({"type": secret.r#type, "data": data})
            }
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::yaml::decode_value;

    /// Every object of the manual's cases and of the demo is the same after it was written and read.
    #[test]
    fn an_object_is_the_same_after_it_was_written_and_read() {
        let folders = ["src/cases", "config/demo", "config/mesh"];
        let paths: Vec<std::path::PathBuf> =
            folders.iter().map(|folder| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).collect();
        let mut kinds = std::collections::BTreeSet::new();
        let mut texts: Vec<String> = Vec::new();
        let mut folders = paths;
        while let Some(path) = folders.pop() {
            if path.is_dir() {
                folders.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("yaml") => texts.push(text),
                // Cases are Markdown with manifests in fences.
                Some("md") => texts.extend(
                    text.split("```yaml").skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned),
                ),
                _ => {}
            }
        }
        let source = crate::crd::yaml::Source {
            cluster: "c1".into(),
            file: "a.yaml".into(),
            default_namespace: "default".into(),
        };
        let mut seen = 0;
        for text in texts {
            let Ok(decoded) = crate::crd::yaml::decode(text.as_bytes(), &source, &Default::default()) else { continue };
            for object in decoded.objects {
                let is_told = decoded.findings.iter().any(|finding| finding.subject.as_ref() == Some(&object.meta.id));
                if is_told || !object.defects.is_empty() {
                    continue;
                }
                let (again, findings) = decode_value(object.manifest(), &object.meta.id.cluster);
                let again = again.unwrap();
                assert_eq!((&again.meta.id, findings.as_slice()), (&object.meta.id, &[][..]), "{}", object.manifest());
                assert_eq!((&again.spec, &again.meta.labels), (&object.spec, &object.meta.labels));
                assert_eq!(
                    (&again.meta.annotations, again.meta.created),
                    (&object.meta.annotations, object.meta.created)
                );
                kinds.insert(object.meta.id.kind);
                seen += 1;
            }
        }
        assert!(seen > 200 && kinds.len() > 20, "{seen} of {kinds:?}");
    }

    #[test]
    fn a_secret_keeps_its_bytes_whatever_they_are() {
        let bytes: Vec<u8> = (0..=255).collect();
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "b"},
            "type": "kubernetes.io/tls", "data": {"tls.crt": encode(&bytes), "tls.key": encode(&bytes[..255]), "e": ""},
        });
        let (object, _) = decode_value(manifest, &"c1".into());
        let object = object.unwrap();
        assert_eq!(decode_value(object.manifest(), &"c1".into()).0.unwrap(), object);
        let Spec::Secret(secret) = &*object.spec() else { panic!("a Secret") };
        assert_eq!(secret.data["tls.crt"].expose(), &bytes[..]);
        assert_eq!(secret.data["tls.key"].expose(), &bytes[..255]);
    }
}
