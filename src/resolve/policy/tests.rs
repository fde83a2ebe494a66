//! What the tests of all kinds share: from the text of `config` to the effect.

use serde_json::{Value, json};

use super::lower;
use crate::crd::yaml::decode_value;
use crate::ir::policy::Policy;
use crate::model::{Code, Kind, Severity};
use crate::resolve::facts::PolicyEffect;
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
        PolicyEffect::Invalid(fault) => Err((fault.field.to_string(), fault.message.clone())),
    };
    Meaning { effect, remarks }
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
