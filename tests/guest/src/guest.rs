//! A guest, from its description to what came of it.

use crate::device::MAX_DEVICES;
use crate::kernel::Kernel;
use crate::qemu::{self, End};
use crate::report::last_lines;
use crate::{Device, GuestError, Release, Report, initramfs, places, program};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a script may take unless it is told otherwise.
const USUAL_LIMIT: Duration = Duration::from_secs(300);
const USUAL_MEMORY_MIB: u32 = 1024;
/// What the kernel is always told.
///
/// A panic ends the guest. Time stands still when the machine is busy, so checks of timers and
/// watchdogs find faults that are none. Mitigations protect nobody here, and emulating them is slow.
const KERNEL_PARAMETERS: &str = "console=ttyS0 quiet panic=-1 oops=panic no_timer_check nowatchdog \
    rcupdate.rcu_cpu_stall_suppress=1 mitigations=off intel_iommu=on scsi_mod.scan=sync";

/// A guest that can be started. See the crate's description.
#[derive(Debug, Clone)]
pub struct Guest {
    name: String,
    devices: Vec<Device>,
    files: Vec<(String, PathBuf)>,
    tools: Vec<String>,
    environment: BTreeMap<String, String>,
    parameters: Vec<String>,
    program: Option<PathBuf>,
    release: Release,
    processors: u32,
    memory_mib: u32,
    limit: Duration,
    iommu: bool,
}

impl Guest {
    /// A guest without devices. Its logs get this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            devices: Vec::new(),
            files: Vec::new(),
            tools: Vec::new(),
            environment: BTreeMap::new(),
            parameters: Vec::new(),
            program: None,
            release: Release::default(),
            processors: 1,
            memory_mib: USUAL_MEMORY_MIB,
            limit: USUAL_LIMIT,
            iommu: true,
        }
    }

    /// Adds a device. The script finds the addresses of all devices of a kind, in order, in a
    /// variable: `$AHCI`, `$NVME`, `$VIRTIO_BLK`, `$VHOST_USER_BLK`, `$VHOST_USER_NET`,
    /// `$VIRTIO_NET`, `$E1000` or `$E1000E`.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.devices.push(device);
        self
    }

    /// Puts a file of this machine into the script's folder, under `name`.
    #[must_use]
    pub fn file(mut self, name: &str, path: impl Into<PathBuf>) -> Self {
        self.files.push((name.to_owned(), path.into()));
        self
    }

    /// Gives the guest a program of this machine, with its libraries, beside the usual ones.
    #[must_use]
    pub fn tool(mut self, name: &str) -> Self {
        self.tools.push(name.to_owned());
        self
    }

    /// Sets a variable for the script.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds a parameter to the kernel's command line.
    #[must_use]
    pub fn parameter(mut self, parameter: &str) -> Self {
        self.parameters.push(parameter.to_owned());
        self
    }

    /// Uses this `outboard`, which must need no libraries, rather than building one.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Chooses the kernel.
    #[must_use]
    pub fn kernel(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// Sets the number of processors (1 unless this is called).
    #[must_use]
    pub fn processors(mut self, processors: u32) -> Self {
        self.processors = processors;
        self
    }

    /// Sets the size of the memory (1 GiB unless this is called).
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Sets how long the script may take (5 minutes unless this is called).
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Leaves the IOMMU out.
    #[must_use]
    pub fn without_iommu(mut self) -> Self {
        self.iommu = false;
        self
    }

    /// Fetches and builds what the guest needs, so that running it takes no longer than it does.
    ///
    /// # Errors
    ///
    /// If that cannot be done.
    pub fn prepare(&self) -> Result<(), GuestError> {
        let kernel = Kernel::find(self.release)?;
        initramfs::layer(&kernel, &self.tools)?;
        self.job("").map(|_| ())
    }

    /// Boots the guest and runs `script` (POSIX shell, by busybox) there as root.
    ///
    /// What it leaves in the folder `$RESULTS` comes back. `outboard`, the usual tools (`cmp`, `dd`,
    /// `tar`, `mkfs.ext4`, `e2fsck`, `sgdisk`) and all of busybox are in its `PATH`; it runs in a
    /// folder with the files that it was given. Modules can be loaded with `modprobe`, and the
    /// drivers of all devices already are.
    ///
    /// # Errors
    ///
    /// If the guest cannot be made, panics, takes too long, or does not say how it ended. That the
    /// script failed is not an error but its [`code`](Report::code).
    pub fn run(&self, script: &str) -> Result<Report, GuestError> {
        let folder = tempfile::tempdir().map_err(GuestError::file(std::env::temp_dir()))?;
        let kernel = Kernel::find(self.release)?;
        let layer = initramfs::layer(&kernel, &self.tools)?;
        let initramfs = folder.path().join("initramfs");
        initramfs::write(&initramfs, &layer, &self.job(script)?)?;
        let logs = places::store().join("logs");
        fs::create_dir_all(&logs).map_err(GuestError::file(&logs))?;
        let console = logs.join(format!("{}.console", self.name));
        let began = Instant::now();
        let arguments = self.arguments(&kernel, &initramfs, &console, folder.path());
        let run = qemu::run(&arguments, &logs.join(format!("{}.qemu", self.name)), self.limit)?;
        let time = began.elapsed();
        let read = |path: &Path| {
            fs::read(path).map_or(String::new(), |b| String::from_utf8_lossy(&b).replace('\r', ""))
        };
        let stdout = read(&folder.path().join("stdout"));
        let stderr = read(&folder.path().join("stderr"));
        let console_text = read(&console);
        let log = format!(
            "--- standard output\n{}--- standard error\n{}--- console ({})\n{}",
            last_lines(&stdout),
            last_lines(&stderr),
            console.display(),
            last_lines(&console_text)
        );
        let panicked = console_text.lines().find(|line| line.contains("Kernel panic"));
        if let Some(line) = panicked {
            return Err(GuestError::Panicked { message: line.to_owned(), log });
        }
        match run.end {
            End::Ended => {}
            End::NotBooted(limit) => return Err(GuestError::NotBooted { limit, log }),
            End::TimedOut => return Err(GuestError::TimedOut { limit: self.limit, log }),
        }
        let out = folder.path().join("out");
        let code = unpack(&folder.path().join("results"), &out);
        let Some(code) = code else { return Err(GuestError::NoResult(log)) };
        let kernel_log = read(&out.join("kernel.log"));
        let boot_time = run.boot_time.unwrap_or(time);
        Ok(Report { code, stdout, stderr, kernel_log, boot_time, time, folder })
    }

    /// What the guest gets beside what every guest has.
    fn job(&self, script: &str) -> Result<Vec<(String, Vec<u8>)>, GuestError> {
        let program = self.program.clone().map_or_else(program::build, Ok)?;
        let files = self.files.iter().map(|(name, path)| (format!("job/{name}"), path.clone()));
        let files = files.chain([("usr/bin/outboard".to_owned(), program)]);
        let files =
            files.map(|(name, path)| Ok((name, fs::read(&path).map_err(GuestError::file(path))?)));
        let mut files = files.collect::<Result<Vec<_>, GuestError>>()?;
        let mut environment: BTreeMap<&str, String> = BTreeMap::new();
        for (index, device) in self.devices.iter().enumerate() {
            let addresses = environment.entry(device.variable()).or_default();
            if !addresses.is_empty() {
                addresses.push(' ');
            }
            addresses.push_str(&Device::address(index));
        }
        environment.extend(self.environment.iter().map(|(name, value)| (&**name, value.clone())));
        let quoted = |value: &str| value.replace('\'', r"'\''");
        let lines = environment.iter().map(|(name, value)| format!("{name}='{}'\n", quoted(value)));
        files.push(("job/environment".to_owned(), lines.collect::<String>().into_bytes()));
        files.push(("job/script".to_owned(), script.as_bytes().to_vec()));
        Ok(files)
    }

    fn arguments(
        &self,
        kernel: &Kernel,
        initramfs: &Path,
        console: &Path,
        to: &Path,
    ) -> Vec<String> {
        let parameters = [KERNEL_PARAMETERS.to_owned(), self.parameters.join(" ")].join(" ");
        let path = |path: &Path| path.display().to_string();
        let comma = |path: &Path| path.display().to_string().replace(',', ",,");
        let mut arguments: Vec<String> = [
            "-nodefaults -no-user-config -display none -no-reboot -accel tcg -machine q35",
            "-device virtio-serial-pci,addr=0x2",
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        .map(str::to_owned)
        .collect();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        if self.iommu {
            add("-device", "intel-iommu,intremap=on".to_owned());
        }
        add("-smp", self.processors.to_string());
        add("-m", self.memory_mib.to_string());
        if self.devices.iter().any(Device::shares_memory) {
            let size = format!("size={}M,share=on", self.memory_mib);
            add("-object", format!("memory-backend-memfd,id=memory,{size}"));
            add("-machine", "memory-backend=memory".to_owned());
        }
        add("-kernel", path(&kernel.image));
        add("-initrd", path(initramfs));
        add("-append", parameters);
        add("-chardev", format!("file,id=console,path={}", comma(console)));
        add("-serial", "chardev:console".to_owned());
        // QEMU's own standard output tells that the script begins.
        add("-chardev", "file,id=begin,path=/proc/self/fd/1".to_owned());
        add("-device", "virtserialport,chardev=begin,name=begin".to_owned());
        for port in ["stdout", "stderr", "results"] {
            add("-chardev", format!("file,id={port},path={}", comma(&to.join(port))));
            add("-device", format!("virtserialport,chardev={port},name={port}"));
        }
        assert!(self.devices.len() <= MAX_DEVICES, "a guest has room for {MAX_DEVICES} devices");
        for (index, device) in self.devices.iter().enumerate() {
            arguments.extend(device.arguments(index));
        }
        arguments
    }
}

/// Unpacks what the guest sent into `out`; the script's exit code, unless it is not there.
fn unpack(results: &Path, out: &Path) -> Option<i32> {
    fs::create_dir(out).ok()?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(results).arg("-C").arg(out).arg("--no-same-owner");
    let status = tar.stdin(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    let code = fs::read_to_string(out.join("code")).ok()?;
    status.success().then(|| code.trim().parse().ok())?
}
