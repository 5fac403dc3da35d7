//! The load that a request asks for, in the syntax of its query.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use go_duration::GoDuration;
use percent_encoding::percent_decode_str;
use thiserror::Error;

/// A load, in one of the three forms of a query.
///
/// `Display` writes it in the syntax that `FromStr` reads, in one canonical form: durations as
/// Go writes them, parts of a core in millicores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// `iterations=N`: makes exactly N hashes; 0 does no work.
    Iterations(u64),
    /// `cpu_time=D`: hashes until it has used D of CPU time; more than zero.
    CpuTime(Duration),
    /// `cpu=Q&duration=D`: holds Q of one core for D of wall-clock time; D is more than zero.
    Paced { cpu: Cpu, duration: Duration },
}

/// A part of one core, above 0 and at most 1, written as a Kubernetes quantity: in cores (`0.25`,
/// `1`) or in millicores (`250m`).
///
/// It is exact to a nanocore, the smallest unit of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct Cpu {
    nanocores: u32,
}

/// Why a query is not a load.
#[derive(Debug, Error, PartialEq)]
pub enum LoadError {
    #[error("the load is empty; {FORMS}")]
    Empty,
    #[error("unknown parameter {}; {FORMS}", Quoted(.0))]
    UnknownParameter(String),
    #[error("`{0}` is given twice; give it once")]
    GivenTwice(&'static str),
    #[error("`{0}` requires `{1}`; {FORMS}")]
    PartnerMissing(&'static str, &'static str),
    #[error("{} cannot be combined; {FORMS}", .0.join(" and "))]
    SeveralForms(Vec<&'static str>),
    #[error(
        "{} is not percent-encoded UTF-8: {}",
        .parameter.map_or("a name".into(), |parameter| format!("`{parameter}`")),
        Quoted(.given)
    )]
    Encoding {
        parameter: Option<&'static str>,
        given: String,
    },
    #[error("`{parameter}` is {}; {allowed}", Quoted(.given))]
    Value {
        parameter: &'static str,
        given: String,
        allowed: &'static str,
    },
}

/// The longest part of a query that an error repeats, in characters.
const MAX_QUOTE: usize = 40;

const FORMS: &str = "use `iterations=N`, `cpu_time=D` or `cpu=Q&duration=D`, and nothing else";
const ITERATIONS: &str = "it must be a whole number in digits, such as 1000, below 2^64";
const DURATION: &str = "it must be a duration of more than zero and less than 2562047h, each number \
    with its unit (ns, us or µs, ms, s, m, h), such as 20ms, 1.5s or 1m30s";
const CPU: &str = "it must be a part of one core, above 0 and at most 1, in cores (0.25) or in \
    millicores (250m)";
const NANOCORES: &str = "it must be a whole number of nanocores: at most nine digits after the \
    point in cores, six in millicores";

impl LoadError {
    /// The parameter that is at fault, if it is a single one; `…` ends a name that is cut short.
    pub fn parameter(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::UnknownParameter(name) => Some(shorten(name)),
            Self::GivenTwice(parameter)
            | Self::PartnerMissing(parameter, _)
            | Self::Value { parameter, .. } => Some((*parameter).into()),
            Self::Encoding { parameter, .. } => parameter.map(Cow::from),
            Self::Empty | Self::SeveralForms(_) => None,
        }
    }
}

impl FromStr for Load {
    type Err = LoadError;

    fn from_str(query: &str) -> Result<Self, LoadError> {
        if query.is_empty() {
            return Err(LoadError::Empty);
        }
        let mut given = BTreeMap::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = match decoded(None, key)?.as_str() {
                "iterations" => "iterations",
                "cpu_time" => "cpu_time",
                "cpu" => "cpu",
                "duration" => "duration",
                unknown => return Err(LoadError::UnknownParameter(unknown.into())),
            };
            if given.insert(key, decoded(Some(key), value)?).is_some() {
                return Err(LoadError::GivenTwice(key));
            }
        }
        let given: Vec<_> = given.into_iter().collect();
        match given.as_slice() {
            [("iterations", n)] => Ok(Self::Iterations(iterations("iterations", n)?)),
            [("cpu_time", d)] => Ok(Self::CpuTime(duration("cpu_time", d)?)),
            [("cpu", q), ("duration", d)] => Ok(Self::Paced {
                cpu: cpu("cpu", q)?,
                duration: duration("duration", d)?,
            }),
            [("cpu", _)] => Err(LoadError::PartnerMissing("cpu", "duration")),
            [("duration", _)] => Err(LoadError::PartnerMissing("duration", "cpu")),
            several => Err(LoadError::SeveralForms(
                several.iter().map(|(key, _)| *key).collect(),
            )),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iterations(n) => write!(f, "iterations={n}"),
            Self::CpuTime(d) => write!(f, "cpu_time={}", format_duration(*d)),
            Self::Paced { cpu, duration } => {
                write!(f, "cpu={cpu}&duration={}", format_duration(*duration))
            }
        }
    }
}

impl Cpu {
    /// The part of one core as a number above 0 and at most 1.
    pub fn cores(self) -> f64 {
        f64::from(self.nanocores) / 1e9
    }

    /// The CPU time of holding it for `duration`, rounded up to a nanosecond.
    pub fn over(self, duration: Duration) -> Duration {
        let nanos = (duration.as_nanos() * u128::from(self.nanocores)).div_ceil(1_000_000_000);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nanocores {
            1_000_000_000 => write!(f, "1"),
            nanocores => write!(f, "{}m", f64::from(nanocores) / 1e6),
        }
    }
}

/// Parses a number of iterations, the value of `parameter`.
pub fn iterations(parameter: &'static str, text: &str) -> Result<u64, LoadError> {
    // Rust's own grammar also takes a plus sign.
    let number = text.parse().ok().filter(|_| !text.starts_with('+'));
    number.ok_or_else(|| value_error(parameter, text, ITERATIONS))
}

/// Parses a duration of more than zero, the value of `parameter`.
pub fn duration(parameter: &'static str, text: &str) -> Result<Duration, LoadError> {
    match nanoseconds(text) {
        Some(nanos @ 1..) => Ok(Duration::from_nanos(nanos)),
        _ => Err(value_error(parameter, text, DURATION)),
    }
}

/// Parses a duration without a sign, which may be zero, in nanoseconds.
pub fn nanoseconds(text: &str) -> Option<u64> {
    let GoDuration(nanos) = text.parse().ok()?;
    // Go's own grammar also takes a sign.
    let is_signed = text.starts_with(['+', '-']);
    nanos.try_into().ok().filter(|_| !is_signed)
}

/// Formats a duration as Go does, but in ASCII.
fn format_duration(duration: Duration) -> String {
    let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    GoDuration(nanos).to_string().replace('µ', "u")
}

/// Parses a part of one core, the value of `parameter`.
pub fn cpu(parameter: &'static str, text: &str) -> Result<Cpu, LoadError> {
    let (number, places) = match text.strip_suffix('m') {
        Some(millicores) => (millicores, 6),
        None => (text, 9),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.trim_end_matches('0');
    // Pads the digits to nanocores.
    let nanocores = format!("{whole}{fraction:0<places$}");
    let plain = nanocores.bytes().all(|b| b.is_ascii_digit());
    if plain && fraction.len() > places {
        return Err(value_error(parameter, text, NANOCORES));
    }
    match nanocores.parse() {
        Ok(nanocores @ 1..=1_000_000_000) if plain => Ok(Cpu { nanocores }),
        _ => Err(value_error(parameter, text, CPU)),
    }
}

/// The error of a `parameter` whose value is not one that is allowed.
pub fn value_error(parameter: &'static str, given: &str, allowed: &'static str) -> LoadError {
    LoadError::Value {
        parameter,
        given: given.into(),
        allowed,
    }
}

/// Decodes percent-encoding (RFC 3986, section 2.1). Without this check, the library accepts
/// invalid escapes.
fn decoded(parameter: Option<&'static str>, text: &str) -> Result<String, LoadError> {
    let is_invalid = |escape: &str| {
        let digits = escape.as_bytes().get(..2);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let error = || LoadError::Encoding {
        parameter,
        given: text.into(),
    };
    if text.split('%').skip(1).any(is_invalid) {
        return Err(error());
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| error())
}

/// A part of a query in quotes: escaped, and cut short if it is long.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match cut(self.0) {
            Some(start) => write!(f, "{start:?}…"),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// A part of a query, whose end `…` replaces if it is too long to repeat.
pub fn shorten(given: &str) -> Cow<'_, str> {
    cut(given).map_or(given.into(), |start| format!("{start}…").into())
}

/// The start of a text, if the whole is too long to repeat.
fn cut(given: &str) -> Option<&str> {
    let (end, _) = given.char_indices().nth(MAX_QUOTE)?;
    Some(&given[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_load_is_parsed_and_formatted_in_one_spelling_and_any_other_query_rejected() {
        // A query, and the canonical form of its load, which is empty if it is not a load. The
        // fuzzer starts from these queries.
        for line in include_str!("../tests/loads.tsv").lines() {
            let (given, canonical) = line.split_once('\t').expect("a tab");
            match given.parse::<Load>() {
                Ok(load) => {
                    assert_eq!(load.to_string(), canonical, "{given}");
                    assert_eq!(canonical.parse(), Ok(load), "{given}");
                }
                Err(error) => assert_eq!(canonical, "", "{given}: {error}"),
            }
        }
    }

    #[test]
    fn an_error_quotes_the_value_and_cuts_it_short() {
        let error = format!("cpu_time={}", "x".repeat(100)).parse::<Load>();
        let said = error.expect_err("no duration").to_string();
        assert!(said.starts_with("`cpu_time` is \"xxxx"), "{said}");
        assert!(said.contains("xxx\"…; it must be a duration"), "{said}");
        assert!(said.len() < 300, "{said}");
    }

    #[test]
    fn an_unknown_parameter_is_named_in_full_or_visibly_cut() {
        for (name, named) in [
            ("x".repeat(40), "x".repeat(40)),
            ("x".repeat(41), "x".repeat(40) + "…"),
        ] {
            let error = format!("{name}=1").parse::<Load>().expect_err("no load");
            assert_eq!(error.parameter().as_deref(), Some(&*named));
        }
    }

    #[test]
    fn the_cpu_time_of_a_part_of_a_core_is_rounded_up() {
        let hour = Duration::from_secs(3600);
        for (nanocores, duration, cpu_time) in [
            (1_000_000_000, hour, hour),
            (250_000_000, hour, hour / 4),
            (1, hour, Duration::from_nanos(3600)),
            (1, Duration::from_nanos(1), Duration::from_nanos(1)),
        ] {
            assert_eq!(Cpu { nanocores }.over(duration), cpu_time);
        }
    }

    proptest! {
        #[test]
        fn any_paced_load_is_formatted_so_that_it_parses_to_the_same(
            nanocores in 1..=1_000_000_000_u32,
            nanos in 1..=i64::MAX as u64,
        ) {
            let duration = Duration::from_nanos(nanos);
            let load = Load::Paced { cpu: Cpu { nanocores }, duration };
            prop_assert_eq!(load.to_string().parse(), Ok(load));
        }
    }
}
