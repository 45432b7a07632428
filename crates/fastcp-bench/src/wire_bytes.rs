//! How many bytes went over the wire, as a tool's client says itself.
//!
//! Counted above TCP, by the tools that say it: fastcp in the last line of `--json`, rsync with
//! `--stats`. The others have none. What TCP and a link add is in `LinkTraffic`.

use serde::{Deserialize, Serialize};

const RSYNC_SENT: &str = "Total bytes sent: ";
const RSYNC_RECEIVED: &str = "Total bytes received: ";

/// Of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireBytes {
    /// By the client.
    #[serde(alias = "bytes_wire_out")]
    pub(crate) sent: u64,
    #[serde(alias = "bytes_wire_in")]
    pub(crate) received: u64,
}

impl WireBytes {
    /// Both directions.
    pub(crate) fn total(self) -> u64 {
        self.sent.saturating_add(self.received)
    }

    /// From what rsync says with `--stats`; `None` where it does not.
    pub(crate) fn of_rsync(said: &str) -> Option<Self> {
        Some(Self { sent: number_after(said, RSYNC_SENT)?, received: number_after(said, RSYNC_RECEIVED)? })
    }
}

/// rsync puts a comma, in some languages a point, between thousands.
fn number_after(said: &str, label: &str) -> Option<u64> {
    let number = said.lines().find_map(|line| line.strip_prefix(label))?;
    number.replace([',', '.'], "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::WireBytes;

    #[test]
    fn rsync_is_understood() {
        let said = "Literal data: 10,711,040 bytes\n\
                    Total bytes sent: 229,405\nTotal bytes received: 1.073.741\n\n\
                    sent 229,405 bytes  received 10,715,000 bytes  7,296,270.00 bytes/sec\n";
        let bytes = WireBytes::of_rsync(said).expect("both numbers");
        assert_eq!(bytes, WireBytes { sent: 229_405, received: 1_073_741 });
        assert_eq!(bytes.total(), 1_303_146);
        for short in ["", "Total bytes sent: 5\n", "Total bytes sent: 5\nTotal bytes received: 1.05M\n"] {
            assert_eq!(WireBytes::of_rsync(short), None);
        }
    }

    #[test]
    fn the_summary_of_fastcp_is_understood_and_so_is_the_report() {
        let bytes = WireBytes { sent: 7, received: 9 };
        let summary = r#"{"event":"summary","bytes_wire_in":9,"bytes_wire_out":7}"#;
        assert_eq!(serde_json::from_str::<WireBytes>(summary).expect("a summary"), bytes);
        let report = serde_json::to_string(&bytes).expect("JSON");
        assert_eq!(report, r#"{"sent":7,"received":9}"#);
        assert_eq!(serde_json::from_str::<WireBytes>(&report).expect("a report"), bytes);
    }
}
