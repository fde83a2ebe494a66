//! The made-up kind of the tests: a response header of its own, on routes or destinations.

use crate::ir::policy::Teapot;

use super::super::route::RouteBuilder;

pub(super) fn apply(policy: &Teapot, route: &mut RouteBuilder<'_>) {
    route.scope().response.add.insert("x-teapot".into(), policy.tea.clone());
}
