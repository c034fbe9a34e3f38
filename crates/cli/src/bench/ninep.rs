//! Through a server, over 9P: another process of this program.

use super::{Clock, Measurement, Places, Setup, Target};
use anyhow::{Context, Result, bail};
use outboard_lab::Media;
use outboard_ninep::Address;
use outboard_ninep::client::{Client, Fid, Mode};
use outboard_vfio::Confinement;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What is measured.
const PATH: &str = "sdC0/data";
/// Before a measurement, everything is warmed up for this part of its time.
const WARM_UP: u32 = 10;

pub(crate) fn measure(disk: &Target, setup: &Setup) -> Result<Measurement> {
    let folder = tempfile::tempdir().context("no folder for a socket")?;
    let address = Address::Unix(folder.path().join("9p"));
    let _server = Server::start(disk, &address)?;
    let client = &mut Client::connect(&address)?;
    let mode = if setup.is_write() { Mode::Write } else { Mode::Read };
    let fid = client.walk(PATH)?;
    client.open(&fid, mode)?;
    let bytes = client.stat(&fid)?.bytes;
    // A message of a MiB holds a little less than a MiB of data.
    let setup = Setup { bytes: setup.bytes.min(client.chunk_bytes()), ..*setup };
    let mut places = Places::new(&setup, bytes);
    let mut warm = Clock::new(setup.depth)?;
    run(client, &fid, &setup, setup.seconds / WARM_UP, &mut places, &mut warm)?;
    let mut clock = Clock::new(setup.depth)?;
    let seconds = run(client, &fid, &setup, setup.seconds, &mut places, &mut clock)?;
    Ok(clock.measurement(&setup, seconds, None))
}

fn run(
    client: &mut Client,
    fid: &Fid,
    setup: &Setup,
    time: Duration,
    places: &mut Places,
    clock: &mut Clock,
) -> Result<f64> {
    let data = vec![0x5a; setup.bytes];
    let mut idle: Vec<u16> = (0..setup.depth).collect();
    while clock.elapsed() < time || idle.len() < setup.depth.into() {
        while let Some(tag) = idle.pop_if(|_| clock.elapsed() < time) {
            let offset = places.next();
            clock.start(tag.into());
            match setup.is_write() {
                true => client.start_write(tag, fid, offset, &data)?,
                false => client.start_read(tag, fid, offset, setup.bytes)?,
            }
        }
        if idle.len() == usize::from(setup.depth) {
            break;
        }
        let tag = client.finish(|tag, transferred| transferred.map(|_| tag))??;
        clock.end(tag.into());
        idle.push(tag);
    }
    Ok(clock.elapsed().as_secs_f64())
}

/// A server that ends with this value.
struct Server(Child);

impl Server {
    fn start(disk: &Target, address: &Address) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--quiet", "serve", "--9p", &address.to_string()]);
        match disk {
            Target::Lab(disk) => {
                if let Media::Image { path, .. } = &disk.media {
                    path.to_str().context("the image's name is not UTF-8")?;
                }
                command.args(["--lab", &disk.to_string()])
            }
            Target::Sim(disk) => command.args(["--sim", &disk.to_string()]),
            Target::VhostUser(disk) => command.args(["--attach-vhost-user", &disk.to_string()]),
            Target::Pci(address, confinement) => {
                if *confinement == Confinement::DevicesReachAllMemory {
                    command.arg("--let-devices-reach-all-memory");
                }
                command.args(["--pci", &address.to_string()])
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = Self(command.spawn().context("the server did not start")?);
        let out = server.0.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        if !line.starts_with("ready ") {
            bail!("the server is not ready");
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}
