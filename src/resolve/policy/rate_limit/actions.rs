//! What the rate-limit service is told about a request.

use crate::crd::policy::rate_limit as written;
use crate::ir::policy::TextPattern;
use crate::ir::policy::rate_limit::{
    LimitAction, LimitActions, LimitHeader, LimitHeaderValue, MetadataPath, MetadataSource,
};
use crate::model::{FieldPath, Findings, ObjectRef, expression};
use crate::resolve::facts::Fault;

use super::super::parts::{fault, header, optional_text, remark, text, unsupported};

/// Longest expression for a header, in bytes: the API's own limit.
const MAX_REGEX: usize = 1024;

/// The entries of a list, each checked.
pub(super) fn lower(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::RawRateLimits,
    remarks: &mut Findings,
) -> Result<Vec<LimitActions>, Fault> {
    let list = field.field("rateLimits");
    if written.rate_limits.is_empty() {
        return Err(fault(&list, "there are no actions: write `rateLimits` with `actions` or `setActions`"));
    }
    let mut limits = Vec::new();
    for (index, entry) in written.rate_limits.iter().enumerate() {
        let place = list.index(index);
        if entry.actions.is_empty() && entry.set_actions.is_empty() {
            return Err(fault(&place, "the entry says nothing about a request: write `actions` or `setActions`"));
        }
        let mut of = |name: &str, actions: &[written::RateLimitAction]| {
            let list = place.field(name);
            let lowered = actions.iter().enumerate().map(|(index, one)| action(id, &list.index(index), one, remarks));
            lowered.collect::<Result<Vec<_>, _>>()
        };
        let actions = of("actions", &entry.actions)?;
        let set_actions = of("setActions", &entry.set_actions)?;
        let limit = match &entry.limit {
            None => None,
            Some(limit) => {
                let place = place.field("limit").field("dynamicMetadata");
                let Some(dynamic) = &limit.dynamic_metadata else {
                    return Err(fault(&place, "it is not said where the limit stands: write `dynamicMetadata`"));
                };
                Some(metadata_path(&place.field("metadataKey"), dynamic.metadata_key.as_ref())?)
            }
        };
        limits.push(LimitActions { actions, set_actions, limit });
    }
    Ok(limits)
}

fn action(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::RateLimitAction,
    remarks: &mut Findings,
) -> Result<LimitAction, Fault> {
    match written {
        written::RateLimitAction { source_cluster: Some(_), .. } => Ok(LimitAction::SourceCluster),
        written::RateLimitAction { destination_cluster: Some(_), .. } => {
            let why =
                "the value is Chancery's own name of the upstream; rules with names of another platform never match";
            remark(id, &field.field("destinationCluster"), why, remarks);
            Ok(LimitAction::DestinationCluster)
        }
        written::RateLimitAction { remote_address: Some(_), .. } => Ok(LimitAction::RemoteAddress),
        written::RateLimitAction { request_headers: Some(of), .. } => {
            let field = field.field("requestHeaders");
            Ok(LimitAction::RequestHeader {
                header: header(&field.field("headerName"), &of.header_name)?,
                key: text(&field.field("descriptorKey"), &of.descriptor_key)?,
            })
        }
        written::RateLimitAction { generic_key: Some(of), .. } => {
            let field = field.field("genericKey").field("descriptorValue");
            Ok(LimitAction::Generic { key: None, value: text(&field, &of.descriptor_value)? })
        }
        written::RateLimitAction { header_value_match: Some(of), .. } => {
            let field = field.field("headerValueMatch");
            let list = field.field("headers");
            if of.headers.is_empty() {
                return Err(fault(&list, "there is no condition: write at least one header"));
            }
            let headers = of.headers.iter().enumerate().map(|(index, one)| limit_header(&list.index(index), one));
            Ok(LimitAction::HeaderMatch {
                value: text(&field.field("descriptorValue"), &of.descriptor_value)?,
                expect: of.expect_match.unwrap_or(true),
                headers: headers.collect::<Result<_, _>>()?,
            })
        }
        written::RateLimitAction { metadata: Some(of), .. } => {
            let field = field.field("metadata");
            Ok(LimitAction::Metadata {
                key: text(&field.field("descriptorKey"), &of.descriptor_key)?,
                path: metadata_path(&field.field("metadataKey"), of.metadata_key.as_ref())?,
                default: optional_text(&field.field("defaultValue"), &of.default_value)?,
                source: match of.source {
                    written::RateLimitMetadataSource::Dynamic => MetadataSource::Dynamic,
                    written::RateLimitMetadataSource::RouteEntry => MetadataSource::Route,
                },
            })
        }
        _ => Err(fault(field, "the action says nothing: write for instance `remoteAddress: {}`")),
    }
}

fn limit_header(field: &FieldPath, written: &written::RateLimitHeader) -> Result<LimitHeader, Fault> {
    let name = header(&field.field("name"), &written.name)?;
    let checked = |name: &str, value: &str| text(&field.field(name), value);
    let value = match written {
        written::RateLimitHeader { exact_match: Some(value), .. } => {
            LimitHeaderValue::Text(TextPattern::Exact(checked("exactMatch", value)?))
        }
        written::RateLimitHeader { prefix_match: Some(value), .. } => {
            LimitHeaderValue::Text(TextPattern::Prefix(checked("prefixMatch", value)?))
        }
        written::RateLimitHeader { suffix_match: Some(value), .. } => {
            LimitHeaderValue::Text(TextPattern::Suffix(checked("suffixMatch", value)?))
        }
        written::RateLimitHeader { regex_match: Some(value), .. } => {
            let field = field.field("regexMatch");
            if value.len() > MAX_REGEX {
                return Err(fault(&field, format!("the expression is longer than {MAX_REGEX} bytes; shorten it")));
            }
            expression::check(value).map_err(|reason| fault(&field, reason))?;
            LimitHeaderValue::Text(TextPattern::Regex(value.into()))
        }
        written::RateLimitHeader { range_match: Some(range), .. } => {
            if range.start >= range.end {
                let why = "no number is in the range: `end` is the first that no longer belongs to it";
                return Err(fault(&field.field("rangeMatch"), why));
            }
            LimitHeaderValue::Range(range.start, range.end)
        }
        written::RateLimitHeader { present_match, .. } => LimitHeaderValue::Present(present_match.unwrap_or(true)),
    };
    if let (true, LimitHeaderValue::Text(TextPattern::Regex(expression))) = (written.invert_match, &value)
        && takes_nothing(expression)
    {
        // An absent header counts as an empty one, and would fail the condition that it must satisfy.
        let why =
            "an inverted expression that matches the empty text is not supported; write one that wants a character";
        return Err(unsupported(&field.field("regexMatch"), why));
    }
    Ok(LimitHeader { name, value, invert: written.invert_match })
}

/// Whether an expression matches the empty text.
fn takes_nothing(expression: &str) -> bool {
    regex::Regex::new(&format!("^(?:{expression})$")).is_ok_and(|regex| regex.is_match(""))
}

fn metadata_path(field: &FieldPath, written: Option<&written::MetadataKey>) -> Result<MetadataPath, Fault> {
    let Some(written) = written else {
        return Err(fault(field, "it is not said where the value stands: write `key` and `path`"));
    };
    let list = field.field("path");
    if written.path.is_empty() {
        return Err(fault(&list, "the way to the value is missing: write `path: [{key: …}]`"));
    }
    let steps = written
        .path
        .iter()
        .enumerate()
        .map(|(index, step)| text(&list.index(index).field("key"), step.key.as_deref().unwrap_or_default()));
    Ok(MetadataPath { filter: text(&field.field("key"), &written.key)?, steps: steps.collect::<Result<_, _>>()? })
}
