//! What OutlierDetectionPolicy and FailoverPolicy share.

use crate::crd::common::DestinationKind;
use crate::crd::policy::selector::DestinationSelector;
use crate::model::{Code, FieldPath, Finding, Findings, ObjectRef};

/// Tells a policy that it selects destinations of a kind for which it has no effect.
///
/// # Rule
/// R177.
pub(super) fn remark_on_kinds(
    id: &ObjectRef,
    selectors: &[DestinationSelector],
    without: DestinationKind,
    remarks: &mut Findings,
) {
    for (index, _) in selectors.iter().enumerate().filter(|(_, selector)| selector.kind == without) {
        let (what, instead) = match without {
            DestinationKind::Service => {
                ("Services, which a selector means unless it says otherwise", "VIRTUAL_DESTINATION")
            }
            DestinationKind::VirtualDestination => ("virtual destinations", "SERVICE"),
            DestinationKind::ExternalService => ("external services", "VIRTUAL_DESTINATION"),
        };
        let message = format!("{} has no effect on {what}; write `kind: {instead}`", id.kind);
        let at = FieldPath::new("spec.applyToDestinations").index(index);
        remarks.push(Finding::warning(id, Code::PolicyRemark, message).at(at));
    }
}
