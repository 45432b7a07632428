//! Tokens and keys: where they are read from.
//!
//! A token comes from a file or from `FASTCP_TOKEN`, never from a command line, which others can read. The variable is
//! taken out of the environment when the program starts, so that no child has it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use fastcp_net::{Token, TokenError, Tokens};

use crate::exit_code::{self, Failure};
use crate::wording::shown;

/// The variable that may hold a token.
pub(crate) const VARIABLE: &str = "FASTCP_TOKEN";

/// The longest file of a token, keys or certificates: a bundle of all public authorities is a quarter of that.
const FILE_BYTES_MAX: u64 = 1 << 20;

static OF_ENVIRONMENT: OnceLock<Result<Tokens, (TokenError, usize)>> = OnceLock::new();

/// Takes the token out of the environment. To be called before there are other threads.
pub(crate) fn take_from_environment() {
    if let Some(token) = fastcp_engine::take_variable(VARIABLE).filter(|token| !token.is_empty()) {
        // Once is enough.
        let _ = OF_ENVIRONMENT.set(read_and_wipe(token));
    }
}

/// What remains in memory is not the token itself, but what its proofs are computed from.
fn read_and_wipe(mut text: Vec<u8>) -> Result<Tokens, (TokenError, usize)> {
    let tokens = Tokens::read(&text);
    text.fill(0);
    // The bytes are looked at, for all that the compiler knows.
    std::hint::black_box(&text);
    tokens
}

/// The token that this end proves: the file's, or the environment's.
pub(crate) fn token(file: Option<&Path>) -> Result<Option<Token>, Failure> {
    Ok(tokens(file)?.and_then(|tokens| tokens.first().cloned()))
}

/// All tokens of the file, or the environment's.
pub(crate) fn tokens(file: Option<&Path>) -> Result<Option<Tokens>, Failure> {
    let wrong = |of: &str, (error, line): (TokenError, usize)| {
        let line = if line > 1 { format!(", line {line}") } else { String::new() };
        Failure::new(exit_code::USAGE, format!("{of}{line}: {error}"))
    };
    match (file, OF_ENVIRONMENT.get()) {
        (Some(path), _) => {
            let of = format!("the token file \"{}\"", shown(path));
            read_and_wipe(read_private(path)?).map(Some).map_err(|error| wrong(&of, error))
        }
        (None, Some(tokens)) => tokens.clone().map(Some).map_err(|error| wrong(VARIABLE, error)),
        (None, None) => Ok(None),
    }
}

/// A file that nobody else may read.
pub(crate) fn read_private(path: &Path) -> Result<Vec<u8>, Failure> {
    let (bytes, rights) = read_with_rights(path)?;
    let Some(Rights { mode, owner }) = rights else { return Ok(bytes) };
    let path = shown(path);
    let message = if !is_trusted(owner) {
        format!("\"{path}\" is a secret, and belongs to another user (id {owner}), who can read and change it")
    } else if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        format!("\"{path}\" is a secret that others may read (mode {mode:03o}); run: chmod 600 \"{path}\"")
    } else {
        return Ok(bytes);
    };
    Err(Failure::new(exit_code::USAGE, message))
}

/// Whether a file of this owner is as good as this user's own.
pub(crate) fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == fastcp_engine::user()
}

/// A file that is no secret.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_with_rights(path).map(|(bytes, _)| bytes)
}

/// Who can do what with a file.
struct Rights {
    mode: u32,
    owner: u32,
}

fn read_with_rights(path: &Path) -> Result<(Vec<u8>, Option<Rights>), Failure> {
    let read = || -> io::Result<_> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        // Of one piece from the start: what a buffer that grows leaves behind would stay in memory.
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(FILE_BYTES_MAX)).unwrap_or(0) + 4096);
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // A pipe of the shell, as in --token-file <(...), is nobody else's.
        let rights = metadata.is_file().then(|| Rights { mode: metadata.mode(), owner: metadata.uid() });
        Ok((bytes, rights))
    };
    read().map_err(|error| Failure::new(exit_code::FILE_IO, format!("cannot read \"{}\": {error}", shown(path))))
}
