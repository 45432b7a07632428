//! What a run does with files, and how far it is.

use fastcp_engine::Report;

/// What a run does with files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// Copies them, and verifies the bytes as they are received.
    Copy(Way),
    /// Copies them, and reads them back before they get their names.
    CopyAndReadBack(Way),
    /// Copies one file, without a scan.
    Get,
    /// Compares them.
    Verify,
    /// Only names them.
    List,
}

/// Which way a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To this end.
    Here,
    /// To the other one.
    There,
}

impl Course {
    /// What it does with bytes, in one word.
    pub(crate) fn phase(self) -> &'static str {
        match self {
            Self::Copy(Way::There) | Self::CopyAndReadBack(Way::There) => "send",
            Self::Copy(Way::Here) | Self::CopyAndReadBack(Way::Here) | Self::Get => "fetch",
            Self::Verify => "verify",
            Self::List => "list",
        }
    }

    pub(crate) fn done_word(self) -> &'static str {
        match self {
            Self::Copy(Way::There) | Self::CopyAndReadBack(Way::There) => "sent",
            Self::Copy(Way::Here) | Self::CopyAndReadBack(Way::Here) | Self::Get => "fetched",
            Self::Verify => "verified",
            Self::List => "listed",
        }
    }

    pub(crate) fn bytes_done(self, report: &Report) -> u64 {
        match self {
            Self::Copy(_) | Self::CopyAndReadBack(_) | Self::Get => report.counters.bytes_fetched.now(),
            Self::Verify | Self::List => report.counters.bytes_verified.now(),
        }
    }

    /// Bytes whose checksum was compared.
    pub(crate) fn bytes_verified(self, report: &Report) -> u64 {
        match self {
            Self::Copy(_) | Self::Get => report.counters.bytes_fetched.now(),
            Self::CopyAndReadBack(_) | Self::Verify | Self::List => report.counters.bytes_verified.now(),
        }
    }

    /// Whether what there is to do is known to its end.
    pub(crate) fn is_total_known(self, report: &Report) -> bool {
        match self {
            Self::Get => report.counters.bytes_total.now() > 0,
            Self::Copy(_) | Self::CopyAndReadBack(_) | Self::Verify | Self::List => report.is_scan_done(),
        }
    }
}

pub(crate) fn bytes_to_fetch(report: &Report) -> u64 {
    let counters = &report.counters;
    counters.bytes_total.now().saturating_sub(counters.bytes_unchanged.now() + counters.bytes_reused.now())
}

/// Files that nothing more is to be done about, as far as they are counted one by one.
pub(crate) fn files_done(report: &Report) -> u64 {
    let counters = &report.counters;
    let done = counters.files_committed.now()
        + counters.files_unchanged.now()
        + counters.files_failed.now()
        + counters.files_verified.now();
    // Directories and links can fail, too.
    done.min(counters.files.now())
}
