//! End-to-end tests: a real Envoy, the real binary, real sockets on loopback.
//!
//! Every test has networks and processes of its own, so they run in parallel and beside other checkouts. Nothing
//! sleeps; waiting is asking until the answer is there (`support/wait.rs`). A test that needs the gateway fails with
//! the end of the logs of the processes that it started.

mod access;
mod agreement;
mod all_at_once;
mod an_attachment_under_load;
mod an_edit_under_load;
mod bad_policies;
mod bypasses;
mod client_mode;
mod command_line;
mod cors;
mod crossing;
mod csrf;
mod cut;
mod default_deny;
mod edits;
mod ext_auth;
mod external_services;
mod failover;
mod forbidden;
mod freeze;
mod harness_works;
mod joining;
mod jwt;
mod kill;
mod kube_ground;
mod kube_roles;
mod kubernetes;
mod live_view;
mod local_rate_limit;
mod matching;
mod mesh;
mod plaintext;
mod policies;
mod pressure;
mod principals;
mod rate_limit;
mod recut;
mod refusals;
mod replaced_isolation;
mod rerouting;
mod restart;
mod scenarios;
mod support;
mod the_bench;
mod the_demo;
mod the_mesh;
mod tls;
mod tokens;
mod trust;
mod variants;
mod versions;
mod xds_credentials;
mod xds_port;
