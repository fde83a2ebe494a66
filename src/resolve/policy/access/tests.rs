use super::super::tests::{Checked, checked, faults};
use super::*;
use crate::crd::Spec;
use crate::ir::policy::reference::ObjectPick;
use crate::model::Kind;

fn spec(text: &str) -> Checked<Access> {
    checked(Kind::AccessPolicy, text, |id, spec, remarks| match spec {
        Spec::AccessPolicy(policy) => lower(id, policy, remarks),
        other => panic!("{other:?}"),
    })
}

fn policy(config: &str) -> Checked<Access> {
    spec(&format!("{{applyToWorkloads: [{{}}], config: {config}}}"))
}

/// The only entry of a policy.
fn entry(authz: &str) -> AccessEntry {
    let mut entries = policy(&format!("{{authzList: [{authz}]}}")).valid().enforced.unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

fn patterns(list: &[TextPattern]) -> BTreeSet<TextPattern> {
    list.iter().cloned().collect()
}

#[test]
fn every_field_has_its_effect() {
    use TextPattern::{Any, Exact, Prefix, Regex, Suffix};
    let all = entry(
        "{allowedClients: [{serviceAccountSelector: {name: web, namespace: edge, cluster: c1, labels: {a: b}, workspace: w}, \
         requestIdentityMatcher: {requestPrincipals: ['iss/*', '*/sub', '*'], notRequestPrincipals: [iss/bad]}}], \
         allowedPaths: [/exact, /head*, '*tail', '*'], allowedMethods: [POST, GET], \
         match: {request: {headers: {X-Role: {values: [admin, 'a*b'], notValues: ['*']}}}}, \
         allowedIpBlocks: [10.1.2.3/8], allowedRemoteIpBlocks: ['fd00::1']}",
    );
    assert_eq!((all.policy.to_string().as_str(), all.index), ("AccessPolicy/shop/p@cluster-1", 0));
    let clients = all.clients.clone().unwrap();
    let accounts = ObjectPick {
        labels: [("a".into(), "b".into())].into(),
        name: Some("web".into()),
        namespace: Some("edge".into()),
        cluster: Some("c1".into()),
        workspace: Some("w".into()),
    };
    assert!(accounts.place().is_some());
    assert_eq!(clients[0].service_accounts, Some(accounts));
    assert_eq!(clients[0].principals, patterns(&[Any, Prefix("iss/".into()), Suffix("/sub".into())]));
    assert_eq!(clients[0].not_principals, patterns(&[Exact("iss/bad".into())]));
    let paths = [Any, Exact("/exact".into()), Prefix("/head".into()), Suffix("tail".into())];
    assert_eq!(all.paths, patterns(&paths));
    assert_eq!(all.methods.iter().map(Name::as_str).collect::<Vec<_>>(), ["GET", "POST"]);
    let rule = &all.headers["x-role"];
    assert_eq!(rule.values, patterns(&[Exact("admin".into()), Regex("(?s)a.*b".into())]));
    assert_eq!(rule.not_values, patterns(&[Any]));
    assert_eq!(all.peers.first().map(|block| (block.address.to_string(), block.prefix)), Some(("10.0.0.0".into(), 8)));
    assert_eq!(all.remotes.first().map(|block| block.prefix), Some(128));
}

#[test]
fn an_entry_without_restrictions_allows_nothing() {
    let list = |config: &str| policy(config).valid();
    for config in ["{authz: {}}", "{authzList: [{}]}", "{authzList: [{match: {request: {headers: {}}}}]}"] {
        let access = list(config);
        assert_eq!((access.enforced, access.dry_run), (Some(Vec::new()), None), "{config}: everything is denied");
    }
    let none = list("{authn: {tlsMode: STRICT}}");
    assert_eq!((none.enforced, none.require_peer_tls), (None, true), "nothing is said about who may do what");
    let other = list("{authzList: [{}, {allowedMethods: [GET]}]}");
    assert_eq!(other.enforced.unwrap().iter().map(|entry| entry.index).collect::<Vec<_>>(), [1]);
}

#[test]
fn an_entry_is_for_any_client_where_it_says_so_or_says_another_thing() {
    for authz in [
        "{allowedClients: [{}]}",
        "{allowedMethods: [GET]}",
        "{allowedClients: [{serviceAccountSelector: {name: a}}, {}]}",
    ] {
        assert_eq!(entry(authz).clients, None, "{authz}");
    }
    // A selector without fields is any ServiceAccount, which is somebody.
    let some = entry("{allowedClients: [{serviceAccountSelector: {}}]}").clients.unwrap();
    assert_eq!(some[0].service_accounts, Some(ObjectPick::default()));
}

#[test]
fn dry_runs_stand_apart() {
    let access = policy("{authzList: [{dryRun: true, allowedMethods: [GET]}]}").valid();
    assert_eq!((access.enforced, access.dry_run.map(|entries| entries.len())), (None, Some(1)));
    let access = policy("{authzList: [{dryRun: true}, {allowedMethods: [GET]}]}").valid();
    assert_eq!((access.enforced.map(|entries| entries.len()), access.dry_run), (Some(1), Some(Vec::new())));
}

#[test]
fn r123_several_policies_allow_what_one_of_them_allows() {
    let read = policy("{authzList: [{allowedMethods: [GET]}]}").valid();
    let nothing = policy("{authzList: [{}]}").valid();
    let silent = policy("{authn: {tlsMode: STRICT}}").valid();
    let united = merge([&nothing, &read, &silent]);
    assert_eq!((united.enforced, united.dry_run, united.require_peer_tls), (read.enforced.clone(), None, true));
    assert_eq!(merge([&nothing]).enforced, Some(Vec::new()));
    assert_eq!(merge([&silent]).enforced, None);
}

#[test]
fn workloads_are_selected_in_place_of_destinations() {
    let selected = |text: &str| {
        checked(Kind::AccessPolicy, text, |_, spec, _| match spec {
            Spec::AccessPolicy(policy) => Ok(selectors(policy)),
            other => panic!("{other:?}"),
        })
        .valid()
    };
    let both = "{applyToDestinations: [{}], applyToWorkloads: [{selector: {namespace: edge}}], config: {authz: {}}}";
    let found = selected(both);
    assert_eq!((found.apply_to_destinations.len(), found.apply_to_workloads.len()), (0, 1));
    assert_eq!(found.apply_to_workloads[0].selector.as_ref().map(|place| place.namespace.as_str()), Some("edge"));
    assert_eq!(spec(both).remarks, ["spec.applyToDestinations"]);
    let found = selected("{applyToDestinations: [{}], config: {authz: {}}}");
    assert_eq!((found.apply_to_destinations.len(), found.apply_to_workloads.len()), (1, 0));
}

#[test]
fn the_deprecated_entry_counts_alone() {
    assert_eq!(policy("{authz: {allowedMethods: [GET]}}").valid().enforced.unwrap().len(), 1);
    let both = policy("{authz: {allowedMethods: [GET]}, authzList: [{}]}");
    assert_eq!(both.remarks, ["spec.config.authz"]);
    assert_eq!(both.valid().enforced, Some(Vec::new()));
}

#[test]
fn what_works_differently_at_gateways_is_remarked() {
    for (fields, text) in [
        (&["authzList[0].allowedIpBlocks"][..], "{config: {authzList: [{allowedIpBlocks: [10.0.0.1]}]}}"),
        (&["authn.tlsMode"], "{config: {authn: {tlsMode: STRICT}}}"),
        (&[], "{config: {authn: {}}}"),
        (&["enforcementLayers.cni"], "{config: {enforcementLayers: {cni: true, mesh: true}}}"),
        (&["enforcementLayers.cni", "enforcementLayers.mesh"], "{config: {enforcementLayers: {cni: true}}}"),
        (&["authzList[0].allowedPaths[0]"], "{config: {authzList: [{allowedPaths: [ratings]}]}}"),
        (&["authzList[0].allowedPaths[0]"], "{config: {authzList: [{allowedPaths: ['/a?b=c']}]}}"),
        (&["authzList[0].allowedMethods[0]"], "{config: {authzList: [{allowedMethods: [get]}]}}"),
        (&["authzList[0].allowedMethods[0]"], "{config: {authzList: [{allowedMethods: ['*']}]}}"),
    ] {
        let expected: Vec<String> = fields.iter().map(|field| format!("spec.config.{field}")).collect();
        assert_eq!(spec(text).remarks, expected, "{text}");
    }
}

#[test]
fn r130_bad_input_makes_the_policy_invalid() {
    let list = "spec.config.authzList[0]";
    for (field, authz) in [
        (".allowedPaths[0]", "{allowedPaths: ['']}"),
        (".allowedPaths[1]", "{allowedPaths: [/a, '/a*b']}"),
        (".allowedPaths[0]", "{allowedPaths: ['*a*']}"),
        (".allowedMethods[0]", "{allowedMethods: ['']}"),
        (".allowedMethods[0]", "{allowedMethods: ['GET POST']}"),
        (".allowedIpBlocks[0]", "{allowedIpBlocks: [10.0.0.0/40]}"),
        (".allowedRemoteIpBlocks[0]", "{allowedRemoteIpBlocks: [somewhere]}"),
        (".match.request.headers.x", "{match: {request: {headers: {x: {}}}}}"),
        (".match.request.headers[\"\"]", "{match: {request: {headers: {'': {values: [a]}}}}}"),
        (".match.request.headers.x y", "{match: {request: {headers: {x y: {values: [a]}}}}}"),
        (".match.request.headers.x", "{match: {request: {headers: {X: {values: [a]}, x: {values: [b]}}}}}"),
        (".match.request.headers.x.values[0]", "{match: {request: {headers: {x: {values: ['']}}}}}"),
        (".match.request.headers.x.notValues[0]", "{match: {request: {headers: {x: {notValues: ['']}}}}}"),
        (
            ".allowedClients[0].requestIdentityMatcher.requestPrincipals[0]",
            "{allowedClients: [{requestIdentityMatcher: {requestPrincipals: ['']}}]}",
        ),
        (
            ".allowedClients[0].requestIdentityMatcher.requestPrincipals[0]",
            "{allowedClients: [{requestIdentityMatcher: {requestPrincipals: [-/-]}}]}",
        ),
        (
            ".allowedClients[0].requestIdentityMatcher.requestPrincipals[0]",
            "{allowedClients: [{requestIdentityMatcher: {requestPrincipals: ['-*']}}]}",
        ),
        (
            ".allowedClients[0].requestIdentityMatcher.notRequestPrincipals[0]",
            "{allowedClients: [{requestIdentityMatcher: {notRequestPrincipals: ['*/-']}}]}",
        ),
        (
            ".allowedClients[0].requestIdentityMatcher.requestPrincipals[0]",
            "{allowedClients: [{requestIdentityMatcher: {requestPrincipals: ['a*b']}}]}",
        ),
    ] {
        assert_eq!(policy(&format!("{{authzList: [{authz}]}}")).fault(), format!("{list}{field}"), "{authz}");
    }
    faults(
        &[
            ("spec.config", "{}"),
            (
                "spec.applyToDestinations[1].kind",
                "{applyToDestinations: [{}, {kind: VIRTUAL_DESTINATION}], config: {authz: {}}}",
            ),
            ("spec.config.authn.tlsMode", "{config: {authn: {tlsMode: SOMETIMES}}}"),
            ("spec.config.authz", "{config: {authz: true}}"),
        ],
        spec,
    );
    let external = spec("{applyToDestinations: [{kind: EXTERNAL_SERVICE}], config: {authz: {}}}");
    assert_eq!(external.valid().enforced, Some(Vec::new()), "manifests have it");
}
