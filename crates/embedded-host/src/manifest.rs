//! The manifest `spin.toml`: which component to serve, and the values of its variables.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::error::Error;

/// The application of a manifest, as far as this host serves it.
pub struct Application {
    /// The component's WebAssembly file.
    pub source: PathBuf,
    /// What the paths of its route start with, without a slash at its end; empty for all paths.
    pub prefix: String,
    /// The variables that the component can ask for, with their values.
    pub variables: BTreeMap<String, String>,
}

impl Application {
    /// Reads the manifest at `path`. As in Spin, `SPIN_VARIABLE_MAX_CPU_TIME` of the environment is
    /// the value of the variable `max_cpu_time` in place of its default.
    ///
    /// # Errors
    /// [`Error::Manifest`]
    pub fn read(path: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let error = |reason| Error::Manifest {
            path: path.to_owned(),
            reason,
        };
        let text = fs::read_to_string(path)
            .map_err(|cause| error(format!("cannot read the manifest: {cause}")))?;
        let manifest = Manifest::parse(&text).map_err(error)?;
        let (prefix, component) = manifest.served().map_err(error)?;
        let value = |(name, variable): (&String, &Variable)| {
            let set = environment(&format!("SPIN_VARIABLE_{}", name.to_uppercase()));
            (name.clone(), set.unwrap_or(variable.default.clone()))
        };
        let values = manifest.variables.iter().map(value).collect();
        let rendered = |(name, template): (&String, &String)| {
            let value = render(template, &values)
                .map_err(|reason| error(format!("[component.*.variables] {name}: {reason}")))?;
            Ok((name.clone(), value))
        };
        let variables = component.variables.iter().map(rendered);
        let directory = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            source: directory.join(&component.source),
            prefix: prefix.to_owned(),
            variables: variables.collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Deserialize)]
struct Manifest {
    spin_manifest_version: u32,
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    trigger: Trigger,
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Variable {
    default: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trigger {
    http: Vec<HttpTrigger>,
}

#[derive(Deserialize)]
struct HttpTrigger {
    route: String,
    component: String,
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
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })
    }

    /// The prefix of the one route and its component, if that is all that there is to serve.
    fn served(&self) -> Result<(&str, &Component), String> {
        let [trigger] = &self.trigger.http[..] else {
            let triggers = self.trigger.http.len();
            return Err(format!("{triggers} [[trigger.http]]; this host serves one"));
        };
        let (version, route, id) = (
            self.spin_manifest_version,
            &trigger.route,
            &trigger.component,
        );
        if version != 2 {
            return Err(format!(
                "`spin_manifest_version` is {version}; this host reads version 2"
            ));
        }
        let Some(prefix) = route.strip_suffix("/...") else {
            return Err(format!(
                "`route` is \"{route}\"; this host serves a route that ends with \"/...\""
            ));
        };
        let component = self.component.get(id);
        component
            .map(|component| (prefix, component))
            .ok_or_else(|| format!("[[trigger.http]]: there is no component \"{id}\""))
    }
}

/// `template` with every `{{ name }}` replaced by the value of that variable, or what is wrong with
/// it.
fn render(template: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let mut rendered = String::new();
    let mut rest = template;
    while let Some((text, expression)) = rest.split_once("{{") {
        let (name, after) = expression
            .split_once("}}")
            .ok_or_else(|| format!("`{{{{` without `}}}}` in `{template}`"))?;
        let name = name.trim();
        let value = values.get(name).ok_or_else(|| {
            format!("`{template}` uses `{name}`, which [variables] does not declare")
        })?;
        rendered.push_str(text);
        rendered.push_str(value);
        rest = after;
    }
    rendered.push_str(rest);
    Ok(rendered)
}
