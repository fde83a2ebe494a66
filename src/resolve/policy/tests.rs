//! What the tests of all kinds share: from the text of `config` to the effect.

use serde_json::{Value, json};

use super::lower;
use crate::crd::Spec;
use crate::crd::yaml::decode_value;
use crate::ir::policy::Policy;
use crate::model::{Code, Finding, Findings, Kind, ObjectRef, Severity};
use crate::resolve::facts::{Fault, PolicyEffect};
use crate::testing::yaml;

/// What a policy with some `config` comes to.
#[derive(Debug)]
pub(super) struct Meaning {
    /// The effect, or the field and reason of the fault.
    pub(super) effect: Result<Policy, (String, String)>,
    /// Fields with a remark.
    pub(super) remarks: Vec<String>,
}

impl Meaning {
    /// The effect of a policy that must be valid.
    pub(super) fn valid(self) -> Policy {
        self.effect.unwrap_or_else(|(field, reason)| panic!("invalid: {field}: {reason}"))
    }

    /// The field at fault of a policy that must be invalid.
    pub(super) fn fault(self) -> String {
        match self.effect {
            Err((field, _)) => field,
            Ok(effect) => panic!("valid: {effect:?}"),
        }
    }
}

/// Reads `config` as a user writes it and says what the policy means. Without text there is no `config`.
pub(super) fn meaning(kind: Kind, config: &str) -> Meaning {
    let config = yaml::documents(config).expect("the config is YAML").pop().unwrap_or(Value::Null);
    let manifest = json!({
        "apiVersion": kind.group().api_version(), "kind": kind.as_str(),
        "metadata": {"name": "p", "namespace": "shop"}, "spec": {"config": config},
    });
    let (object, found) = decode_value(manifest, &"cluster-1".into());
    assert!(found.iter().all(|finding| finding.code == Code::InvalidField), "{found:?}");
    let mut findings = Vec::new();
    let policy = lower(&object.expect("an object"), &mut findings).expect("a policy");
    let remarks = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Warning)
        .inspect(|finding| assert_eq!(finding.code, Code::PolicyRemark))
        .map(|finding| finding.field.to_string())
        .collect();
    let effect = match policy.effect {
        PolicyEffect::Valid(effect) => Ok(effect),
        PolicyEffect::Draft(draft) => panic!("refers to others: {draft:?}"),
        PolicyEffect::Invalid(fault) => Err((fault.field.to_string(), fault.message.clone())),
    };
    Meaning { effect, remarks }
}

/// What the `lower` of one kind makes of a spec.
#[derive(Debug)]
pub(super) struct Checked<T> {
    /// The value, or code, field and reason of the fault.
    effect: Result<T, (Code, String, String)>,
    /// Fields with a remark.
    pub(super) remarks: Vec<String>,
}

impl<T: std::fmt::Debug> Checked<T> {
    /// The value of a spec that must be valid.
    pub(super) fn valid(self) -> T {
        self.effect.unwrap_or_else(|(_, field, reason)| panic!("invalid: {field}: {reason}"))
    }

    /// The value of a spec, if it is valid.
    pub(super) fn accepted(self) -> Option<T> {
        self.effect.ok()
    }

    /// The field of a wrong value.
    pub(super) fn fault(self) -> String {
        match self.effect {
            Err((Code::InvalidField, field, reason)) => {
                assert!(!reason.is_empty() && !reason.ends_with('.'), "{reason}");
                field
            }
            other => panic!("no fault: {other:?}"),
        }
    }

    /// Field and reason of what is not supported.
    pub(super) fn unsupported(self) -> (String, String) {
        match self.effect {
            Err((Code::Unsupported, field, reason)) => (field, reason),
            other => panic!("not unsupported: {other:?}"),
        }
    }
}

/// Reads a spec as a user writes it and asks a kind for its meaning.
pub(super) fn checked<T: std::fmt::Debug>(
    kind: Kind,
    spec: &str,
    lower: impl FnOnce(&ObjectRef, &Spec, &mut Findings) -> Result<T, Fault>,
) -> Checked<T> {
    let spec = yaml::documents(spec).expect("the spec is YAML").pop().unwrap_or(Value::Null);
    let manifest = json!({
        "apiVersion": kind.group().api_version(), "kind": kind.as_str(),
        "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
    });
    let (object, found) = decode_value(manifest, &"cluster-1".into());
    assert!(found.iter().all(|finding| finding.code == Code::InvalidField), "{found:?}");
    let object = object.expect("an object");
    let mut findings = Vec::new();
    let effect = match object.defects.first() {
        Some(defect) => Err((Code::InvalidField, defect.field.to_string(), defect.message.clone())),
        None => lower(&object.meta.id, &object.spec(), &mut findings)
            .map_err(|fault| (fault.code, fault.field.to_string(), fault.message)),
    };
    let remarks = findings.iter().inspect(|finding| assert_eq!(finding.code, Code::PolicyRemark));
    Checked { effect, remarks: remarks.map(|finding| finding.field.to_string()).collect() }
}

#[test]
fn r130_the_kinds_that_protect_are_the_same_everywhere() {
    for kind in Kind::ALL.iter().filter(|kind| kind.is_policy()) {
        assert_eq!(kind.protects(), !super::rules(*kind).protects.is_empty(), "{kind}");
    }
}

/// R130: without what a misspelt field was to ask for, more would pass. Of other kinds it is ignored and told; CSRFPolicy has
/// a strict form of its own.
#[test]
fn r130_a_misspelt_field_is_a_fault_of_a_policy_that_protects() {
    for (kind, spec, field) in [
        (
            Kind::AccessPolicy,
            json!({"config": {"authzList": [{"allowedClients": [{"serviceAcountSelector": {}}]}]}}),
            "spec.config.authzList[0].allowedClients[0].serviceAcountSelector",
        ),
        (Kind::JwtPolicy, json!({"config": {"providers": {}, "phases": {}}}), "spec.config.phases"),
        (Kind::ExtAuthPolicy, json!({"config": {"customAuthz": {}}}), "spec.config.customAuthz"),
        (Kind::AccessPolicy, json!({"applyToDestination": [], "config": {}}), "spec.applyToDestination"),
    ] {
        let manifest = json!({
            "apiVersion": kind.group().api_version(), "kind": kind.as_str(),
            "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
        });
        let (object, found) = decode_value(manifest, &"cluster-1".into());
        let policy = lower(&object.expect("an object"), &mut Vec::new()).expect("a policy");
        let told = |f: &Finding| f.severity == Severity::Error && f.field.to_string() == field;
        assert!(found.iter().any(|f| told(f) && f.message.contains("did you mean")), "{found:?}");
        match &policy.effect {
            PolicyEffect::Invalid(fault) => {
                assert_eq!((fault.code, fault.field.to_string().as_str()), (Code::InvalidField, field), "{kind}");
                assert!(super::closes(&policy), "{kind}");
            }
            // CSRFPolicy has a strict form in place of closing.
            PolicyEffect::Valid(effect) => assert!(super::is_strict(effect), "{kind} is not closed"),
            PolicyEffect::Draft(_) => panic!("{kind} is not closed"),
        }
    }
    let cors = json!({
        "apiVersion": Kind::CorsPolicy.group().api_version(), "kind": "CORSPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": {"config": {"allowOrigns": []}},
    });
    let (object, found) = decode_value(cors, &"cluster-1".into());
    assert_eq!(
        found.iter().map(|f| (f.severity, f.code)).collect::<Vec<_>>(),
        [(Severity::Warning, Code::UnknownField)]
    );
    assert!(object.expect("an object").defects.is_empty());
}

/// R130: what a misspelt selector was to select, nobody knows, so everything of the sorts that no other selector is for.
#[test]
fn r130_a_misspelt_selector_beside_a_good_one_closes_what_it_may_have_meant() {
    use crate::resolve::facts::RouteSelector;
    let targets = |kind: Kind, spec: Value| {
        let manifest = json!({
            "apiVersion": kind.group().api_version(), "kind": kind.as_str(),
            "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
        });
        let (object, _) = decode_value(manifest, &"cluster-1".into());
        let policy = lower(&object.expect("an object"), &mut Vec::new()).expect("a policy");
        assert!(super::closes(&policy), "{kind}");
        policy.targets
    };
    let one = json!([{"selector": {"labels": {"app": "a"}}}]);
    let found = targets(Kind::JwtPolicy, json!({"applyToRouts": [{}], "applyToDestinations": one, "config": {}}));
    assert_eq!((found.routes.as_slice(), found.destinations.len()), ([RouteSelector::All].as_slice(), 1));
    let found = targets(
        Kind::JwtPolicy,
        json!({"applyToRoutes": [{"route": {"labels": {"a": "b"}}}], "applyToDestination": one, "config": {}}),
    );
    assert!(!found.routes.contains(&RouteSelector::All), "{found:?}");
    assert_eq!(found.destinations.len(), 3, "of every kind: {found:?}");
    // A field inside of `config` or of a selector says nothing about other selectors.
    let found = targets(Kind::JwtPolicy, json!({"applyToDestinations": one, "config": {"claimz": []}}));
    assert_eq!((found.routes.len(), found.destinations.len()), (0, 1));
}

/// Asserts for rows of spec and field that the field is at fault.
pub(super) fn faults<T: std::fmt::Debug>(rows: &[(&str, &str)], check: impl Fn(&str) -> Checked<T>) {
    for (field, spec) in rows {
        assert_eq!(check(spec).fault(), *field, "{spec}");
    }
}

#[test]
fn a_policy_without_a_configuration_is_told_so() {
    for kind in [Kind::AccessPolicy, Kind::ExtAuthPolicy, Kind::JwtPolicy, Kind::RateLimitPolicy] {
        assert_eq!(meaning(kind, "").fault(), "spec.config", "{kind}");
    }
}

#[test]
fn configurations_that_policies_refer_to_report_their_own_faults() {
    for (kind, good, bad, field) in [
        (Kind::ExtAuthServer, json!({}), json!({"statusOnError": 418}), "spec.statusOnError"),
        (Kind::RateLimitServerSettings, json!({}), json!({"destinationServer": {}}), "spec.destinationServer.ref"),
        (
            Kind::RateLimitServerConfig,
            json!({"destinationServers": [{"ref": {"name": "a"}}], "raw": {}}),
            json!({"raw": {}}),
            "spec.destinationServers",
        ),
        (
            Kind::RateLimitClientConfig,
            json!({"raw": {"rateLimits": [{"actions": [{"remoteAddress": {}}]}]}}),
            json!({"raw": {"rateLimits": [{"actions": [{}]}]}}),
            "spec.raw.rateLimits[0].actions[0]",
        ),
    ] {
        let errors = |spec: Value| {
            let manifest = json!({"apiVersion": kind.group().api_version(), "kind": kind.as_str(),
                "metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
            let (object, _) = decode_value(manifest, &"cluster-1".into());
            let (_, findings) = crate::resolve::lower::lower(&object.expect("an object"));
            let errors = findings.into_iter().filter(|finding| finding.severity == Severity::Error);
            errors.map(|finding| finding.field.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(errors(good), Vec::<String>::new(), "{kind}");
        assert_eq!(errors(bad), [field], "{kind}");
    }
}

#[test]
fn a_policy_without_config_or_with_an_empty_one_says_so() {
    for kind in [Kind::HeaderManipulationPolicy, Kind::RetryTimeoutPolicy, Kind::FaultInjectionPolicy, Kind::CorsPolicy]
    {
        assert_eq!(meaning(kind, "").fault(), "spec.config", "{kind}");
    }
    for kind in [Kind::RetryTimeoutPolicy, Kind::FaultInjectionPolicy] {
        assert_eq!(meaning(kind, "{}").fault(), "spec.config", "{kind}: at least one part is needed");
    }
    // Nothing to change, and nobody allowed: both can be meant.
    meaning(Kind::HeaderManipulationPolicy, "{}").valid();
    meaning(Kind::CorsPolicy, "{}").valid();
}
