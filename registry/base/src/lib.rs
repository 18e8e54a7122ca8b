//! What both programs of a chatmesh need to be good processes and good servers, and what knows
//! neither of them.
//!
//! - [`process`] begins and ends a program: logs, limits, signals, tasks, the ready line.
//! - [`serve`] accepts connections within bounds; [`body`] and [`problem`] read what is asked and say
//!   what is wrong with it.
//! - [`endpoint`] is where something is; [`resolver`] finds the addresses of a name.
//! - [`secret`] is the file that makes a program one of a mesh; [`tls`] lets in who has it.
//! - [`bucket`] and [`rates`] are how fast something may come; [`metrics`] writes what is counted.

pub mod body;
pub mod bucket;
pub mod endpoint;
pub mod metrics;
pub mod problem;
pub mod process;
pub mod rates;
pub mod resolver;
pub mod seal;
pub mod secret;
pub mod serve;
pub mod tls;
