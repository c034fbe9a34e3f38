//! The goals in numbers, measured with the optimised program in the lab.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the program, optimised whatever this test is.
fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "-p", "outboard"])
        .current_dir(&root)
        .status()
        .unwrap();
    assert!(built.success());
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    target.join("release/outboard")
}

#[test]
fn the_lab_is_as_fast_as_promised() {
    let output = Command::new(program()).args(["--json", "bench", "--seconds", "2"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    println!("{text}");
    let line = |through: &str, pattern: &str, depth: u64| {
        let found = lines.iter().find(|line| {
            line["through"] == through && line["pattern"] == pattern && line["depth"] == depth
        });
        found.unwrap_or_else(|| panic!("{through}, {pattern}, {depth} is not among {text}"))
    };
    let number = |line: &Value, name: &str| line[name].as_f64().unwrap();

    let driver = line("driver, interrupts", "random read", 32);
    assert_eq!(driver["bytes"], 4096);
    assert!(number(driver, "transfers_per_second") >= 20_000.0, "{driver}");
    // What carries over to hardware; it does not depend on how busy this machine is.
    let accesses = number(driver, "register_reads_each") + number(driver, "register_writes_each");
    assert!(accesses <= 0.5, "{driver}");

    let sequential =
        lines.iter().find(|line| line["through"] == "9P" && line["pattern"] == "sequential read");
    assert!(number(sequential.unwrap(), "megabytes_per_second") >= 400.0, "{sequential:?}");
}
