//! The verbs about this machine's functions, wherever the tests run: nothing is changed.
//!
//! What they do to functions is tested on machines that are made up (`outboard-sysfs`), and in a
//! guest (`tests/guest`).

mod support;

use serde_json::Value;
use std::process::Command;
use support::{PROGRAM, fails};

/// Where no machine has anything.
const NOWHERE: &str = "ffff:ff:1f.7";

/// Runs the program; its exit code, and the objects that it printed.
fn objects(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = Command::new(PROGRAM).args(arguments).arg("--json").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (output.status.code(), objects.collect())
}

#[test]
fn an_address_where_nothing_is_is_an_error_that_says_where_to_look() {
    for verb in ["bind", "unbind", "status", "doctor"] {
        let errors = fails(&[verb, NOWHERE], 1);
        let expected = format!(
            "outboard: this machine has no PCI function at {NOWHERE}. `outboard status --all` lists \
             those that it has\n"
        );
        assert_eq!(errors, expected, "{verb}");
        assert!(
            fails(&[verb, "1f.2"], 2).contains("write one as 0000:00:1f.2 or 00:1f.2"),
            "{verb}"
        );
    }
    assert!(fails(&["bind"], 2).contains("<ADDR>"));
    assert!(fails(&["unbind"], 2).contains("<ADDR>"));
}

#[test]
fn status_and_list_know_the_same_functions() {
    let (code, status) = objects(&["status", "--all"]);
    assert_eq!(code, Some(0));
    let (_, list) = objects(&["list"]);
    let addresses = |found: &[Value]| -> Vec<String> {
        found.iter().map(|one| one["address"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(addresses(&status), addresses(&list));
    for one in &status {
        assert_eq!((&one["schema"], &one["kind"]), (&1.into(), &"status".into()), "{one}");
        assert!(one["uses"].is_array() && one["group_members"].is_array(), "{one}");
    }
}

#[test]
fn doctor_ends_with_an_error_only_if_there_is_trouble_and_says_what_to_do_about_it() {
    let (code, findings) = objects(&["doctor"]);
    let trouble = findings.iter().filter(|one| one["verdict"] == "trouble");
    let trouble: Vec<_> = trouble.collect();
    assert_eq!(code, Some(i32::from(!trouble.is_empty())), "{findings:?}");
    for one in trouble {
        assert!(!one["next"].as_array().unwrap().is_empty(), "{one}");
    }
    let topics: Vec<_> = findings.iter().map(|one| one["topic"].as_str().unwrap()).collect();
    for topic in ["IOMMU", "module vfio-pci", "/dev/vfio/vfio", "iommufd", "locked memory"] {
        assert!(topics.contains(&topic), "{topic}: {topics:?}");
    }
}
