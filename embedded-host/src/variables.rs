//! Spin variables: the values that the environment gives them, and the templates that pass them to a component.

use std::{collections::BTreeMap, ffi::OsString};

use crate::Error;

/// What the name of an environment variable starts with when it gives a Spin variable its value.
pub const PREFIX: &str = "SPIN_VARIABLE_";

/// The variables that `environment` gives a value, by their name in the manifest: `SPIN_VARIABLE_MAX_CPU_TIME`
/// sets `max_cpu_time`. As in Spin, the name in the environment is in upper case.
///
/// # Errors
/// [`Error::VariableEncoding`] if a value is not UTF-8.
pub fn from_env(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, Error> {
    environment
        .into_iter()
        .filter_map(|(key, value)| {
            let key = key.into_string().ok()?;
            let name = key.strip_prefix(PREFIX)?.to_ascii_lowercase();
            (key[PREFIX.len()..] == name.to_ascii_uppercase()).then_some((key, name, value))
        })
        .map(|(key, name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(Error::VariableEncoding { name: key }),
        })
        .collect()
}

/// Whether a variable can have this name: lower-case ASCII letters, digits and single underscores between them,
/// and a letter first.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.split('_').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

/// `template` with every `{{ name }}` replaced by the value of that variable.
///
/// # Errors
/// What is wrong with the template, in words: a `{{` without its `}}`, or an unknown variable.
pub fn render(template: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn environment_sets_variables_by_upper_case_names() {
        let environment = [
            ("SPIN_VARIABLE_MAX_CPU_TIME", "3s"),
            ("SPIN_VARIABLE_REPLICA", ""),
            ("SPIN_VARIABLE_load", "iterations=1"),
            ("SPIN_VARIABLES", "no"),
            ("HOME", "/root"),
        ];
        let variables = from_env(environment.map(|(key, value)| (key.into(), value.into())));
        assert_eq!(
            variables.unwrap(),
            map(&[("max_cpu_time", "3s"), ("replica", "")])
        );
    }

    #[cfg(unix)]
    #[test]
    fn environment_must_be_utf8_where_it_sets_a_variable() {
        use std::os::unix::ffi::OsStringExt;
        let garbage = OsString::from_vec(vec![0xff]);
        assert!(
            from_env([("OTHER".into(), garbage.clone())])
                .unwrap()
                .is_empty()
        );
        let error = from_env([("SPIN_VARIABLE_LOAD".into(), garbage)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the value of SPIN_VARIABLE_LOAD is not UTF-8"
        );
    }

    #[test]
    fn names_are_those_of_spin() {
        for name in ["a", "load", "max_cpu_time", "x2", "a_2"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "_a", "a_", "a__b", "2a", "Load", "a-b", "ä", "a b"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn templates_take_the_values_of_variables() {
        let values = map(&[("a", "1"), ("b", "two"), ("braces", "{{ a }}")]);
        for (template, rendered) in [
            ("", ""),
            ("plain } {", "plain } {"),
            ("{{ a }}", "1"),
            ("{{a}}-{{  b  }}!", "1-two!"),
            ("{{ braces }}", "{{ a }}"),
        ] {
            assert_eq!(
                render(template, &values).as_deref(),
                Ok(rendered),
                "{template}"
            );
        }
    }

    #[test]
    fn templates_that_cannot_be_rendered_say_why() {
        let values = map(&[("a", "1")]);
        for (template, reason) in [
            ("{{ a }} {{ a", "`{{` without `}}` in `{{ a }} {{ a`"),
            (
                "{{ c }}",
                "`{{ c }}` uses `c`, which [variables] does not declare",
            ),
        ] {
            assert_eq!(
                render(template, &values),
                Err(reason.to_owned()),
                "{template}"
            );
        }
    }
}
