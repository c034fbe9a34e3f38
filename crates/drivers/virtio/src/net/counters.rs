//! What a network card's driver has done, in numbers.

/// Counts since the driver started. They are never reset.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub(super) frames_received: u64,
    pub(super) bytes_received: u64,
    pub(super) frames_sent: u64,
    /// Those of frames that the device has are among them.
    pub(super) bytes_sent: u64,
    /// Batches shown to the device, of either direction.
    pub(super) kicks: u64,
    /// Times that the device was told of one, which it does not want while it is at work.
    pub(super) notifications: u64,
    /// Frames received of which the device said what cannot be.
    pub(super) malformed: u64,
    /// Frames that the device had when it was reset.
    pub(super) lost: u64,
    /// Commands that were carried out.
    pub(super) commands: u64,
    /// Commands that the device has refused.
    pub(super) commands_refused: u64,
    pub(super) timeouts: u64,
    pub(super) device_resets: u64,
}

impl Counters {
    pub(super) fn each(&self, counter: &mut dyn FnMut(&'static str, u64)) {
        let Self {
            frames_received,
            bytes_received,
            frames_sent,
            bytes_sent,
            kicks,
            notifications,
            malformed,
            lost,
            commands,
            commands_refused,
            timeouts,
            device_resets,
        } = *self;
        counter("frames-received", frames_received);
        counter("bytes-received", bytes_received);
        counter("frames-sent", frames_sent);
        counter("bytes-sent", bytes_sent);
        counter("kicks", kicks);
        counter("notifications", notifications);
        counter("malformed", malformed);
        counter("lost", lost);
        counter("commands", commands);
        counter("commands-refused", commands_refused);
        counter("timeouts", timeouts);
        counter("device-resets", device_resets);
    }
}
