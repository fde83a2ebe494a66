//! What is measured, a file each, and what they share.
//!
//! | module | is |
//! |---|---|
//! | [`compile`] | compiling from scratch, [`measure`] one run of it |
//! | [`step`] | compiling one edit |
//! | [`b1`] to [`b9`] | one question each |
//! | [`churn`] | memory before and after a million edits |
//! | [`ads`] | a light client of ADS |
//! | [`cpu`] | run time and memory of processes |
//! | [`crowd`] | many of those clients |
//! | [`floor`] | a server that replays ready bytes |
//! | [`probe`] | a client that tells when an answer changes |
//! | [`report`] | rows, goals, samples |
//! | [`scene`] | a world that is served, and Envoys for it |

use anyhow::bail;

pub(crate) mod ads;
mod b1;
mod b2;
mod b3;
mod b4;
mod b5;
mod b6;
mod b7;
mod b8;
mod b9;
mod churn;
pub(crate) mod compile;
mod cpu;
mod crowd;
mod floor;
pub(crate) mod measure;
mod probe;
pub(crate) mod report;
pub(crate) mod scene;
mod step;

use report::Report;

/// Every question, as `ONLY` names it, and in words.
#[cfg_attr(test, allow(dead_code, reason = "tests call each by its name"))]
pub(crate) const CELLS: &[(&str, &str)] = &[
    ("compile", "compiling from scratch"),
    ("step", "compiling one edit"),
    ("B1", "from the rename of a file to the first request served anew"),
    ("B2", "what one edit costs the control plane"),
    ("B3", "bytes of one edit"),
    ("B4", "one change to many streams, until the last has it"),
    ("B5", "cold start until served"),
    ("B6", "endpoints that change all the time"),
    ("B7", "many gateways connect to another replica"),
    ("B8", "wrong answers while routes come and go"),
    ("B9", "many clusters as one: a Pod among many virtual destinations"),
    ("churn", "whether memory grows while nothing but content changes"),
];

/// Answers one question.
///
/// # Errors
/// A wrong answer on the way, or something that does not run: there are no figures then.
pub(crate) async fn run(name: &str, report: &mut Report<'_>) -> anyhow::Result<()> {
    match name {
        "compile" => compile::run(report).await,
        "step" => step::run(report).await,
        "B1" => b1::run(report).await,
        "B2" => b2::run(report).await,
        "B3" => b3::run(report).await,
        "B4" => b4::run(report).await,
        "B5" => b5::run(report).await,
        "B6" => b6::run(report).await,
        "B7" => b7::run(report).await,
        "B8" => b8::run(report).await,
        "B9" => b9::run(report).await,
        "churn" => churn::run(report).await,
        _ => bail!("there is no {name}"),
    }
}
