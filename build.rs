//! Two things are made here: descriptors of Envoy's messages, and the code of our own gRPC API.
//!
//! Cuts the descriptors of the messages that Chancery emits out of the descriptor set of `envoy-types`.
//!
//! `render` needs descriptors to show Envoy messages as JSON; the generated types have none. The package carries the
//! compiled set that its own code was generated from (`src/generated/types.bin`), so nothing is compiled here and the
//! descriptors cannot differ from the types. `proto/emitted.proto` names the files; with what they import they go to
//! `OUT_DIR/emitted.bin`.
//!
//! `proto/chancery` is compiled in this process, without protoc, to messages, client and server in
//! `OUT_DIR/chancery.v1.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost::Message as _;

/// `google.protobuf.FileDescriptorSet` with its files left encoded.
#[derive(Clone, PartialEq, prost::Message)]
struct DescriptorSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}

/// The head of `google.protobuf.FileDescriptorProto`; the rest is passed on as it is.
#[derive(Clone, PartialEq, prost::Message)]
struct FileHead {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    imports: Vec<String>,
}

const EMITTED: &str = "proto/emitted.proto";
const API: &str = "proto/chancery/v1/live.proto";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={EMITTED}");
    println!("cargo::rerun-if-changed={API}");
    println!("cargo::rerun-if-changed=Cargo.lock");
    if let Err(problem) = generate_api() {
        println!("cargo::error={API}: {}", problem.replace('\n', " "));
        std::process::exit(1);
    }
    if let Err(problem) = run() {
        println!("cargo::error=descriptors of Envoy's messages: {}", problem.replace('\n', " "));
        std::process::exit(1);
    }
}

/// Generates the messages, the client and the server of our own API.
fn generate_api() -> Result<(), String> {
    let descriptors = protox::compile([API], ["proto"]).map_err(|error| error.to_string())?;
    tonic_prost_build::configure().compile_fds(descriptors).map_err(|error| error.to_string())
}

fn run() -> Result<(), String> {
    let set_path = package_directory("envoy-types")?.join("src/generated/types.bin");
    let encoded = fs::read(&set_path).map_err(|error| {
        format!("{} is not readable ({error}); does this version of envoy-types still carry it?", set_path.display())
    })?;
    let set = DescriptorSet::decode(encoded.as_slice()).map_err(|error| format!("types.bin: {error}"))?;
    let mut files = BTreeMap::new();
    let mut order = Vec::new();
    for file in set.files {
        let head = FileHead::decode(file.as_slice()).map_err(|error| format!("types.bin: {error}"))?;
        order.push(head.name.clone());
        files.insert(head.name, (head.imports, file));
    }

    let wanted = fs::read_to_string(EMITTED).map_err(|error| format!("{EMITTED}: {error}"))?;
    let mut open: Vec<String> = wanted
        .lines()
        .filter_map(|line| line.strip_prefix("import \"")?.strip_suffix("\";"))
        .map(str::to_owned)
        .collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = open.pop() {
        let (imports, _) =
            files.get(&name).ok_or_else(|| format!("{EMITTED} reaches {name}, which envoy-types does not have"))?;
        open.extend(imports.iter().filter(|import| !reached.contains(*import)).cloned());
        reached.insert(name);
    }

    // The order of the set has every file after its imports; keep it.
    let emitted = DescriptorSet {
        files: order.iter().filter(|name| reached.contains(*name)).map(|name| files[name].1.clone()).collect(),
    };
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|error| format!("OUT_DIR: {error}"))?).join("emitted.bin");
    fs::write(&out, emitted.encode_to_vec()).map_err(|error| format!("{}: {error}", out.display()))
}

/// Where the sources of a dependency lie.
fn package_directory(package: &str) -> Result<PathBuf, String> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut problem = String::new();
    for flags in [&["--offline", "--locked"][..], &["--offline"], &[]] {
        let output = Command::new(&cargo)
            .args(["metadata", "--format-version", "1"])
            .args(flags)
            .output()
            .map_err(|error| format!("cannot run {cargo} metadata: {error}"))?;
        if !output.status.success() {
            problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            continue;
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
        return metadata["packages"]
            .as_array()
            .and_then(|packages| packages.iter().find(|candidate| candidate["name"] == package))
            .and_then(|found| Path::new(found["manifest_path"].as_str()?).parent().map(Path::to_path_buf))
            .ok_or_else(|| format!("cargo metadata does not list {package}"));
    }
    Err(format!("cargo metadata failed: {problem}"))
}
