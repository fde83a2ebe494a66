//! FailoverPolicy: which endpoints of a destination take over from which. The oldest applies.

use crate::crd::common::DestinationKind;
use crate::crd::policy::FailoverPolicy;
use crate::crd::policy::failover::{LocalityMapping, WeightedLocality};
use crate::ir::policy::balancing::{Area, Failover, Leads, Mapping, PriorityLabel};
use crate::model::{Code, FieldPath, Finding, Findings, ObjectRef};
use crate::resolve::facts::Fault;

use super::balancing::remark_on_kinds;
use super::{config_fault, no_config};

/// What a FailoverPolicy means.
///
/// # Errors
/// No `config`; a place without a region; weights that are not 100 together; labels in two forms, or none.
///
/// # Rule
/// R176, R177.
pub fn lower(id: &ObjectRef, policy: &FailoverPolicy, remarks: &mut Findings) -> Result<Failover, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    // Nothing says which endpoints of a Service have failed (R175).
    for kind in [DestinationKind::Service, DestinationKind::ExternalService] {
        remark_on_kinds(id, &policy.apply_to_destinations, kind, remarks);
    }
    if config.priority_labels.is_some() && !config.locality_mappings.is_empty() {
        let message = "`localityMappings` are used, and the labels are not; write one of the two";
        let at = FieldPath::new("spec.config.priorityLabels");
        remarks.push(Finding::warning(id, Code::PolicyRemark, message).at(at));
    }
    let Some(labels) = config.priority_labels.as_ref().filter(|_| config.locality_mappings.is_empty()) else {
        let mappings = config.locality_mappings.iter().enumerate();
        for (index, _) in mappings.clone().filter(|(_, written)| written.to.is_empty()) {
            let message = "the mapping leads nowhere, so from there nothing takes over but what is in the same place: write `to`, or leave the mapping out";
            let at = FieldPath::new("spec.config.localityMappings").index(index).field("to");
            remarks.push(Finding::warning(id, Code::PolicyRemark, message).at(at));
        }
        let mappings: Result<Vec<Mapping>, Fault> = mappings.map(|(index, written)| mapping(index, written)).collect();
        return Ok(Failover::ByPlace(mappings?));
    };
    let field = "priorityLabels.labels";
    if labels.labels.is_empty() {
        return Err(config_fault(field, "write at least one label"));
    }
    let labels: Vec<PriorityLabel> = labels
        .labels
        .iter()
        .map(|written| match written.split_once('=') {
            Some((key, value)) => PriorityLabel { key: key.into(), value: Some(value.into()) },
            None => PriorityLabel { key: written.as_str().into(), value: None },
        })
        .collect();
    if labels.iter().any(|label| label.key.is_empty()) {
        return Err(config_fault(field, "a label has no key"));
    }
    if labels.iter().any(|label| label.value.is_some() != labels[0].value.is_some()) {
        return Err(config_fault(field, "write all labels as `key`, or all as `key=value`"));
    }
    Ok(Failover::ByLabel(labels))
}

fn mapping(index: usize, written: &LocalityMapping) -> Result<Mapping, Fault> {
    let field = format!("localityMappings[{index}]");
    let from = written.from.as_ref().filter(|from| !from.region.is_empty());
    let from = from.ok_or_else(|| config_fault(&format!("{field}.from"), "write the region of the gateways"))?;
    let from = Area { region: (&from.region).into(), zone: (&from.zone).into(), sub_zone: (&from.sub_zone).into() };
    let mut areas = Vec::with_capacity(written.to.len());
    for (position, to) in written.to.iter().enumerate() {
        if to.region.is_empty() {
            return Err(config_fault(&format!("{field}.to[{position}].region"), "write the region to send to"));
        }
        areas.push(Area { region: (&to.region).into(), zone: (&to.zone).into(), sub_zone: (&to.sub_zone).into() });
    }
    if written.to.iter().all(|to| to.weight.is_none()) {
        return Ok(Mapping { from, to: Leads::InOrder(areas) });
    }
    let shares = shares(&written.to).ok_or_else(|| {
        config_fault(&format!("{field}.to"), "the weights are 100 together; places without one share what is left")
    })?;
    Ok(Mapping { from, to: Leads::InShares(areas.into_iter().zip(shares).collect()) })
}

/// The weights, where those left out share what the others leave; none where that does not come to 100.
fn shares(to: &[WeightedLocality]) -> Option<Vec<u32>> {
    let given = to.iter().filter_map(|to| to.weight).try_fold(0_u32, u32::checked_add)?;
    let left = 100_u32.checked_sub(given)?;
    let without = u32::try_from(to.iter().filter(|to| to.weight.is_none()).count()).ok()?;
    if (without == 0) != (left == 0) || left < without {
        return None;
    }
    let mut shared = 0;
    let mut share = |weight: Option<u32>| {
        weight.unwrap_or_else(|| {
            shared += 1;
            left / without + u32::from(shared <= left % without)
        })
    };
    Some(to.iter().map(|to| share(to.weight)).collect())
}
