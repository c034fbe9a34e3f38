//! What a disk's driver has done, in numbers.

/// Counts since the driver started. They are never reset.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) flushes: u64,
    pub(super) discards: u64,
    pub(super) zeros: u64,
    pub(super) erasures: u64,
    pub(super) sectors_read: u64,
    pub(super) sectors_written: u64,
    /// Batches shown to the device.
    pub(super) kicks: u64,
    /// Times that the device was told of one, which it does not want while it is at work.
    pub(super) notifications: u64,
    pub(super) failed: u64,
    /// Requests issued again after a reset.
    pub(super) requeued: u64,
    /// Requests that a device which was away went on with.
    pub(super) resumed: u64,
    pub(super) device_errors: u64,
    pub(super) timeouts: u64,
    pub(super) queue_resets: u64,
    pub(super) device_resets: u64,
}

impl Counters {
    pub(super) fn each(&self, counter: &mut dyn FnMut(&'static str, u64)) {
        let Self {
            reads,
            writes,
            flushes,
            discards,
            zeros,
            erasures,
            sectors_read,
            sectors_written,
            kicks,
            notifications,
            failed,
            requeued,
            resumed,
            device_errors,
            timeouts,
            queue_resets,
            device_resets,
        } = *self;
        counter("reads", reads);
        counter("writes", writes);
        counter("flushes", flushes);
        counter("discards", discards);
        counter("zeros", zeros);
        counter("erasures", erasures);
        counter("sectors-read", sectors_read);
        counter("sectors-written", sectors_written);
        counter("kicks", kicks);
        counter("notifications", notifications);
        counter("failed", failed);
        counter("requeued", requeued);
        counter("resumed", resumed);
        counter("device-errors", device_errors);
        counter("timeouts", timeouts);
        counter("queue-resets", queue_resets);
        counter("device-resets", device_resets);
    }
}
