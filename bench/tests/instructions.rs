//! What the small parts cost in instructions, as callgrind counts them.

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

/// Instructions of the whole program when it runs a part so many times.
fn counted(program: &Path, part: &str, times: u32, folder: &Path) -> u64 {
    let out = folder.join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([part, &times.to_string()])
        .output()
        .expect("valgrind is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(out).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn parts_take_no_more_instructions_than_promised() {
    const TIMES: u32 = 10_000;
    let (program, folder) = (program(), tempfile::tempdir().unwrap());
    let mut too_many = Vec::new();
    let each = |part: &str| {
        // Start and end are the same in both.
        let few = counted(&program, part, TIMES, folder.path());
        let many = counted(&program, part, 2 * TIMES, folder.path());
        (many - few) as f64 / f64::from(TIMES)
    };
    let calling = each("nothing");
    for part in outboard_bench::parts() {
        let each = each(part.name) - calling;
        println!("{each:8.1} of {:5} instructions: {}", part.limit, part.name);
        assert!(each >= 5.0, "{part:?} was optimised away");
        if each > part.limit as f64 {
            too_many.push(format!("{part:?}: {each} instructions"));
        }
    }
    assert!(too_many.is_empty(), "{too_many:?}");
}
