//! What a store on disk does: on real files, through its threads.

mod damage;
mod keep;
mod open;
mod read;
mod rig;
mod search;
mod trim;
mod upgrade;
mod whereabouts;
