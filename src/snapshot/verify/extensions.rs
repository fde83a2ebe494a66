//! Checks of filters whose configuration comes over ECDS.
//!
//! A listener waits for the configuration of its filters, so none may be missing; Envoy refuses one of another type than
//! the listener allows.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, Place, ResourceType, core_pb, hcm_pb};

/// Filters that are discovered, by name, with the types that listeners allow.
pub(super) type Discovered = BTreeMap<String, BTreeSet<String>>;

impl Checker<'_> {
    /// Finds the filters of a chain that are discovered, and checks that they exist.
    pub(super) fn check_discovered(
        &mut self,
        place: Place<'_>,
        filters: &[hcm_pb::HttpFilter],
        discovered: &mut Discovered,
    ) {
        for filter in filters {
            let Some(hcm_pb::http_filter::ConfigType::ConfigDiscovery(source)) = &filter.config_type else { continue };
            if !self.exists(ResourceType::Extension, &filter.name) {
                self.report(place, format!("waits for filter `{}`, which does not exist", filter.name));
            }
            if source.type_urls.is_empty() {
                self.report(place, format!("allows no type for filter `{}`", filter.name));
            }
            let types = source.type_urls.iter().cloned();
            match discovered.get_mut(&filter.name) {
                // Every listener must allow it.
                Some(allowed) => allowed.retain(|allowed| source.type_urls.contains(allowed)),
                None => {
                    discovered.insert(filter.name.clone(), types.collect());
                }
            }
        }
    }

    /// Checks what is discovered: of a type that is allowed.
    pub(super) fn check_extensions(&mut self, discovered: &Discovered) {
        let extensions =
            self.decode(ResourceType::Extension, |extension: &core_pb::TypedExtensionConfig| extension.name.as_str());
        for (name, extension) in extensions {
            let place = Place { resource_type: ResourceType::Extension, resource: &name };
            let Some(config) = &extension.typed_config else {
                self.report(place, "has no configuration");
                continue;
            };
            if discovered.get(name.as_str()).is_some_and(|allowed| !allowed.contains(&config.type_url)) {
                self.report(place, format!("is a {}, which no listener takes", config.type_url));
            }
        }
    }
}
