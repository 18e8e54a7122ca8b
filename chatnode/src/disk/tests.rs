//! What a store on disk does: on real files, through its threads.

mod damage;
mod keep;
mod open;
mod place;
mod read;
mod rig;
mod search;
mod trim;
mod upgrade;
