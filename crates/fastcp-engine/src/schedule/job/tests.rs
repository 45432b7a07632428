use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use fastcp_model::{ChunkGrid, Metadata, Name, RelPath, Timestamp};

use super::{Arrival, FileJob};
use crate::target::dirs::{Age, DirState};

/// A file of this length that is to be fetched.
pub(crate) fn job(file_bytes: u64) -> Arc<FileJob> {
    let metadata = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default() };
    let dir = DirState::new(RelPath::root(), Age::New, None, None);
    let grid = ChunkGrid::new(file_bytes, 1024).expect("lawful");
    Arc::new(FileJob::new(dir, Name::new(b"file").expect("lawful"), metadata, grid, true, false))
}

#[test]
fn nobody_waits_for_a_part_file_that_is_being_made() {
    let job = job(5000);
    let asked = Arc::clone(&job);
    let made = job.part(|| {
        let (answer, answered) = channel();
        std::thread::spawn(move || answer.send((asked.has_failed(), asked.end_search(), asked.is_whole())));
        let (has_failed, (gaps, arrival), is_whole) =
            answered.recv_timeout(Duration::from_secs(20)).expect("answers while a descriptor is waited for");
        assert_eq!((has_failed, gaps.len(), arrival, is_whole), (false, 1, Arrival::Partial, false));
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(made.expect_err("no room").kind(), io::ErrorKind::StorageFull);
}

#[test]
fn what_a_file_left_that_failed_is_not_made_anew() {
    let job = job(5000);
    assert!(job.fail());
    assert!(!job.fail(), "once");
    assert!(job.part(|| unreachable!("an older one would be removed for it")).is_err());
}
