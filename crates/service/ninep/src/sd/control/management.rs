//! Commands about what a disk can be asked and told beside its data.

use super::{Secret, number};
use outboard_block::Management;
use outboard_block::manage::{LinkPower, Password, Power, SelfTest};

/// The commands, as they are written.
pub(super) const COMMANDS: [&str; 23] = [
    "smart on|off",
    "selftest short|long|conveyance|abort",
    "power",
    "standby",
    "idle",
    "wake",
    "sleep",
    "standby-timer SECONDS",
    "apm LEVEL|off",
    "cache on|off",
    "lookahead on|off",
    "link-power full|partial|slumber|devsleep",
    "unlock [master] PASSWORD",
    "security freeze",
    "security set [master|maximum] PASSWORD SERIAL",
    "security disable [master] PASSWORD",
    "security erase [enhanced] [master] PASSWORD SERIAL",
    "native-capacity",
    "capacity SECTORS SERIAL",
    "eject",
    "load",
    "lock-medium on|off",
    "locate|fault on|off",
];

/// Something that a disk is to be asked or told.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sd) struct Order {
    pub(in crate::sd) what: Management,
    pub(in crate::sd) password: Option<Secret>,
    /// Serial number of the disk that is meant, where another one would lose its data.
    pub(in crate::sd) serial: Option<String>,
}

impl From<Management> for Order {
    fn from(what: Management) -> Self {
        Self { what, password: None, serial: None }
    }
}

impl Order {
    /// Reads a command; `None` if there is none that begins so, and else what is wrong with it.
    pub(super) fn parse(verb: &str, arguments: &[&str]) -> Option<Result<Self, String>> {
        use Management::{
            Eject, FaultLight, Load, Locate, LockMedium, ReadNativeCapacity, ReadPower, SetHealth,
            SetLookAhead, SetPower, SetWriteCache,
        };
        let first = arguments.first().copied().unwrap_or_default();
        let switch = |order: fn(bool) -> Management| {
            one_of(first, [("on", order(true)), ("off", order(false))])
        };
        let order = match verb {
            "smart" => switch(SetHealth),
            "cache" => switch(SetWriteCache),
            "lookahead" => switch(SetLookAhead),
            "lock-medium" => switch(LockMedium),
            "locate" => switch(Locate),
            "fault" => switch(FaultLight),
            "selftest" => one_of(first, SELF_TESTS).map(Management::SelfTest),
            "link-power" => one_of(first, LINK_POWERS).map(Management::SetLinkPower),
            "standby-timer" => seconds(first),
            "apm" => power_level(first),
            "power" | "standby" | "idle" | "wake" | "sleep" | "eject" | "load"
            | "native-capacity" => {
                let what = match verb {
                    "power" => ReadPower,
                    "standby" => SetPower(Power::Standby),
                    "idle" => SetPower(Power::Idle),
                    "wake" => SetPower(Power::Active),
                    "sleep" => SetPower(Power::Sleep),
                    "eject" => Eject,
                    "load" => Load,
                    _ => ReadNativeCapacity,
                };
                return Some(nothing_after(verb, arguments).map(|()| what.into()));
            }
            "unlock" => return Some(unlock(arguments)),
            "security" => return Some(security(arguments)),
            "capacity" => return Some(capacity(arguments)),
            _ => return None,
        };
        let rest = arguments.get(1..).unwrap_or_default();
        Some(order.and_then(|what| {
            nothing_after(verb, rest)?;
            Ok(what.into())
        }))
    }
}

const SELF_TESTS: [(&str, SelfTest); 4] = [
    ("short", SelfTest::Short),
    ("long", SelfTest::Extended),
    ("conveyance", SelfTest::Conveyance),
    ("abort", SelfTest::Abort),
];

const LINK_POWERS: [(&str, LinkPower); 4] = [
    ("full", LinkPower::Full),
    ("partial", LinkPower::Partial),
    ("slumber", LinkPower::Slumber),
    ("devsleep", LinkPower::DeviceSleep),
];

/// What goes by that name.
fn one_of<V: Copy, const N: usize>(word: &str, choices: [(&str, V); N]) -> Result<V, String> {
    let found = choices.iter().find(|(name, _)| *name == word);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        format!("{word:?} is none of {}", names.join(", "))
    })
}

fn nothing_after(verb: &str, rest: &[&str]) -> Result<(), String> {
    match rest {
        [] => Ok(()),
        [word, ..] => Err(format!("{word:?} does not belong behind {verb:?}")),
    }
}

fn seconds(word: &str) -> Result<Management, String> {
    let seconds = number(word).and_then(|seconds| u32::try_from(seconds).ok());
    let seconds = seconds.ok_or_else(|| format!("{word:?} is no number of seconds; 0 is never"))?;
    Ok(Management::SetStandbyTimer(seconds))
}

fn power_level(word: &str) -> Result<Management, String> {
    const OFF: u8 = 255;
    if word == "off" {
        return Ok(Management::SetPowerLevel(OFF));
    }
    let level = number(word).and_then(|level| u8::try_from(level).ok());
    let level = level.filter(|level| (1..OFF).contains(level));
    let message = || format!("{word:?} is no level: 1 saves most, 254 is fastest, or off");
    level.map(Management::SetPowerLevel).ok_or_else(message)
}

/// Takes a word off the front, if it is there.
fn take(words: &mut &[&str], word: &str) -> bool {
    let found = words.first() == Some(&word);
    if found {
        *words = &words[1..];
    }
    found
}

/// Takes which password it is, and the password, off the front.
fn password(words: &mut &[&str]) -> Result<(Password, Secret), String> {
    let which = if take(words, "master") { Password::Master } else { Password::User };
    let (word, rest) = words.split_first().ok_or("the password is missing")?;
    *words = rest;
    Ok((which, Secret::parse(word)?))
}

/// The rest of a command: the disk's serial number, which may have spaces in it.
fn serial(words: &[&str]) -> Result<String, String> {
    match words {
        [] => Err("the disk's serial number has to be at the end, lest this reaches another disk"
            .to_owned()),
        words => Ok(words.join(" ")),
    }
}

fn unlock(mut words: &[&str]) -> Result<Order, String> {
    let (which, secret) = password(&mut words)?;
    nothing_after("unlock", words)?;
    Ok(Order { what: Management::Unlock(which), password: Some(secret), serial: None })
}

fn security(words: &[&str]) -> Result<Order, String> {
    let (verb, mut words) = words.split_first().ok_or("security needs to know what to do")?;
    match *verb {
        "freeze" => nothing_after("freeze", words).map(|()| Management::FreezeSecurity.into()),
        "set" => {
            let maximum = take(&mut words, "maximum");
            let (which, secret) = password(&mut words)?;
            if maximum && which == Password::Master {
                return Err("maximum goes with the user's password, not with the master's".into());
            }
            let what = Management::SetPassword { which, maximum };
            Ok(Order { what, password: Some(secret), serial: Some(serial(words)?) })
        }
        "disable" => {
            let (which, secret) = password(&mut words)?;
            nothing_after("disable", words)?;
            let what = Management::DisablePassword(which);
            Ok(Order { what, password: Some(secret), serial: None })
        }
        "erase" => {
            let enhanced = take(&mut words, "enhanced");
            let (which, secret) = password(&mut words)?;
            let what = Management::Erase { which, enhanced };
            Ok(Order { what, password: Some(secret), serial: Some(serial(words)?) })
        }
        verb => Err(format!("{verb:?} is none of set, disable, erase, freeze")),
    }
}

fn capacity(words: &[&str]) -> Result<Order, String> {
    let (sectors, rest) = words.split_first().ok_or("the number of sectors is missing")?;
    let number = number(sectors).filter(|sectors| *sectors > 0);
    let sectors = number.ok_or_else(|| format!("{sectors:?} is no number of sectors"))?;
    let what = Management::SetCapacity { sectors };
    Ok(Order { what, password: None, serial: Some(serial(rest)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Order, String> {
        let words: Vec<_> = text.split_whitespace().collect();
        Order::parse(words[0], &words[1..]).expect("a command")
    }

    #[test]
    fn commands_are_read() {
        for (text, what) in [
            ("smart off", Management::SetHealth(false)),
            ("selftest long", Management::SelfTest(SelfTest::Extended)),
            ("standby-timer 600", Management::SetStandbyTimer(600)),
            ("apm off", Management::SetPowerLevel(255)),
            ("apm 0x80", Management::SetPowerLevel(128)),
            ("wake", Management::SetPower(Power::Active)),
            ("link-power devsleep", Management::SetLinkPower(LinkPower::DeviceSleep)),
            ("fault on", Management::FaultLight(true)),
            ("security freeze", Management::FreezeSecurity),
        ] {
            assert_eq!(parse(text), Ok(what.into()), "{text}");
        }
        let order = parse("security erase enhanced master hex:41 WD WX 11").unwrap();
        let erase = Management::Erase { which: Password::Master, enhanced: true };
        assert_eq!(order.what, erase);
        assert_eq!(order.password.unwrap().bytes(), b"A");
        assert_eq!(order.serial.unwrap(), "WD WX 11");
        let order = parse("capacity 1000 QM1").unwrap();
        assert_eq!(order.what, Management::SetCapacity { sectors: 1000 });
        // A password may be that word.
        let order = parse("unlock text:master").unwrap();
        assert_eq!(order.what, Management::Unlock(Password::User));
        assert_eq!(Order::parse("lock", &[]), None);
    }

    #[test]
    fn what_destroys_data_needs_the_serial_number_and_nonsense_is_refused() {
        for text in
            ["security erase text:a", "security set text:a", "capacity 5", "security set maximum x"]
        {
            parse(text).unwrap_err();
        }
        let error = parse("security erase text:a").unwrap_err();
        assert!(error.contains("serial number"), "{error}");
        for text in [
            "smart",
            "smart yes",
            "smart on off",
            "apm 0",
            "apm 255",
            "apm 256",
            "standby now",
            "standby-timer -1",
            "selftest",
            "unlock",
            "unlock master",
            "unlock secret",
            "unlock text:a b",
            "security",
            "security thaw",
            "security set master maximum text:a S",
            "security freeze now",
            "capacity 0 S",
            "capacity x S",
        ] {
            parse(text).unwrap_err();
        }
    }

    #[test]
    fn every_command_in_the_list_exists() {
        for command in COMMANDS {
            for verb in command.split(' ').next().unwrap().split('|') {
                assert!(Order::parse(verb, &["?"]).is_some(), "{verb}");
            }
        }
    }
}
