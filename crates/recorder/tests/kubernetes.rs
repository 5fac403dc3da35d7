//! Compares the rules and the explanations with the autoscaler of Kubernetes itself.
//! `tests/kubernetes/README.md` describes the expected values.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read, Write},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use recorder::{
    computation::Decision,
    decisions::decisions,
    evidence::Evidence,
    objects::{Autoscaler, Pod, Usage},
    record::{Observation, Record},
    rules::{Flags, History, Pods, Reading, Rules, Tolerance, Unit, recommend},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The variable that names another file of cases than the one in the repository: `HPA_CALC`,
/// `HPA_NORMALISE`, `HPA_STORIES` or `HPA_TABLES`.
fn variable(name: &str) -> String {
    format!("HPA_{}", name.to_uppercase())
}

fn cases<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes");
    let path = env::var_os(variable(name));
    let path = path.map_or_else(|| here.join(format!("{name}.jsonl.gz")), Into::into);
    let content = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    let read = if content.starts_with(&[0x1f, 0x8b]) {
        MultiGzDecoder::new(&content[..]).read_to_string(&mut text)
    } else {
        (&content[..]).read_to_string(&mut text)
    };
    read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases = serde_json::Deserializer::from_str(&text).into_iter();
    let cases: Result<Vec<T>, _> = cases.collect();
    let cases = cases.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!cases.is_empty(), "{} is empty", path.display());
    cases
}

/// Prints lines that are visible even if the output of tests is captured.
fn print(lines: impl Iterator<Item = String>) {
    let text = format!("\n{}\n", lines.collect::<Vec<_>>().join("\n"));
    io::stdout()
        .write_all(text.as_bytes())
        .expect("stdout is open");
}

/// Prints how many cases of a file agree, by their class. All of them must.
fn assert_agree<T: DeserializeOwned>(name: &str, compare: impl Fn(T) -> (String, bool)) {
    let mut classes: BTreeMap<String, [u32; 2]> = BTreeMap::new();
    for case in cases(name) {
        let (class, agrees) = compare(case);
        let [agreed, all] = classes.entry(class).or_default();
        *agreed += u32::from(agrees);
        *all += 1;
    }
    let classes = classes.iter();
    print(
        classes
            .clone()
            .map(|(class, [agreed, all])| format!("{name} {class}: {agreed}/{all}")),
    );
    for (class, [agreed, all]) in classes {
        assert_eq!(agreed, all, "{class}");
    }
}

#[derive(Deserialize)]
struct Calc {
    class: String,
    pods: Vec<Pod>,
    usage: Vec<Usage>,
    now: Timestamp,
    replicas: u32,
    target: i64,
    unit: Unit,
    tolerance_up: f64,
    tolerance_down: f64,
    current: i64,
    expected: u32,
}

#[test]
fn recommendations() {
    assert_agree("calc", |case: Calc| {
        let evidence = Evidence {
            pods: case.pods.iter().map(|pod| (&*pod.name, pod)).collect(),
            usage: case.usage.iter().map(|one| (one.pod(), one)).collect(),
            now: case.now,
        };
        let samples = evidence.measure("cpu", None);
        let tolerance = Tolerance {
            up: case.tolerance_up,
            down: case.tolerance_down,
        };
        let recommended = recommend(case.target, case.unit, tolerance, case.replicas, &samples);
        let agrees = recommended
            .is_some_and(|one| (one.current, one.replicas) == (case.current, case.expected));
        (case.class, agrees)
    });
}

#[derive(Deserialize)]
struct Normalise {
    class: String,
    hpa: Autoscaler,
    /// Seconds before now, and replicas.
    recommendations: Vec<(f64, u32)>,
    /// Seconds before now, and replicas added.
    changes: Vec<(f64, i32)>,
    replicas: u32,
    wanted: u32,
    expected: u32,
}

/// The memory of these recommendations and changes.
fn history(rules: &Rules, recommendations: &[(f64, u32)], changes: &[(f64, i32)]) -> History {
    let mut history = History::default();
    for (at, replicas) in recommendations {
        history.recommend(rules, *at, *replicas);
    }
    for (at, added) in changes {
        let [from, to] = [-added, *added].map(|count| count.max(0).unsigned_abs());
        history.scale(rules, *at, from, to);
    }
    history
}

#[test]
fn windows_policies_and_bounds() {
    assert_agree("normalise", |case: Normalise| {
        let rules = case.hpa.rules;
        let history = history(&rules, &case.recommendations, &case.changes);
        let (result, _) = rules.normalise(case.replicas, case.wanted, history.at(0.0, 0.0));
        (case.class, result == case.expected)
    });
}

#[derive(Deserialize)]
struct Story {
    class: String,
    seed: u64,
    began: Timestamp,
    observations: Vec<Observation>,
    truth: Vec<Truth>,
}

/// The result of one computation of the autoscaler.
#[derive(Debug, Deserialize)]
struct Truth {
    at: f64,
    from: u32,
    to: u32,
    recommended: Option<u32>,
    error: Option<String>,
}

impl Truth {
    /// Whether a row is about this; its status is seen a moment later.
    fn is_reported_by(&self, row: &Decision) -> bool {
        (0.0..3.0).contains(&(row.at - self.at)) && (row.from, row.to) == (self.from, self.to)
    }
}

#[derive(Default)]
struct Stories {
    changes: usize,
    changes_with_a_row: usize,
    rows: usize,
    explained: usize,
    assumed: usize,
    false_rows: usize,
}

/// The flags with which the stories of a class were made, as far as its name says.
fn flags(class: &str) -> Vec<Flags> {
    let default = Flags::default();
    let mut flags = vec![default];
    if class.contains("sync") {
        flags[0].sync_period = 30.0;
    } else if class.contains("flag") && class.contains("tolerance") {
        flags = [0.05, 0.2]
            .map(|tolerance| Flags {
                tolerance,
                ..default
            })
            .into();
    } else if class.contains("flag") {
        let with = |downscale_stabilisation| Flags {
            downscale_stabilisation,
            ..default
        };
        flags = [0, 60, 600].map(with).into();
    }
    flags
}

impl Story {
    fn explain(&self, flags: Flags) -> Vec<Decision> {
        let mut record = Record::new(self.began, flags);
        for Observation { at, kind } in &self.observations {
            record.add(*at, kind.clone());
        }
        decisions(&record).0
    }
}

#[test]
fn stories() {
    let mut classes: BTreeMap<String, Stories> = BTreeMap::new();
    for story in cases::<Story>("stories") {
        let flags = flags(&story.class).into_iter();
        let explained = flags.map(|flags| story.explain(flags));
        let doubtful =
            |rows: &Vec<Decision>| rows.iter().filter(|row| row.by_rules.is_some()).count();
        let rows = explained.min_by_key(doubtful).expect("there are flags");
        let class = classes.entry(story.class.clone()).or_default();
        for change in story.truth.iter().filter(|truth| truth.from != truth.to) {
            class.changes += 1;
            class.changes_with_a_row +=
                usize::from(rows.iter().any(|row| change.is_reported_by(row)));
        }
        for row in &rows {
            let truth = story.truth.iter().find(|truth| truth.is_reported_by(row));
            // The recommendation must be right too, not only the result.
            let recommended = truth.filter(|truth| truth.error.is_none());
            let recommended = recommended.and_then(|truth| truth.recommended);
            let is_right = match row.recommended {
                // A row that gives none says what it assumes.
                None => recommended.is_none() || row.remark.is_some() || row.reading.is_none(),
                Some(_) => recommended.is_none() || recommended == row.recommended,
            };
            // Of several metrics the one that decided must be named.
            let is_named =
                story.class != "two metrics" || row.metric.is_some() || row.reading.is_none();
            let is_explained = row.by_rules.is_none() && is_right && is_named;
            if !is_explained || truth.is_none() {
                println!("{} {}: {row:?} beside {truth:?}", story.class, story.seed);
            }
            class.rows += 1;
            class.explained += usize::from(is_explained);
            class.assumed += usize::from(row.remark.is_some());
            class.false_rows += usize::from(truth.is_none());
        }
    }
    print(classes.iter().map(|(name, class)| {
        format!(
            "stories {name}: changes {}/{} explained {}/{} ({} with an assumption) false {}",
            class.changes_with_a_row,
            class.changes,
            class.explained,
            class.rows,
            class.assumed,
            class.false_rows
        )
    }));
    // Of few other stories, one may depend on what nobody saw.
    let is_in_repository = env::var_os(variable("stories")).is_none();
    let allowed = |share: f64, of: usize| match is_in_repository {
        true => 0,
        false => ((share * of as f64) as usize).max(1),
    };
    for (name, class) in &classes {
        let unseen = class.changes - class.changes_with_a_row;
        let may_be_unseen = match name.as_str() {
            "lost watch" => allowed(0.01, class.changes),
            _ => 0,
        };
        assert!(unseen <= may_be_unseen, "{name}: {unseen} changes");
        assert_eq!(class.false_rows, 0, "{name}");
        let unexplained = class.rows - class.explained;
        let allowed = allowed(may_be_unexplained(name), class.rows);
        assert!(unexplained <= allowed, "{name}: {unexplained} rows");
    }
}

/// The share of the rows of a class that may depend on what nobody saw.
fn may_be_unexplained(class: &str) -> f64 {
    match class {
        "rollout" | "restart" | "busy controller" | "scale to zero" | "lost watch" | "sync 30"
        | "flag tolerance" | "flag window" => 0.015,
        "edited metrics" | "edited behavior" | "recreated" | "recreated with another spec" => 0.01,
        _ => 0.005,
    }
}

/// A case of a table; each kind has its own fields.
#[derive(Deserialize)]
struct Table {
    kind: String,
    from: String,
    right: u32,
    #[serde(flatten)]
    fields: Value,
}

impl Table {
    fn get<T: DeserializeOwned>(&self, field: &str) -> T {
        serde_json::from_value(self.fields[field].clone())
            .unwrap_or_else(|error| panic!("{}: {field}: {error}", self.from))
    }

    /// Empty if the case has none.
    fn list<T: DeserializeOwned>(&self, field: &str) -> Vec<T> {
        self.get::<Option<_>>(field).unwrap_or_default()
    }

    fn recommendation(&self) -> u32 {
        let reading = Reading {
            current: self.get("current"),
            target: self.get("target"),
            unit: Unit::Percent,
        };
        let pods = Pods {
            counted: self.get("counted"),
            not_ready: self.get("unready"),
            without_metrics: self.get("missing"),
        };
        let tolerance = Tolerance {
            up: self.get("tolerance_up"),
            down: self.get("tolerance_down"),
        };
        let (replicas, samples) = (self.get("replicas"), pods.alike(reading));
        let Reading { target, unit, .. } = reading;
        let recommended = recommend(target, unit, tolerance, replicas, &samples);
        recommended.expect("some are counted").replicas
    }

    /// What the rules make of a recommendation, after these recommendations and changes.
    fn normalise(&self, rules: &Rules) -> u32 {
        let history = history(rules, &self.list("recommendations"), &self.list("changes"));
        // More than enough for the step without a behavior.
        let replicas = self.get::<Option<_>>("replicas").unwrap_or(100);
        let (result, _) = rules.normalise(replicas, self.get("wanted"), history.at(0.0, 0.0));
        result
    }

    fn limits(&self, behavior: Value) -> u32 {
        let rules = rules(self.get("min"), self.get("max"), behavior);
        let bound = rules.bound(self.get("replicas"));
        bound.map_or_else(|| self.normalise(&rules), |(bound, _)| bound)
    }

    fn stabilisation(&self) -> u32 {
        let direction = |window: &str| {
            let mut direction = pods(1000, 15);
            direction["stabilizationWindowSeconds"] = self.get(window);
            direction
        };
        let behavior = match self.get("behavior") {
            true => behavior(["up", "down"].map(direction)),
            false => Value::Null,
        };
        self.normalise(&rules(0, 1000, behavior))
    }

    /// The change within a period, by the largest step.
    fn changed(&self) -> u32 {
        let direction = pods(0, self.get("period"));
        let rules = rules(0, 1000, behavior([direction.clone(), direction]));
        // Replicas were removed, so that the step may lead back to where they were.
        let changes = self.list("changes").into_iter();
        let removed = changes.map(|(at, changed): (f64, i32)| (at, -changed));
        let history = history(&rules, &[], &removed.collect::<Vec<_>>());
        rules.largest_step(true, 100, history.at(0.0, 0.0)) - 100
    }
}

fn rules(min: u32, max: u32, behavior: Value) -> Rules {
    Rules {
        min,
        max,
        behavior: serde_json::from_value(behavior).expect("it is a behavior, or null"),
        flags: Flags::default(),
    }
}

/// The rules of a direction that allow this many pods within a period.
fn pods(value: u32, period: u32) -> Value {
    json!({"policies": [{"type": "Pods", "value": value, "periodSeconds": period}]})
}

fn behavior([up, down]: [Value; 2]) -> Value {
    json!({"scaleUp": up, "scaleDown": down})
}

#[test]
fn tables() {
    assert_agree("tables", |case: Table| {
        let value = match case.kind.as_str() {
            "recommendation" => case.recommendation(),
            "limits without a behavior" => case.limits(Value::Null),
            "limits with a behavior" => case.limits(behavior([case.get("up"), case.get("down")])),
            "stabilisation" => case.stabilisation(),
            "changes in a period" => case.changed(),
            other => panic!("{other}"),
        };
        if value != case.right {
            println!("{}: {value} instead of {}", case.from, case.right);
        }
        (case.kind, value == case.right)
    });
}
