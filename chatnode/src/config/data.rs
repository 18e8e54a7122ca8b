//! What goes with a folder for history: `--data` and its limits.

use base::process::Failure;

use super::{Config, DATA_BYTES_MIN, RETAIN_MESSAGES_MIN, refuse};

impl Config {
    pub(super) fn check_data(&self) -> Result<(), Failure> {
        let limits = [
            ("--data-messages", self.data_messages),
            ("--data-bytes", self.data_bytes),
            ("--data-days", u64::from(self.data_days)),
        ];
        if self.data.is_none()
            && let Some((flag, _)) = limits.iter().find(|(_, limit)| *limit != 0)
        {
            return refuse(format!(
                "{flag} goes with --data DIR, where history is kept"
            ));
        }
        if (1..RETAIN_MESSAGES_MIN as u64).contains(&self.data_messages) {
            return refuse(format!(
                "--data-messages {}: it is 0 (no limit) or at least {RETAIN_MESSAGES_MIN}",
                self.data_messages
            ));
        }
        if (1..DATA_BYTES_MIN).contains(&self.data_bytes) {
            return refuse(format!(
                "--data-bytes {}: it is 0 (no limit) or at least {DATA_BYTES_MIN}",
                self.data_bytes
            ));
        }
        Ok(())
    }
}
