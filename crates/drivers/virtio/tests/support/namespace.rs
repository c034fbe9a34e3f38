//! A network of a test's own.

use std::process::Command;

/// Set in the environment of a test that is in a network of its own.
const INSIDE: &str = "OUTBOARD_TEST_IN_NAMESPACE";

/// Runs the test called `name` again in a network of its own, where it calls `test`.
///
/// Where the kernel lets nobody have one, nothing is tried, and the test says so.
#[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
pub fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--"]);
        command
    };
    // The kernel may know no namespaces, or no interfaces of this kind.
    let probe = unshare().args(["ip", "tuntap", "add", "dev", "probe", "mode", "tap"]).output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("{name}: not tried, as there is no network of its own to be had: {probe:?}");
        return;
    }
    let mut command = unshare();
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let output = command.env(INSIDE, "1").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

/// Runs `ip` with these words.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_ascii_whitespace()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {text}");
}

/// Gives an interface its addresses, 10.0.N.1 and fd00:N::1, and says that 10.0.N.2 and fd00:N::2
/// are behind it, at this address.
pub fn connect(interface: &str, number: usize, mac: &str) {
    ip(&format!("link set {interface} up"));
    ip(&format!("addr add 10.0.{number}.1/24 dev {interface}"));
    ip(&format!("-6 addr add fd00:{number}::1/64 dev {interface} nodad"));
    ip(&format!("neigh replace 10.0.{number}.2 lladdr {mac} dev {interface} nud permanent"));
    ip(&format!("-6 neigh replace fd00:{number}::2 lladdr {mac} dev {interface} nud permanent"));
}

/// Lets the kernel pass packets on.
pub fn forward() {
    for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
    }
}
