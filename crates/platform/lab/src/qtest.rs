//! QEMU's `qtest` protocol: one line of text for each access.
//!
//! `writel ADDR VALUE` is answered `OK`, `readl ADDR` is answered `OK VALUE`; the ports have
//! `outl` and `inl`. Between answers come lines `IRQ raise N` and `IRQ lower N` for the interrupt
//! lines that are being watched.
//!
//! A write does not wait for its `OK`: it is posted, as on PCI. QEMU works the lines off in order,
//! so a read collects the answers to all writes before it.

use crate::LabError;
use outboard_linux::EventFd;
use rustix::net::{RecvFlags, recv};
use std::io::{Cursor, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long QEMU may take for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// For this long a read asks again and again before it sleeps: waking up costs more than asking.
const SPIN: Duration = Duration::from_micros(100);
/// Posted writes whose answers may be outstanding. Their answers have to fit into the socket, or
/// QEMU would block on sending them.
const MAX_POSTED: u32 = 256;
/// Interrupt lines of the I/O APIC that PCI pins are wired to on this machine.
const PCI_LINES: u32 = 0x00ff_0000;

/// The width of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Byte,
    Word,
    Long,
    Quad,
}

impl Width {
    const fn letter(self) -> char {
        match self {
            Self::Byte => 'b',
            Self::Word => 'w',
            Self::Long => 'l',
            Self::Quad => 'q',
        }
    }
}

/// Why no more answers are to be expected.
#[derive(Debug, Clone)]
pub(crate) enum Death {
    /// The connection ended, so QEMU has.
    Ended,
    /// No answer came in time.
    Silent,
    /// An answer made no sense.
    Protocol { command: String, answer: String },
}

/// The connection to QEMU.
#[derive(Debug)]
pub(crate) struct Qtest {
    stream: UnixStream,
    link: Mutex<Link>,
    death: OnceLock<Death>,
    /// Signalled when an interrupt line of a PCI pin is raised.
    pin: EventFd,
}

#[derive(Debug)]
struct Link {
    received: [u8; 4096],
    /// The part of `received` that was not looked at yet.
    start: usize,
    end: usize,
    /// Writes whose answers have not been seen.
    posted: u32,
    /// Interrupt lines that are raised.
    lines: u32,
}

impl Qtest {
    pub(crate) fn new(stream: UnixStream) -> Result<Self, LabError> {
        let system = |error| LabError::System { what: "preparing a socket", error };
        stream.set_read_timeout(Some(PATIENCE)).map_err(system)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(system)?;
        let pin = EventFd::new().map_err(LabError::system("eventfd"))?;
        let link = Link { received: [0; 4096], start: 0, end: 0, posted: 0, lines: 0 };
        Ok(Self { stream, link: Mutex::new(link), death: OnceLock::new(), pin })
    }

    /// Why no more answers are to be expected, if so.
    pub(crate) fn death(&self) -> Option<&Death> {
        self.death.get()
    }

    /// Waits until QEMU answers at all.
    pub(crate) fn greet(&self) -> Option<()> {
        let mut link = self.lock();
        self.send(&mut link, "endianness\n")?;
        self.answer(&mut link, "endianness").map(drop)
    }

    /// Asks to be told about the lines of the I/O APIC.
    pub(crate) fn watch_lines(&self) -> Option<()> {
        let mut link = self.lock();
        self.send(&mut link, "irq_intercept_in ioapic\n")?;
        self.answer(&mut link, "irq_intercept_in").map(drop)
    }

    /// Reads memory-mapped registers; all ones if QEMU is gone.
    pub(crate) fn read(&self, width: Width, address: u64) -> u64 {
        self.ask(format_args!("read{} {address:#x}\n", width.letter()))
    }

    /// Writes memory-mapped registers.
    pub(crate) fn write(&self, width: Width, address: u64, value: u64) {
        self.post(format_args!("write{} {address:#x} {value:#x}\n", width.letter()));
    }

    /// Reads ports; all ones if QEMU is gone.
    pub(crate) fn port_in(&self, width: Width, port: u16) -> u64 {
        self.ask(format_args!("in{} {port:#x}\n", width.letter()))
    }

    /// Writes ports.
    pub(crate) fn port_out(&self, width: Width, port: u16, value: u64) {
        self.post(format_args!("out{} {port:#x} {value:#x}\n", width.letter()));
    }

    /// What becomes readable when an interrupt line was raised, or may have been.
    pub(crate) fn pin_descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.pin.as_fd(), self.stream.as_fd()]
    }

    /// Whether a PCI interrupt line was raised since the last call. Never blocks.
    pub(crate) fn take_pin(&self) -> bool {
        let mut link = self.lock();
        while self.death.get().is_none() {
            if !self.take_lines(&mut link) || !self.receive(&mut link, RecvFlags::DONTWAIT) {
                break;
            }
        }
        self.pin.take()
    }

    /// Signals again if a PCI interrupt line is still raised.
    pub(crate) fn rearm_pin(&self) {
        if self.lock().lines & PCI_LINES != 0 {
            self.pin.signal();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, command: std::fmt::Arguments<'_>) -> u64 {
        let mut link = self.lock();
        let mut line = Cursor::new([0u8; 80]);
        let asked = self.format(&mut line, command).and_then(|text| {
            self.send(&mut link, text)?;
            let answer = self.answer(&mut link, text)?;
            answer.or_else(|| self.die(Death::protocol(text, "OK without a value")))
        });
        asked.unwrap_or(u64::MAX)
    }

    fn post(&self, command: std::fmt::Arguments<'_>) {
        let mut link = self.lock();
        let mut line = Cursor::new([0u8; 80]);
        let Some(text) = self.format(&mut line, command) else { return };
        if self.send(&mut link, text).is_some() {
            link.posted += 1;
            if link.posted >= MAX_POSTED {
                let _ = self.settle(&mut link);
            }
        }
    }

    /// The command as text, without allocating.
    fn format<'a>(
        &self,
        line: &'a mut Cursor<[u8; 80]>,
        command: std::fmt::Arguments<'_>,
    ) -> Option<&'a str> {
        line.write_fmt(command).ok()?;
        let len = line.position() as usize;
        std::str::from_utf8(&line.get_ref()[..len]).ok()
    }

    fn send(&self, _link: &mut Link, text: &str) -> Option<()> {
        if self.death.get().is_some() {
            return None;
        }
        match (&self.stream).write_all(text.as_bytes()) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.die(Death::Silent),
            Err(_) => self.die(Death::Ended),
        }
    }

    /// Collects the answers to all posted writes.
    fn settle(&self, link: &mut Link) -> Option<()> {
        while link.posted > 0 {
            self.next_answer(link, "a write")?;
            link.posted -= 1;
        }
        Some(())
    }

    /// The answer to the command that was sent last: the value in it, if any.
    fn answer(&self, link: &mut Link, command: &str) -> Option<Option<u64>> {
        self.settle(link)?;
        self.next_answer(link, command)
    }

    fn next_answer(&self, link: &mut Link, command: &str) -> Option<Option<u64>> {
        let began = Instant::now();
        loop {
            match link.take_line() {
                Some(Line::Ok(value)) => return Some(value),
                Some(Line::Interrupt { line, raised }) => {
                    self.note_interrupt(link, line, raised);
                    continue;
                }
                Some(Line::Other(text)) => return self.die(Death::protocol(command, &text)),
                None => {}
            }
            let patient = began.elapsed() > SPIN;
            let flags = if patient { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
            if !self.receive(link, flags) {
                if self.death.get().is_some() {
                    return None;
                }
                if patient {
                    return self.die(Death::Silent);
                }
            }
        }
    }

    /// Works off what was received outside of a command; whether to look for more.
    fn take_lines(&self, link: &mut Link) -> bool {
        while let Some(line) = link.take_line() {
            match line {
                Line::Interrupt { line, raised } => self.note_interrupt(link, line, raised),
                Line::Ok(None) if link.posted > 0 => link.posted -= 1,
                line => {
                    let text = format!("{line:?}");
                    let _: Option<()> = self.die(Death::protocol("nothing", &text));
                    return false;
                }
            }
        }
        true
    }

    fn note_interrupt(&self, link: &mut Link, line: u32, raised: bool) {
        let bit = 1u32.checked_shl(line).unwrap_or(0);
        if raised {
            link.lines |= bit;
            if bit & PCI_LINES != 0 {
                self.pin.signal();
            }
        } else {
            link.lines &= !bit;
        }
    }

    /// Receives some bytes; `false` if there were none in time, or no more will come.
    fn receive(&self, link: &mut Link, flags: RecvFlags) -> bool {
        use rustix::io::Errno;
        link.make_room();
        let room = &mut link.received[link.end..];
        if room.is_empty() {
            let text = String::from_utf8_lossy(&link.received);
            let _: Option<()> = self.die(Death::protocol("something", &text));
            return false;
        }
        match recv(&self.stream, room, flags) {
            Ok((0, _)) => {
                let _: Option<()> = self.die(Death::Ended);
                false
            }
            Ok((count, _)) => {
                link.end += count;
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            Err(_) => {
                let _: Option<()> = self.die(Death::Ended);
                false
            }
        }
    }

    /// Remembers why this is the end; later reasons are consequences.
    fn die<T>(&self, death: Death) -> Option<T> {
        let _ = self.death.set(death);
        None
    }
}

impl Death {
    fn protocol(command: &str, answer: &str) -> Self {
        Self::Protocol { command: command.trim().into(), answer: answer.trim().into() }
    }
}

/// A line that QEMU sent.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// `OK`, perhaps with a hexadecimal value. What else may follow is of no interest.
    Ok(Option<u64>),
    /// `IRQ raise N` or `IRQ lower N`.
    Interrupt { line: u32, raised: bool },
    /// Anything else, such as `FAIL …`.
    Other(String),
}

impl Line {
    fn parse(text: &str) -> Self {
        let mut words = text.split_ascii_whitespace();
        let parsed = match (words.next(), words.next(), words.next()) {
            (Some("OK"), value, None) => {
                let digits = value.and_then(|value| value.strip_prefix("0x"));
                Some(Self::Ok(digits.and_then(|digits| u64::from_str_radix(digits, 16).ok())))
            }
            (Some("IRQ"), Some(change @ ("raise" | "lower")), Some(line)) => {
                let raised = change == "raise";
                line.parse().ok().map(|line| Self::Interrupt { line, raised })
            }
            _ => None,
        };
        parsed.unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

impl Link {
    fn take_line(&mut self) -> Option<Line> {
        let unread = &self.received[self.start..self.end];
        let len = unread.iter().position(|byte| *byte == b'\n')?;
        let text = std::str::from_utf8(&unread[..len]).unwrap_or("(not text)");
        let line = Line::parse(text);
        self.start += len + 1;
        Some(line)
    }

    fn make_room(&mut self) {
        self.received.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A connection whose other end answers each line with the next of `answers`.
    fn scripted(answers: &'static [&'static str]) -> (Qtest, std::thread::JoinHandle<Vec<String>>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let peer = std::thread::spawn(move || {
            let mut asked = Vec::new();
            let (mut text, mut byte) = (String::new(), [0]);
            let mut answers = answers.iter();
            while theirs.read(&mut byte).is_ok_and(|count| count == 1) {
                if byte != *b"\n" {
                    text.push(byte[0].into());
                    continue;
                }
                asked.push(std::mem::take(&mut text));
                let Some(answer) = answers.next() else { break };
                theirs.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        (Qtest::new(ours).unwrap(), peer)
    }

    #[test]
    fn writes_are_posted_and_reads_collect_their_answers() {
        let (qtest, peer) = scripted(&["OK\n", "OK\n", "OK 0x00000000deadbeef\n"]);
        qtest.write(Width::Long, 0xfed0_0010, 7);
        qtest.port_out(Width::Word, 0xcfc, 0xffff);
        assert_eq!(qtest.read(Width::Long, 0xfed0_0010), 0xdead_beef);
        assert!(qtest.death().is_none());
        drop(qtest);
        let asked = ["writel 0xfed00010 0x7", "outw 0xcfc 0xffff", "readl 0xfed00010"];
        assert_eq!(peer.join().unwrap(), asked);
    }

    #[test]
    fn interrupt_lines_are_noted_wherever_they_come() {
        let (qtest, _peer) = scripted(&["IRQ raise 20\nIRQ raise 2\nOK 0x1\n", "OK 0x2\n"]);
        assert!(!qtest.take_pin());
        assert_eq!(qtest.read(Width::Byte, 0), 1);
        assert!(qtest.take_pin());
        assert!(!qtest.take_pin());
        qtest.rearm_pin();
        assert!(qtest.take_pin(), "the line is still raised");
    }

    #[test]
    fn the_end_of_the_connection_reads_as_all_ones() {
        let (qtest, _peer) = scripted(&[]);
        assert_eq!(qtest.read(Width::Long, 0), u64::MAX);
        assert!(matches!(qtest.death(), Some(Death::Ended)));
        qtest.write(Width::Long, 0, 0);
        assert_eq!(qtest.read(Width::Quad, 0), u64::MAX);
    }

    #[test]
    fn nonsense_is_an_error_and_not_a_panic() {
        for answers in [&["FAIL Unknown command\n"][..], &["OK\n"], &["\n"], &["OK 0x1 2\n"]] {
            let (qtest, _peer) = scripted(answers);
            assert_eq!(qtest.read(Width::Long, 0), u64::MAX);
            assert!(matches!(qtest.death(), Some(Death::Protocol { .. })), "{answers:?}");
        }
    }
}
