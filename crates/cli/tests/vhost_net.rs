//! Virtual machines, and other front ends, on network cards of ours.

mod support;

use outboard_guest::{Device, Guest};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use support::{Exporter, fails};

const SCRIPT: &str = include_str!("vhost_net.sh");
/// How much goes in each direction.
const BYTES: usize = 2 << 20;

#[test]
fn a_guest_gets_an_address_and_data_through_a_card_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let mut exporter = Exporter::start(&["--lab-net", "user"], folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = vec![0; BYTES];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    // It does not use the program.
    let guest = Guest::new("vhost-net")
        .device(Device::VhostUserNet { socket: exporter.socket.clone(), packed: true })
        .program("/bin/busybox")
        .without_iommu()
        .memory_mib(512)
        .variable("PORT", &port.to_string())
        .variable("BYTES", &BYTES.to_string());
    let report = guest.run(SCRIPT).unwrap();
    assert_eq!(report.code, 0, "{report}");
    assert!(report.stdout.ends_with("done\n"), "{report}");
    echo.join().unwrap();
    assert_eq!(exporter.end(), Some(0));
}

#[test]
fn cards_are_for_virtual_machines_and_say_so() {
    let error = fails(&["serve", "--lab-net", "user"], 2);
    assert!(error.contains("--vhost-user"), "{error}");
    let error = fails(&["serve", "--lab-net", "vde", "--vhost-user", "/tmp"], 2);
    assert!(error.contains("user[,packed] or tap=NAME"), "{error}");
    let nobody = ["serve", "--attach-vhost-user-net", "/nobody", "--vhost-user", "/tmp"];
    let error = fails(&nobody, 1);
    assert!(error.contains("net_vhost0,iface=/nobody"), "{error}");
}

/// DPDK's `testpmd` with a device, until it is dropped.
struct Testpmd {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Testpmd {
    fn start(name: &str, device: &str, forwards: &str) -> Self {
        let prefix = format!("outboard-{name}-{}", std::process::id());
        let mut command = Command::new("dpdk-testpmd");
        command.args([
            "--no-pci",
            "--no-huge",
            "-m",
            "128",
            "--no-telemetry",
            "--lcores",
            "0@0,1@0",
        ]);
        command.args(["--file-prefix", &prefix, "--vdev", device, "--", "--auto-start"]);
        command.args(["--forward-mode", forwards, "--stats-period", "1"]);
        command.args(["--total-num-mbufs", "2048"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("./test installs dpdk-testpmd");
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits for a line, and gives what follows these words in it.
    fn wait_for(&mut self, words: &str, enough: impl Fn(&str) -> bool) {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if line.split_once(words).is_some_and(|(_, rest)| enough(rest.trim())) {
                return;
            }
            line.clear();
        }
        panic!("dpdk-testpmd has ended");
    }

    /// Waits until frames have come.
    fn wait_for_frames(&mut self) {
        self.wait_for("RX-packets:", |rest| {
            let count = rest.split_whitespace().next().and_then(|count| count.parse().ok());
            count.is_some_and(|count: u64| count > 1000)
        });
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn dpdk_sends_frames_through_both_ends_of_ours_and_gets_them_back() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("dpdk.sock");
    let listen = || {
        let _ = std::fs::remove_file(&place);
        let device = format!("net_vhost0,iface={}", place.display());
        let mut back_end = Testpmd::start("back", &device, "macswap");
        back_end.wait_for("start packet forwarding", |_| true);
        back_end
    };
    let mut back_end = listen();
    let attach = ["--attach-vhost-user-net", place.to_str().unwrap()];
    let mut exporter = Exporter::start(&attach, folder.path());
    for options in ["packed_vq=0", "packed_vq=1,mrg_rxbuf=0", "packed_vq=1,in_order=0"] {
        let device = format!("net_virtio_user0,path={},{options}", exporter.socket.display());
        let mut front_end = Testpmd::start("front", &device, "flowgen");
        front_end.wait_for_frames();
        if options == "packed_vq=0" {
            // What it had is lost, and the card is back with the next one.
            drop(back_end);
            back_end = listen();
            back_end.wait_for_frames();
        }
    }
    assert_eq!(exporter.end(), Some(0));
}
