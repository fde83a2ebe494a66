//! ClientTLSPolicy: TLS that gateways start towards destinations. The oldest applies.
//!
//! What it comes to on a gateway is decided there, because its Secret is one of the gateway's namespace:
//! see `resolve::origination`.

use crate::crd::policy::ClientTlsPolicy;
use crate::crd::policy::client_tls::{ClientTls, ClientTlsMode};
use crate::ir::client_tls::{Origination, Shows, Trusts};
use crate::ir::upstream::is_crossing_name;
use crate::model::{Code, Host, Name};
use crate::resolve::facts::Fault;

use super::{config_fault, no_config};

/// What a ClientTLSPolicy means; nothing where it switches TLS off.
///
/// # Errors
/// No mode; `istioMutual`; `mutual` without `credentialName`; a server name that is none.
///
/// # Rule
/// The manual's page on policies, ClientTLSPolicy.
pub fn lower(policy: &ClientTlsPolicy) -> Result<Option<Origination>, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    match config {
        ClientTls { disable: Some(_), .. } => Ok(None),
        ClientTls { simple: Some(mode), .. } => {
            let (server_name, credential) = settings("simple", mode)?;
            let trusts = credential.map_or(Trusts::System, Trusts::Credential);
            Ok(Some(Origination { server_name, names: Vec::new(), shows: Shows::Nothing, trusts }))
        }
        ClientTls { mutual: Some(mode), .. } => {
            let (server_name, credential) = settings("mutual", mode)?;
            let Some(name) = credential else {
                let message = "`mutual` shows a certificate: name the Secret that holds it in the gateway's namespace";
                return Err(config_fault("mutual.config.credentialName", message));
            };
            let (shows, trusts) = (Shows::Credential(name.clone()), Trusts::CredentialOrSystem(name));
            Ok(Some(Origination { server_name, names: Vec::new(), shows, trusts }))
        }
        ClientTls { istio_mutual: Some(_), .. } => {
            let message = "Pods have no certificates of a mesh without sidecars: write `mutual` with `credentialName`";
            Err(Fault { code: Code::Unsupported, ..config_fault("istioMutual", message) })
        }
        ClientTls { .. } => {
            Err(config_fault("", "the policy says nothing: write one of `disable`, `simple` and `mutual`"))
        }
    }
}

/// Server name and Secret, where they are written.
fn settings(mode: &str, written: &ClientTlsMode) -> Result<(Option<Name>, Option<Name>), Fault> {
    let config = written.config.clone().unwrap_or_default();
    let server_name = match config.sni.as_str() {
        "" => None,
        sni => Some(server_name(sni).map_err(|message| config_fault(&format!("{mode}.config.sni"), message))?),
    };
    let credential = (!config.credential_name.is_empty()).then(|| Name::from(&config.credential_name));
    Ok((server_name, credential))
}

/// A name that a TLS client can ask for.
///
/// # Errors
/// What is wrong with it, in words.
pub fn server_name(text: &str) -> Result<Name, String> {
    if is_crossing_name(text) {
        return Err(names_a_crossing(text));
    }
    match Host::parse(text) {
        Ok(host) if host.is_wildcard() => Err(format!("`{host}` has a wildcard, which no server name has")),
        Ok(host) => Ok(host.as_str().trim_end_matches('.').into()),
        Err(error) => Err(error.to_string()),
    }
}

/// What to do in place of a name by which gateways ask each other for a Service.
pub fn names_a_crossing(text: &str) -> String {
    format!("{text:?} is what gateways ask each other for, and for nobody else to ask: name the Service itself")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn lowered(config: Value) -> Result<Option<Origination>, Fault> {
        lower(&ClientTlsPolicy { apply_to_destinations: Vec::new(), config: serde_json::from_value(config).unwrap() })
    }

    #[test]
    fn each_mode_says_what_is_shown_and_who_is_trusted() {
        assert_eq!(lowered(json!({"disable": {}})), Ok(None));
        // D32: without a CA the system's roots are asked, and nobody is trusted unseen.
        assert_eq!(lowered(json!({"simple": {}})), Ok(Some(Origination::verified())));
        let simple = lowered(json!({"simple": {"config": {"sni": "Pay.Example.", "credentialName": "pay"}}}));
        let simple = simple.unwrap().unwrap();
        assert_eq!((simple.server_name.as_deref(), &simple.shows), (Some("pay.example"), &Shows::Nothing));
        assert_eq!(simple.trusts, Trusts::Credential("pay".into()));
        let mutual = lowered(json!({"mutual": {"config": {"credentialName": "pay"}}})).unwrap().unwrap();
        assert_eq!(mutual.shows, Shows::Credential("pay".into()));
        assert_eq!(mutual.trusts, Trusts::CredentialOrSystem("pay".into()));
    }

    #[test]
    fn what_cannot_be_meant_is_a_fault_with_its_place() {
        for (config, code, field) in [
            (json!({}), Code::InvalidField, "spec.config"),
            (json!({"istioMutual": {}}), Code::Unsupported, "spec.config.istioMutual"),
            (json!({"mutual": {}}), Code::InvalidField, "spec.config.mutual.config.credentialName"),
            (json!({"simple": {"config": {"sni": "*.example"}}}), Code::InvalidField, "spec.config.simple.config.sni"),
            (
                json!({"simple": {"config": {"sni": "outbound_.80_._.pay.shop.svc.c2"}}}),
                Code::InvalidField,
                "spec.config.simple.config.sni",
            ),
            (json!({"mutual": {"config": {"sni": "a b"}}}), Code::InvalidField, "spec.config.mutual.config.sni"),
        ] {
            let fault = lowered(config.clone()).unwrap_err();
            assert_eq!((fault.code, fault.field.as_str()), (code, field), "{config}: {}", fault.message);
        }
        assert!(lower(&ClientTlsPolicy::default()).is_err());
    }
}
