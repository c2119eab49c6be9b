//! The tree of an Envoy configuration: where listeners, routes and clusters stand in a bootstrap and in a dump.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use super::Found;

/// A value and its path.
#[derive(Clone)]
pub(super) struct Spot<'c> {
    pub(super) path: String,
    pub(super) value: &'c Value,
}

impl<'c> Spot<'c> {
    pub(super) fn key(&self, name: &str) -> Option<Spot<'c>> {
        field(self.value, name).map(|value| self.below(name, value))
    }

    pub(super) fn below(&self, name: &str, value: &'c Value) -> Spot<'c> {
        let path = match self.path.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.path),
        };
        Spot { path, value }
    }

    /// The items of the list called `name`; none where there is no such list.
    pub(super) fn list(&self, name: &str) -> Vec<Spot<'c>> {
        self.key(name).map_or_else(Vec::new, |list| list.items())
    }

    pub(super) fn items(&self) -> Vec<Spot<'c>> {
        let items = self.value.as_array().into_iter().flatten().enumerate();
        items
            .map(|(i, value)| Spot {
                path: format!("{}[{i}]", self.path),
                value,
            })
            .collect()
    }

    /// Whether this is a message of that type, whatever its version.
    pub(super) fn is_type(&self, name: &str) -> bool {
        is_type(self.value, name)
    }

    /// Whether this is a TLS context of that type: by its type, or because it stands in a field that holds nothing else.
    pub(super) fn is_tls_context(&self, name: &str, fields: &[&str]) -> bool {
        let last = self.path.rsplit('.').next().unwrap_or_default();
        self.is_type(name)
            || fields
                .iter()
                .any(|field| last == *field || last == camel(field))
    }

    /// This value and all below it, in order.
    pub(super) fn each(&self, see: &mut dyn FnMut(Spot<'c>)) {
        see(self.clone());
        for child in self.children() {
            child.each(see);
        }
    }

    pub(super) fn children(&self) -> Vec<Spot<'c>> {
        match self.value {
            Value::Object(map) => map
                .iter()
                .map(|(name, value)| self.below(name, value))
                .collect(),
            _ => self.items(),
        }
    }
}

/// The field called `name`, also by its lowerCamelCase spelling, which protobuf's JSON takes as well.
pub(super) fn field<'c>(value: &'c Value, name: &str) -> Option<&'c Value> {
    value
        .get(name)
        .or_else(|| value.get(camel(name)))
        .filter(|value| !value.is_null())
}

/// `normalize_path` as `normalizePath`.
pub(super) fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        whole.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        whole.push_str(chars.as_str());
    }
    whole
}

/// The value at the end of `path`, names with dots between.
pub(super) fn at<'c>(value: &'c Value, path: &str) -> Option<&'c Value> {
    path.split('.').try_fold(value, field)
}

pub(super) fn text<'c>(value: &'c Value, path: &str) -> Option<&'c str> {
    at(value, path).and_then(Value::as_str)
}

/// The name of this message's type, without package and version.
pub(super) fn kind(value: &Value) -> Option<&str> {
    let full = value.get("@type").and_then(Value::as_str)?;
    full.rsplit('.').next()
}

pub(super) fn is_type(value: &Value, name: &str) -> bool {
    kind(value) == Some(name)
}

/// Whether the value at the end of `path` is `wanted`; nothing else counts, nor its absence.
pub(super) fn is(value: &Value, path: &str, wanted: &str) -> bool {
    at(value, path).is_some_and(|value| match value {
        Value::Bool(on) => *on == (wanted == "true") && matches!(wanted, "true" | "false"),
        value => value.as_str() == Some(wanted),
    })
}

/// A duration as protobuf's JSON writes it, `1.5s`.
pub(super) fn seconds(value: &Value) -> Option<Duration> {
    let number = value.as_str()?.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(number).ok()
}

/// A whole number, which protobuf's JSON may write as text.
pub(super) fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Whether `test` holds for `value` or anything below it.
pub(super) fn any(value: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
    test(value)
        || match value {
            Value::Object(map) => map.values().any(|value| any(value, test)),
            Value::Array(items) => items.iter().any(|value| any(value, test)),
            _ => false,
        }
}

/// What `see` makes of the first text of which it makes something, in `value` or below it.
pub(super) fn any_text<T>(value: &Value, see: &dyn Fn(&str) -> Option<T>) -> Option<T> {
    match value {
        Value::String(text) => see(text),
        Value::Object(map) => map.values().find_map(|value| any_text(value, see)),
        Value::Array(items) => items.iter().find_map(|value| any_text(value, see)),
        _ => None,
    }
}

/// Whether there is something in it: `false`, `0s`, an empty list are as good as nothing.
pub(super) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Array(items) => !items.is_empty(),
        Value::String(_) => seconds(value) != Some(Duration::ZERO),
        _ => true,
    }
}

/// The parts of a configuration that decide where traffic goes.
#[derive(Default)]
pub(super) struct Parts<'c> {
    pub(super) listeners: Vec<Spot<'c>>,
    pub(super) extensions: Vec<Spot<'c>>,
    /// `None` where a dump does not hold it.
    pub(super) bootstrap: Option<Spot<'c>>,
    routes: Vec<Spot<'c>>,
    scopes: Vec<Spot<'c>>,
    clusters: Vec<Spot<'c>>,
}

impl<'c> Parts<'c> {
    pub(super) fn of(config: &'c Value, found: &mut Found) -> Result<Self, String> {
        let top = Spot {
            path: String::new(),
            value: config,
        };
        if let Some(resources) = top.key("static_resources") {
            if let Some(dynamic) = top
                .key("dynamic_resources")
                .and_then(|all| all.key("lds_config"))
            {
                found.warning("listeners_unseen", &dynamic.path, "listeners come from elsewhere and were not looked at; give the answer of `/config_dump`");
            }
            return Ok(Self {
                listeners: resources.list("listeners"),
                clusters: resources.list("clusters"),
                bootstrap: Some(top),
                ..Self::default()
            });
        }
        let dumps = top.list("configs");
        if !dumps.iter().any(|dump| dump.is_type("ListenersConfigDump")) {
            return Err("neither an Envoy bootstrap (`static_resources`) nor a whole answer of `/config_dump`".to_owned());
        }
        let mut parts = Self::default();
        for dump in &dumps {
            parts.take(dump);
        }
        Ok(parts)
    }

    fn take(&mut self, dump: &Spot<'c>) {
        if dump.is_type("BootstrapConfigDump") {
            self.bootstrap = dump.key("bootstrap");
            return;
        }
        for group in dump.children() {
            for entry in group.items() {
                // Dynamic listeners stand one deeper, once for each state they are in.
                for held in entry.children().iter().chain([&entry]) {
                    self.listeners.extend(held.key("listener"));
                }
                self.routes.extend(entry.key("route_config"));
                self.clusters.extend(entry.key("cluster"));
                self.extensions.extend(entry.key("ecds_filter"));
                if dump.is_type("ScopedRoutesConfigDump") {
                    self.scopes.push(entry);
                }
            }
        }
    }

    /// The cluster of that name.
    pub(super) fn cluster(&self, name: &str) -> Option<&Spot<'c>> {
        self.clusters
            .iter()
            .find(|spot| text(spot.value, "name") == Some(name))
    }

    /// The route tables of a connection manager; says so where they are not to be seen.
    pub(super) fn routes_of(&self, manager: &Spot<'c>, found: &mut Found) -> Vec<Spot<'c>> {
        if let Some(table) = manager.key("route_config") {
            return vec![table];
        }
        let mut holders = vec![manager.clone()];
        if let Some(scoped) = manager.key("scoped_routes") {
            let name = text(scoped.value, "name");
            holders.extend(
                self.scopes
                    .iter()
                    .filter(|scope| text(scope.value, "name") == name)
                    .cloned(),
            );
        }
        let (mut names, mut tables) = (BTreeSet::new(), Vec::new());
        for holder in holders {
            holder.each(&mut |spot| {
                names.extend(text(spot.value, "route_config_name"));
                tables.extend(spot.key("route_configuration"));
            });
        }
        let mut unseen = names.is_empty() && tables.is_empty();
        for name in names {
            let mut named = self
                .routes
                .iter()
                .filter(|table| text(table.value, "name") == Some(name))
                .peekable();
            unseen |= named.peek().is_none();
            tables.extend(named.cloned());
        }
        if unseen {
            found.warning("routes_unseen", &manager.path, "its routes, or some of them, come from elsewhere and were not looked at; give the answer of `/config_dump`");
        }
        tables
    }
}
