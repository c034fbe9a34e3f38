//! Tests of the house itself; see `house.rs`.
#![forbid(unsafe_code)]
