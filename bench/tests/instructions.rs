//! What the small parts cost in instructions, as callgrind counts them.

use outboard_bench::Part;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the program that runs parts, optimised whatever this test is.
fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "-p", "outboard-bench", "--example"])
        .arg("instructions")
        .current_dir(&root)
        .status()
        .unwrap();
    assert!(built.success());
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    target.join("release/examples/instructions")
}

/// Instructions of the whole program, or of its marked functions, when it runs a part so many times.
fn counted(program: &Path, part: &Part, times: u64, folder: &Path) -> u64 {
    let out = folder.join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .args(part.is_marked.then_some("--toggle-collect=*marked_*"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([part.name, &times.to_string()])
        .output()
        .expect("valgrind is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(out).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// How often what is marked is done: enough for batches of any size.
const MARKED_TIMES: u64 = 1024;

#[test]
fn parts_take_no_more_instructions_than_promised() {
    // Of batches, one size says whether the driver got worse.
    check(|part| !part.is_marked || part.times == 32);
}

#[test]
#[ignore = "the whole table, for docs/PERFORMANCE.md"]
fn batches_of_all_sizes_take_no_more_instructions_than_promised() {
    check(|part| part.is_marked);
}

/// Counts the parts that are chosen.
#[expect(clippy::print_stdout, reason = "for whoever asks for it")]
fn check(chosen: impl Fn(&Part) -> bool) {
    const TIMES: u64 = 10_000;
    let (program, folder) = (program(), tempfile::tempdir().unwrap());
    let mut too_many = Vec::new();
    let each = |part: &Part| {
        if part.is_marked {
            // What is counted begins and ends with what is to be counted.
            let rounds = (MARKED_TIMES / part.times).max(1);
            let counted = counted(&program, part, rounds, folder.path());
            return counted as f64 / (rounds * part.times) as f64;
        }
        // Start and end are the same in both.
        let few = counted(&program, part, TIMES, folder.path());
        let many = counted(&program, part, 2 * TIMES, folder.path());
        (many - few) as f64 / TIMES as f64
    };
    let calling = each(&outboard_bench::part("nothing").unwrap());
    for part in outboard_bench::parts().into_iter().filter(chosen) {
        let each = each(&part) - if part.is_marked { 0.0 } else { calling };
        println!("{each:8.1} of {:5} instructions: {}", part.limit, part.name);
        assert!(each >= 5.0, "{part:?} was optimised away");
        if each > part.limit as f64 {
            too_many.push(format!("{part:?}: {each} instructions"));
        }
    }
    assert!(too_many.is_empty(), "{too_many:?}");
}
