//! The manifest `spin.toml`: which component to serve, and the values of its variables.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use wasmtime::{Result, bail, ensure, error::Context, format_err};

/// The application of a manifest, as far as this host serves it.
pub struct Application {
    /// The component's WebAssembly file.
    pub source: PathBuf,
    /// What the paths of its route start with, without a slash at its end; empty for all paths.
    pub prefix: String,
    /// The variables that the component can ask for, with their values.
    pub variables: BTreeMap<String, String>,
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

impl Application {
    /// Reads the manifest at `path`. As in Spin, `SPIN_VARIABLE_MAX_CPU_TIME` of the environment is
    /// the value of the variable `max_cpu_time` in place of its default.
    ///
    /// # Errors
    /// If it cannot be read, is not a manifest, or describes what this host cannot serve.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || {
            let text = fs::read_to_string(path).context("cannot read the manifest")?;
            Self::parse(&text)
        };
        let mut application = read().with_context(|| path.display().to_string())?;
        application.source = path.with_file_name(application.source);
        Ok(application)
    }

    fn parse(text: &str) -> Result<Self> {
        let manifest: Manifest = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text[..start].matches('\n').count() + 1;
            format_err!("line {line}: {}", error.message())
        })?;
        let version = manifest.spin_manifest_version;
        ensure!(
            version == 2,
            "`spin_manifest_version` is {version}; this host reads version 2"
        );
        let [trigger] = &manifest.trigger.http[..] else {
            let triggers = manifest.trigger.http.len();
            bail!("{triggers} [[trigger.http]]; this host serves one");
        };
        let HttpTrigger { route, component } = trigger;
        let prefix = route.strip_suffix("/...").with_context(|| {
            format!("`route` is {route:?}; this host serves a route that ends with \"/...\"")
        })?;
        let served = manifest.component.get(component);
        let served = served
            .with_context(|| format!("[[trigger.http]]: there is no component {component:?}"))?;

        let value = |(name, variable): (&String, &Variable)| {
            let set = env::var(format!("SPIN_VARIABLE_{}", name.to_uppercase()));
            (name.clone(), set.unwrap_or(variable.default.clone()))
        };
        let values = manifest.variables.iter().map(value).collect();
        let rendered = |(name, template): (&String, &String)| {
            let value = render(template, &values);
            let value = value.with_context(|| format!("[component.*.variables] {name}"))?;
            Ok((name.clone(), value))
        };
        Ok(Self {
            source: served.source.clone(),
            prefix: prefix.to_owned(),
            variables: served
                .variables
                .iter()
                .map(rendered)
                .collect::<Result<_>>()?,
        })
    }
}

/// `template` with every `{{ name }}` replaced by the value of that variable.
fn render(template: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let mut rendered = String::new();
    let mut rest = template;
    while let Some((text, expression)) = rest.split_once("{{") {
        let (name, after) = expression
            .split_once("}}")
            .with_context(|| format!("`{{{{` without `}}}}` in `{template}`"))?;
        let name = name.trim();
        let value = values.get(name).with_context(|| {
            format!("`{template}` uses `{name}`, which [variables] does not declare")
        })?;
        rendered.push_str(text);
        rendered.push_str(value);
        rest = after;
    }
    rendered.push_str(rest);
    Ok(rendered)
}
