//! What tests of several modules share. Only under `cfg(test)`.

pub(crate) mod authority;
mod cases;
mod kinds;
mod limits;
pub(crate) mod mutation;
mod order;
pub(crate) mod scenarios;
pub(crate) mod teapot;
#[path = "../../e2e/support/yaml.rs"]
pub(crate) mod yaml;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::compile::{Compiled, compile};
use crate::crd::Object;
use crate::crd::yaml::decode_value;
use crate::ir::frozen::Remembered;
use crate::model::Findings;
use crate::resolve::Options;
use crate::store::Store;

/// Objects from manifests with their clusters, and what the decoder said.
pub(crate) fn decode(manifests: impl IntoIterator<Item = (String, Value)>) -> (Vec<Arc<Object>>, Findings) {
    let mut objects = Vec::new();
    let mut findings = Findings::new();
    for (cluster, manifest) in manifests {
        let (object, found) = decode_value(manifest, &cluster.into());
        objects.extend(object.map(Arc::new));
        findings.extend(found);
    }
    (objects, findings)
}

/// The cluster that the annotation `cluster.solo.io/cluster` names, else `cluster-1`.
pub(crate) fn cluster_of(manifest: &Value) -> String {
    manifest
        .pointer("/metadata/annotations/cluster.solo.io~1cluster")
        .and_then(Value::as_str)
        .unwrap_or("cluster-1")
        .to_owned()
}

/// Compiles manifests.
pub(crate) fn compile_manifests(manifests: impl IntoIterator<Item = (String, Value)>, options: &Options) -> Compiled {
    compile_after(manifests, options, &Remembered::default())
}

/// Compiles manifests after an earlier compile.
pub(crate) fn compile_after(
    manifests: impl IntoIterator<Item = (String, Value)>,
    options: &Options,
    remembered: &Remembered,
) -> Compiled {
    let (objects, findings) = decode(manifests);
    compile(&Store::from_objects(objects), &findings, options, &BTreeSet::new(), remembered)
}

/// The Envoy to test with: `ENVOY`, or one on PATH, or the one that `make envoy` installs.
pub(crate) fn envoy() -> std::path::PathBuf {
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("envoy")).find(|file| file.is_file())
    };
    std::env::var_os("ENVOY")
        .map(Into::into)
        .or_else(on_path)
        .unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/envoy").into())
}
