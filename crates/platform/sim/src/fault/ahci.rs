//! What the model of an HBA, its links and its disks can do wrong.

use super::{Cost, faults};

faults! {
    /// Something that goes wrong with a host bus adapter, its links or its disks.
    Fault;

    // The medium, and the firmware.
    /// A sector cannot be read until it is written again.
    Uncorrectable "uncorrectable" Sectors;
    /// A sector can neither be read nor written any more.
    UncorrectableForGood "uncorrectable-for-good" Sectors;
    /// The disk does not find a sector.
    IdNotFound "id-not-found" Sectors;
    /// A write ends with DF.
    WriteFault "write-fault" Retries;
    /// A command is aborted, once.
    Aborted "aborted" Retries;
    /// A command fails, and ERROR is 0.
    ErrorWithoutReason "error-without-reason" Retries;
    /// A command never ends.
    NeverEnds "never-ends" Retries;
    /// A command takes seconds.
    VerySlow "very-slow" Nothing;
    /// The disk stops working on anything.
    Stuck "stuck" Retries;
    /// BSY stays set after a command.
    BusyStuck "busy-stuck" Retries;
    /// DRQ stays set after a command.
    DataRequestStuck "data-request-stuck" Retries;
    /// The log of queued errors cannot be read.
    LogAborted "log-aborted" Nothing;
    /// The log of queued errors has a wrong checksum.
    LogDamaged "log-damaged" Nothing;
    /// The log of queued errors names a tag that was not issued.
    LogNamesStranger "log-names-stranger" Nothing;
    /// The log of queued errors names another command than the one that failed.
    LogNamesInnocent "log-names-innocent" Retries;
    /// The log says that no queued command failed.
    LogNotQueued "log-not-queued" Nothing;
    /// Reading the log never ends.
    LogNeverEnds "log-never-ends" Nothing;
    /// IDENTIFY DEVICE has a wrong checksum.
    IdentifyDamaged "identify-damaged" Nothing;
    /// IDENTIFY DEVICE is all zeros.
    IdentifyBlank "identify-blank" Nothing;
    /// IDENTIFY DEVICE is aborted.
    IdentifyAborted "identify-aborted" Nothing;
    /// IDENTIFY DEVICE never ends.
    IdentifyNeverEnds "identify-never-ends" Nothing;
    /// The disk starts anew by itself, and keeps its cache.
    FirmwareRestart "firmware-restart" Cache;
    /// The disk is without power for a moment.
    BrownOut "brown-out" Cache;
    /// Power is cut for a while.
    PowerCut "power-cut" Cache;
    /// After a reset the disk takes long to be ready.
    SpinUpSlow "spin-up-slow" Nothing;
    /// After a reset the disk is not ready until it is reset again.
    SpinUpNever "spin-up-never" Nothing;
    /// After a reset the disk reports a signature that nobody knows.
    SignatureWrong "signature-wrong" Nothing;

    // The link.
    /// A transfer is damaged: ICRC.
    InterfaceCrc "interface-crc" Retries;
    /// Several transfers in a row are damaged.
    CrcBurst "crc-burst" Retries;
    /// The link fails in the middle of a transfer: PxIS.IFS.
    InterfaceFatal "interface-fatal" Retries;
    /// The link fails, and goes on: PxIS.INFS.
    InterfaceNonFatal "interface-non-fatal" Nothing;
    /// PHY ready changes, and the link survives.
    LinkBlip "link-blip" Nothing;
    /// The link is lost for some milliseconds, and what is on it with it.
    LinkLost "link-lost" Cache;
    /// The link is lost for seconds.
    LinkLostLong "link-lost-long" Cache;
    /// The link comes and goes.
    LinkFlapping "link-flapping" Cache;
    /// A COMRESET is not answered.
    ComresetIgnored "comreset-ignored" Cache;
    /// The link takes long to come up after a COMRESET.
    LinkSlow "link-slow" Cache;
    /// Something is there after a COMRESET, and does not talk until the next.
    PresenceOnly "presence-only" Cache;
    /// A device announces itself, and nothing has happened to it.
    Announced "announced" Cache;
    /// Bits of PxSERR are set for no reason.
    ErrorsNoted "errors-noted" Nothing;
    /// A FIS of an unknown type arrives.
    UnknownFis "unknown-fis" Nothing;
    /// A register FIS arrives that nobody asked for, with an error in it.
    UnsolicitedRegisterFis "unsolicited-register-fis" Nothing;
    /// A set-device-bits FIS arrives for tags that were not issued.
    UnsolicitedBits "unsolicited-bits" Nothing;
    /// A set-device-bits FIS arrives twice.
    BitsTwice "bits-twice" Nothing;

    // The HBA.
    /// Data in memory could not be accessed: PxIS.HBDS.
    HostBusData "host-bus-data" Retries;
    /// The host bus failed: PxIS.HBFS.
    HostBusFatal "host-bus-fatal" Retries;
    /// The device wanted to transfer more than the PRDT has: PxIS.OFS.
    Overflow "overflow" Retries;
    /// PxCMD.CR stays set until the HBA is reset.
    EngineStuck "engine-stuck" Retries;
    /// PxCMD.CR takes long to clear.
    EngineSlow "engine-slow" Nothing;
    /// PxCI keeps its bits across a stop.
    IssueKept "issue-kept" Nothing;
    /// PxSACT keeps its bits across a stop.
    ActiveKept "active-kept" Nothing;
    /// A reset of the HBA takes most of its second.
    ResetSlow "reset-slow" Nothing;
    /// A reset of the HBA never ends.
    ResetNever "reset-never" Controller;
    /// AHCI mode has to be asked for several times.
    EnableReluctant "enable-reluctant" Nothing;
    /// The HBA is gone: everything reads as all ones.
    Removed "removed" Controller;
    /// A port's register reads as all ones, once.
    OnesOnce "ones-once" Retries;
    /// PxTFD reads as nonsense, once.
    TaskFileGarbage "task-file-garbage" Retries;
    /// PxSSTS reads as nonsense, once.
    StatusGarbage "status-garbage" Cache;
    /// PxIS has bits that mean nothing.
    InterruptGarbage "interrupt-garbage" Nothing;
    /// IS has bits of ports that do not exist.
    StrangersPending "strangers-pending" Nothing;
    /// PxCI shows a slot that was not issued.
    StrayIssue "stray-issue" Retries;
    /// PxSACT shows a tag that was not issued.
    StrayActive "stray-active" Retries;
    /// The count of bytes transferred is too small.
    CountShort "count-short" Retries;
    /// The count of bytes transferred is too large.
    CountLong "count-long" Retries;
    /// The received FIS area is overwritten with nonsense.
    ReceivedGarbage "received-garbage" Nothing;
    /// The received FIS area is not updated.
    ReceivedStale "received-stale" Sectors;

    // Interrupts.
    /// An interrupt is lost.
    InterruptLost "interrupt-lost" Nothing;
    /// An interrupt comes late.
    InterruptLate "interrupt-late" Nothing;
    /// An interrupt comes for nothing.
    InterruptSpurious "interrupt-spurious" Nothing;
    /// Interrupts come by the thousand.
    InterruptStorm "interrupt-storm" Nothing;
    /// No interrupt comes for a second.
    InterruptsStop "interrupts-stop" Nothing;
    /// IS is not set for what PxIS has.
    PendingNotSet "pending-not-set" Nothing;
    /// A command ends, and PxIS says nothing.
    StatusNotSet "status-not-set" Nothing;

    // Hot-plug.
    /// The disk is pulled out, and never comes back.
    Unplug "unplug" Disk;
    /// The disk is pulled out, and plugged in again after a while.
    Replug "replug" Disk;
    /// The disk is pulled out, and another one is plugged in.
    ReplugOther "replug-other" Disk;

    // Port multipliers, and what is behind them.
    /// A disk behind a multiplier is pulled out, and never comes back.
    BehindUnplug "behind-unplug" Disk;
    /// A disk behind a multiplier is pulled out, and plugged in again after a while.
    BehindReplug "behind-replug" Disk;
    /// A disk behind a multiplier is pulled out, and another one is plugged in.
    BehindReplugOther "behind-replug-other" Disk;
    /// The link between a multiplier and a disk is lost for some milliseconds.
    BehindLinkLost "behind-link-lost" Cache;
    /// A multiplier starts anew by itself; the disks behind it keep their power.
    MultiplierRestart "multiplier-restart" Cache;
    /// A multiplier does not tell that something has changed at its ports.
    NotificationLost "notification-lost" Nothing;
    /// A multiplier tells that something has changed, and nothing has.
    NotificationSpurious "notification-spurious" Nothing;
    /// The last frame of a command names another port of the multiplier: PxIS.IPMS.
    WrongMultiplierPort "wrong-multiplier-port" Retries;
    /// A multiplier aborts a command for its own registers.
    RegisterAborted "register-aborted" Nothing;
    /// A multiplier does not end a command for its own registers.
    RegisterNeverEnds "register-never-ends" Nothing;
    /// A command is aborted, and with FIS-based switching that stops the whole port.
    ErrorNotSingle "error-not-single" Retries;
}

impl Fault {
    /// Those that need a multiplier at the port.
    pub const OF_MULTIPLIERS: [Self; 11] = [
        Self::BehindUnplug,
        Self::BehindReplug,
        Self::BehindReplugOther,
        Self::BehindLinkLost,
        Self::MultiplierRestart,
        Self::NotificationLost,
        Self::NotificationSpurious,
        Self::WrongMultiplierPort,
        Self::RegisterAborted,
        Self::RegisterNeverEnds,
        Self::ErrorNotSingle,
    ];
}
