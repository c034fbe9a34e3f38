//! Rings in both layouts, against a device that is a few lines long.
