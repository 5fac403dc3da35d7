//! The manifest `spin.toml`: which component to serve, and the values of its variables.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{Error, variables};

/// The application of a manifest, as far as this host serves it.
#[derive(Debug)]
pub struct Application {
    /// The component's WebAssembly file.
    pub source: PathBuf,
    /// The variables that the component can ask for, with their values.
    pub variables: BTreeMap<String, String>,
}

impl Application {
    /// Reads the manifest at `path`, with `overrides` in place of the defaults of its variables.
    ///
    /// # Errors
    /// [`Error::Manifest`], and [`Error::VariableRequired`] for a variable without a value.
    pub fn read(path: &Path, overrides: &BTreeMap<String, String>) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|error| Error::Manifest {
            path: path.to_owned(),
            reason: format!("cannot read the manifest: {error}"),
        })?;
        Self::parse(path, &text, overrides)
    }

    fn parse(path: &Path, text: &str, overrides: &BTreeMap<String, String>) -> Result<Self, Error> {
        let error = |reason| Error::Manifest {
            path: path.to_owned(),
            reason,
        };
        let manifest = Manifest::parse(text).map_err(error)?;
        let (id, component) = manifest.served().map_err(error)?;
        let values = manifest.values(overrides, error)?;
        let variables = component
            .variables
            .iter()
            .map(|(name, template)| {
                let value = variables::render(template, &values).map_err(|reason| {
                    error(format!("[component.{id}.variables] {name}: {reason}"))
                })?;
                Ok((name.clone(), value))
            })
            .collect::<Result<_, _>>()?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            source: directory.join(&component.source),
            variables,
        })
    }
}

#[derive(Deserialize)]
struct Manifest {
    spin_manifest_version: u32,
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    #[serde(default)]
    trigger: BTreeMap<String, Vec<toml::Table>>,
    #[serde(default)]
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Variable {
    default: Option<String>,
    #[serde(default)]
    required: bool,
}

#[derive(Deserialize)]
struct Component {
    source: PathBuf,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

impl Manifest {
    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let reason = error.message();
            match error.span() {
                Some(span) => {
                    let line = text[..span.start].matches('\n').count() + 1;
                    format!("line {line}: {reason}")
                }
                None => reason.to_owned(),
            }
        })
    }

    /// The one component, if it is all that there is to serve.
    fn served(&self) -> Result<(&str, &Component), String> {
        if self.spin_manifest_version != 2 {
            let version = self.spin_manifest_version;
            return Err(format!(
                "spin_manifest_version is {version}; this host reads version 2"
            ));
        }
        if let Some(other) = self.trigger.keys().find(|&kind| kind != "http") {
            return Err(format!(
                "[[trigger.{other}]]: this host serves only [[trigger.http]]"
            ));
        }
        let triggers = self.trigger.get("http").map_or(&[][..], Vec::as_slice);
        let ([trigger], 1) = (triggers, self.component.len()) else {
            return Err(format!(
                "{} [[trigger.http]] and {} [component.*]; this host serves exactly one of each",
                triggers.len(),
                self.component.len()
            ));
        };
        let text = |key| {
            trigger
                .get(key)
                .and_then(toml::Value::as_str)
                .unwrap_or_default()
        };
        if text("route") != "/..." {
            return Err("[[trigger.http]]: this host serves only route = \"/...\"".to_owned());
        }
        self.component
            .get_key_value(text("component"))
            .map(|(id, component)| (id.as_str(), component))
            .ok_or_else(|| {
                format!(
                    "[[trigger.http]]: there is no component \"{}\"",
                    text("component")
                )
            })
    }

    /// The values of all variables.
    fn values(
        &self,
        overrides: &BTreeMap<String, String>,
        error: impl Fn(String) -> Error,
    ) -> Result<BTreeMap<String, String>, Error> {
        self.variables
            .iter()
            .map(|(name, variable)| {
                if !variables::is_name(name) {
                    return Err(error(format!(
                        "[variables] {name}: a name has only lower-case letters, digits and single underscores"
                    )));
                }
                if variable.required == variable.default.is_some() {
                    return Err(error(format!(
                        "[variables] {name}: needs either `required = true` or a `default`"
                    )));
                }
                overrides
                    .get(name)
                    .or(variable.default.as_ref())
                    .map(|value| (name.clone(), value.clone()))
                    .ok_or_else(|| Error::VariableRequired { name: name.clone() })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: &str = r#"
        spin_manifest_version = 2
        application = { name = "app" }
        variables = { size = { default = "3" }, name = { required = true } }
        [[trigger.http]]
        route = "/..."
        component = "app"
        [component.app]
        source = "target/app.wasm"
        variables = { length = "{{ size }} m", name = "{{ name }}", fixed = "yes" }
    "#;

    fn read(text: &str, overrides: &[(&str, &str)]) -> Result<Application, Error> {
        let overrides: Vec<_> = overrides
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Application::parse(
            Path::new("app/spin.toml"),
            text,
            &overrides.into_iter().collect(),
        )
    }

    #[test]
    fn serves_the_one_component_with_its_variables() {
        let application = read(SERVED, &[("name", "a"), ("unknown", "b")]).unwrap();
        assert_eq!(application.source, Path::new("app/target/app.wasm"));
        let variables: Vec<_> = application
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            variables,
            [("fixed", "yes"), ("length", "3 m"), ("name", "a")]
        );
    }

    #[test]
    fn overrides_win_over_defaults() {
        let application = read(SERVED, &[("name", ""), ("size", "5")]).unwrap();
        assert_eq!(application.variables["length"], "5 m");
        assert_eq!(application.variables["name"], "");
    }

    #[test]
    fn an_absolute_source_stays_as_it_is() {
        let text = SERVED.replace("target/app.wasm", "/srv/app.wasm");
        let application = read(&text, &[("name", "a")]).unwrap();
        assert_eq!(application.source, Path::new("/srv/app.wasm"));
    }

    #[test]
    fn a_required_variable_needs_a_value() {
        assert_eq!(
            read(SERVED, &[("size", "5")]).unwrap_err().to_string(),
            "the variable `name` is required: set SPIN_VARIABLE_NAME"
        );
    }

    #[test]
    fn what_it_cannot_serve_is_said() {
        for (from, to, reason) in [
            (
                "version = 2",
                "version = 1",
                "spin_manifest_version is 1; this host reads version 2",
            ),
            (
                "spin_manifest_version = 2",
                "",
                "line 1: missing field `spin_manifest_version`",
            ),
            ("= 2", "= ", "line 2: "),
            (
                "trigger.http",
                "trigger.redis",
                "[[trigger.redis]]: this host serves only [[trigger.http]]",
            ),
            (
                "[component.app]",
                "[component.other]\nsource = \"other.wasm\"\n[component.app]",
                "1 [[trigger.http]] and 2 [component.*]; this host serves exactly one of each",
            ),
            (
                "[component.app]",
                "[[trigger.http]]\n[component.app]",
                "2 [[trigger.http]] and 1 [component.*]; this host serves exactly one of each",
            ),
            (
                r#"route = "/...""#,
                r#"route = "/api""#,
                r#"[[trigger.http]]: this host serves only route = "/...""#,
            ),
            (
                r#"component = "app""#,
                r#"component = "b""#,
                r#"[[trigger.http]]: there is no component "b""#,
            ),
            (
                r#""target/app.wasm""#,
                r#"{ url = "https://example.com" }"#,
                "line 9: invalid type: map, expected path string",
            ),
            (
                "{{ size }}",
                "{{ width }}",
                "[component.app.variables] length: `{{ width }} m` uses `width`, which [variables] does not declare",
            ),
            (
                r#"{ default = "3" }"#,
                "{}",
                "[variables] size: needs either `required = true` or a `default`",
            ),
            (
                "size =",
                "Size =",
                "[variables] Size: a name has only lower-case letters, digits and single underscores",
            ),
        ] {
            let text = SERVED.replacen(from, to, 1);
            assert_ne!(text, SERVED, "{from}");
            let error = read(&text, &[("name", "a")]).unwrap_err().to_string();
            let expected = format!("app/spin.toml: {reason}");
            assert!(
                error.starts_with(&expected),
                "{to}: {error} is not {expected}"
            );
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
