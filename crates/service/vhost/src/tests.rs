//! Back end and front end in one thread, with a disk made of memory.

mod calls;
mod death;
mod hostile;
mod lent;
mod rig;
mod service;
