//! The made-up kind: what it means.

use crate::crd::policy::TeapotPolicy;
use crate::ir::policy::Teapot;
use crate::resolve::facts::Fault;

use super::{config_fault, no_config};

/// What a TeapotPolicy means.
///
/// # Errors
/// No tea.
pub fn lower(policy: &TeapotPolicy) -> Result<Teapot, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    if config.tea.is_empty() {
        return Err(config_fault("tea", "a teapot needs tea"));
    }
    Ok(Teapot { tea: (&config.tea).into() })
}
