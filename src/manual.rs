//! The manual: the numbered rules of routing, as `cargo doc` shows them and as they stand in `src/manual/*.md`.
//!
//! Every rule (`R1`…) and decision (`D1`…) that code, tests and findings cite is written down on one of these pages, once.
//! Start with [`index`]: it has the reading order, the terms, and a table from rule numbers to pages.
//!
//! Who owns and sees what: [`clusters`], [`workspaces`], [`sharing`], [`visibility`], [`isolation`].
//!
//! Which request goes where: [`gateways`], [`tables`], [`delegation`], [`matchers`], [`ordering`].
//!
//! Which policies apply: [`labels`], [`attachment`], [`conflicts`], [`policies`].
//!
//! What Chancery says when something is wrong: [`status`], [`invalid`].
//!
//! Across and beyond clusters: [`federation`], [`virtual_destinations`], [`data_path`], [`external_services`].
//!
//! How manifests are read: [`encoding`]. What an API server must know: [`kubernetes`]. How gateways are served:
//! [`sessions`]. What a running control plane tells: [`operating`].
//!
//! The repository's own tests hold the manual to its word: each rule is defined once, and each rule that is built is
//! cited by a test.

macro_rules! pages {
    ($($page:ident = $file:literal,)+) => {
        $(
            // The pages refer to each other as `[tables.md]`; the definitions behind each page make links of that.
            #[doc = include_str!(concat!("manual/", $file))]
            #[doc = ""]
            #[doc = "[index.md]: index"]
            #[doc = "[clusters.md]: clusters"]
            #[doc = "[workspaces.md]: workspaces"]
            #[doc = "[sharing.md]: sharing"]
            #[doc = "[visibility.md]: visibility"]
            #[doc = "[isolation.md]: isolation"]
            #[doc = "[gateways.md]: gateways"]
            #[doc = "[tables.md]: tables"]
            #[doc = "[delegation.md]: delegation"]
            #[doc = "[matchers.md]: matchers"]
            #[doc = "[ordering.md]: ordering"]
            #[doc = "[labels.md]: labels"]
            #[doc = "[attachment.md]: attachment"]
            #[doc = "[conflicts.md]: conflicts"]
            #[doc = "[policies.md]: policies"]
            #[doc = "[status.md]: status"]
            #[doc = "[invalid.md]: invalid"]
            #[doc = "[federation.md]: federation"]
            #[doc = "[virtual-destinations.md]: virtual_destinations"]
            #[doc = "[data-path.md]: data_path"]
            #[doc = "[external-services.md]: external_services"]
            #[doc = "[encoding.md]: encoding"]
            #[doc = "[kubernetes.md]: kubernetes"]
            #[doc = "[operating.md]: operating"]
            #[doc = "[sessions.md]: sessions"]
            pub mod $page {}
        )+

        /// File names of all pages.
        #[cfg(test)]
        pub(crate) const FILES: &[&str] = &[$($file,)+];
    };
}

pages! {
    index = "index.md",
    clusters = "clusters.md",
    workspaces = "workspaces.md",
    sharing = "sharing.md",
    visibility = "visibility.md",
    isolation = "isolation.md",
    gateways = "gateways.md",
    tables = "tables.md",
    delegation = "delegation.md",
    matchers = "matchers.md",
    ordering = "ordering.md",
    labels = "labels.md",
    attachment = "attachment.md",
    conflicts = "conflicts.md",
    policies = "policies.md",
    status = "status.md",
    invalid = "invalid.md",
    federation = "federation.md",
    virtual_destinations = "virtual-destinations.md",
    data_path = "data-path.md",
    external_services = "external-services.md",
    encoding = "encoding.md",
    kubernetes = "kubernetes.md",
    operating = "operating.md",
    sessions = "sessions.md",
}
