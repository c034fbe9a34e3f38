//! What the model of a virtio disk can do wrong.

use super::{Cost, faults};

faults! {
    /// Something that goes wrong with a virtio disk.
    VirtioFault;

    // What it says in its rings.
    /// A used entry names a descriptor that the ring does not have.
    UsedIdOutOfRange "used-id-out-of-range" Retries;
    /// A used entry comes twice.
    UsedIdRepeated "used-id-repeated" Retries;
    /// A used entry names a descriptor that is free.
    UsedIdFree "used-id-free" Retries;
    /// A used entry names a descriptor in the middle of a chain.
    UsedIdMiddle "used-id-middle" Retries;
    /// A used entry names another request, which is not done.
    UsedIdOther "used-id-other" Retries;
    /// A used entry says that a byte more was written than could be.
    UsedLengthLong "used-length-long" Retries;
    /// A used entry says that four gigabytes were written.
    UsedLengthHuge "used-length-huge" Retries;
    /// A used entry says that less was written than was.
    UsedLengthShort "used-length-short" Nothing;
    /// A used entry says that nothing was written.
    UsedLengthZero "used-length-zero" Nothing;
    /// The used index is ahead by one entry that is not there.
    UsedIndexAhead "used-index-ahead" Retries;
    /// The used index is ahead by a ring.
    UsedIndexByRing "used-index-by-ring" Retries;
    /// The used index goes back by one.
    UsedIndexBack "used-index-back" Retries;
    /// The used index comes before its entry.
    UsedEntryLate "used-entry-late" Retries;
    /// A used entry is some places behind the one that it belongs to.
    UsedFarAhead "used-far-ahead" Retries;
    /// A used descriptor of a packed ring has the other turn's wrap counter.
    WrapWrong "wrap-wrong" Retries;
    /// A used descriptor of a packed ring has one of its two flags.
    FlagsHalf "flags-half" Retries;
    /// A request is done, and no used entry says so.
    CompletionLost "completion-lost" Retries;
    /// A device that has promised an order uses a buffer before those that came first.
    OutOfOrder "out-of-order" Retries;
    /// The used entry comes before data and status.
    StatusLate "status-late" Retries;
    /// The descriptors of a ring are overwritten.
    DescriptorsRewritten "descriptors-rewritten" Nothing;
    /// What the driver tells is overwritten: the entries of the available ring that were read, and
    /// from where on it wants interrupts.
    AvailableRewritten "available-rewritten" Nothing;
    /// What begins a request is overwritten.
    HeaderRewritten "header-rewritten" Nothing;

    // Telling each other.
    /// It wants no notifications, and sleeps.
    NotifyNever "notify-never" Retries;
    /// It wants notifications, although it is awake.
    NotifyAlways "notify-always" Nothing;
    /// It does not say any more from where on it wants notifications.
    EventStuck "event-stuck" Retries;
    /// It says nonsense of when it wants notifications.
    EventGarbage "event-garbage" Retries;
    /// A notification is lost.
    NotificationLost "notification-lost" Retries;
    /// An interrupt is lost.
    InterruptLost "interrupt-lost" Nothing;
    /// An interrupt comes late.
    InterruptLate "interrupt-late" Nothing;
    /// An interrupt comes for nothing.
    InterruptSpurious "interrupt-spurious" Nothing;
    /// Interrupts come by the hundred.
    InterruptStorm "interrupt-storm" Nothing;
    /// No interrupt comes for a second.
    InterruptsStop "interrupts-stop" Nothing;
    /// An interrupt comes at another vector.
    WrongVector "wrong-vector" Nothing;
    /// The configuration is said to have changed, and has not.
    ConfigSpurious "config-spurious" Nothing;
    /// The configuration is said to have changed, hundreds of times.
    ConfigStorm "config-storm" Nothing;
    /// The interrupt status reads as zero, once.
    IsrZero "isr-zero" Nothing;
    /// The interrupt status reads as all ones, once.
    IsrOnes "isr-ones" Nothing;

    // How requests end.
    /// A request is done, and has no status.
    StatusNotWritten "status-not-written" Retries;
    /// A request ends with a status that nobody knows.
    StatusNonsense "status-nonsense" Request;
    /// A request ends with an I/O error.
    IoError "io-error" Request;
    /// A request ends as unsupported.
    Unsupported "unsupported" Request;
    /// A flush fails.
    FlushFails "flush-fails" Request;
    /// A discard fails.
    DiscardFails "discard-fails" Request;
    /// A write of zeros fails.
    ZeroesFail "zeroes-fail" Request;
    /// A secure erasure fails.
    EraseFails "erase-fails" Request;
    /// A sector cannot be read until it is written again.
    SectorBad "sector-bad" Sectors;
    /// A sector can neither be read nor written any more.
    SectorBadForGood "sector-bad-for-good" Sectors;
    /// A request never ends.
    NeverEnds "never-ends" Retries;
    /// A request takes seconds.
    VerySlow "very-slow" Nothing;
    /// A request is overtaken by those behind it.
    Overtaken "overtaken" Nothing;
    /// The device works on nothing until it is reset.
    Stuck "stuck" Retries;
    /// A queue is not looked at until the device is reset.
    QueueDead "queue-dead" Retries;

    // The device's state.
    /// It says that it needs a reset.
    NeedsReset "needs-reset" Retries;
    /// It needs a reset, and does not interrupt to say so.
    NeedsResetSilent "needs-reset-silent" Retries;
    /// It needs a reset, and another as soon as it is set up again, and one more.
    NeedsResetAgain "needs-reset-again" Retries;
    /// A reset takes seconds.
    ResetSlow "reset-slow" Nothing;
    /// A reset never ends.
    ResetNever "reset-never" Controller;
    /// A queue's reset takes seconds.
    QueueResetSlow "queue-reset-slow" Nothing;
    /// A queue's reset never ends.
    QueueResetNever "queue-reset-never" Retries;
    /// A queue that was reset goes on telling of requests where it was.
    QueueResetKeeps "queue-reset-keeps" Retries;
    /// While it is being reset it goes on writing to memory.
    WorksDuringReset "works-during-reset" Nothing;
    /// It resets itself, and keeps its cache.
    ResetsItself "resets-itself" Cache;
    /// Its power is cut, and comes back at once.
    PowerCut "power-cut" Cache;
    /// It is gone: everything reads as all ones.
    Removed "removed" Controller;
    /// Its status reads as all ones, once.
    StatusOnes "status-ones" Nothing;
    /// Its status reads as nonsense, once.
    StatusGarbage "status-garbage" Cache;
    /// It says of itself that the driver has given it up.
    FailedSet "failed-set" Nothing;
    /// Its status does not take what is written, once.
    StatusStuck "status-stuck" Controller;

    // Setting it up.
    /// It does not agree upon the features, once.
    FeaturesRefused "features-refused" Nothing;
    /// It never agrees upon the features again.
    FeaturesRefusedForGood "features-refused-for-good" Controller;
    /// After a reset it has one feature less.
    FeatureWithdrawn "feature-withdrawn" Controller;
    /// After a reset it offers features that it did not.
    FeaturesAdded "features-added" Nothing;
    /// After a reset it follows the drafts alone.
    VersionMissing "version-missing" Controller;
    /// A queue's size reads as zero, once.
    QueueSizeZero "queue-size-zero" Nothing;
    /// A queue's size is no power of two, once.
    QueueSizeOdd "queue-size-odd" Nothing;
    /// A queue's size is larger than any may be.
    QueueSizeHuge "queue-size-huge" Nothing;
    /// After a reset its queues are shorter.
    QueuesShrink "queues-shrink" Controller;
    /// Switching a queue on does nothing, once.
    EnableIgnored "enable-ignored" Retries;
    /// A queue's notifications go to a place behind the end, once.
    NotifyOffsetBeyond "notify-offset-beyond" Nothing;
    /// It has no room for a vector, once.
    VectorRefused "vector-refused" Nothing;
    /// The list of capabilities loops.
    CapabilityLoop "capability-loop" Nothing;
    /// A capability names a region that does not exist.
    CapabilityNoBar "capability-no-bar" Nothing;
    /// A capability names a structure without a byte.
    CapabilityEmpty "capability-empty" Nothing;
    /// A capability names a place behind the end of its region.
    CapabilityBeyond "capability-beyond" Nothing;
    /// A capability names a place at an odd address.
    CapabilityUnaligned "capability-unaligned" Nothing;

    // Its configuration.
    /// The generation of the configuration changes with every look, until it is reset.
    ConfigRestless "config-restless" Retries;
    /// The generation of the configuration changes with every look, for good.
    ConfigRestlessForGood "config-restless-for-good" Controller;
    /// The disk grows.
    CapacityGrows "capacity-grows" Nothing;
    /// The disk grows, and the generation stays the same.
    GenerationStale "generation-stale" Nothing;
    /// The disk shrinks.
    CapacityShrinks "capacity-shrinks" Nothing;
    /// The disk says that it has no sectors, for a while.
    CapacityZero "capacity-zero" Disk;
    /// Logical sectors have a size that makes no sense, until the device is reset.
    BlockSizeNonsense "block-size-nonsense" Retries;
    /// Requests may have no segments, until the device is reset.
    SegmentsZero "segments-zero" Retries;
    /// It says that it has no queues, until it is reset.
    QueuesZero "queues-zero" Retries;
    /// It says that it has 65535 queues, until it is reset.
    QueuesMany "queues-many" Nothing;
    /// After a reset the disk is read-only.
    ReadOnlyAppears "read-only-appears" Disk;
    /// The write cache switches itself.
    CacheToggled "cache-toggled" Nothing;
    /// The serial number takes all the room that there is.
    SerialUnterminated "serial-unterminated" Nothing;
    /// The serial number cannot be read, once.
    SerialFails "serial-fails" Nothing;
    /// The question for the serial number is never answered, once.
    SerialNeverEnds "serial-never-ends" Nothing;
    /// After a reset it is another disk.
    OtherDisk "other-disk" Disk;
}
