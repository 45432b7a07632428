//! Every bound on what a peer may say, named. `docs/protocol.md` repeats them; a test compares.

use fastcp_model::{NAME_BYTES_MAX, PATH_BYTES_MAX};

/// The longest path in a request, in bytes.
pub const REQUEST_PATH_BYTES_MAX: usize = 4096;
/// The longest range that one extended request may ask for, in bytes: the largest chunk.
pub const RANGE_BYTES_MAX: u64 = 64 << 20;
/// The longest range that is answered compressed, in bytes. It bounds what both ends hold in memory.
pub const ZSTD_RANGE_BYTES_MAX: u64 = 4 << 20;
/// The largest file that is copied, in bytes: 1 PiB. An offer may name larger ones, each of which fails by itself. What
/// a file costs beside its bytes, above all a confirmation for each GiB, is bounded by this: more than that has to be
/// sent before a larger number is believed. Disks of one machine hold less, and only a file of holes could be larger.
pub const FILE_BYTES_MAX: u64 = 1 << 50;
/// The most files of one bundle.
pub const BUNDLE_FILES_MAX: usize = 256;
/// The longest list of names in a request for a bundle, in bytes.
pub const BUNDLE_LIST_BYTES_MAX: usize = 16 << 10;
/// The most bytes of files that one bundle may ask for.
pub const BUNDLE_BYTES_MAX: u64 = 1 << 20;
/// The longest range of which one request may ask for the coarse signature, in bytes. The list may go beyond
/// it by what is left of its last chunk.
pub const SIGNATURE_BYTES_MAX: u64 = 256 << 20;
/// The shortest coarse chunk of a signature but for the last of a file, in bytes.
pub const SIGNATURE_CHUNK_BYTES_MIN: u64 = 16 << 10;
/// One position in so many is a candidate for a coarse cut.
pub const SIGNATURE_CANDIDATE_EVERY: u64 = 64 << 10;
/// The longest coarse chunk of a signature, in bytes.
pub const SIGNATURE_CHUNK_BYTES_MAX: u64 = 1 << 20;
/// The longest range of which one request may ask for the fine signature, in bytes.
pub const FINE_SIGNATURE_BYTES_MAX: u64 = 4 << 20;
/// The shortest fine chunk of a signature but for the last of a list, in bytes.
pub const FINE_CHUNK_BYTES_MIN: u64 = 1 << 10;
/// One position in so many is a candidate for a fine cut.
pub const FINE_CANDIDATE_EVERY: u64 = 4 << 10;
/// The longest fine chunk of a signature, in bytes.
pub const FINE_CHUNK_BYTES_MAX: u64 = 64 << 10;
/// The longest range of which one request may ask for the hash, in bytes: a second or so of reading.
pub const HASH_BYTES_MAX: u64 = 1 << 30;
/// What must have been read for an answer, in bytes, before there is word of it, and again before there is more.
pub const PROGRESS_BYTES_MIN: u64 = 1 << 20;
/// The longest payload of a frame, in bytes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// The longest offer batch once decompressed, in bytes.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// The most entries in one offer batch.
pub const BATCH_ENTRIES_MAX: usize = 65_536;
/// The most batches that a receiver may say it knows.
pub const KNOWN_BATCHES_MAX: usize = 65_536;
/// The most that the paths of directories may take which an offer has named and not listed to their end, in bytes, with
/// [`UNLISTED_DIR_BYTES`] for each. A sender keeps to half of it: it then lists the directories of one part of a directory before the
/// next part.
pub const UNLISTED_BYTES_MAX: usize = 256 << 20;
/// What a directory counts beside its path, in bytes.
pub const UNLISTED_DIR_BYTES: usize = 64;
/// The longest list of filter rules, in bytes.
pub const RULES_BYTES_MAX: usize = 1 << 20;
/// The longest target of a symbolic link, in bytes.
pub const LINK_TARGET_BYTES_MAX: usize = 4096;
/// The longest name of a user or group, in bytes.
pub const OWNER_NAME_BYTES_MAX: usize = 256;
/// The longest name in a drop, in bytes.
pub const DROP_NAME_BYTES_MAX: usize = 4096;
/// The most places that a session may be of.
pub const PLACES_MAX: usize = 64;
/// The longest payload of a HELLO frame, in bytes: it is read from peers of whom nothing is known.
pub const HELLO_BYTES_MAX: usize = 8 << 10;
/// The longest payload of the frame that answers a proof, in bytes: it may be a failure.
pub const AUTH_PAYLOAD_BYTES_MAX: usize = 9 << 10;
/// The longest path that a session over a remote shell is opened with, in bytes: Linux's `PATH_MAX`.
pub const SESSION_PATH_BYTES_MAX: usize = 4096;
/// The longest address, or fingerprint, that such a session answers, in bytes.
pub const SESSION_ADDRESS_BYTES_MAX: usize = 128;
/// The longest token that such a session answers, in bytes.
pub const SESSION_TOKEN_BYTES_MAX: usize = 128;
/// The longest payload of the frames that open such a session, in bytes.
pub const SESSION_BYTES_MAX: usize = 9 << 10;
/// The longest payload of a PUSH frame, in bytes.
pub const PUSH_BYTES_MAX: usize = (16 << 10) + RULES_BYTES_MAX;
/// The most settings of a push.
pub const PUSH_SETTINGS_MAX: usize = 64;
/// The longest name of a setting, in bytes.
pub const SETTING_NAME_BYTES_MAX: usize = 64;
/// The longest value of a setting, in bytes.
pub const SETTING_VALUE_BYTES_MAX: usize = 4096;
/// The largest number of an event: one more is a number, too.
pub const EVENT_NUMBER_MAX: u64 = u64::MAX >> 1;
/// The longest path of an event, in bytes: that of an entry which nobody can ask for, since its path is too long.
pub const EVENT_PATH_BYTES_MAX: usize = PATH_BYTES_MAX + 1 + NAME_BYTES_MAX;
/// The longest name of a kind of failure, in bytes.
pub const CAUSE_BYTES_MAX: usize = 128;
/// The longest text in a report or a failure, in bytes.
pub const REPORT_TEXT_BYTES_MAX: usize = 8192;
/// The longest line for a manifest, in bytes.
pub const RECORD_BYTES_MAX: usize = 32 << 10;
/// The largest counter in a report: numbers of entries and bytes, and times in nanoseconds. Sums of several are reckoned with.
pub const REPORT_COUNTER_MAX: u64 = 1 << 60;
/// The most counters in a report.
pub const REPORT_COUNTERS_MAX: usize = 256;
/// The most data connections of one session.
pub const CONNECTIONS_MAX: u16 = 64;
