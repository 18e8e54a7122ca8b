//! Tests on the built programs: real processes, real sockets, real signals, a real browser.
//!
//! One module for each subject. A test opens with its goal and method, is named by the fact that
//! it proves, waits for conditions and never for time, and measures from events.
//!
//! *The contract* is what README.md and PROTOCOL.md promise and `--help` says.

mod harness;

mod api;
mod bridges;
mod browser;
mod buses;
mod buses_faults;
mod buses_load;
mod buses_nats;
mod buses_proxy;
mod buses_rabbitmq;
mod buses_rights;
mod buses_sealed;
mod buses_slow;
mod buses_tls;
mod buses_wrong;
mod clocks;
mod crowd;
mod dead;
mod deaf;
mod discovery;
mod discovery_dns;
mod disk;
mod disk_damage;
mod disk_faults;
mod disk_history;
mod disk_limits;
mod disk_removed;
mod drain;
mod engines;
mod false_peers;
mod flood;
mod frozen;
mod half_open;
mod hostile;
mod hostile_chat;
mod hostile_ws;
mod keepers;
mod keepers_faults;
mod kills;
mod last_words;
mod limits;
mod logs;
mod machines;
mod members;
mod mesh_view;
mod page_hostile;
mod page_keys;
mod page_looks;
mod page_moves;
mod page_offline;
mod page_reading;
mod page_words;
mod partition;
mod peers;
mod power;
mod proxies;
mod proxies_doors;
mod proxies_silence;
mod registry_down;
mod restart;
mod resume;
mod retries;
mod rough_path;
mod rough_wire;
mod sealed;
mod sealed_hostile;
mod sealed_start;
mod sealed_strangers;
mod search;
mod start;
mod starved;
mod statics;
mod stopped;
mod stops;
mod strangers;
mod tidy;
mod twenty;
mod usage;
mod watch;
