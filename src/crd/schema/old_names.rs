//! Older spellings in circulation, and what to write instead.

/// What becomes of an older field name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// It is read as this field.
    Rename(&'static str),
    /// It is ignored; this is what to do.
    Hint(&'static str),
    /// It makes the object wrong; this is what to do.
    Refuse(&'static str),
}

use Remedy::{Hint, Refuse, Rename};

/// Type, field (`*` for any other) and remedy.
const FIELDS: &[(&str, &str, Remedy)] = &[
    ("ListenerTls", "tlsMode", Rename("mode")),
    ("ObjectSelector", "*", Hint("labels to select by stand below `labels`")),
    ("PortSelector", "protocol", Hint("on a listener, write `appProtocol` beside `port`")),
    ("DestinationReference", "function", Hint("write `awsLambda` with `function`")),
    ("HttpRoute", "options", Hint("change headers with a HeaderManipulationPolicy")),
    ("ForwardTo", "options", Hint("change headers with a HeaderManipulationPolicy")),
    ("RedirectAction", "httpsRedirect", Hint("set `httpsRedirect` on the listener of the VirtualGateway")),
    ("RedirectAction", "prefixRewrite", Hint("write the whole new path as `pathRedirect`")),
    ("RedirectAction", "stripQuery", Hint("the query is kept unless `pathRedirect` has one")),
    ("VirtualDestination", "selectors", Refuse("write `services`")),
    ("VirtualDestinationPort", "name", Refuse("write `number` and `protocol`")),
    ("Cors", "corsPolicy", Refuse("write its fields directly below `config`")),
];

/// What to do about a field that a type does not have.
pub(super) fn field(message: &str, field: &str) -> Option<Remedy> {
    FIELDS
        .iter()
        .find(|(name, old, _)| *name == message && (*old == field || *old == "*"))
        .map(|(_, _, remedy)| *remedy)
}

/// Enum, older value and what to do.
const VALUES: &[(&str, &str, &str)] = &[
    ("DestinationKind", "CLOUD_PROVIDER", "write `awsLambda` instead of `ref` and `kind`"),
    ("RedirectResponseCode", "301", "write `MOVED_PERMANENTLY`"),
    ("RedirectResponseCode", "302", "write `FOUND`"),
    ("RedirectResponseCode", "303", "write `SEE_OTHER`"),
    ("RedirectResponseCode", "307", "write `TEMPORARY_REDIRECT`"),
    ("RedirectResponseCode", "308", "write `PERMANENT_REDIRECT`"),
    ("ClientsideTlsMode", "DISABLED", "write `DISABLE`"),
];

/// What to do about a value that an enum does not have.
pub(super) fn value(choice: &str, value: &str) -> Option<&'static str> {
    VALUES.iter().find(|(name, old, _)| *name == choice && *old == value).map(|(_, _, remedy)| *remedy)
}
