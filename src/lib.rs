//! Chancery is a control plane for Envoy.
//!
//! Teams write Kubernetes-style resources: workspaces that own clusters and namespaces and import and export from each
//! other, virtual gateways, route tables that delegate to other teams' tables, policies that reach routes by label.
//! Chancery compiles them into Envoy listeners, routes, clusters and endpoints, and serves them as versioned snapshots over
//! ADS. The source language is the Gloo Platform v2 API; the rules are in the [`manual`].
//!
//! This page is the architecture: what lives where, and what each part must never know. Read [`compile::full`] first, it is
//! the whole pipeline on one page.
//!
//! ```text
//!  files             what users wrote        what it means             what Envoy runs        gateways
//!  ───────────────►  decode ─► lower ─► resolve ─► compose ─► emit ─► verify ─► session ──────────────►
//!    source (I/O)       └─────── pure, synchronous, deterministic ──────┘      xds (I/O)
//!                                         │
//!                                         └─► findings ─► verdicts (check, explain, log)
//! ```
//!
//! Three promises hold it together:
//!
//! 1. **The middle is a function.** Equal inputs give equal bytes and versions, on every machine, in every order of arrival.
//!    No clock, no randomness, no network, no `async`.
//! 2. **A user's mistake is a value.** Compiling always gives a result and a list of [findings](model::finding); it never
//!    stops the world and never drops an object in silence. What degrades how stands in [`resolve`].
//! 3. **Every route can be explained.** The plan ([`ir`]) carries provenance: for each label, policy and destination, who
//!    said so and through what. [`compile::explain`] reads the very plan that is emitted.
//!
//! # The rings
//!
//! A module knows only rings below it. `src/tidy.rs` compares the `use` lines with this table in every test run.
//!
//! | ring | module | what it is | what it must never know |
//! |---|---|---|---|
//! | 0 | [`model`] | the vocabulary: names, references, hosts, paths, findings | formats, Envoy, time |
//! | 1 | [`crd`] | what users write, field for field; YAML with places; schema-driven decoding | what a field means to routing |
//! | 2 | [`store`] | the objects of now | any rule of routing |
//! | 2 | [`memo`] | who read what, so that a change finds those whom it concerns | what is computed |
//! | 3 | [`ir`] | the plan: resolved meaning, Envoy-shaped but not Envoy | manifests, Envoy types |
//! | 3 | [`resolve`] | what it means: ownership, sharing, delegation, labels, attachment, destinations | Envoy types, the store |
//! | 4 | [`emit`] | plan to Envoy messages; the only place that builds them | manifests, workspaces, delegation |
//! | 4 | [`snapshot`] | named, content-versioned resources; what to send; an independent checker | how a resource was made |
//! | 5 | [`compile`] | the pipeline, verdicts, and `explain` | tokio, clients, clock, environment |
//! | 6 | [`source`] | where objects come from: a watched directory, or API servers | compile, snapshots, xDS |
//! | 6 | [`trust`] | issues the certificates of gateways, and those of xDS; keeps the roots it makes | manifests, rules, Envoy types |
//! | 6 | [`publish`] | the current snapshot per class of gateways; wakes only on change | who makes or reads it |
//! | 6 | [`xds`] | the protocol as a pure session behind a thin server | manifests, plans, rules |
//! | 6 | [`memory`] | what is remembered beyond the inputs, and kept over a restart: frozen trees, refusals with what was accepted before | clients, streams, the store |
//! | 6 | [`status`] | what gateways told us: connected, acknowledged, refused, behind | manifests, rules |
//! | 6 | [`render`] | Envoy messages as JSON and YAML | what they mean |
//! | – | [`settings`], [`telemetry`] | what was typed and what it means; logs and metrics | any other module |
//! | – | [`api`] | what a running control plane knows, over gRPC and as documents | any rule of routing |
//! | – | [`admin`], [`app`], [`cli`] | the admin port; the composition root and its loop; the commands | any rule of routing |
//!
//! # From a file to a gateway
//!
//! 1. [`source::directory`] reads `DIR/<cluster>/**/*.yaml` and follows changes; [`source::kubernetes`] lists and watches what
//!    API servers hold. [`crd::yaml`] turns text into [objects](crd::Object) with places, and JSON into the same without; a value
//!    that cannot be read becomes a defect of its field, not of the object.
//! 2. [`app`] holds the one writer: a thread that applies batches to the [`store`] and compiles. Beside it is a lane for
//!    endpoints, which serves slices that changed without waiting for it.
//! 3. [`compile::full`] asks [`resolve`] for everything: [`resolve::lower`] checks each object by itself,
//!    [`resolve::roster`] decides who owns what, [`resolve::policy::settle`] follows the references of policies,
//!    [`resolve::gateway::bind`] which root table binds to which listener,
//!    [`resolve::delegation`] expands each tree of tables, [`resolve::attachment`] puts policies on its routes,
//!    [`resolve::gateway::compose`] makes one [plan](ir::GatewayPlan) per class of gateways.
//!    [`compile::incremental`] gives the same at the cost of what changed, and is what a running server uses; compiling from
//!    scratch stays as its oracle, in tests and in the audit of a running server.
//! 4. [`emit`] turns a plan into a [snapshot](snapshot::Snapshot): resources with canonical bytes and versions that are their hash.
//!    [`snapshot::verify`] judges it from the bytes; what it objects to is never published. For each class an
//!    [`Emitter`](emit::Emitter) and a [`Verifier`](snapshot::verify::Verifier) do both for what an edit changed.
//! 5. [`publish`] wakes the streams whose snapshot changed; [`xds::session`] decides what to send, in which order, and what
//!    a client holds: make before break, endpoints again with every cluster that is sent again.
//!
//! Rate-limit services are clients too: [`Compiled::limits`](compile::Compiled) is what each is told, [`emit::emit_limits`]
//! its snapshot, and the node id says which service a client is ([`publish::limit_server`]).
//!
//! # Where to start
//!
//! * **A new policy kind:** [`resolve::policy`] says which files and which lines; a made-up kind that only tests see shows
//!   them all.
//! * **A rule:** look its number up in the [`manual`]; `git grep R93` finds the code and the test. Rule cases are Markdown
//!   under `src/cases`: inputs and what must come of them.
//! * **A refused snapshot, a surprising route:** `chancery explain`, `chancery render`, then [`snapshot::verify`].
//! * **A real gateway:** `make demo`, and `make mesh` for two clusters; the tests under `e2e` start real Envoys through `e2e/support`.
//!
//! # What is not here yet
//!
//! The other policy kinds. Each is accepted where it can be written, reported, and fails closed
//! where it protects; the manual marks rules `Not built yet.` and lists kinds that are not supported.

pub mod admin;
pub mod api;
pub mod app;
pub mod cli;
pub mod compile;
pub mod crd;
pub mod emit;
pub mod ir;
pub mod manual;
pub mod memo;
pub mod memory;
pub mod model;
pub mod publish;
pub mod render;
pub mod resolve;
pub mod settings;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod trust;
pub mod xds;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tidy;
