//! `outboard sim`, as a user runs it.

mod support;

use std::process::Command;
use support::{PROGRAM, good};

fn sim(arguments: &[&str]) -> String {
    good(Command::new(PROGRAM).arg("sim").args(arguments))
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn trials_are_run_and_told_of_in_words_and_as_json() {
    let text = sim(&["--seeds", "12", "--jobs", "2"]);
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("12 trials, ") && last.contains(" 0 violations"), "{text}");
    let summary = json(sim(&["--seeds", "12", "--json"]).lines().last().unwrap());
    assert_eq!((&summary["kind"], &summary["schema"]), (&"summary".into(), &1.into()));
    assert_eq!((&summary["trials"], &summary["violations"]), (&12.into(), &0.into()));
    let kinds = summary["faults_by_kind"].as_object().unwrap();
    let sum: u64 = kinds.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(summary["faults"].as_u64(), Some(sum));
}

#[test]
fn a_seed_is_replayed_with_all_that_happens() {
    let trace = |text: String| -> Vec<String> {
        text.lines().filter(|line| line.contains("port ")).map(str::to_owned).collect()
    };
    let first = trace(sim(&["--seed", "21"]));
    assert!(first.len() > 50 && first.iter().any(|line| line.contains("link up")));
    assert_eq!(first, trace(sim(&["--seed", "21"])));
    let only = sim(&["--seed", "21", "--only", "link-blip"]);
    let struck: Vec<_> = only.lines().filter(|line| line.contains("FAULT")).collect();
    assert!(struck.iter().all(|line| line.ends_with("link-blip")), "{struck:?}");
}

#[test]
fn a_virtio_disk_is_tried_as_well_with_faults_of_its_own() {
    let device = ["--device", "virtio"];
    let text = sim(&[&device[..], &["--seeds", "20"]].concat());
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("20 trials, ") && last.contains(" 0 violations"), "{text}");
    let list = sim(&[&device[..], &["--list", "--json"]].concat());
    let names: Vec<_> = list.lines().map(|line| json(line)["fault"].clone()).collect();
    assert!(names.len() >= 60 && names.contains(&"used-id-out-of-range".into()));
    let only = ["--seed", "7", "--only", "used-id-repeated"];
    let trace = sim(&[&device[..], &only].concat());
    let struck: Vec<_> = trace.lines().filter(|line| line.contains("FAULT")).collect();
    assert!(!struck.is_empty() && struck.iter().all(|line| line.ends_with("used-id-repeated")));
    // One of the other device's.
    let output =
        Command::new(PROGRAM).args(["sim", "--only", "used-id-repeated"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("outboard sim --device ahci --list"), "{errors}");
}

#[test]
fn faults_are_named_and_unknown_ones_refused() {
    let list = sim(&["--list", "--json"]);
    let names: Vec<_> = list.lines().map(|line| json(line)["fault"].clone()).collect();
    assert!(names.len() >= 60 && names.contains(&"power-cut".into()));
    let output = Command::new(PROGRAM).args(["sim", "--only", "gremlins"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("outboard sim --device ahci --list"), "{errors}");
}
