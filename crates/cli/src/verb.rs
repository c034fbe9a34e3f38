//! One file for each verb.

pub(crate) mod bench;
pub(crate) mod bind;
pub(crate) mod cat;
pub(crate) mod cp;
pub(crate) mod disk;
pub(crate) mod doctor;
pub(crate) mod list;
pub(crate) mod ls;
pub(crate) mod manual;
pub(crate) mod read;
pub(crate) mod serve;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod write;
