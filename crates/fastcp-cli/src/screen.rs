//! The lines on the terminal, which can be cleared from another thread before the process ends.
//!
//! Between draws the cursor stands at the beginning of the first line. So a `^C` that the terminal echoes stays
//! in that line, and whatever a terminal made narrower did to the lines, all of them are below the cursor.

use std::io::{Write, stderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// To the beginning of the line, and everything from there on erased.
const CLEAR: &str = "\r\x1b[J";
/// How long a process that is about to end waits for a line that is being printed.
const CLEAR_TIMEOUT: Duration = Duration::from_millis(200);
/// Where the terminal does not say.
const COLUMNS_USUAL: u16 = 80;

/// What is drawn on the terminal.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    drawn: Mutex<Vec<String>>,
}

impl Screen {
    /// Columns that lines may have. The last one stays free: some terminals wrap when it is filled.
    pub(super) fn columns() -> usize {
        let columns = fastcp_engine::terminal_columns(stderr()).unwrap_or(COLUMNS_USUAL);
        usize::from(columns.saturating_sub(1).max(1))
    }

    /// Draws these lines in the place of those before.
    pub(super) fn draw(&self, lines: Vec<String>) {
        let mut drawn = self.lock();
        *drawn = lines;
        put(&drawn);
    }

    /// Prints something else, above the lines.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        let drawn = self.lock();
        if drawn.is_empty() {
            return print();
        }
        put(&[]);
        print();
        put(&drawn);
    }

    /// Removes the lines.
    pub(super) fn end(&self) {
        erase(&mut self.lock());
    }

    /// Removes the lines, unless something that is printed at this moment waits for its reader.
    pub(crate) fn end_now(&self) {
        let until = Instant::now() + CLEAR_TIMEOUT;
        while Instant::now() < until {
            if let Ok(mut drawn) = self.drawn.try_lock() {
                return erase(&mut drawn);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn erase(drawn: &mut Vec<String>) {
    if !drawn.is_empty() {
        drawn.clear();
        put(&[]);
    }
}

/// Puts lines on the terminal where the cursor stands, in one piece.
fn put(lines: &[String]) {
    let mut text = CLEAR.to_owned() + &lines.join("\r\n");
    if let Some(up @ 1..) = lines.len().checked_sub(1) {
        text += &format!("\x1b[{up}A");
    }
    text.push('\r');
    // A terminal that is gone shows nothing.
    let _ = stderr().lock().write_all(text.as_bytes());
}

/// Stderr, for lines above those that are drawn.
#[derive(Debug, Clone)]
pub(crate) struct AboveScreen(pub(crate) Arc<Screen>);

impl Write for AboveScreen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| drop(stderr().lock().write_all(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
