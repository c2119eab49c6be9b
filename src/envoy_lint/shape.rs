//! The tree of an Envoy configuration: where listeners, routes and clusters stand in a bootstrap and in a dump.

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

    fn below(&self, name: &str, value: &'c Value) -> Spot<'c> {
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

    fn items(&self) -> Vec<Spot<'c>> {
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

pub(super) fn is_type(value: &Value, name: &str) -> bool {
    value
        .get("@type")
        .and_then(Value::as_str)
        .and_then(|full| full.rsplit('.').next())
        == Some(name)
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

/// Whether there is something in it: `false`, `0s`, an empty list are as good as nothing.
pub(super) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => text != "0s",
        _ => true,
    }
}

/// The parts of a configuration that decide where traffic goes.
pub(super) struct Parts<'c> {
    pub(super) listeners: Vec<Spot<'c>>,
    pub(super) routes: Vec<Spot<'c>>,
    pub(super) clusters: Vec<Spot<'c>>,
}

impl<'c> Parts<'c> {
    pub(super) fn of(config: &'c Value) -> Result<Self, String> {
        let top = Spot {
            path: String::new(),
            value: config,
        };
        if let Some(resources) = top.key("static_resources") {
            return Ok(Self {
                listeners: resources.list("listeners"),
                routes: Vec::new(),
                clusters: resources.list("clusters"),
            });
        }
        let mut parts = Self {
            listeners: Vec::new(),
            routes: Vec::new(),
            clusters: Vec::new(),
        };
        let dumps = top.list("configs");
        if !dumps.iter().any(|dump| dump.is_type("ListenersConfigDump")) {
            return Err(
                "neither an Envoy bootstrap (`static_resources`) nor a whole answer of `/config_dump`"
                    .to_owned(),
            );
        }
        for dump in dumps {
            for group in dump.children() {
                for entry in group.items() {
                    // Dynamic listeners stand one deeper, once for each state they are in.
                    for held in entry.children().iter().chain([&entry]) {
                        parts.listeners.extend(held.key("listener"));
                    }
                    parts.routes.extend(entry.key("route_config"));
                    parts.clusters.extend(entry.key("cluster"));
                }
            }
        }
        Ok(parts)
    }

    /// The route tables of a connection manager; says so where they are not to be seen.
    pub(super) fn routes_of(&self, manager: &Spot<'c>, found: &mut Found) -> Vec<Spot<'c>> {
        if let Some(table) = manager.key("route_config") {
            return vec![table];
        }
        let name = text(manager.value, "rds.route_config_name");
        let tables: Vec<_> = self
            .routes
            .iter()
            .filter(|table| name.is_some() && text(table.value, "name") == name)
            .cloned()
            .collect();
        if tables.is_empty() {
            found.warning(
                "routes_unseen",
                &manager.path,
                "its routes come from elsewhere and were not looked at; give the answer of `/config_dump`",
            );
        }
        tables
    }
}
