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
use k8s_openapi::api::{
    autoscaling::v2::{
        HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
    },
    core::v1 as core,
};
use recorder::{
    decisions::{Decision, decisions},
    evidence::Evidence,
    observations::{Line, PodMetrics, RawObservation},
    record::{Autoscaler, ObservationKind, Pod, Record},
    rules::{Flags, History, Pods, Reading, Rules, Tolerance, Unit, recommend},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// The cases of a file in the repository, or of another one that a variable names.
fn cases<T: DeserializeOwned>(name: &str, variable: &str) -> Vec<T> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes");
    let path =
        env::var_os(variable).map_or_else(|| here.join(format!("{name}.jsonl.gz")), Into::into);
    let content = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    let read = if content.starts_with(&[0x1f, 0x8b]) {
        MultiGzDecoder::new(&content[..]).read_to_string(&mut text)
    } else {
        (&content[..]).read_to_string(&mut text)
    };
    read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let cases: Vec<T> = lines
        .map(|(index, line)| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{}, line {}: {error}", path.display(), index + 1))
        })
        .collect();
    assert!(!cases.is_empty(), "{} is empty", path.display());
    cases
}

/// Prints lines that are visible even if the output of tests is captured.
fn print(lines: &[String]) {
    let text = format!("\n{}\n", lines.join("\n"));
    io::stdout()
        .write_all(text.as_bytes())
        .expect("stdout is open");
}

/// The number of cases, and of those that agree, by class.
#[derive(Default)]
struct Score(BTreeMap<String, (u32, u32)>);

impl Score {
    fn add(&mut self, class: &str, agrees: bool) {
        let (agreed, all) = self.0.entry(class.into()).or_default();
        *agreed += u32::from(agrees);
        *all += 1;
    }

    fn print(&self, kind: &str) {
        let line = |(class, (agreed, all)): (&String, &(u32, u32))| {
            format!("{kind} {class}: {agreed}/{all}")
        };
        print(&self.0.iter().map(line).collect::<Vec<_>>());
    }

    fn assert_all(&self) {
        for (class, (agreed, all)) in &self.0 {
            assert_eq!(agreed, all, "{class}");
        }
    }
}

fn unit(name: &str) -> Unit {
    match name {
        "percent" => Unit::Percent,
        "millicores" => Unit::Millicores,
        other => panic!("unit {other}"),
    }
}

#[derive(Deserialize)]
struct Calc {
    class: String,
    pods: Vec<core::Pod>,
    usage: Vec<PodMetrics>,
    now: Timestamp,
    replicas: u32,
    target: i64,
    unit: String,
    tolerance_up: f64,
    tolerance_down: f64,
    current: i64,
    expected: u32,
}

#[test]
fn recommendations() {
    let mut score = Score::default();
    for case in cases::<Calc>("calc", "HPA_CALC") {
        let pods: Vec<Pod> = case.pods.into_iter().map(Pod::from).collect();
        let ObservationKind::Usage(usage) = RawObservation::Usage(case.usage).into() else {
            unreachable!("usage stays usage")
        };
        let evidence = Evidence {
            pods: pods.iter().map(|pod| (&*pod.name, pod)).collect(),
            usage: usage.iter().map(|(name, usage)| (&**name, usage)).collect(),
            now: case.now,
        };
        let samples = evidence.measure("cpu", None);
        let tolerance = Tolerance {
            up: case.tolerance_up,
            down: case.tolerance_down,
        };
        let unit = unit(&case.unit);
        let recommended = recommend(case.target, unit, tolerance, case.replicas, &samples);
        let agrees = recommended
            .is_some_and(|one| (one.current, one.replicas) == (case.current, case.expected));
        score.add(&case.class, agrees);
    }
    score.print("calc");
    score.assert_all();
}

#[derive(Deserialize)]
struct Normalise {
    class: String,
    hpa: HorizontalPodAutoscaler,
    /// Seconds before now, and replicas.
    recommendations: Vec<(f64, u32)>,
    /// Seconds before now, and replicas added.
    changes: Vec<(f64, i64)>,
    replicas: u32,
    wanted: u32,
    expected: u32,
}

/// The memory of these changes.
fn history(rules: &Rules, changes: &[(f64, i64)]) -> History {
    let mut history = History::default();
    for (at, added) in changes {
        let changed = added.unsigned_abs() as u32;
        let (from, to) = if *added > 0 {
            (0, changed)
        } else {
            (changed, 0)
        };
        history.scale(rules, *at, from, to);
    }
    history
}

#[test]
fn windows_policies_and_bounds() {
    let mut score = Score::default();
    for case in cases::<Normalise>("normalise", "HPA_NORMALISE") {
        let rules = Autoscaler::from(case.hpa).rules;
        let mut history = history(&rules, &case.changes);
        for (at, replicas) in case.recommendations {
            history.recommend(&rules, at, replicas);
        }
        let (result, _) = rules.normalise(case.replicas, case.wanted, history.at(0.0, 0.0));
        score.add(&case.class, result == case.expected);
    }
    score.print("normalise");
    score.assert_all();
}

#[derive(Deserialize)]
struct Story {
    class: String,
    seed: u64,
    began: Timestamp,
    observations: Vec<Line>,
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
    let tolerance = |tolerance| Flags {
        tolerance,
        ..default
    };
    let window = |downscale_stabilisation| Flags {
        downscale_stabilisation,
        ..default
    };
    if class.contains("sync") {
        vec![Flags {
            sync_period: 30.0,
            ..default
        }]
    } else if class.contains("flag") && class.contains("tolerance") {
        [0.05, 0.2].map(tolerance).into()
    } else if class.contains("flag") {
        [0, 60, 600].map(window).into()
    } else {
        vec![default]
    }
}

impl Story {
    fn explain(&self, flags: Flags) -> Vec<Decision> {
        let mut record = Record::new(self.began);
        record.flags = flags;
        for Line { at, seen } in &self.observations {
            record.add(*at, seen.clone().into());
        }
        decisions(&record).0
    }
}

#[test]
fn stories() {
    let mut classes: BTreeMap<String, Stories> = BTreeMap::new();
    for story in cases::<Story>("stories", "HPA_STORIES") {
        let explained = flags(&story.class)
            .into_iter()
            .map(|flags| story.explain(flags));
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
    let line = |(name, class): (&String, &Stories)| {
        let Stories {
            changes,
            changes_with_a_row,
            rows,
            explained,
            assumed,
            false_rows,
        } = class;
        format!(
            "stories {name}: changes {changes_with_a_row}/{changes} explained {explained}/{rows} \
             ({assumed} with an assumption) false {false_rows}"
        )
    };
    print(&classes.iter().map(line).collect::<Vec<_>>());
    let is_in_repository = env::var_os("HPA_STORIES").is_none();
    for (name, class) in &classes {
        // Of few other stories, one may depend on what nobody saw.
        let allowed = |share: f64, of: usize| {
            if is_in_repository {
                0
            } else {
                ((share * of as f64) as usize).max(1)
            }
        };
        let unseen = class.changes - class.changes_with_a_row;
        let allowed_unseen = match name.as_str() {
            "lost watch" => allowed(0.01, class.changes),
            _ => 0,
        };
        assert!(unseen <= allowed_unseen, "{name}: {unseen} changes");
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

    fn limits(&self, behavior: Option<HorizontalPodAutoscalerBehavior>) -> u32 {
        let rules = Rules {
            min: self.get("min"),
            max: self.get("max"),
            behavior,
            flags: Flags::default(),
        };
        let replicas = self.get("replicas");
        if let Some((bound, _)) = rules.bound(replicas) {
            return bound;
        }
        let changes: Option<Vec<(f64, i64)>> = self.get("changes");
        let history = history(&rules, &changes.unwrap_or_default());
        let memory = history.at(0.0, 0.0);
        rules.normalise(replicas, self.get("wanted"), memory).0
    }

    fn stabilisation(&self) -> u32 {
        let direction = |window: &str| HPAScalingRules {
            stabilization_window_seconds: self.get(window),
            ..pods(1000, 15)
        };
        let has_behavior: bool = self.get("behavior");
        let rules = wide(has_behavior.then(|| [direction("up"), direction("down")]));
        let mut history = History::default();
        for (at, replicas) in self.get::<Vec<(f64, u32)>>("recommendations") {
            history.recommend(&rules, at, replicas);
        }
        // More than enough for the step without a behavior.
        let replicas = self.get::<Option<u32>>("replicas").unwrap_or(100);
        let memory = history.at(0.0, 0.0);
        rules.normalise(replicas, self.get("wanted"), memory).0
    }

    /// The change within a period, by the largest step.
    fn changed(&self) -> u32 {
        let direction = pods(0, self.get("period"));
        let rules = wide(Some([direction.clone(), direction]));
        // Replicas were removed, so that the step may lead back to where they were.
        let removed: Vec<(f64, i64)> = self.get("changes");
        let removed: Vec<_> = removed.iter().map(|(at, count)| (*at, -count)).collect();
        let history = history(&rules, &removed);
        rules.largest_step(true, 100, history.at(0.0, 0.0)) - 100
    }
}

/// The rules of a direction that allow this many pods within a period.
fn pods(value: i32, period_seconds: i32) -> HPAScalingRules {
    let policy = HPAScalingPolicy {
        type_: "Pods".into(),
        value,
        period_seconds,
    };
    HPAScalingRules {
        policies: Some(vec![policy]),
        ..Default::default()
    }
}

/// Rules whose bounds constrain nothing, with those of both directions.
fn wide(directions: Option<[HPAScalingRules; 2]>) -> Rules {
    Rules {
        min: 0,
        max: 1000,
        behavior: directions.map(behavior),
        flags: Flags::default(),
    }
}

fn behavior(directions: [HPAScalingRules; 2]) -> HorizontalPodAutoscalerBehavior {
    let [scale_up, scale_down] = directions.map(Some);
    HorizontalPodAutoscalerBehavior {
        scale_up,
        scale_down,
    }
}

#[test]
fn tables() {
    let mut score = Score::default();
    for case in cases::<Table>("tables", "HPA_TABLES") {
        let value = match case.kind.as_str() {
            "recommendation" => case.recommendation(),
            "limits without a behavior" => case.limits(None),
            "limits with a behavior" => {
                case.limits(Some(behavior([case.get("up"), case.get("down")])))
            }
            "stabilisation" => case.stabilisation(),
            "changes in a period" => case.changed(),
            other => panic!("{other}"),
        };
        if value != case.right {
            println!("{}: {value} instead of {}", case.from, case.right);
        }
        score.add(&case.kind, value == case.right);
    }
    score.print("tables");
    score.assert_all();
}
