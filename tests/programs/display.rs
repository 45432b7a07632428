//! The display, on terminals of several widths: no line wraps, and none is left behind.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::Chars;

use crate::support::server::Server;
use crate::support::silence::Port;
use crate::support::tree::{Tree, noise};
use crate::support::valve::{Kind, Valve};
use crate::support::{Workspace, say_skipped};

const CLIENT: &str = env!("CARGO_BIN_EXE_fastcp-client");
/// Ctrl-C, as a terminal sends it.
const INTERRUPT: &[u8] = b"\x03";

/// A client at a terminal that `script` makes.
struct AtTerminal {
    child: Child,
    columns: usize,
    output: Vec<u8>,
}

impl AtTerminal {
    /// `None` where there is no `script`.
    fn start(words: &str, columns: usize, variables: &str) -> Option<Self> {
        let command = format!("stty cols {columns} rows 50; {variables} exec {CLIENT} {words}");
        let started = Command::new("script")
            .args(["-qefc", &command, "/dev/null"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        match started {
            Ok(child) => Some(Self { child, columns, output: Vec::new() }),
            Err(error) => {
                say_skipped(&format!("no terminal without script(1): {error}"));
                None
            }
        }
    }

    /// Reads until the terminal has shown this.
    fn wait_for(&mut self, text: &str) {
        let stdout = self.child.stdout.as_mut().expect("piped");
        let mut slice = [0; 4096];
        while !String::from_utf8_lossy(&self.output).contains(text) {
            let count = stdout.read(&mut slice).expect("read the terminal");
            assert!(count > 0, "ended without {text:?}: {}", String::from_utf8_lossy(&self.output));
            self.output.extend_from_slice(&slice[..count]);
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.child.stdin.as_mut().expect("piped").write_all(keys).expect("type");
    }

    /// The exit code, and what the terminal shows in the end.
    fn finish(mut self) -> (Option<i32>, Screen) {
        let stdout = self.child.stdout.as_mut().expect("piped");
        stdout.read_to_end(&mut self.output).expect("read the terminal");
        let status = self.child.wait().expect("wait for the client");
        (status.code(), Screen::of(&self.output, self.columns))
    }

    /// All that the terminal got.
    fn finish_raw(mut self) -> String {
        self.child.stdout.as_mut().expect("piped").read_to_end(&mut self.output).expect("read the terminal");
        assert!(self.child.wait().expect("wait for the client").success());
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// As much of a terminal as is needed to see what is left on it.
struct Screen {
    lines: Vec<String>,
    /// Lines that did not fit.
    wrapped: Vec<String>,
}

impl Screen {
    fn of(bytes: &[u8], columns: usize) -> Self {
        let mut lines: Vec<Vec<char>> = vec![Vec::new()];
        let mut wrapped = Vec::new();
        let (mut row, mut column) = (0, 0);
        let text = String::from_utf8_lossy(bytes);
        let mut rest = text.chars();
        while let Some(letter) = rest.next() {
            match letter {
                '\r' => column = 0,
                '\n' => row += 1,
                '\x1b' => match sequence(&mut rest) {
                    (count, 'A') => row -= usize::min(row, count),
                    (count, 'B') => row += count,
                    (_, 'J') => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    (count, 'K') => lines[row].truncate(if count == 2 { 0 } else { column }),
                    _ => {}
                },
                letter => {
                    if column == columns {
                        wrapped.push(lines[row].iter().collect());
                        (row, column) = (row + 1, 0);
                    }
                    lines.resize_with(lines.len().max(row + 1), Vec::new);
                    let line = &mut lines[row];
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = letter;
                    column += 1;
                }
            }
            lines.resize_with(lines.len().max(row + 1), Vec::new);
        }
        let lines = lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned());
        Self { lines: lines.filter(|line| !line.is_empty()).collect(), wrapped }
    }

    /// Panics where a line of progress wrapped or is left.
    fn expect_clean(&self) {
        for line in self.lines.iter().chain(&self.wrapped) {
            let is_progress = ["scan ", "fetch ", "verify ", "files "].iter().any(|label| line.starts_with(label));
            assert!(!is_progress, "{line:?} in {:?}, wrapped {:?}", self.lines, self.wrapped);
        }
    }
}

/// The rest of an escape sequence, `ESC [ number letter`: the number, 1 where there is none, and the letter.
fn sequence(rest: &mut Chars<'_>) -> (usize, char) {
    let mut number = String::new();
    for letter in rest {
        match letter {
            '[' | '?' | ';' => {}
            digit if digit.is_ascii_digit() => number.push(digit),
            letter => return (number.parse().unwrap_or(1), letter),
        }
    }
    (1, ' ')
}

/// A server of one large file behind a valve that stops half way.
fn stalling(workspace: &Workspace) -> (Server, Valve) {
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("large", &noise(4 << 20, 1)).file("small", b"1");
    let server = Server::start(&tree.finish());
    let valve = Valve::start(server.address);
    valve.limit(Kind::Data, 2 << 20);
    (server, valve)
}

fn pull(valve: &Valve, copy: &Path) -> String {
    format!("pull --conns 1 --chunk-kb 64 {} {}", valve.url(), copy.display())
}

#[test]
fn no_line_wraps_and_none_is_left() {
    for columns in [20, 40, 80, 200] {
        let workspace = Workspace::new();
        let (_server, valve) = stalling(&workspace);
        let copy = workspace.at("copy");
        let Some(mut terminal) = AtTerminal::start(&pull(&valve, &copy), columns, "") else { return };
        valve.wait_until_stalled(Kind::Data);
        terminal.wait_for("verify ");
        valve.open();
        let (code, screen) = terminal.finish();
        assert_eq!(code, Some(0), "{:?}", screen.lines);
        screen.expect_clean();
        assert!(screen.lines.concat().contains("2 files copied"), "{:?}", screen.lines);
    }
}

#[test]
fn no_line_is_left_after_ctrl_c() {
    let workspace = Workspace::new();
    let (_server, valve) = stalling(&workspace);
    let Some(mut terminal) = AtTerminal::start(&pull(&valve, &workspace.at("copy")), 80, "") else { return };
    valve.wait_until_stalled(Kind::Data);
    terminal.wait_for("verify ");
    terminal.press(INTERRUPT);
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(20), "{:?}", screen.lines);
    screen.expect_clean();
    assert!(screen.lines.concat().contains("interrupted"), "{:?}", screen.lines);
}

#[test]
fn a_run_that_ends_at_once_leaves_no_line_either() {
    let workspace = Workspace::new();
    let (_server, valve) = stalling(&workspace);
    valve.limit(Kind::Control, 0);
    let Some(mut terminal) = AtTerminal::start(&pull(&valve, &workspace.at("copy")), 80, "") else { return };
    terminal.wait_for("scan ");
    terminal.press(INTERRUPT);
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(20), "{:?}", screen.lines);
    screen.expect_clean();
    assert!(screen.lines.concat().contains("interrupted"), "{:?}", screen.lines);
}

#[test]
fn get_has_no_line_about_a_scan() {
    let workspace = Workspace::new();
    let silent = Port::silent();
    let words = format!("get 127.0.0.1 {} file {}", silent.address.port(), workspace.at("out").display());
    let Some(mut terminal) = AtTerminal::start(&words, 80, "") else { return };
    terminal.wait_for("fetch ");
    terminal.press(INTERRUPT);
    assert!(!String::from_utf8_lossy(&terminal.output).contains("scan"));
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(20), "{:?}", screen.lines);
    screen.expect_clean();
}

#[test]
fn a_terminal_that_knows_lines_only_gets_lines_and_no_color_means_none() {
    for variables in ["TERM=dumb", "TERM="] {
        let workspace = Workspace::new();
        let (_server, valve) = stalling(&workspace);
        valve.open();
        let Some(terminal) = AtTerminal::start(&pull(&valve, &workspace.at("copy")), 80, variables) else { return };
        let output = terminal.finish_raw();
        assert!(!output.contains('\x1b'), "{output:?}");
    }
    let Some(terminal) = AtTerminal::start("--help", 80, "NO_COLOR=1") else { return };
    let output = terminal.finish_raw();
    assert!(!output.contains('\x1b'), "{output:?}");
}
