//! The bench of the kernel's driver and ours.

use std::process::Command;

#[test]
fn the_bench_measures_every_way_and_draws_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_guest-bench"))
        .args(["--simulated", "--rounds", "1", "--seconds", "1", "--out"])
        .arg(folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = std::fs::read_to_string(folder.path().join("guest.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["schema"], &json["simulated"]), (&1.into(), &true.into()), "{text}");
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        for way in ["kernel", "interrupts", "adaptive", "polling"] {
            let way = &case["ways"][way];
            for figure in ["/per_second/median", "/p50_us/median", "/cpu_us_each/median"] {
                let figure = way.pointer(figure).and_then(serde_json::Value::as_f64);
                assert!(figure.is_some_and(|figure| figure > 0.0), "{case}");
            }
        }
        assert_eq!(case["ways"]["kernel"]["times_the_kernel"], 1.0, "{case}");
    }
    // An image that nobody can read is none: every element that is opened is closed.
    let plot = std::fs::read_to_string(folder.path().join("guest.svg")).unwrap();
    assert!(plot.starts_with("<svg ") && plot.ends_with("</svg>\n"), "{plot}");
    assert_eq!(plot.matches("<rect ").count(), 1 + 3 * 4, "{plot}");
    assert_eq!(plot.matches("<text ").count(), plot.matches("</text>").count());
}
