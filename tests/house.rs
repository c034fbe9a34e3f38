//! What every crate promises, and `docs/ARCHITECTURE.md` and `docs/SOUNDNESS.md` say of it.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The floors of the house, from the ground up: dependencies point downwards.
const FLOORS: [&str; 7] = [
    "crates/hw",
    "crates/pci",
    "crates/class/",
    "crates/drivers/",
    "crates/platform/",
    "crates/service/",
    "crates/cli",
];

/// The crates that may contain `unsafe`, and the files of each that do.
const UNSAFE: [(&str, &[&str]); 4] = [
    (
        "crates/hw",
        &[
            "dma/arena.rs",
            "dma/block.rs",
            "dma/buffer.rs",
            "dma/copy.rs",
            "dma/foreign.rs",
            "dma/model.rs",
            "dma/pool.rs",
            "dma/view.rs",
        ],
    ),
    ("crates/platform/lab", &["machine.rs", "process.rs"]),
    ("crates/platform/linux", &["bus_error.rs", "foreign.rs", "io_memory.rs", "memory.rs"]),
    ("crates/platform/vfio", &["ioctl.rs", "memory.rs", "reach.rs", "space.rs"]),
];

/// The floors whose crates run without an operating system.
const BARE_FLOORS: [&str; 4] = ["crates/hw", "crates/pci", "crates/class/", "crates/drivers/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folders of the workspace's crates, each with the ones that it depends on; what only tests
/// need is left out.
fn crates() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let root = root().canonicalize().unwrap();
    let folder = |path: &Value| {
        let path = Path::new(path.as_str().unwrap());
        let path = if path.ends_with("Cargo.toml") { path.parent().unwrap() } else { path };
        path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    let crates = packages.map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let ours = dependencies.filter(|one| one["kind"].is_null() && !one["path"].is_null());
        (folder(&package["manifest_path"]), ours.map(|one| folder(&one["path"])).collect())
    });
    let crates: BTreeMap<_, _> = crates.collect();
    assert!(crates.len() > 9, "{crates:?}");
    crates
}

fn floor(folder: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| folder.starts_with(floor))
}

/// All Rust files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().unwrap() != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The root of the crate in `folder`.
fn crate_root(folder: &str) -> PathBuf {
    let folder = root().join(folder);
    let roots = ["src/lib.rs", "src/main.rs", "lib.rs"].map(|name| folder.join(name));
    roots.into_iter().find(|path| path.exists()).expect("a crate has a root")
}

#[test]
fn every_crate_but_the_named_ones_forbids_unsafe() {
    for folder in crates().keys() {
        let text = read(&crate_root(folder));
        let Some((_, files)) = UNSAFE.iter().find(|(name, _)| name == folder) else {
            assert!(text.contains("\n#![forbid(unsafe_code)]\n"), "{folder}");
            continue;
        };
        // It is denied there, too, and each file that needs it says so.
        assert!(text.contains("\n#![deny(unsafe_code)]\n"), "{folder}");
        let source = root().join(folder).join("src");
        let allowing = sources(&source).into_iter().filter(|path| {
            let text = read(path);
            text.contains("allow(unsafe_code)") || text.contains("expect(unsafe_code)")
        });
        let name = |path: PathBuf| path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let allowing: BTreeSet<String> = allowing.map(name).collect();
        assert_eq!(allowing, files.iter().map(|file| (*file).to_owned()).collect(), "{folder}");
    }
}

#[test]
fn safety_comments_name_invariants_that_are_written_down() {
    let soundness = read(&root().join("docs/SOUNDNESS.md"));
    let mut comments = 0;
    for path in sources(&root().join("crates")) {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            if !line.starts_with("// SAFETY:") {
                continue;
            }
            comments += 1;
            let comment = lines[number..].iter().take_while(|line| line.starts_with("//"));
            let comment = comment.copied().collect::<Vec<_>>().join(" ");
            let words = comment.split(|c: char| !c.is_ascii_alphanumeric());
            let named: Vec<&str> = words.filter(|word| is_invariant(word)).collect();
            let at = format!("{}:{}", path.display(), number + 1);
            assert!(!named.is_empty(), "{at} names no invariant");
            for name in named {
                assert!(soundness.contains(&format!("**{name}**")), "{at}: {name}");
            }
        }
    }
    assert!(comments > 30);
}

/// Whether a word is the name of an invariant, such as S1.
fn is_invariant(word: &str) -> bool {
    word.strip_prefix('S').is_some_and(|number| number.parse::<u8>().is_ok())
}

#[test]
fn dependencies_point_downwards() {
    for (folder, dependencies) in crates() {
        let Some(own) = floor(&folder) else { continue };
        for dependency in dependencies {
            let other = floor(&dependency);
            assert!(other.is_some_and(|other| other <= own), "{folder} needs {dependency}");
            // Drivers know nothing of each other, nor do classes.
            let alone =
                folder.starts_with("crates/drivers/") || folder.starts_with("crates/class/");
            assert!(!alone || other < Some(own), "{folder} needs {dependency}");
        }
    }
}

#[test]
fn the_lower_floors_run_without_an_operating_system() {
    for folder in crates().keys() {
        if BARE_FLOORS.iter().any(|floor| folder.starts_with(floor)) {
            assert!(read(&crate_root(folder)).contains("\n#![no_std]\n"), "{folder}");
        }
    }
    // Nor does what they need bring one in: a program with a panic handler of its own says so.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--manifest-path"])
        .arg(root().join("tests/bare/Cargo.toml"))
        .arg("--target-dir")
        .arg(target.join("bare"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_crate_stands_on_the_map() {
    let map = read(&root().join("docs/ARCHITECTURE.md"));
    for folder in crates().keys() {
        assert!(map.contains(&format!("`{folder}`")), "{folder} is not in docs/ARCHITECTURE.md");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = vec![root()];
    documents.extend([root().join("docs"), root().join("docs/drivers")]);
    let files = documents.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    let mut links = 0;
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = read(&path);
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            let there = path.parent().unwrap().join(target);
            assert!(there.exists(), "{}: {target}", path.display());
        }
    }
    assert!(links > 5);
}
