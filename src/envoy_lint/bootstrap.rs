//! What stands in the bootstrap besides listeners and clusters: who may change Envoy, and which of its features are switched.

use super::{
    Found,
    clusters::is_loopback,
    shape::{Parts, Spot},
};

/// Switches of Envoy's own features, and of the mark of its answers.
const SWITCHES: [&str; 3] = [
    "envoy.reloadable_features",
    "envoy.restart_features",
    "countersign",
];

pub(super) fn judge(parts: &Parts<'_>, found: &mut Found) {
    let Some(bootstrap) = &parts.bootstrap else {
        found.warning("bootstrap_unseen", "", "the bootstrap is not in the dump, so neither the admin address nor the runtime was looked at; give the whole answer of `/config_dump`");
        return;
    };
    if let Some(address) = bootstrap
        .key("admin")
        .and_then(|admin| admin.key("address"))
        .filter(|address| !is_loopback(address.value))
    {
        found.error("admin_open", &address.path, "whoever reaches the admin address can change Envoy and read what it holds; listen on loopback");
    }
    for layer in bootstrap
        .key("layered_runtime")
        .map_or_else(Vec::new, |runtime| runtime.list("layers"))
    {
        if let Some(values) = layer.key("static_layer") {
            switches(&values, "", found);
        }
        for key in ["disk_layer", "rtds_layer"] {
            if let Some(unseen) = layer.key(key) {
                found.warning("runtime_unseen", &unseen.path, "runtime values come from elsewhere and were not looked at; they can switch off what Envoy checks");
            }
        }
    }
}

/// Names may be written with dots or as objects in objects.
fn switches(values: &Spot<'_>, above: &str, found: &mut Found) {
    for (key, value) in values.value.as_object().into_iter().flatten() {
        let name = if above.is_empty() {
            key.clone()
        } else {
            format!("{above}.{key}")
        };
        let spot = values.below(key, value);
        if SWITCHES.iter().any(|switch| {
            name.strip_prefix(switch)
                .is_some_and(|rest| rest.starts_with('.'))
        }) && !value.is_object()
        {
            found.warning(
                "runtime_flag",
                &spot.path,
                "a feature of Envoy is not as it was tested with the filter; remove the flag",
            );
        } else {
            switches(&spot, &name, found);
        }
    }
}
